"""The worker pool: everything that fans out over processes goes through its `map`.

Processes are spawned, never forked (PyMuPDF and ONNX don't survive a fork), and pebble's pool is
used because it ends and replaces a worker that hangs or crashes, and goes on with the others; the
standard library's pool breaks as a whole.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import dagster as dg

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: its result, or in one line why there is none."""

    item: Item
    result: Result | None = None
    error: str | None = None


class WorkerPool(dg.ConfigurableResource):
    """Maps a function over items in a few processes, each item within a time limit."""

    processes: int = 1
    timeout: float = 600.0
    memory_limit_bytes: int | None = None

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Outcome[Item, Result]]:
        """Outcomes in the order of the items, each as soon as it and those before it are there.

        `function` must be importable in a fresh process. timeout: seconds per item. A function
        that raises, hangs, runs out of memory or takes its process down costs only its own item.
        """
        if not items:
            return
        from pebble import ProcessPool

        with ProcessPool(
            max_workers=min(self.processes, len(items)),
            initializer=_limit_memory,
            initargs=[self.memory_limit_bytes],
            context=multiprocessing.get_context("spawn"),  # pyright: ignore[reportArgumentType]
        ) as pool:
            futures = [
                pool.schedule(_call, args=[function, item], timeout=self.timeout) for item in items
            ]
            try:
                for item, future in zip(items, futures, strict=True):
                    lost = future.exception()
                    result, error = future.result() if lost is None else (None, self._explain(lost))
                    yield Outcome(item, result, error)
            except BaseException:
                pool.stop()
                raise

    def _explain(self, error: BaseException) -> str:
        from pebble import ProcessExpired

        if isinstance(error, TimeoutError):
            return f"took longer than {self.timeout:.0f} s"
        if isinstance(error, ProcessExpired):
            return f"its process ended with exit code {error.exitcode}"
        return _describe(error)


def _call(function: Callable[[Item], Result], item: Item) -> tuple[Result, None] | tuple[None, str]:
    """Result or error of one item; runs in the worker.

    Errors travel as text: one that can't be unpickled would break the pool for the items after it.
    """
    try:
        return function(item), None
    except Exception as error:
        return None, _describe(error)


def _describe(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "needs more memory than a worker may take"
    return one_line(f"{type(error).__name__}: {error}")


def one_line(text: str, limit: int = 300) -> str:
    """Text on one line, shortened to a limit in characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _limit_memory(limit_bytes: int | None) -> None:
    """Let a decompression bomb fail in its own process before the machine runs out of memory."""
    if limit_bytes is None:
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
