"""A clock that was set back holds nothing up: what seems to come from the future doesn't count."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from embed_assets.automation.retraining import RetrainingPolicy, Untrained
from embed_assets.graph import DOCUMENT_ASSETS, made_from
from embed_assets.resources.warehouse import Warehouse
from embed_assets.training.record import trained_now
from embed_assets_tests.automation.told import KILLED, LATER, NO_ANSWER, NOW, Home
from embed_assets_tests.rows import model

HOUR = timedelta(hours=1)
POLICY = RetrainingPolicy(share=0.05, wait=24 * HOUR, pause=HOUR)
FEW = Untrained(pairs=1000, new=3, since=NOW - HOUR, trained_at=NOW - 9 * HOUR)


def test_what_failed_in_the_future_is_tried_again_now() -> None:
    for failure, asset in ((KILLED, "parsed_markdown"), (NO_ANSWER, "synthetic_questions")):
        home = Home()
        home.ingest("a")
        home.fail(asset, failure, "a", at=LATER)
        after = [name for name in DOCUMENT_ASSETS if asset in {name, *made_from(name)}]
        assert home.due("a") == tuple(after)


def test_a_training_in_the_future_keeps_no_other_waiting() -> None:
    many = replace(FEW, new=90, trained_at=LATER)
    assert POLICY.why_not_yet(many, NOW, pairs_alone=True) is None
    assert POLICY.scores_again(replace(FEW, scored_at=LATER), NOW) is None


def test_a_change_in_the_future_has_waited_long_enough() -> None:
    assert POLICY.why_not_yet(FEW, NOW, pairs_alone=True) is not None
    assert POLICY.why_not_yet(replace(FEW, since=LATER), NOW, pairs_alone=True) is None


def test_a_version_that_is_trained_last_is_the_newest_whatever_the_clock_says(tmp_path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    before = datetime.now(UTC)
    assert before <= trained_now(warehouse) <= datetime.now(UTC)
    ahead = before + 365 * 24 * HOUR
    warehouse.replace("models", model("1", trained_at=ahead))
    assert trained_now(warehouse) > ahead
