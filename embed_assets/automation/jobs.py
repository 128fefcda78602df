"""The jobs that make no asset: `promote` and `rollback`, by which a person decides about the
champion in the UI, and `compact`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import sleep

import dagster as dg
from filelock import Timeout
from pydantic import Field

from embed_assets.automation.runs import (
    COMPACT,
    PROMOTE,
    ROLLBACK,
    at_work,
    command_lock,
    end_dead_runs,
)
from embed_assets.comparison.decisions import (
    CHOSEN,
    WENT_BACK,
    Change,
    promote_by_hand,
    roll_back_by_hand,
)
from embed_assets.lake_address import KEEP_DAYS
from embed_assets.models.registry import Decision
from embed_assets.resources.explaining import said_in_the_ui
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.building import switch_to
from embed_assets.search.ways import ask_ways
from embed_assets.settings import Settings

PAUSE = 1.0
"""Seconds between two looks at who is at work."""


class Promotion(dg.Config):
    """Which version becomes champion, and why."""

    version: str = Field(description="Version of the model, as MLflow shows it")
    why: str = Field(default=CHOSEN, description="The reason, for the record")


class Rollback(dg.Config):
    """Why the champion is taken back."""

    why: str = Field(default=WENT_BACK, description="The reason, for the record")


class Compaction(dg.Config):
    """What stays of what stood in the tables before."""

    keep_days: float = Field(
        default=KEEP_DAYS, ge=0, description="How long a DuckLake still knows it"
    )


@dg.op(description="Makes a version the champion, once no other run is at work.")
@said_in_the_ui
def promote_version(
    context: dg.OpExecutionContext,
    config: Promotion,
    tracking: Tracking,
    settings: dg.ResourceParam[Settings],
) -> None:
    """Make a version the champion."""
    with _at_rest(context, settings):
        decision = Decision(_who(context), config.why)
        change = promote_by_hand(settings, tracking, config.version, decision, ask_ways)
        _tell(context, settings, change)


@dg.op(description="Goes back to the champion before, once no other run is at work.")
@said_in_the_ui
def roll_back(
    context: dg.OpExecutionContext,
    config: Rollback,
    tracking: Tracking,
    settings: dg.ResourceParam[Settings],
) -> None:
    """Go back to the champion before, or to the base model where there was none."""
    with _at_rest(context, settings):
        decision = Decision(_who(context), config.why)
        _tell(context, settings, roll_back_by_hand(settings, tracking, decision))


@dg.job(
    name=PROMOTE,
    description="A version becomes champion, whatever the comparison says.",
)
def promote() -> None:
    """Make a version the champion."""
    promote_version()


@dg.job(
    name=ROLLBACK,
    description="The champion before serves again, or the base model.",
)
def rollback() -> None:
    """Go back to the champion before."""
    roll_back()


@dg.op(description="Frees the room of deleted rows, and makes few files of many small ones.")
@said_in_the_ui
def compact_tables(
    context: dg.OpExecutionContext, config: Compaction, warehouse: Warehouse
) -> None:
    """Compact the tables."""
    before = warehouse.size_bytes
    warehouse.patient(context.log.info).compact(timedelta(days=config.keep_days))
    context.log.info(f"{before:,} bytes before, {warehouse.size_bytes:,} now")


@dg.job(
    name=COMPACT,
    description="The tables are written anew without what was deleted. Others wait or read on.",
)
def compact() -> None:
    """Compact the tables."""
    compact_tables()


def observation(change: Change) -> dg.AssetObservation:
    """The event on `comparison` that says who changed the champion, why, and how good it is."""
    return dg.AssetObservation(
        "comparison",
        description=change.said,
        metadata={
            "promotion": change.said,
            "champion": change.champion or "none: the base model serves",
            "previous": change.previous or "none",
            "who": change.decision.who,
            "why": change.decision.why,
            "ndcg_at_10": dg.MetadataValue.md(change.table),
        },
    )


def _tell(context: dg.OpExecutionContext, settings: Settings, change: Change) -> None:
    """Say what was decided, and have search follow: the sensor asks for what that lacks."""
    switch_to(settings, Warehouse.of(settings), change.champion)
    context.log.info(change.said)
    context.log_event(observation(change))


def _who(context: dg.OpExecutionContext) -> str:
    return f"Dagster run {context.run_id}"


@contextmanager
def _at_rest(context: dg.OpExecutionContext, settings: Settings) -> Iterator[None]:
    """While nobody else is at work in the home. Waits for that, and says for whom."""
    said: list[str] = []
    lock = command_lock(settings.home)
    while True:
        others = ["an embed-assets command"]
        try:
            lock.acquire(timeout=2)  # a sensor's tick holds it for a moment
        except Timeout:
            pass
        else:
            # A decision takes a moment: what starts meanwhile comes to the champion long after.
            try:
                end_dead_runs(context.instance, settings)
                others = at_work(context.instance, settings)
                if not others:
                    yield
                    return
            finally:
                lock.release()
        if others != said:
            context.log.info(f"At work in this home: {', '.join(others)}. Waiting for that to end.")
            said = others
        sleep(PAUSE)
