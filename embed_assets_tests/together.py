"""Processes that do the same thing at the same moment."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from threading import Barrier

PATIENCE = 120.0


def do_together(work: Callable[[Path], object], folders: list[Path]) -> list[int | None]:
    """Have two processes do some work in one folder after the other; gives their exit codes."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2, timeout=PATIENCE)
    processes = [context.Process(target=_do_all, args=(work, folders, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _do_all(work: Callable[[Path], object], folders: list[Path], barrier: Barrier) -> None:
    try:
        for folder in folders:
            barrier.wait()
            work(folder)
    except BaseException:
        barrier.abort()  # the other needn't wait
        raise
