"""When to train again: by how much what trains has changed, since when, and what the settings say.

Pure: what it goes by is read in `state.py`, and it is the plan that asks.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from embed_assets.settings import Settings


@dataclass(frozen=True)
class Untrained:
    """How what would train now differs from what the newest version was trained on.

    pairs: that would train. new, changed (the same question on another chunk), removed: pairs since
    then. since: when the oldest change came, if any did. trained_at: when the newest version was
    trained; None without one. scored_at: when it was last compared. forgotten: whether it learned
    from a document that was forgotten since. too_few: why there is not enough to train on.
    """

    pairs: int = 0
    new: int = 0
    changed: int = 0
    removed: int = 0
    since: datetime | None = None
    trained_at: datetime | None = None
    scored_at: datetime | None = None
    forgotten: bool = False
    too_few: str | None = None

    @property
    def share(self) -> float:
        """Pairs that differ, as a share of those that would train."""
        return (self.new + self.changed + self.removed) / max(1, self.pairs)

    def __str__(self) -> str:
        counts = ((self.new, "new"), (self.changed, "changed"), (self.removed, "removed"))
        said = [f"{count:,} {what}" for count, what in counts if count] or ["0 new"]
        listed = " and ".join(filter(None, [", ".join(said[:-1]), said[-1]]))
        return f"{listed} pairs, {100 * self.share:.1f} % of {self.pairs:,}"


@dataclass(frozen=True)
class RetrainingPolicy:
    """When a sensor trains again. By default at once.

    share: of pairs that differ, from which on it does. wait: after which it does on any change.
    pause: from one training to the next, at least.
    """

    share: float = 0.0
    wait: timedelta = timedelta(0)
    pause: timedelta = timedelta(0)

    @classmethod
    def of(cls, settings: Settings) -> "RetrainingPolicy":
        """As it is set."""
        return cls(
            settings.retrain_share,
            timedelta(hours=settings.retrain_wait_hours),
            timedelta(hours=settings.retrain_pause_hours),
        )

    def why_not_yet(self, untrained: Untrained, now: datetime, *, pairs_alone: bool) -> str | None:
        """Why a model that is out of date is not trained again yet; None where it is time.

        pairs_alone: whether the pairs alone have changed, and no setting and no code. The first
        model waits for nothing, nor does what was forgotten.
        """
        if untrained.forgotten or untrained.trained_at is None:
            return None
        if pairs_alone and untrained.share < self.share and not self.waited(untrained, now):
            until = untrained.since and f" or until {at(untrained.since + self.wait)}"
            return f"{untrained}: waits for {100 * self.share:g} %{until or ''}"
        if untrained.trained_at <= now < (again := untrained.trained_at + self.pause):
            return f"{untrained}: trained at {at(untrained.trained_at)}, again from {at(again)} on"
        return None

    def waited(self, untrained: Untrained, now: datetime) -> bool:
        """Whether the oldest change has waited long enough.

        One that is yet to come was noted before the clock was set back: nobody knows how long ago.
        """
        since = untrained.since
        return since is not None and (now >= since + self.wait or now < since)

    def longest(self, untrained: Untrained) -> timedelta:
        """How long documents may come before a training; the first model waits for few of them."""
        return self.pause if untrained.trained_at is None else self.wait

    def scores_again(self, untrained: Untrained, now: datetime) -> datetime | None:
        """When new questions are scored next while a training waits; None where it is time."""
        if untrained.scored_at is None or now < untrained.scored_at:
            return None
        again = untrained.scored_at + self.pause
        return again if now < again else None


def at(time: datetime) -> str:
    """A time for a person."""
    return f"{time:%Y-%m-%d %H:%M} UTC"
