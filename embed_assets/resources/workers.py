"""The worker pool: everything that fans out over processes goes through its `map`.

Processes are spawned, never forked (PyMuPDF and ONNX don't survive a fork), and pebble's pool is
used because it ends and replaces a worker that hangs or crashes, and goes on with the others; the
standard library's pool breaks as a whole.
"""

import mmap
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import dagster as dg

from embed_assets.errors import ProjectError, one_line
from embed_assets.resources.ledger import Cause, Failure

Item = TypeVar("Item")
Result = TypeVar("Result")
SECONDS_BETWEEN_LOOKS = 0.5
HEADROOM = 512 << 20
"""Bytes that a worker must be able to take, else an error in it is put down to lack of memory."""
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
    timeout: float = 600.0
    memory_limit_bytes: int | None = None

    @contextmanager
    def start(self, most_items: int) -> "Iterator[Workers]":
        """The processes, at work until the block ends. most_items: that one `map` will be given.

        ProjectError where the machine lets no processes talk to each other.
        """
        from pebble import ProcessPool

        try:
            done = _SPAWN.RawArray("q", max(1, most_items))
            pool = ProcessPool(
                max_workers=max(1, min(self.processes, most_items)),
                initializer=_initialise,
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
        """pool: pebble's. timeout: seconds per item. done: shared, what was reported by item."""
        self._pool, self._timeout, self._done = pool, timeout, done

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        timeout: float | None = None,
        watch: Callable[[Sequence[int]], None] | None = None,
    ) -> Iterator[Outcome[Item, Result]]:
        """Outcomes in the order of the items, each as soon as it and those before it are there.

        `function` must be importable in a fresh process. timeout: seconds per item, if it isn't the
        pool's. A function that raises, hangs, runs out of memory or takes its process down costs
        only its own item. watch: called now and then with what `report` was told for each item.
        """
        limit = timeout or self._timeout
        self._done[:] = [0] * len(self._done)
        futures = [
            self._pool.schedule(_call, args=[function, item, place], timeout=limit)
            for place, item in enumerate(items)
        ]
        for item, future in zip(items, futures, strict=True):
            while watch and not wait([future], SECONDS_BETWEEN_LOOKS).done:
                watch(self._done[: len(items)])
            lost = future.exception()
            result, failure = future.result() if lost is None else (None, _explain(lost, limit))
            yield Outcome(item, result, failure)


def report(done: int) -> None:
    """Say how much of its item this worker has done. Outside a pool nobody listens.

    Through shared memory and without a lock: a worker may be killed at any moment, and what it held
    would be held for ever.
    """
    if _reports is not None:
        _reports[_place] = done


_reports: Any = None
_place = 0


def _call(
    function: Callable[[Item], Result], item: Item, place: int
) -> tuple[Result, None] | tuple[None, Failure]:
    """Result or failure of one item; runs in the worker.

    Errors don't travel: one that can't be unpickled would break the pool for the items after it.
    """
    global _place
    _place = place
    try:
        return function(item), None
    except Exception as error:
        return None, _describe(MemoryError() if lacks_memory() else error)


def lacks_memory() -> bool:
    """Whether this process can hardly take any more memory.

    Libraries say it in many ways, few of them a MemoryError: what remains is asked instead. It is
    reserved for a moment, and none of it is used.
    """
    try:
        mmap.mmap(-1, HEADROOM).close()
    except OSError:
        return True
    return False


def _explain(error: BaseException, limit: float) -> Failure:
    from pebble import ProcessExpired

    if isinstance(error, TimeoutError):
        return Failure(Cause.TIME_LIMIT, f"took longer than {limit:g} s", limit)
    if isinstance(error, ProcessExpired):
        said = f"its process ended with exit code {error.exitcode}"
        return Failure(Cause.PROCESS_ENDED, said)
    return _describe(error)


def _describe(error: BaseException) -> Failure:
    if isinstance(error, MemoryError):
        return Failure(Cause.NO_MEMORY, "needs more memory than a worker may take")
    said = str(error) if isinstance(error, ProjectError) else f"{type(error).__name__}: {error}"
    return Failure(getattr(error, "cause", Cause.FAILED), one_line(said))


def _initialise(limit_bytes: int | None, reports: Any) -> None:
    """What a worker does before its first item."""
    global _reports
    _reports = reports
    if limit_bytes is None:
        return
    # A decompression bomb fails in its own process before the machine runs out of memory.
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
