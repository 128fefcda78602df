"""From what came to what is kept: how many questions each reason dropped, in figures and a chart.

Beside a reason always stands how many it dropped, in every form of the funnel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import polars as pl

from embed_assets.charts import BLUE, GREY, INK, dress
from embed_assets.questions.statuses import KEPT, in_order, in_words

if TYPE_CHECKING:
    import altair as alt

GENERATED, ASKED = "generated", "asked by people"


def funnels(generated: Iterable[str], asked: Iterable[str]) -> pl.DataFrame:
    """`funnel` of the questions that were generated, then of those that people asked, if any.

    generated, asked: a status per question. Returns the columns of `funnel`, and origin: GENERATED
    or ASKED.
    """
    parts = {GENERATED: list(generated), ASKED: list(asked)}
    return pl.concat(
        funnel(statuses, origin).with_columns(origin=pl.lit(origin))
        for origin, statuses in parts.items()
        if statuses or origin == GENERATED
    )


def funnel(statuses: Iterable[str], origin: str = GENERATED) -> pl.DataFrame:
    """How many questions came, how many each reason dropped, and how many are kept.

    statuses: one per question. Returns stage, questions (that came, were dropped, are kept),
    remaining and dropped: the origin first, then every reason that dropped any, in order, and
    `kept` last.
    """
    counts = Counter(statuses)
    remaining = counts.total()
    rows = [(origin, remaining, remaining, 0)]
    for status in in_order(counts):
        dropped = counts[status]
        remaining -= dropped
        rows.append((in_words(status), dropped, remaining, dropped))
    rows.append((in_words(KEPT), remaining, remaining, 0))
    figures = dict.fromkeys(("questions", "remaining", "dropped"), pl.Int64)
    return pl.DataFrame(rows, schema={"stage": pl.String, **figures}, orient="row")


def funnel_chart(stages: pl.DataFrame) -> alt.VConcatChart:
    """Horizontal bars, a stage of `funnels` each: what remains and what was dropped, in figures."""
    import altair as alt

    panels = [_panel(part) for part in stages.partition_by("origin", maintain_order=True)]
    title = "From all questions to those kept"
    return dress(alt.vconcat(*panels), title, "what dropped how many")


def _panel(stages: pl.DataFrame) -> alt.FacetChart | alt.LayerChart:
    """The stages of one origin, in their order."""
    import altair as alt

    y = alt.Y("stage:N", sort=stages["stage"].to_list(), title=None, axis=alt.Axis(labelLimit=0))
    chart = alt.Chart()
    bars = (
        chart.transform_fold(["remaining", "dropped"], as_=["group", "count"])
        .mark_bar(height={"band": 0.72})
        .encode(
            x=alt.X("count:Q", title="questions", axis=alt.Axis(format=",d", tickCount=6)),
            y=y,
            color=alt.Color(
                "group:N",
                scale=alt.Scale(domain=["remaining", "dropped"], range=[BLUE, GREY]),
                legend=alt.Legend(title=None),
            ),
            order=alt.Order("group:N", sort="descending"),
            tooltip=["stage:N", "group:N", alt.Tooltip("count:Q", format=",")],
        )
    )
    counts = (
        chart.transform_calculate(
            end="datum.remaining + datum.dropped",
            said="(datum.dropped ? '−' : '') + format(datum.questions, ',')",
        )
        .mark_text(align="left", dx=5, fontSize=11, color=INK)
        .encode(x="end:Q", y=y, text="said:N")
    )
    return alt.layer(bars, counts, data=stages).properties(width=620, height=alt.Step(26))


def funnel_lines(stages: pl.DataFrame, between: str = ", ") -> list[str]:
    """A text for each origin in `funnels`: how many came, were dropped by what, and are kept.

    between: what stands between two stages.
    """
    return [
        between.join(f"{n:,} {stage}" for n, stage in part.select("questions", "stage").iter_rows())
        for part in stages.partition_by("origin", maintain_order=True)
    ]


def funnel_table(stages: pl.DataFrame) -> pl.DataFrame:
    """`funnels` as a person reads a table: stage, questions, remaining."""
    return stages.select("stage", "questions", "remaining")
