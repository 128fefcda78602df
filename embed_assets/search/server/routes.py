"""The routes of the API: embeddings as OpenAI's, search, and how the server does."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt

from embed_assets.search.server.limits import LONGEST_QUERY, MOST_RESULTS
from embed_assets.search.server.links import pdf_link
from embed_assets.search.server.openai_form import (
    JSON,
    ApiError,
    EmbeddingsRequest,
    asked_model,
    dimensions_of,
    embeddings_body,
    models,
    shortened,
    task_of,
    text_of,
)
from embed_assets.search.server.served import CHAMPION, Mode, Served
from embed_assets.search.server.serving import Serving
from embed_assets.search.server.work import Embedding, Search

if TYPE_CHECKING:
    from fastapi import FastAPI

MOST_NUMBERS = 1 << 14
"""Numbers of an answer that are written out between other requests: a few milliseconds."""


def add_embeddings(app: "FastAPI", serving: Serving) -> None:
    """`POST /v1/embeddings` and `GET /v1/models`."""
    from fastapi import Request
    from starlette.responses import Response

    @app.post("/v1/embeddings")
    async def embeddings(request: Request, asked: EmbeddingsRequest) -> Response:
        served = serving.follower.current()
        task = task_of(asked, asked_model(served, asked.model))
        dimensions = dimensions_of(asked, served)
        limits = serving.limits
        if len(asked.input) > limits.inputs:
            raise ApiError(
                400,
                f"input: {len(asked.input)} texts; a request may have {limits.inputs}.",
                "input",
                "max_inputs_per_request",
            )
        work = Embedding(served, asked.input, task, limits.tokens, asked.truncate)
        rows = await serving.answer(request, work)
        read = work.tokens_read
        serving.metrics.embedded(task, len(rows), read)
        usage = {"prompt_tokens": read, "total_tokens": read, "truncated_texts": work.texts_cut}

        def body() -> bytes:
            import numpy as np

            vectors = shortened(np.stack(rows), dimensions)
            return embeddings_body(vectors, asked.encoding_format, served.name, usage)

        # Large ones would keep everybody waiting; a thread for small ones would, too.
        large = len(rows) * dimensions > MOST_NUMBERS
        return Response(await asyncio.to_thread(body) if large else body(), media_type=JSON)

    @app.get("/v1/models")
    async def all_models() -> dict[str, Any]:
        served = serving.follower.current()
        return {"object": "list", "data": [m.model_dump() for m in models(served, serving.started)]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        served = serving.follower.current()
        asked_model(served, name)
        found = models(served, serving.started)
        return next(model.model_dump() for model in found if model.id == name)


class SearchRequest(BaseModel):
    """`POST /v1/search`."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, BeforeValidator(text_of), Field(max_length=LONGEST_QUERY)]
    k: Annotated[StrictInt, Field(ge=1, le=MOST_RESULTS)] = 5
    mode: Mode = "hybrid"
    model: str = CHAMPION
    min_score: Annotated[float | None, Field(allow_inf_nan=False)] = None
    """Results with a lower score are left out."""
    only_likely: StrictBool = False
    """Takes no results of which `likely` would say false: below the cut-off that was calibrated."""


def add_search(app: "FastAPI", serving: Serving) -> None:
    """`POST /v1/search`."""
    from fastapi import Request

    @app.post("/v1/search")
    async def search(request: Request, asked: SearchRequest) -> dict[str, Any]:
        served = serving.follower.current()
        model = searched_model(served, asked.model)
        if not asked.query.strip():
            raise ApiError(400, "query: the text is empty.", "query")
        if asked.only_likely and (asked.mode == "lexical" or model != CHAMPION):
            raise ApiError(
                400, "only_likely: only the champion's cosines have a cut-off.", "only_likely"
            )
        [found] = await serving.answer(
            request,
            Search(served, asked.query, asked.k, asked.mode, model, asked.only_likely),
        )
        serving.metrics.searched(asked.mode)
        key = serving.access.key
        results = [
            {**result, "pdf": pdf_link(result["path"], result["page_start"], key)}
            for result in found
            if asked.min_score is None or result["score"] >= asked.min_score
        ]
        name = served.name if model == CHAMPION else model
        cutoff = served.cutoff if model == CHAMPION else None
        said = {"query": asked.query, "model": name, "mode": asked.mode, "cutoff": cutoff}
        return {**said, "results": results}


def searched_model(served: Served, name: str) -> str:
    """The one of `models` that a name means. ApiError where there is none."""
    if name in served.models:
        return name
    if name in (served.name, CHAMPION):
        return CHAMPION
    known = ", ".join(f"`{model}`" for model in served.models)
    raise ApiError(
        404, f"The model does not exist here. There is {known}.", "model", "model_not_found"
    )


def add_observation(app: "FastAPI", serving: Serving) -> None:
    """`GET /health` and `GET /metrics`."""
    from starlette.responses import Response

    def waiting() -> int:
        return serving.batcher.waiting if serving.batcher else 0

    @app.get("/health")
    async def health() -> dict[str, Any]:
        served = serving.follower.current()
        return {
            "status": "ok",
            "model": served.name,
            "identity": served.identity,
            "models": list(served.models),
            "chunks": served.chunks,
            "waiting": waiting(),
        }

    @app.get("/metrics")
    async def metrics() -> Response:
        body, kind = serving.metrics.shown(serving.follower.current(), waiting())
        return Response(body, media_type=kind)
