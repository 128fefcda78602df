"""What the routes of a server share, and how they have work done."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed_assets.search.server.access import Access
from embed_assets.search.server.batching import Batcher, QueueFullError, Work
from embed_assets.search.server.limits import Limits
from embed_assets.search.server.metrics import Metrics
from embed_assets.search.server.openai_form import ApiError
from embed_assets.search.server.served import Follower

if TYPE_CHECKING:
    from starlette.requests import Request


class GoneError(Exception):
    """The client has hung up: nobody waits for the answer."""


@dataclass
class Serving:
    """What the routes share. votes: the file of what people marked, if any is kept."""

    follower: Follower
    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)
    votes: Path | None = None
    metrics: Metrics = field(default_factory=Metrics)
    started: int = field(default_factory=lambda: int(time.time()))
    batcher: Batcher | None = None

    async def answer(self, request: "Request", work: Work) -> list[Any]:
        """The work's results. GoneError where the client leaves first: then it is not done."""
        if self.batcher is None:
            raise RuntimeError("the server has not started")
        answer = asyncio.create_task(self.batcher.answer(work))
        gone = asyncio.create_task(_gone(request))
        try:
            await asyncio.wait([answer, gone], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise GoneError
            return answer.result()
        except QueueFullError as error:
            raise ApiError(
                503,
                f"Too much waits here: {error}.",
                code="queue_full",
                headers={"Retry-After": str(error.retry_after)},
            ) from error
        finally:
            answer.cancel()
            gone.cancel()


async def _gone(request: "Request") -> None:
    """Return when the client hangs up. Its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
