"""What a person decides about the champion from a terminal: `promote` and `rollback`."""

from collections.abc import Callable
from typing import Any

from embed_assets.automation.jobs import observation
from embed_assets.command.person import this_person
from embed_assets.command.pipeline import at_rest
from embed_assets.comparison.decisions import (
    CHOSEN,
    WENT_BACK,
    Change,
    promote_by_hand,
    roll_back_by_hand,
)
from embed_assets.models.registry import Decision
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.building import switch_to
from embed_assets.search.ways import ask_ways
from embed_assets.settings import Settings


def promote_version(
    settings: Settings, version: str, why: str | None
) -> tuple[dict[str, Any], str]:
    """Make a version the champion; what `promote` prints, as JSON and as text."""
    decision = Decision(this_person(), why or CHOSEN)

    def decide(tracking: Tracking) -> Change:
        return promote_by_hand(settings, tracking, version, decision, ask_ways)

    return _carry_out(settings, decide)


def roll_back(settings: Settings, why: str | None) -> tuple[dict[str, Any], str]:
    """Go back to the champion before; what `rollback` prints, as JSON and as text."""
    decision = Decision(this_person(), why or WENT_BACK)

    def decide(tracking: Tracking) -> Change:
        return roll_back_by_hand(settings, tracking, decision)

    return _carry_out(settings, decide)


def _carry_out(
    settings: Settings, decide: Callable[[Tracking], Change]
) -> tuple[dict[str, Any], str]:
    tracking = Tracking(home=str(settings.home), project=settings.project)
    tracking.check_answers()
    with at_rest(settings) as instance:
        change = decide(tracking)
        switch_to(settings, Warehouse.of(settings), change.champion)
        instance.report_runless_asset_event(observation(change))
    previous = f"\nA rollback returns to version {change.previous}." if change.previous else ""
    return {"champion": change.champion, "previous": change.previous}, change.said + previous
