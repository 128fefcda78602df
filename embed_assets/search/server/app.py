"""The server as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from embed_assets.search.server.batching import Batcher
from embed_assets.search.server.gate import Gate, failure, response
from embed_assets.search.server.openai_form import ApiError, first_error
from embed_assets.search.server.page import add_page
from embed_assets.search.server.routes import add_embeddings, add_observation, add_search
from embed_assets.search.server.serving import GoneError, Serving

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import ASGIApp


def build_app(serving: Serving) -> "ASGIApp":
    """The application of a server."""
    from fastapi import FastAPI

    @asynccontextmanager
    async def at_work(_: FastAPI) -> AsyncIterator[None]:
        limits = serving.limits
        serving.batcher = Batcher(limits.waiting, limits.together, serving.metrics.batch)
        try:
            yield
        finally:
            await serving.batcher.close()

    # Its pages of documentation would load scripts from elsewhere; /openapi.json stays.
    app = FastAPI(
        title="embed_assets",
        lifespan=at_work,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    add_embeddings(app, serving)
    add_search(app, serving)
    add_observation(app, serving)
    add_page(app, serving)
    _add_errors(app)
    return Gate(app, serving.access, serving.limits.body_bytes, serving.metrics)


def _add_errors(app: "FastAPI") -> None:
    """Every error in OpenAI's form."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.responses import Response

    @app.exception_handler(ApiError)
    async def _(request: "Request", error: ApiError) -> Response:
        return response(error)

    @app.exception_handler(RequestValidationError)
    async def _(request: "Request", error: RequestValidationError) -> Response:
        return response(first_error(error.errors()))

    @app.exception_handler(HTTPException)
    async def _(request: "Request", error: HTTPException) -> Response:
        said = {
            404: f"There is nothing at {request.url.path}.",
            405: f"{request.method} is not what {request.url.path} takes.",
        }
        message = said.get(error.status_code, error.detail)
        return response(ApiError(error.status_code, message, headers=error.headers))

    @app.exception_handler(GoneError)
    async def _(request: "Request", error: GoneError) -> Response:
        return Response(status_code=499)  # nobody gets it; the metrics know

    @app.exception_handler(Exception)
    async def _(request: "Request", error: Exception) -> Response:
        return response(failure(error))
