"""Workers that are processes of this machine.

Processes are spawned, never forked (PyMuPDF and ONNX don't survive a fork), and pebble's pool is
used because it ends and replaces a worker that hangs or crashes, and goes on with the others; the
standard library's pool breaks as a whole.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from embed_assets.errors import ProjectError
from embed_assets.resources.ledger import Cause, Failure
from embed_assets.resources.worker import call, initialise
from embed_assets.resources.workers import Item, Result, Workers

_SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def local_workers(
    processes: int, timeout: float, memory_limit_bytes: int | None
) -> "Iterator[LocalWorkers]":
    """So many processes, at work until the block ends. timeout: seconds per item.

    ProjectError where the machine lets no processes talk to each other.
    """
    from pebble import ProcessPool

    try:
        done = _SPAWN.RawArray("q", 2 * processes)
        pool = ProcessPool(
            max_workers=processes,
            initializer=initialise,
            initargs=[memory_limit_bytes, done],
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
            yield LocalWorkers(pool, timeout, done)
        except BaseException:
            pool.stop()
            raise


class LocalWorkers(Workers):
    """The workers of a pool of pebble's."""

    def __init__(self, pool: Any, timeout: float, done: Any) -> None:
        """pool: pebble's. done: shared with its processes."""
        super().__init__(timeout, done)
        self._pool = pool

    def _schedule(
        self, function: Callable[[Item], Result], item: Item, place: int, limit: float
    ) -> "Future[Any]":
        return self._pool.schedule(call, args=[function, item, place], timeout=limit)

    def _explain(self, error: BaseException, limit: float) -> Failure:
        from pebble import ProcessExpired

        if isinstance(error, ProcessExpired):
            said = f"its process ended with exit code {error.exitcode}"
            return Failure(Cause.PROCESS_ENDED, said)
        return super()._explain(error, limit)
