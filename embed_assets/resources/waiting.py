"""A wait for others that use a file, which says for whom."""

import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from embed_assets.machine import processes_with
from embed_assets.terminal import tell

PAUSE = 0.05
FIRST_SAID, SAID_AGAIN = 2.0, 60.0
"""Seconds of waiting after which it is said for whom, and after which it is said again."""


def _processes_with(file: str) -> list[str]:
    return processes_with(Path(file), but=os.getpid())


class Wait:
    """A wait for others that use a file. whom: those that were found."""

    def __init__(
        self,
        path: str,
        limit: float = math.inf,
        log: Callable[[str], object] | None = None,
        users: Callable[[str], Iterable[str]] = _processes_with,
    ) -> None:
        """limit: in seconds. log: is told for whom, beside the terminal. users: who uses a file."""
        self._path, self._limit, self._log, self._users = path, limit, log, users
        self._began = time.monotonic()
        self._next_said = self._began + FIRST_SAID
        self.whom = "another program"

    def goes_on(self, file: str) -> bool:
        """Wait a moment for those that have a file open; whether the limit is not reached."""
        now = time.monotonic()
        if now - self._began > self._limit:
            self._find(file)
            return False
        if now >= self._next_said:
            self._next_said = now + SAID_AGAIN
            self._find(file)
            self._say()
        time.sleep(PAUSE)
        return True

    def _find(self, file: str) -> None:
        self.whom = ", ".join(self._users(file)) or self.whom

    def _say(self) -> None:
        end = "" if math.isinf(self._limit) else f", for {self._limit:.0f} s at most"
        said = f"{self._path} is in use by {self.whom}. Waiting until it is closed there{end}."
        tell(said)
        if self._log:
            self._log(said)
