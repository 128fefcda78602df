"""No interruption is lost, wherever it comes.

A signal's handler raises in the midst of whatever the main thread does, and not all of that lets an
exception through: out of a finalizer or the callback of a weak reference Python prints it and goes
on, DuckDB makes an error of its own of it, and modules in C++ that are being imported abort the
process.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

PAUSE = 0.1
"""Seconds until a signal is sent again: by then the main thread may be elsewhere."""
_BY_DAGSTER = "DagsterExecutionInterruptedError"  # by its name: Dagster takes a second to import
_IMPORTS = "<frozen importlib"


@contextmanager
def none_lost() -> Iterator[None]:
    """In the block a signal that asks for the end raises where that can be heard, or once more."""
    before = sys.unraisablehook

    def hear(ignored: "UnraisableHookArgs") -> None:
        if _is_interruption(ignored.exc_type):
            _interrupt_soon()
        else:
            before(ignored)

    sys.unraisablehook = hear
    try:
        with unwrapped(), _imports_completed():
            yield
    finally:
        sys.unraisablehook = before


@contextmanager
def unwrapped() -> Iterator[None]:
    """An interruption of which a library made an error leaves the block as the interruption."""
    try:
        yield
    except Exception as error:
        at: BaseException | None = error
        while at is not None and not _is_interruption(type(at)):
            at = at.__cause__
        if at is None:
            raise
        raise at from None


@contextmanager
def _imports_completed() -> Iterator[None]:
    """In the block the handlers of signals wait while a module is imported."""
    replaced: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other may, or gets signals
        for by in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(by)
            if callable(handler):
                replaced[by] = signal.signal(by, _after_imports(handler))
    try:
        yield
    finally:
        for by, handler in replaced.items():
            signal.signal(by, handler)


def _after_imports(handle: Callable[[int, FrameType | None], Any]) -> Callable[..., None]:
    def wait_or_handle(by: int, frame: FrameType | None) -> None:
        at = frame
        while at is not None:
            if at.f_code.co_filename.startswith(_IMPORTS):
                _interrupt_soon()
                return
            at = at.f_back
        handle(by, frame)

    return wait_or_handle


def _is_interruption(kind: type[BaseException]) -> bool:
    return issubclass(kind, KeyboardInterrupt) or kind.__name__ == _BY_DAGSTER


def _interrupt_soon() -> None:
    threading.Thread(target=_interrupt, name="interrupts again", daemon=True).start()


def _interrupt() -> None:
    """Send the main thread SIGTERM, unless that would end the process without its handler."""
    time.sleep(PAUSE)
    if not callable(signal.getsignal(signal.SIGTERM)):
        return
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGTERM)  # wakes it, if it waits
    else:
        signal.raise_signal(signal.SIGTERM)
