"""The worker pool: everything that fans out over processes goes through it.

Processes are spawned, never forked (PyMuPDF and ONNX don't survive a fork), and pebble's pool is
used because it ends and replaces a worker that hangs or crashes, and goes on with the others; the
standard library's pool breaks as a whole. What goes on inside a worker is in `worker.py`.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import dagster as dg

from embed_assets.errors import ProjectError, one_line
from embed_assets.resources.ledger import Cause, Failure
from embed_assets.resources.worker import call, initialise

Item = TypeVar("Item")
Result = TypeVar("Result")
SECONDS_BETWEEN_LOOKS = 0.5
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: its result, or why there is none."""

    item: Item
    result: Result | None = None
    failure: Failure | None = None


class WorkerPool(dg.ConfigurableResource):
    """A few processes, each within a limit of memory, each of their items within a time limit."""

    processes: int = 1
    timeout: float = 300.0
    memory_limit_bytes: int | None = None

    @contextmanager
    def start(self, most_items: int) -> "Iterator[Workers]":
        """The processes, at work until the block ends. most_items: that are worked on side by side.

        ProjectError where the machine lets no processes talk to each other.
        """
        from pebble import ProcessPool

        processes = max(1, min(self.processes, most_items))
        try:
            done = _SPAWN.RawArray("q", 2 * processes)
            pool = ProcessPool(
                max_workers=processes,
                initializer=initialise,
                initargs=[self.memory_limit_bytes, done],
                context=_SPAWN,  # pyright: ignore[reportArgumentType]
            )
            _ = pool.active  # starts it, and what its processes share
        except OSError as error:
            raise ProjectError(
                f"Worker processes can't be started: {error}. On Linux they need a /dev/shm that "
                "is there, is writable and isn't full."
            ) from error
        with pool:
            try:
                yield Workers(pool, self.timeout, done)
            except BaseException:
                pool.stop()
                raise


class Workers:
    """Processes that have been started."""

    def __init__(self, pool: Any, timeout: float, done: Any) -> None:
        """pool: pebble's. timeout: seconds per item. done: shared, what is reported of the items
        in hand, two for each process: no worker waits for its next one.
        """
        self._pool, self._timeout, self._done = pool, timeout, done

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
            yield _outcome(item, future, limit)

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
        free = list(range(len(self._done)))
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
                yield _outcome(item, future, self._timeout)
            if watch and not ended:
                watch([(item, self._done[place]) for item, place in in_hand.values()])

    def _schedule(
        self, function: Callable[[Item], Result], item: Item, place: int, limit: float
    ) -> "Future[Any]":
        return self._pool.schedule(call, args=[function, item, place], timeout=limit)


def _outcome(item: Item, future: "Future[Any]", limit: float) -> Outcome[Item, Any]:
    lost = future.exception()
    if isinstance(lost, ImportError):
        said = f"A worker process can't import what it needs: {lost}. Install the project again."
        raise ProjectError(one_line(said)) from lost
    if lost is not None:
        return Outcome(item, failure=_explain(lost, limit))
    result, broken = future.result()
    if broken is None:
        return Outcome(item, result)
    return Outcome(item, failure=Failure(*broken))


def _explain(error: BaseException, limit: float) -> Failure:
    """Why there is no result at all."""
    from pebble import ProcessExpired

    if isinstance(error, TimeoutError):
        return Failure(Cause.TIME_LIMIT, f"took longer than {limit:g} s", limit)
    if isinstance(error, ProcessExpired):
        said = f"its process ended with exit code {error.exitcode}"
        return Failure(Cause.PROCESS_ENDED, said)
    if isinstance(error, MemoryError):
        return Failure(Cause.NO_MEMORY, "needs more memory than a worker may take")
    return Failure(Cause.FAILED, one_line(f"{type(error).__name__}: {error}"))
