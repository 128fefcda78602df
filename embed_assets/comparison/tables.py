"""A comparison as tables and charts, for the UI and for MLflow."""

from collections.abc import Mapping, Sequence

from embed_assets.charts import to_png
from embed_assets.comparison.plots import (
    composition_chart,
    models_chart,
    quality_kept_chart,
    ranking_chart,
)
from embed_assets.comparison.promotion import Condition
from embed_assets.comparison.report import format_p_value
from embed_assets.comparison.verdict import (
    Comparison,
    full_size,
)


def headline_table(result: Comparison) -> str:
    """NDCG@10 of both models on the headline split, by dimension, as a markdown table.

    The report has every split; in the UI a longer table is folded away.
    """
    lines = [
        f"NDCG@10 on {result.headline_split}",
        "",
        "| dimension | base | tuned | change | 95 % interval | verdict |",
        "| ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for row in result.significance.filter(split=result.headline_split).iter_rows(named=True):
        change = 100 * row["difference"] / row["base"] if row["base"] else None
        lines.append(
            f"| {row['dimension']} | {row['base']:.4f} | {row['tuned']:.4f} "
            f"| {'–' if change is None else f'{change:+.1f} %'} "
            f"| {row['low']:+.3f} … {row['high']:+.3f} | {row['verdict']} |"
        )
    return "\n".join(lines)


def baselines_table(result: Comparison, failed: Mapping[str, str]) -> str:
    """NDCG@10 of base and baselines beside tuned on the headline split, as a markdown table."""
    lines = [
        f"NDCG@10 on {result.headline_split}, each model at its full size",
        "",
        "| model | dimensions | NDCG@10 | tuned | difference | 95 % interval | p | verdict |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for row in full_size(result.against).filter(split=result.headline_split).iter_rows(named=True):
        lines.append(
            f"| {row['model']} | {row['dimension'] or '–'} | {row['score']:.4f} "
            f"| {row['tuned']:.4f} | {row['difference']:+.4f} "
            f"| {row['low']:+.3f} … {row['high']:+.3f} "
            f"| {format_p_value(row['p_value'])} | {row['verdict']} |"
        )
    lines += [f"\n{called} could not be scored: {reason}" for called, reason in failed.items()]
    return "\n".join(lines)


def charts(result: Comparison) -> dict[str, bytes]:
    """PNG files of the headline split by name, for MLflow and the UI."""
    split = result.headline_split
    questions = result.headline["questions"]
    drawn = {
        "models": models_chart(full_size(result.against), split, questions),
        "composition": composition_chart(result.scores, split, questions),
        "ranking": ranking_chart(result.scores, split, questions),
        "quality_kept": quality_kept_chart(result.kept, split, questions),
    }
    return {name: to_png(chart, scale=1.2) for name, chart in drawn.items()}


def conditions_table(conditions: Sequence[Condition]) -> str:
    """The conditions of a promotion as a markdown table."""
    lines = ["| condition | figure | limit | holds |", "| --- | --- | --- | --- |"]
    for row in conditions:
        cells = (row.what, row.figure, row.limit, "yes" if row.holds else "**no**")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)
