"""What MLflow's registry says of a version once it was judged, by a comparison or by a person."""

from collections.abc import Mapping

import polars as pl

from embed_assets.comparison.tracked import stored_promotion
from embed_assets.comparison.verdict import (
    SPLIT_TITLES,
    compared_in,
    full_size,
    headline_row,
    hybrid_sentence,
    reservations,
    stored_comparison,
    stored_hybrid,
    verdict_sentence,
)
from embed_assets.models.registry import newest_model
from embed_assets.resources.tracking import (
    MADE_CHAMPION,
    REPLACED,
    WITHDRAWN,
    Tracking,
)
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.described import describe_version
from embed_assets.wording import in_markdown


def describe_judged(
    warehouse: Warehouse, settings: Settings, tracking: Tracking, version: str
) -> None:
    """Write in the registry how a version was judged, and what it was made from.

    People delete versions: of one that is gone nothing is written. ProjectError where MLflow
    doesn't take it.
    """
    with tracking.explained(f"MLflow takes no description of version {version}"):
        known = tracking.client().search_model_versions(f"name = '{tracking.name}'")
    found = [row.tags for row in known if str(row.version) == version]
    if not found:
        return
    [tags] = found
    judged = [*_judged(warehouse, settings, tracking, version), *_decided(tracking, tags)]
    describe_version(warehouse, settings, tracking, version, judged)


def _judged(
    warehouse: Warehouse, settings: Settings, tracking: Tracking, version: str
) -> list[str]:
    """What the last comparison says of a version, a paragraph each; nothing where there is none."""
    run_id = compared_in(warehouse, newest_model(warehouse, version))
    if run_id is None:
        return []
    against, hybrid = stored_comparison(warehouse, run_id), stored_hybrid(warehouse, run_id)
    against_it = " ".join(reservations(against, hybrid))
    report = tracking.run_link(run_id, f"comparison-v{version}.html")
    return [
        verdict_sentence(headline_row(against)),
        *filter(None, [hybrid_sentence(hybrid), stored_promotion(settings, run_id), against_it]),
        f"[Report]({report}) · [MLflow run of the comparison]({tracking.run_link(run_id)})",
        _figures(against),
    ]


def _decided(tracking: Tracking, tags: Mapping[str, str]) -> list[str]:
    """When, by whom and why a version was made champion or withdrawn, as a list."""
    said = {"Withdrawn": tags.get(WITHDRAWN), "Made champion": tags.get(MADE_CHAMPION)}
    marks = {what: in_markdown(mark) for what, mark in said.items() if mark}
    if before := tags.get(REPLACED):
        marks["In place of"] = f"[version {before}]({tracking.version_link(before)})"
    lines = [f"- {what}: {mark}" for what, mark in marks.items()]
    return ["\n".join(["**What was decided**", "", *lines])] if lines else []


def _figures(against: pl.DataFrame) -> str:
    """NDCG@10 beside the base model on each test split, as a list. against: model_comparisons."""
    rows = full_size(against).filter(pl.col("split").is_in(SPLIT_TITLES.keys()), model="base")
    lines = [
        f"- {row['questions']} {SPLIT_TITLES[row['split']]}: {row['score']:.3f} → "
        f"{row['tuned']:.3f}, 95 % interval of the difference {row['low']:+.3f} to "
        f"{row['high']:+.3f}, {row['verdict']}"
        for row in rows.iter_rows(named=True)
    ]
    return "\n".join(["**NDCG@10 beside the base model**", "", *lines])
