"""The page, the PDFs that it links to, and what people mark on it."""

import asyncio
import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt

from embed_assets.search.server.feedback import add_vote
from embed_assets.search.server.limits import LONGEST_QUERY
from embed_assets.search.server.links import PDF
from embed_assets.search.server.openai_form import ApiError, Text, text_of
from embed_assets.search.server.serving import Serving

if TYPE_CHECKING:
    from fastapi import FastAPI

FILE = Path(__file__).with_name("page.html")


class Vote(BaseModel):
    """`POST /v1/feedback`."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, BeforeValidator(text_of), Field(max_length=LONGEST_QUERY)]
    chunk_id: Annotated[Text, Field(max_length=200)]
    document_id: Annotated[Text, Field(max_length=1000)]
    path: Annotated[Text, Field(max_length=5000)]
    page: StrictInt | None = None
    relevant: StrictBool


def add_page(app: "FastAPI", serving: Serving) -> None:
    """`GET /`, `GET /pdf` and `POST /v1/feedback`."""
    from starlette.responses import HTMLResponse, Response

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        html, policy = page_and_policy()
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    @app.get(PDF, include_in_schema=False)
    async def pdf(path: str) -> Response:
        content = await asyncio.to_thread(serving.follower.current().pdf, path)
        if content is None:
            raise ApiError(404, "No document on record has this path.", "path")
        name = quote(path.rpartition("/")[2], safe="")
        shown = {"Content-Disposition": f"inline; filename*=UTF-8''{name}"}
        kept = {"Cache-Control": "private, no-cache"}
        return Response(content, media_type="application/pdf", headers=shown | kept)

    @app.post("/v1/feedback")
    async def feedback(vote: Vote) -> dict[str, Any]:
        if serving.votes is None:
            raise ApiError(404, "This server keeps no votes.")
        await asyncio.to_thread(add_vote, serving.votes, vote.model_dump())
        return {"kept": True}


@cache
def page_and_policy() -> tuple[str, str]:
    """The page, and the policy under which a browser runs no script but its own."""
    html = FILE.read_text(encoding="utf-8")
    own = {kind: _hash(_within(html, kind)) for kind in ("script", "style")}
    rules = {
        "default-src": "'none'",
        "script-src": own["script"],
        "style-src": own["style"],
        "connect-src": "'self'",
        "img-src": "data:",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return html, "; ".join(f"{name} {allowed}" for name, allowed in rules.items())


def _within(html: str, kind: str) -> str:
    """What stands in the one element of this kind."""
    return html.partition(f"<{kind}>")[2].partition(f"</{kind}>")[0]


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
