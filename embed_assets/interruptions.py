"""No interruption is lost.

A signal's handler raises wherever the main thread happens to be. Out of a finalizer, or the
callback of a weak reference, Python lets no exception: it prints it and goes on, and whoever asked
for the end would wait for ever.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

PAUSE = 0.1
"""Seconds until it is raised again: by then the main thread is elsewhere."""
_BY_DAGSTER = "DagsterExecutionInterruptedError"  # by its name: Dagster takes a second to import


@contextmanager
def none_lost() -> Iterator[None]:
    """In the block an interruption that Python ignores is raised once more, until it is not."""
    before = sys.unraisablehook

    def hear(ignored: "UnraisableHookArgs") -> None:
        kind = ignored.exc_type
        if issubclass(kind, KeyboardInterrupt) or kind.__name__ == _BY_DAGSTER:
            threading.Thread(target=_interrupt, daemon=True).start()
        else:
            before(ignored)

    sys.unraisablehook = hear
    try:
        yield
    finally:
        sys.unraisablehook = before


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
