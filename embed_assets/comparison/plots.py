"""The charts of a comparison: one definition each, for the interactive report and for PNG files.

They draw what they are given; computing figures, and the page around the charts, belong elsewhere.
Each is made for a width: WIDE for a sheet of paper or a screen, NARROW for a phone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from embed_assets.charts import BLUE, GREY, INK, dress
from embed_assets.comparison.learning_curve import FEWER_DOCUMENTS
from embed_assets.comparison.verdict import SPLIT_TITLES
from embed_assets.evaluation.hybrid import TUNED_HYBRID
from embed_assets.wording import signed_percent

if TYPE_CHECKING:
    import altair as alt

WIDE, NARROW = 720, 330
"""Widths of a chart in pixels, about."""
_STORAGE_SAND, _OTHERS_SAND = "#ece5d6", "#c7ae73"

_MODELS = ["base", "tuned"]
_SET_METRICS = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "f1": "F1"}
_RANKING_METRICS = {"mrr": "MRR@10", "ndcg": "NDCG@10", "map": "MAP@100"}


def models_chart(
    against: pl.DataFrame, hybrid: pl.DataFrame, split: str, questions: int, width: int = WIDE
) -> alt.HConcatChart | alt.VConcatChart:
    """NDCG@10 of every model at its full size, and how far the fine-tuned model is from each.

    against: rows of model_comparisons, each model once per split. Their intervals are those of the
    differences; how sure a score is by itself is not known. hybrid: rows of hybrid_comparisons, for
    the score of hybrid search with the fine-tuned model; none where it was not scored.
    """
    import altair as alt

    rows = _rows_of(against, split)
    own = {"tuned": rows, TUNED_HYBRID: hybrid.filter(split=split)}
    scores = pl.concat(
        [
            rows.select("model", "score"),
            *(of.head(1).select(model=pl.lit(name), score="tuned") for name, of in own.items()),
        ]
    ).sort("score", "model", descending=[True, False])
    models = scores["model"].to_list()
    height, beside = alt.Step(26), width >= WIDE
    y = alt.Y("model:N", sort=models, title=None, axis=alt.Axis(labelLimit=150, ticks=False))
    bars = (
        alt.Chart(scores)
        .mark_bar(height={"band": 0.7})
        .encode(
            x=alt.X("score:Q", title="NDCG@10 (1 is perfect)", axis=alt.Axis(tickCount=5)),
            y=y,
            color=alt.Color(
                "model:N",
                scale=alt.Scale(domain=models, range=[_colour_of(model) for model in models]),
                legend=None,
            ),
            tooltip=[alt.Tooltip("model:N"), alt.Tooltip("score:Q", format=".4f")],
        )
    )
    figures = bars.mark_text(align="left", dx=4, fontSize=11).encode(
        text=alt.Text("score:Q", format=".3f"), color=alt.value(INK)
    )
    half = width // 2 - 80 if beside else width - 90
    left = alt.layer(bars, figures).properties(width=half, height=height)
    differences = alt.Chart(rows).encode(
        y=alt.Y(
            "model:N",
            sort=models,
            scale=alt.Scale(domain=models),
            title=None,
            axis=alt.Axis(labels=not beside, labelLimit=150, ticks=False),
        ),
        tooltip=[
            alt.Tooltip("model:N", title="tuned against"),
            *(alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("difference", "low", "high")),
            alt.Tooltip("verdict:N"),
        ],
    )
    interval = differences.mark_rule(strokeWidth=2, color=INK).encode(
        x=alt.X("low:Q", title="tuned minus the other model, with its 95 % interval"), x2="high:Q"
    )
    point = differences.mark_point(filled=True, size=70, color=BLUE, opacity=1).encode(
        x="difference:Q"
    )
    none = alt.Chart(pl.DataFrame({"zero": [0]})).mark_rule(strokeDash=[4, 3]).encode(x="zero:Q")
    right = alt.layer(none, interval, point).properties(width=half, height=height)
    chart = alt.hconcat(left, right, spacing=24) if beside else alt.vconcat(left, right, spacing=16)
    return _dress(chart, "Every model at its full size", split, questions, width)


def _colour_of(model: str) -> str:
    return {"tuned": BLUE, TUNED_HYBRID: BLUE, "base": GREY}.get(model, _OTHERS_SAND)


def composition_chart(
    scores: pl.DataFrame, split: str, questions: int, width: int = WIDE
) -> alt.VConcatChart:
    """Accuracy, precision, recall and F1 among the first k chunks: base beside tuned.

    A row per metric, with its own scale, and a column per dimension, the largest first.
    """
    import altair as alt

    shown = _by_model(scores, split, _SET_METRICS)
    dimensions = _largest_first(shown["dimension"])
    spacing, counted = (16, "chunks retrieved (k)") if width >= WIDE else (6, "k")
    panel_width = max(44, (width - 50) // len(dimensions) - spacing)
    rows = []
    for metric, title in _SET_METRICS.items():
        first, last = not rows, len(rows) == len(_SET_METRICS) - 1
        bars = (
            alt.Chart(shown.filter(metric=metric))
            .mark_bar()
            .encode(
                x=alt.X(
                    "k:O",
                    title=counted if last else None,
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
                spacing=spacing,
            )
        )
        rows.append(bars)
    chart = alt.vconcat(*rows, spacing=10).resolve_scale(color="shared")
    return _dress(chart, "Accuracy, precision, recall and F1 by k", split, questions, width)


def ranking_chart(
    scores: pl.DataFrame, split: str, questions: int, width: int = WIDE
) -> alt.FacetChart:
    """MRR@10, NDCG@10 and MAP@100 by dimension: base beside tuned, a panel per metric."""
    import altair as alt

    shown = _by_model(scores, split, _RANKING_METRICS)
    dimensions = _largest_first(shown["dimension"])
    columns = len(_RANKING_METRICS) if width >= WIDE else 1
    highest = float(str(shown["score"].max()))
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
            y=alt.Y(
                "score:Q",
                title="score (1 is perfect)",
                scale=alt.Scale(domain=[0, highest + 0.08 * (highest or 1)]),  # for the figures
            ),
            color=_model_colour(),
            tooltip=_score_tooltip(),
        )
    )
    figures = bars.mark_text(dy=-6, fontSize=9, color=INK).encode(
        text=alt.Text("score:Q", format=".2f"), color=alt.value(INK)
    )
    chart = (
        alt.layer(bars, figures, data=shown)
        .properties(width=(width - 60) // columns - 16, height=200)
        .facet(
            facet=alt.Facet("metric_title:N", sort=list(_RANKING_METRICS.values()), title=None),
            columns=columns,
            spacing=16,
        )
    )
    return _dress(chart, "MRR@10, NDCG@10 and MAP@100 by dimension", split, questions, width)


def quality_kept_chart(
    quality_kept: pl.DataFrame, split: str, questions: int, width: int = WIDE
) -> alt.LayerChart:
    """NDCG@10 kept by shorter vectors (lines), above the storage that they need (bars).

    Both are shares of the largest dimension, so one axis serves, and the gap between a line and its
    bar is what cutting the vectors gains.
    """
    import altair as alt

    shown = _rows_of(quality_kept, split).with_columns(
        storage=1 - pl.col("storage_saved"),
        # Two figures per dimension: the higher goes above its point, the lower, if lower, below it.
        is_higher=pl.col("kept") == pl.col("kept").max().over("dimension"),
        **{f"{name}_said": _percent(name) for name in ("kept", "storage_saved")},
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
        alt.Tooltip("kept_said:N", title="quality kept"),
        alt.Tooltip("bytes_per_vector:Q", title="bytes per vector", format=","),
        alt.Tooltip("storage_saved_said:N", title="storage saved"),
    ]
    share = alt.Y(
        "kept:Q",
        title="share of the largest dimension",
        axis=alt.Axis(labelExpr="format(100 * datum.value, '.0f') + ' %'"),
    )
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
    unit = " bytes" if width >= WIDE else " B"
    bytes_per_vector = (
        storage.mark_text(dy=-7, baseline="bottom", fontSize=10)
        .encode(y=alt.Y("zero:Q"), text=alt.Text("size:N"), color=alt.value("#6b6250"))
        .transform_calculate(zero="0", size=f"format(datum.bytes_per_vector, ',') + '{unit}'")
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
                legend=alt.Legend(
                    title=None,
                    labelExpr=f"{labels}[datum.label]",
                    labelLimit=0,
                    direction="horizontal" if width >= WIDE else "vertical",
                ),
            ),
            tooltip=tooltip,
        )
    )
    figures = [
        alt.Chart(shown.filter(is_higher=is_higher).unique("dimension", maintain_order=True))
        .mark_text(dy=dy, fontSize=10)
        .encode(x=x, y=share, text=alt.Text("kept_said:N"), color=alt.value(INK))
        for is_higher, dy in ((True, -12), (False, 13))
    ]
    layers = (storage, bytes_per_vector, lines, *figures)
    chart = alt.layer(*layers).properties(width=width - 80, height=300)
    return _dress(chart, "What shorter vectors keep, and what they cost", split, questions, width)


def learning_chart(
    points: pl.DataFrame, split: str, questions: int, width: int = WIDE
) -> alt.LayerChart:
    """NDCG@10 by the number of pairs that were trained on, alone and in hybrid search.

    points: as `curve_points` gives them. As many pairs of fewer documents are a point of their own,
    beside the line.
    """
    import altair as alt

    called = {"alone": "the model alone", "hybrid": "with bm25"}
    scored = [name for name in called if points[name].null_count() == 0]
    shown = points.unpivot(
        on=scored, index=["part", "pairs", "documents"], variable_name="search", value_name="score"
    ).with_columns(pl.col("search").replace(called))
    names = [called[name] for name in scored]
    encoding = {
        "x": alt.X("pairs:Q", title="pairs trained on", axis=alt.Axis(tickCount=6)),
        "y": alt.Y("score:Q", title="NDCG@10 (1 is perfect)", scale=alt.Scale(zero=False)),
        "color": alt.Color(
            "search:N",
            scale=alt.Scale(domain=names, range=[BLUE, _OTHERS_SAND][: len(names)]),
            legend=alt.Legend(title=None),
        ),
        "tooltip": [
            alt.Tooltip("part:N", title="trained on"),
            *(alt.Tooltip(f"{name}:Q", format=",") for name in ("pairs", "documents")),
            alt.Tooltip("search:N"),
            alt.Tooltip("score:Q", format=".4f"),
        ],
    }
    is_fewer = pl.col("part") == FEWER_DOCUMENTS
    line, fewer = alt.Chart(shown.filter(~is_fewer)), shown.filter(is_fewer)
    layers = [line.mark_line(point={"size": 60}).encode(**encoding)]
    title = "What more pairs give"
    if fewer.height:  # a layer without points has no extent, of which the browser complains
        diamonds = alt.Chart(fewer).mark_point(size=70, shape="diamond")
        layers.append(diamonds.encode(**encoding))
        title += " (diamonds: as many of fewer documents)"
    chart = alt.layer(*layers).properties(width=width - 80, height=260)
    return _dress(chart, title, split, questions, width)


def _rows_of(frame: pl.DataFrame, split: str) -> pl.DataFrame:
    """The split's rows, NaN as null since JSON has no NaN. Raises ValueError if there are none."""
    found = frame.filter(split=split).with_columns(pl.selectors.float().fill_nan(None))
    if found.is_empty():
        splits = ", ".join(frame["split"].unique().sort()) or "none"
        raise ValueError(f"No figures to draw for split {split!r}; there are some for: {splits}.")
    return found


def _percent(name: str) -> pl.Expr:
    """A share as it is written: `94.2 %`."""
    return pl.format("{} %", (100 * pl.col(name)).round(1))


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
            change=pl.col("difference_percent").map_elements(
                signed_percent, return_dtype=pl.String
            ),
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
        alt.Tooltip("change:N", title="tuned against base, relative"),
    ]


def _dress(chart: Any, title: str, split: str, questions: int, width: int) -> Any:
    """The chart with its title, its split and the number of questions in it."""
    what = SPLIT_TITLES.get(split, f"questions of {split}")
    if questions == 1:
        what = what.replace("questions", "question", 1)
    dressed = dress(chart, title, f"{questions:,} {what}")
    if width < WIDE:
        dressed.title.fontSize = 12
    return dressed
