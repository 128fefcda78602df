"""What a training costs in energy, by the counters of the machine that it runs on.

A counter knows neither processes nor programs: what else is at work on the machine counts too.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

from embed_assets.machine import EnergyCounter

SECONDS_BETWEEN_READINGS = 30.0
"""A counter of a large processor begins again after some minutes: it must not do so unseen."""
JOULES_PER_WATT_HOUR = 3600.0


class Energy:
    """The energy that counters have counted since it was made.

    watt_hours: None where there is no counter, or where one could not be read any more.
    """

    def __init__(self, counters: Sequence[EnergyCounter]) -> None:
        self._counters = counters
        self._joules = 0.0
        self._last: list[float] = []
        self._is_known = bool(counters)
        self.read()

    def read(self) -> None:
        """Add what was counted since the last reading."""
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
        return ", ".join(counter.name for counter in self._counters) if self._is_known else None


def _counted(counter: EnergyCounter, before: float, after: float) -> float:
    if after >= before:
        return after - before
    # Without a limit it was set back, by a driver that was loaded anew.
    return counter.wraps_at - before + after if counter.wraps_at else after


@contextmanager
def counted_energy(
    counters: Sequence[EnergyCounter], pause: float = SECONDS_BETWEEN_READINGS
) -> Iterator[Energy]:
    """Count the energy of what is done inside; whole once that has ended.

    pause: seconds between two readings.
    """
    energy, ended = Energy(counters), Event()

    def keep_reading() -> None:
        while not ended.wait(pause):
            energy.read()

    reader = Thread(target=keep_reading, name="energy", daemon=True)
    reader.start()
    try:
        yield energy
    finally:
        ended.set()
        reader.join()
        energy.read()
