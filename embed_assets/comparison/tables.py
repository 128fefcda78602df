"""A comparison as tables and charts, for the UI and for MLflow."""

from collections.abc import Mapping, Sequence

import polars as pl

from embed_assets.charts import bars_in_markdown, to_png
from embed_assets.comparison.learning_curve import ALL, curve_points
from embed_assets.comparison.plots import (
    composition_chart,
    learning_chart,
    models_chart,
    quality_kept_chart,
    ranking_chart,
)
from embed_assets.comparison.promotion import Condition, Promotion, champion_name
from embed_assets.comparison.verdict import SPLIT_TITLES, Comparison, full_size, interval
from embed_assets.evaluation.bm25 import BM25
from embed_assets.evaluation.hybrid import TUNED_HYBRID
from embed_assets.wording import change, in_cell, in_markdown


def result_line(result: Comparison, promotion: Promotion, champion: str | None) -> str:
    """What came out, as short as it goes: `v2 +5.1 %, promoted`.

    champion: the version that is champion now, if any.
    """
    version = f"v{promotion.version}"
    row = result.headline
    gained = f"{version} {change(row['base'], row['tuned'])}" if row["base"] else version
    if promotion.promoted:
        return f"{gained}, promoted"
    why = "; ".join(row.objection for row in promotion.conditions if not row.holds)
    if champion == promotion.version:
        return f"{gained}, stays champion, though {why}"
    kept = f"kept v{champion}" if champion else "not promoted"
    return f"{gained}, {kept}, because {why}"


def figures(result: Comparison, before: str | None) -> dict[str, float]:
    """NDCG@10 on the headline split at full size, by name: Dagster draws each over the versions.

    before: version that was champion before the tuned one, if any.
    """
    row = result.headline
    found = {"ndcg_at_10_base": row["base"], "ndcg_at_10_tuned": row["tuned"]}
    champion = result.headline_against(champion_name(before)) if before else None
    if champion:
        found["ndcg_at_10_champion"] = champion["score"]
    if row["base"]:
        found["change_percent"] = 100 * (row["tuned"] - row["base"]) / row["base"]
    return found


def headline_bars(result: Comparison, version: str) -> str:
    """NDCG@10 of all models on the headline split, as a picture seen without a click."""
    row, tuned = result.headline, f"v{version}"
    others = full_size(result.baselines).filter(split=result.headline_split)
    scores = {"base": row["base"], tuned: row["tuned"]}
    scores |= dict(others.select("model", "score").iter_rows())
    fused = result.hybrid.filter(split=result.headline_split)["tuned"].to_list()
    scores |= {f"{tuned} + {BM25}": score for score in fused[:1]}
    return bars_in_markdown(f"NDCG@10 on {SPLIT_TITLES[result.headline_split]}", scores, tuned)


def headline_table(result: Comparison) -> str:
    """NDCG@10 of both models on the headline split, by dimension, as a markdown table.

    The report has every split and the intervals: the UI cuts a wider table off, and folds away a
    longer one.
    """
    lines = [
        f"NDCG@10 on {SPLIT_TITLES[result.headline_split]}",
        "",
        "| dimension | base | tuned | change | verdict |",
        "| ---: | ---: | ---: | ---: | --- |",
    ]
    for row in result.significance.filter(split=result.headline_split).iter_rows(named=True):
        lines.append(
            f"| {row['dimension']} | {row['base']:.4f} | {row['tuned']:.4f} "
            f"| {change(row['base'], row['tuned'])} | {row['verdict']} |"
        )
    return "\n".join(lines)


def baselines_table(result: Comparison, failed: Mapping[str, str]) -> str:
    """NDCG@10 of base and baselines on the headline split, and what the tuned model gains on each,
    alone and in hybrid search, as markdown tables.
    """
    lines = [f"NDCG@10 on {SPLIT_TITLES[result.headline_split]}, each model at its full size"]
    for gains, against in (("tuned", full_size(result.against)), (TUNED_HYBRID, result.hybrid)):
        rows = against.filter(split=result.headline_split)
        if rows.height:
            lines += ["", f"| model | NDCG@10 | {gains} gains | verdict |"]
            lines += ["| --- | ---: | ---: | --- |"]
        lines += [
            f"| {in_cell(row['model'])} | {row['score']:.4f} | {row['difference']:+.4f} "
            f"| {row['verdict']} |"
            for row in rows.iter_rows(named=True)
        ]
    lines += [
        f"\n{in_markdown(called)} could not be measured: {in_markdown(reason)}"
        for called, reason in failed.items()
    ]
    return "\n".join(lines)


def curve_table(curve: pl.DataFrame) -> str:
    """NDCG@10 of parts of the pairs on the headline split, as a markdown table."""
    lines = ["| trained on | pairs | documents | NDCG@10 | with bm25 | from there to all pairs |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | --- |")
    for row in curve_points(curve).iter_rows(named=True):
        fused = "–" if row["hybrid"] is None else f"{row['hybrid']:.4f}"
        gain = "" if row["part"] == ALL else interval(row)
        lines.append(
            f"| {row['part']} | {row['pairs']:,} | {row['documents']:,} | {row['alone']:.4f} "
            f"| {fused} | {gain} |"
        )
    return "\n".join(lines)


def charts(result: Comparison, curve: pl.DataFrame) -> dict[str, bytes]:
    """PNG files of the headline split by name, for MLflow. curve: of learning_curves."""
    split = result.headline_split
    questions = result.headline["questions"]
    drawn = {
        "models": models_chart(full_size(result.against), result.hybrid, split, questions),
        "composition": composition_chart(result.scores, split, questions),
        "ranking": ranking_chart(result.scores, split, questions),
        "quality_kept": quality_kept_chart(result.kept, split, questions),
    }
    if curve.height:
        drawn["learning_curve"] = learning_chart(curve_points(curve), split, questions)
    return {name: to_png(chart, scale=1.2) for name, chart in drawn.items()}


def conditions_list(conditions: Sequence[Condition]) -> str:
    """Which conditions of a promotion hold, in markdown; of those that don't, the figures too."""
    return "\n".join(
        f"- ✓ {row.what}" if row.holds else f"- **✗ {row.what}**: {row.figure}; limit {row.limit}"
        for row in conditions
    )


def conditions_table(conditions: Sequence[Condition]) -> str:
    """The conditions of a promotion with all their figures as a markdown table."""
    lines = ["| condition | figure | limit | holds |", "| --- | --- | --- | --- |"]
    for row in conditions:
        cells = (row.what, row.figure, row.limit, "yes" if row.holds else "**no**")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)
