"""A process that another one started, and how it is ended."""

import os
import signal
import subprocess
import threading
from contextlib import suppress

from filelock import FileLock

SECONDS_TO_END = 10.0
SECONDS_BETWEEN_LOOKS = 0.5
ENDS_WITH = "EMBED_ASSETS_ENDS_WITH"
"""Names to a process the file that its actor keeps locked for as long as it lives."""


def end_process(
    process: "subprocess.Popen[bytes]", patience_seconds: float = SECONDS_TO_END
) -> None:
    """Ask it to end, if it is at work, and make it after that time."""
    process.terminate()
    try:
        process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_with_actor() -> None:
    """Have this process end when the actor does that started it, if one did.

    Whoever is started by it calls this for itself: torchrun's processes outlive it.
    """
    if ENDS_WITH in os.environ:
        lock = FileLock(os.environ[ENDS_WITH])
        threading.Thread(target=_end_after, args=(lock,), name="watches actor", daemon=True).start()


def _end_after(lock: FileLock) -> None:
    with suppress(OSError):  # it is gone, with the folder that it was in
        lock.acquire(poll_interval=SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGKILL)
