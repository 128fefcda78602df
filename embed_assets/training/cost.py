"""What a training takes in seconds and energy, the parts of it that were killed included.

A counter of the machine knows neither processes nor programs: what else is at work counts too.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from embed_assets.machine import EnergyCounter

SECONDS_BETWEEN_READINGS = 30.0
"""A counter of a large processor begins again after some minutes: it must not do so unseen."""
JOULES_PER_WATT_HOUR = 3600.0


class Cost:
    """What a training has taken up to the last reading, since it first began.

    watt_hours: None where there is no counter, or where one could not be read any more.
    """

    def __init__(self, counters: Sequence[EnergyCounter], file: Path) -> None:
        """file: keeps each reading; one that a killed process left behind is gone on from."""
        self._file, self._counters = file, counters
        self._began = time.monotonic()
        known = _left_behind(file)
        self._before = known.get("seconds", 0.0)
        self._joules = known.get("joules", 0.0)
        self._names = known.get("names", []) or [counter.name for counter in counters]
        self._is_known = bool(counters) and self._joules is not None
        self._last: list[float] = []
        self.read()

    def read(self) -> None:
        """Add what was counted since the last reading."""
        self.seconds = self._before + time.monotonic() - self._began
        self._read_counters()
        joules = self._joules if self._is_known else None
        state = {"seconds": self.seconds, "joules": joules, "names": self._names}
        unfinished = self._file.with_suffix(".unfinished")
        with suppress(OSError):  # a disk that is full for a moment: the next reading is written
            unfinished.write_text(json.dumps(state), encoding="utf-8")
            unfinished.replace(self._file)

    def _read_counters(self) -> None:
        if not self._is_known:
            return
        try:
            now = [counter.read() for counter in self._counters]
        except (OSError, ValueError):
            self._is_known = False
            return
        for counter, before, after in zip(self._counters, self._last or now, now, strict=True):
            self._joules += _counted(counter, before, after)
        self._last = now

    @property
    def watt_hours(self) -> float | None:
        """Watt-hours up to the last reading."""
        return round(self._joules / JOULES_PER_WATT_HOUR, 6) if self._is_known else None

    @property
    def parts(self) -> str | None:
        """The parts of the machine that were counted."""
        return ", ".join(self._names) if self._is_known else None


def _left_behind(file: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError):
        return json.loads(file.read_text(encoding="utf-8"))
    return {}


def _counted(counter: EnergyCounter, before: float, after: float) -> float:
    if after >= before:
        return after - before
    # Without a limit it was set back, by a driver that was loaded anew.
    return counter.wraps_at - before + after if counter.wraps_at else after


@contextmanager
def counted_cost(
    counters: Sequence[EnergyCounter], file: Path, pause: float = SECONDS_BETWEEN_READINGS
) -> Iterator[Cost]:
    """Count what is done inside; whole once that has ended.

    file: where the count is kept for who takes the work up. pause: seconds between two readings.
    """
    cost, ended = Cost(counters, file), Event()

    def keep_reading() -> None:
        while not ended.wait(pause):
            cost.read()

    reader = Thread(target=keep_reading, name="cost", daemon=True)
    reader.start()
    try:
        yield cost
    finally:
        ended.set()
        reader.join()
        cost.read()
