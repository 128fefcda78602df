"""In place of a cluster's models: one after the other in this process, from what travelled."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import cloudpickle

from embed_assets.resources.causes import Cause
from embed_assets.resources.worker import call
from embed_assets.resources.workers import Workers


class InTurn(Workers):
    """Stands for `ray_models` too. items: those that were carried out, or lost.

    lose: says by an item's number, from 0, whether its process ends, or whatever cause it gives.
    """

    def __init__(self, lose: Callable[[int], Cause | None] = lambda _: None) -> None:
        super().__init__(60.0, [0] * 4)
        self.items: list[Any] = []
        self.most_items = 0
        self._lose = lose

    def __call__(self, most_items: int, timeout: float) -> "InTurn":
        self.most_items = most_items
        return self

    def __enter__(self) -> "InTurn":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _schedule(self, function: Any, item: Any, place: int, limit: float) -> "Future[Any]":
        cause = self._lose(len(self.items))
        self.items.append(item)
        future: Future[Any] = Future()
        function, item = cloudpickle.loads(cloudpickle.dumps((function, item)))
        future.set_result((None, (cause, "it says so")) if cause else call(function, item, 0))
        return future
