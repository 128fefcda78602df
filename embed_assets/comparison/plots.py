"""The charts of a comparison: one definition each, for the interactive report and for PNG files.

They draw what they are given; computing figures, and the page around the charts, belong elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from embed_assets.charts import BLUE, GREY, INK, dress

if TYPE_CHECKING:
    import altair as alt

_STORAGE_SAND = "#ece5d6"

_MODELS = ["base", "tuned"]
_SET_METRICS = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "f1": "F1"}
_RANKING_METRICS = {"mrr": "MRR@10", "ndcg": "NDCG@10", "map": "MAP@100"}


def composition_chart(scores: pl.DataFrame, split: str, questions: int) -> alt.VConcatChart:
    """Accuracy, precision, recall and F1 among the first k chunks: base beside tuned.

    A row per metric, with its own scale, and a column per dimension, the largest first.
    """
    import altair as alt

    shown = _by_model(scores, split, _SET_METRICS)
    dimensions = _largest_first(shown["dimension"])
    panel_width = max(110, 940 // len(dimensions) - 20)
    rows = []
    for metric, title in _SET_METRICS.items():
        first, last = not rows, len(rows) == len(_SET_METRICS) - 1
        bars = (
            alt.Chart(shown.filter(metric=metric))
            .mark_bar()
            .encode(
                x=alt.X(
                    "k:O",
                    title="chunks retrieved (k)" if last else None,
                    axis=alt.Axis(labels=last, labelAngle=0),
                ),
                xOffset=alt.XOffset("model:N", sort=_MODELS),
                y=alt.Y("score:Q", title=f"{title}@k", axis=alt.Axis(tickCount=4)),
                color=_model_colour(),
                tooltip=_score_tooltip(),
            )
            .properties(width=panel_width, height=96)
            .facet(
                column=alt.Column(
                    "dimension:O",
                    sort=dimensions,
                    title="dimensions of the vectors" if first else None,
                    header=alt.Header(labels=first, titlePadding=0, labelPadding=6),
                ),
                spacing=16,
            )
        )
        rows.append(bars)
    chart = alt.vconcat(*rows, spacing=10).resolve_scale(color="shared")
    return _dress(chart, "Accuracy, precision, recall and F1 by k", split, questions)


def ranking_chart(scores: pl.DataFrame, split: str, questions: int) -> alt.FacetChart:
    """MRR@10, NDCG@10 and MAP@100 by dimension: base beside tuned, a panel per metric."""
    import altair as alt

    shown = _by_model(scores, split, _RANKING_METRICS)
    dimensions = _largest_first(shown["dimension"])
    bars = (
        alt.Chart()
        .mark_bar()
        .encode(
            x=alt.X(
                "dimension:O",
                sort=dimensions,
                title="dimensions of the vectors",
                axis=alt.Axis(labelAngle=0),
            ),
            xOffset=alt.XOffset("model:N", sort=_MODELS),
            y=alt.Y("score:Q", title="score (1 is perfect)"),
            color=_model_colour(),
            tooltip=_score_tooltip(),
        )
    )
    figures = bars.mark_text(dy=-6, fontSize=9, color=INK).encode(
        text=alt.Text("score:Q", format=".2f"), color=alt.value(INK)
    )
    chart = (
        alt.layer(bars, figures, data=shown)
        .properties(width=300, height=220)
        .facet(
            column=alt.Column("metric_title:N", sort=list(_RANKING_METRICS.values()), title=None),
            spacing=16,
        )
    )
    return _dress(chart, "MRR@10, NDCG@10 and MAP@100 by dimension", split, questions)


def quality_kept_chart(quality_kept: pl.DataFrame, split: str, questions: int) -> alt.LayerChart:
    """NDCG@10 kept by shorter vectors (lines), above the storage that they need (bars).

    Both are shares of the largest dimension, so one axis serves, and the gap between a line and its
    bar is what cutting the vectors gains.
    """
    import altair as alt

    shown = _rows_of(quality_kept, split).with_columns(
        storage=1 - pl.col("storage_saved"),
        # Two figures per dimension: the higher goes above its point, the lower, if lower, below it.
        is_higher=pl.col("kept") == pl.col("kept").max().over("dimension"),
    )
    kinds = [*_MODELS, "storage"]
    colours = alt.Scale(domain=kinds, range=[GREY, BLUE, _STORAGE_SAND])
    labels = "{base: 'quality kept, base', tuned: 'quality kept, tuned', storage: 'storage needed'}"
    x = alt.X(
        "dimension:O",
        sort=_largest_first(shown["dimension"]),
        title="dimensions of the vectors",
        axis=alt.Axis(labelAngle=0),
    )
    tooltip = [
        alt.Tooltip("model:N"),
        alt.Tooltip("dimension:O"),
        alt.Tooltip("ndcg_at_10:Q", title="NDCG@10", format=".4f"),
        alt.Tooltip("kept:Q", title="quality kept", format=".2%"),
        alt.Tooltip("bytes_per_vector:Q", title="bytes per vector", format=","),
        alt.Tooltip("storage_saved:Q", title="storage saved", format=".1%"),
    ]
    share = alt.Y("kept:Q", title="share of the largest dimension", axis=alt.Axis(format="%"))
    storage = (
        alt.Chart(
            shown.unique("dimension", maintain_order=True).with_columns(model=pl.lit("storage"))
        )
        .mark_bar(width={"band": 0.7})
        .encode(
            x=x,
            y=alt.Y("storage:Q"),
            color=alt.Color("model:N", scale=colours),
            tooltip=tooltip[1:2] + tooltip[4:],
        )
    )
    bytes_per_vector = (
        storage.mark_text(dy=-7, baseline="bottom", fontSize=10)
        .encode(y=alt.Y("zero:Q"), text=alt.Text("size:N"), color=alt.value("#6b6250"))
        .transform_calculate(zero="0", size="format(datum.bytes_per_vector, ',') + ' bytes'")
    )
    lines = (
        alt.Chart(shown)
        .mark_line(point=alt.OverlayMarkDef(size=60, filled=True), strokeWidth=2.5)
        .encode(
            x=x,
            y=share,
            color=alt.Color(
                "model:N",
                scale=colours,
                legend=alt.Legend(title=None, labelExpr=f"{labels}[datum.label]", labelLimit=0),
            ),
            tooltip=tooltip,
        )
    )
    figures = [
        alt.Chart(shown.filter(is_higher=is_higher).unique("dimension", maintain_order=True))
        .mark_text(dy=dy, fontSize=10)
        .encode(x=x, y=share, text=alt.Text("kept:Q", format=".1%"), color=alt.value(INK))
        for is_higher, dy in ((True, -12), (False, 13))
    ]
    chart = alt.layer(storage, bytes_per_vector, lines, *figures).properties(width=700, height=300)
    return _dress(chart, "What shorter vectors keep, and what they cost", split, questions)


def _rows_of(frame: pl.DataFrame, split: str) -> pl.DataFrame:
    """The split's rows, NaN as null since JSON has no NaN. Raises ValueError if there are none."""
    found = frame.filter(split=split).with_columns(pl.selectors.float().fill_nan(None))
    if found.is_empty():
        splits = ", ".join(frame["split"].unique().sort()) or "none"
        raise ValueError(f"No figures to draw for split {split!r}; there are some for: {splits}.")
    return found


def _by_model(scores: pl.DataFrame, split: str, metrics: dict[str, str]) -> pl.DataFrame:
    """One row per score: metric, metric_title, k, dimension, model, score, difference_percent."""
    chosen = scores.filter(pl.col("metric").is_in(list(metrics)))
    return (
        _rows_of(chosen, split)
        .unpivot(
            on=_MODELS,
            index=["dimension", "metric", "k", "difference_percent"],
            variable_name="model",
            value_name="score",
        )
        .with_columns(
            metric_title=pl.col("metric").replace_strict(metrics),
            difference=pl.col("difference_percent") / 100,
        )
        .drop("difference_percent")
    )


def _largest_first(dimensions: pl.Series) -> list[int]:
    return dimensions.unique().sort(descending=True).to_list()


def _model_colour() -> alt.Color:
    import altair as alt

    return alt.Color(
        "model:N",
        scale=alt.Scale(domain=_MODELS, range=[GREY, BLUE]),
        legend=alt.Legend(title=None),
    )


def _score_tooltip() -> list[alt.Tooltip]:
    import altair as alt

    return [
        alt.Tooltip("model:N"),
        alt.Tooltip("dimension:O"),
        alt.Tooltip("metric_title:N", title="metric"),
        alt.Tooltip("k:O"),
        alt.Tooltip("score:Q", format=".4f"),
        alt.Tooltip("difference:Q", title="tuned against base", format="+.1%"),
    ]


def _dress(chart: Any, title: str, split: str, questions: int) -> Any:
    """The chart with its title, its split and the number of questions in it."""
    counted = f"{questions:,} question{'s' * (questions != 1)}"
    return dress(chart, title, f"{split}, {counted}")
