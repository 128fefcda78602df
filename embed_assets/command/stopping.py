"""Ctrl-C, SIGTERM and SIGHUP: whichever comes first, the command's work ends in order.

A terminal sends Ctrl-C to all processes of a command at once, and each would end with a traceback.
So a command blocks SIGINT, for itself and the processes that it starts. A thread takes it and
passes it on to the main thread as SIGTERM, on which Dagster ends a run. Who started a process ends
it. Where the shell has SIGINT ignored, since the command is in the background, nobody takes it.

SIGINT is blocked before any library is imported: a thread of theirs that didn't block it would get
it, and the main thread would never wake.
"""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

SAID = "stopped. Run it again to go on from here."
WISHES = frozenset(
    {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}  # Windows: no SIGHUP
)
"""Signals that ask a command to stop; others only pass by."""
_CHANGES_MASKS = hasattr(signal, "pthread_sigmask")  # Windows has none


class Stopped(KeyboardInterrupt):
    """Somebody ended the command. by: the signal."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by


def exit_status(interruption: KeyboardInterrupt) -> int:
    """What a command that was stopped exits with, as shells have it."""
    return 128 + (interruption.by if isinstance(interruption, Stopped) else signal.SIGINT)


class _Ear:
    """Hears which signals this process was sent, whoever handles them.

    Dagster puts its own handlers in place while a run is at work, and drops a signal that comes
    after the run's last step.
    """

    def __init__(self) -> None:
        self._in, self._out = socket.socketpair()
        for end in (self._in, self._out):
            end.setblocking(False)
        signal.set_wakeup_fd(self._in.fileno(), warn_on_full_buffer=False)
        self.by_terminal = False
        self.ignores_terminal = signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    def first(self) -> int | None:
        """The first signal to stop since it was last asked, if any came."""
        try:
            heard = self._out.recv(4096)
        except BlockingIOError:
            return None
        wish = next((by for by in heard if by in WISHES), None)
        return signal.SIGINT if wish and self.by_terminal else wish


_ear: _Ear | None = None


def listen() -> None:
    """From now on these signals raise Stopped in the main thread.

    Call it before libraries start threads.
    """
    global _ear
    _ear = _Ear()
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    if _CHANGES_MASKS or not _ear.ignores_terminal:
        # Dagster gives both signals the handler of SIGINT when a run has ended.
        signal.signal(signal.SIGINT, _stop)
    if _CHANGES_MASKS:
        _change(signal.SIG_BLOCK)
        if not _ear.ignores_terminal:
            threading.Thread(target=_pass_on, args=[_ear], name="ctrl-c", daemon=True).start()


def shield_children() -> None:
    """No process that is started from here gets a terminal's Ctrl-C, whatever is imported.

    The first process pool starts a tracker, which lets SIGINT through again: it starts now.
    """
    if _blocks():
        resource_tracker.ensure_running()
        _change(signal.SIG_BLOCK)


@contextmanager
def children_hear() -> Iterator[None]:
    """Processes that are started in the block get SIGINT as they would without this command."""
    blocks = _blocks()
    handler = signal.getsignal(signal.SIGINT)
    if blocks:
        if _ear and _ear.ignores_terminal:  # as the shell has it: they may still choose to hear it
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        _change(signal.SIG_UNBLOCK)
    try:
        yield
    finally:
        if blocks:
            _change(signal.SIG_BLOCK)
            signal.signal(signal.SIGINT, handler)


def _blocks() -> bool:
    return _CHANGES_MASKS and signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def _change(how: int) -> None:
    signal.pthread_sigmask(how, {signal.SIGINT})


def check() -> None:
    """Stopped where a signal came that nobody has acted upon."""
    by = _ear.first() if _ear else None
    if by is not None:
        raise Stopped(by)


def _stop(by: int, frame: FrameType | None) -> None:
    check()
    raise Stopped(by)


def _pass_on(ear: _Ear) -> None:
    main = threading.main_thread().ident
    while main is not None:
        signal.sigwait({signal.SIGINT})
        ear.by_terminal = True
        signal.pthread_kill(main, signal.SIGTERM)
