"""What goes on inside a worker process. Imports nothing heavy: each worker that starts pays for it.

The pool that starts and ends them is in `workers.py`.
"""

import ctypes
import mmap
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from embed_assets.errors import ProjectError, one_line
from embed_assets.resources.causes import Cause
from embed_assets.secrets import hide_in_logs
from embed_assets.terminal import show_as_text

Item = TypeVar("Item")
Result = TypeVar("Result")
Broken = tuple[Cause, str]
"""What kind of thing went wrong, and what in one line."""
HEADROOM = 512 << 20
"""Bytes that a worker must be able to take, else an error in it is put down to lack of memory."""
KEPT = 1 << 30
"""Bytes that a worker may keep for itself when it has freed them."""

_reports: Any = None
_place = 0


def is_worker() -> bool:
    """Whether this process is a worker of a pool."""
    return _reports is not None


def report(done: int) -> None:
    """Say how much of its item this worker has done. Outside a pool nobody listens.

    Through shared memory and without a lock: a worker may be killed at any moment, and what it held
    would be held for ever.
    """
    if _reports is not None:
        _reports[_place] = done


def lacks_memory() -> bool:
    """Whether this process can hardly take any more memory.

    Libraries say it in many ways, few of them a MemoryError: what remains is asked instead. It is
    reserved for a moment, and none of it is used. C's own allocator is asked where it can be: what
    it keeps of freed memory is there to be taken.
    """
    try:
        libc = ctypes.CDLL(None)
        take, give_back = libc.malloc, libc.free
    except (OSError, AttributeError, TypeError):  # Windows
        try:
            mmap.mmap(-1, HEADROOM).close()
        except OSError:
            return True
        return False
    take.restype, take.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    give_back.argtypes = [ctypes.c_void_p]
    taken = take(HEADROOM)
    give_back(taken)
    return not taken


def call(
    function: Callable[[Item], Result], item: Item, place: int
) -> tuple[Result, None] | tuple[None, Broken]:
    """Result of one item, or what went wrong. place: where it reports.

    Errors don't travel: one that can't be unpickled would break the pool for the items after it.
    ImportError does: it says nothing of the item.
    """
    global _place
    _place = place
    try:
        return function(item), None
    except ImportError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or lacks_memory():
            return None, (Cause.NO_MEMORY, "needs more memory than a worker may take")
        said = str(error) if isinstance(error, ProjectError) else f"{type(error).__name__}: {error}"
        return None, (getattr(error, "cause", Cause.FAILED), one_line(said))


def initialise(limit_bytes: int | None, reports: Any) -> None:
    """What a worker does before its first item. limit_bytes: of memory."""
    global _reports
    _reports = reports
    show_as_text()
    hide_in_logs()
    _keep_freed_memory()
    if limit_bytes is None:
        return
    # A decompression bomb fails in its own process before the machine runs out of memory.
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed for what is taken next; other C libraries do as they do.

    The layout model takes and frees 150 MB a page. Given back to the system each time, that is a
    fifth of the time of a page: 38,000 page faults in place of 8,000. (mallopt(3))
    """
    trim_threshold, mmap_max = -1, -4
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, KEPT)
        libc.mallopt(mmap_max, 0)
