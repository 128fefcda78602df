"""Whether the training was worth it."""

import dagster as dg

from embed_assets.comparison.tracked import stored_promotion
from embed_assets.comparison.verdict import headline_row, stored_comparison, verdict_sentence
from embed_assets.evaluation.significance import Verdict
from embed_assets.models.registry import champion_version, newest_model
from embed_assets.pairs.splits import split_title
from embed_assets.resources.checking import Finding, check_result
from embed_assets.resources.ledger import read_records
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings


@dg.asset_check(
    asset="comparison",
    description="The fine-tuned model is clearly better than its base on the headline split.",
)
def better_than_base(warehouse: Warehouse) -> dg.AssetCheckResult:
    """The verdict of the last comparison, with its figures."""
    return check_result(lambda: _verdict(warehouse))


def _verdict(warehouse: Warehouse) -> Finding:
    run_id = read_records(warehouse, "comparison").data_version("comparison")
    against = stored_comparison(warehouse, run_id)
    if against.is_empty():
        return Finding(False, "No model has been compared yet.")
    row = headline_row(against)
    shown = ("split", "dimension", "score", "tuned", "difference", "low", "high", "p_value")
    return Finding(
        row["verdict"] == Verdict.BETTER,
        verdict_sentence(row),
        {name: row[name] for name in (*shown, "questions", "documents")}
        | {"split": split_title(row["split"])},
    )


@dg.asset_check(
    asset="comparison",
    description="The newest version is the champion: the one that search uses.",
)
def became_champion(
    warehouse: Warehouse, tracking: Tracking, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """Which version is champion, and why the newest is or isn't."""
    return check_result(lambda: _promotion(warehouse, tracking, settings))


def _promotion(warehouse: Warehouse, tracking: Tracking, settings: Settings) -> Finding:
    run_id = read_records(warehouse, "comparison").data_version("comparison")
    if not run_id:
        return Finding(False, "No model has been compared yet.")
    newest, champion = newest_model(warehouse)["version"], champion_version(tracking)
    now = f"Version {champion} is the champion." if champion else "There is no champion."
    said = stored_promotion(settings, run_id)
    return Finding(
        newest == champion,
        f"{now} At the comparison: {said}" if said else now,
        {"newest": f"v{newest}", "champion": f"v{champion}" if champion else "none"},
    )
