"""The worker pool without processes of its own: most tests ask what is made, not where."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from embed_assets.resources.ledger import Failure
from embed_assets.resources.worker import call
from embed_assets.resources.workers import Outcome, WorkerPool, Workers


class InProcess(Workers):
    """Items are worked on as they are asked for; those that fail, fail as in a worker."""

    def __init__(self) -> None:
        pass

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any], **_: Any
    ) -> Iterator[Outcome[Any, Any]]:
        for item in items:
            result, broken = call(function, item, 0)
            yield Outcome(item, result, Failure(*broken) if broken else None)

    def work_off(
        self, function: Callable[[Any], Any], queue: deque[Any], **_: Any
    ) -> Iterator[Outcome[Any, Any]]:
        while queue:
            yield from self.map(function, [queue.popleft()])


@contextmanager
def start(pool: WorkerPool, most_items: int) -> Iterator[Workers]:
    """Stands for `WorkerPool.start`."""
    yield InProcess()
