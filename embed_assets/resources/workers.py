"""The worker pool: everything that fans out over processes goes through it.

Where the processes are is the pool's engine: on this machine (`local_workers.py`), or on a Ray
cluster (`ray_workers.py`). What goes on inside a worker is in `worker.py`.
"""

from collections import deque
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import dagster as dg

from embed_assets.errors import ProjectError, one_line
from embed_assets.resources.ledger import Cause, Failure
from embed_assets.resources.shared_bytes import SharedBytes, bytes_in_file
from embed_assets.settings import Engine

Item = TypeVar("Item")
Result = TypeVar("Result")
SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: its result, or why there is none."""

    item: Item
    result: Result | None = None
    failure: Failure | None = None


class WorkerPool(dg.ConfigurableResource):
    """A few processes, each within a limit of memory, each of their items within a time limit.

    processes: on Ray, 0 is one for each CPU of the cluster. timeout: seconds per item.
    memory_limit_bytes: None is no limit; on Ray, each CPU's share of its node.
    """

    engine: Engine = "local"
    processes: int = 1
    timeout: float = 300.0
    memory_limit_bytes: int | None = None

    @contextmanager
    def start(self, most_items: int) -> "Iterator[Workers]":
        """The processes, at work until the block ends. most_items: that are worked on side by side.

        ProjectError where the machine lets no processes talk to each other, or no Ray cluster is
        there.
        """
        limits = self.timeout, self.memory_limit_bytes
        if self.engine == "ray":
            from embed_assets.resources.ray_workers import ray_workers

            started = ray_workers(self.processes, most_items, *limits)
        else:
            from embed_assets.resources.local_workers import local_workers

            started = local_workers(max(1, min(self.processes, most_items)), *limits)
        with started as workers:
            yield workers


class Workers:
    """Processes that have been started, whatever starts and ends them."""

    def __init__(self, timeout: float, done: MutableSequence[int]) -> None:
        """timeout: seconds per item. done: what is reported of the items in hand, two for each
        process: no worker waits for its next one.
        """
        self._timeout, self._done = timeout, done

    @property
    def most_in_hand(self) -> int:
        """Items that keep all of them at work."""
        return len(self._done)

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        timeout: float | None = None,
    ) -> Iterator[Outcome[Item, Result]]:
        """Outcomes in the order of the items, each as soon as it and those before it are there.

        timeout: seconds per item, if it isn't the pool's. Otherwise as `work_off`.
        """
        limit = timeout or self._timeout
        futures = [self._schedule(function, item, 0, limit) for item in items]
        for item, future in zip(items, futures, strict=True):
            yield self._outcome(item, future, limit)

    def work_off(
        self,
        function: Callable[[Item], Result],
        queue: deque[Item],
        *,
        watch: Callable[[Sequence[tuple[Item, int]]], None] | None = None,
    ) -> Iterator[Outcome[Item, Result]]:
        """Outcomes as they come, until the queue is empty; it may change between two outcomes.

        `function` must be importable in a fresh process. One that raises, hangs, runs out of memory
        or takes its process down costs only its own item. watch: called now and then with the items
        in hand, each with what `report` was told for it.
        """
        free = list(range(self.most_in_hand))
        in_hand: dict[Future[Any], tuple[Item, int]] = {}
        while queue or in_hand:
            while queue and free:
                item, place = queue.popleft(), free.pop()
                self._done[place] = 0
                future = self._schedule(function, item, place, self._timeout)
                in_hand[future] = item, place
            ended = wait(in_hand, SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED).done
            for future in [future for future in in_hand if future in ended]:
                item, place = in_hand.pop(future)
                free.append(place)
                yield self._outcome(item, future, self._timeout)
            if watch and not ended:
                watch([(item, self._done[place]) for item, place in in_hand.values()])

    def sharing(self, contents: Sequence[bytes]) -> AbstractContextManager[Sequence[SharedBytes]]:
        """The same bytes for the workers to read, until the block ends.

        ProjectError where there is no room for them.
        """
        return bytes_in_file(contents)

    def _schedule(
        self, function: Callable[[Item], Result], item: Item, place: int, limit: float
    ) -> "Future[Any]":
        """What `call` gives for an item, once a worker is free. place: of what it reports."""
        raise NotImplementedError

    def _outcome(self, item: Item, future: "Future[Any]", limit: float) -> Outcome[Item, Any]:
        lost = future.exception()
        if isinstance(lost, ImportError):
            said = (
                f"A worker process can't import what it needs: {lost}. Install the project again."
            )
            raise ProjectError(one_line(said)) from lost
        if lost is not None:
            return Outcome(item, failure=self._explain(lost, limit))
        result, broken = future.result()
        if broken is None:
            return Outcome(item, result)
        return Outcome(item, failure=Failure(*broken))

    def _explain(self, error: BaseException, limit: float) -> Failure:
        """Why there is no result at all."""
        if isinstance(error, TimeoutError):
            return Failure(Cause.TIME_LIMIT, f"took longer than {limit:g} s", limit)
        if isinstance(error, MemoryError):
            return Failure(Cause.NO_MEMORY, "needs more memory than a worker may take")
        return Failure(Cause.FAILED, one_line(f"{type(error).__name__}: {error}"))
