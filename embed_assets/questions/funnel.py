"""From what was generated to what is kept: how many questions each reason cost, as a chart too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import polars as pl

from embed_assets.charts import BLUE, GREY, INK, dress
from embed_assets.questions import statuses as status
from embed_assets.questions.labelled.evidence import LABELLED

if TYPE_CHECKING:
    import altair as alt

GENERATED, ASKED, KEPT = "generated", "asked by people", "kept"

REASONS: Mapping[str, str] = {
    status.NOT_ASKED: "not asked",
    status.FAILED: "failed call",
    status.UNREADABLE: "unreadable reply",
    status.EVIDENCE_NOT_FOUND: "evidence not found",
    status.TOO_VAGUE: "too vague to train on",
    status.REJECTED_BY_REVIEWER: "rejected by a reviewer",
    status.UNANSWERABLE: "unanswerable",
    status.POINTS_AT_TEXT: "points at the text",
    status.VERBATIM: "quotes its chunk",
    status.JUDGED_POOR: "judged poor",
    status.DUPLICATE: "duplicate",
    status.NEAR_DUPLICATE: "near-duplicate",
    status.ROUND_TRIP_FAILED: "doesn't find its chunk",
}
"""What each status but KEPT is called in the chart, in the order in which questions are dropped."""


def funnels(questions: pl.DataFrame) -> pl.DataFrame:
    """`funnel` of the questions that were generated, then of those that people asked, if any.

    questions: kind, status. Returns the columns of `funnel`, and origin: GENERATED or ASKED.
    """
    by_people = pl.col("kind") == LABELLED
    parts = {GENERATED: questions.filter(~by_people), ASKED: questions.filter(by_people)}
    return pl.concat(
        funnel(part["status"], origin).with_columns(origin=pl.lit(origin))
        for origin, part in parts.items()
        if part.height or origin == GENERATED
    )


def funnel(statuses: Iterable[str], origin: str = GENERATED) -> pl.DataFrame:
    """How many questions each reason dropped, and how many remained after it.

    statuses: one per question. Returns stage, remaining, dropped: the origin first, then every
    reason that dropped any, in order, and `kept` last. A status that this module doesn't know
    stands under its own name before `kept`, so that the figures always add up.
    """
    counts = Counter(statuses)
    unknown = sorted(set(counts) - set(REASONS) - {status.KEPT})
    remaining = counts.total()
    rows = [(origin, remaining, 0)]
    for reason in (*REASONS, *unknown):
        if counts[reason]:
            remaining -= counts[reason]
            rows.append((REASONS.get(reason, reason), remaining, counts[reason]))
    rows.append((KEPT, remaining, 0))
    schema = {"stage": pl.String, "remaining": pl.Int64, "dropped": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def funnel_chart(stages: pl.DataFrame) -> alt.FacetChart:
    """Horizontal bars, a stage of `funnels` each: what remains and what was dropped, in figures."""
    import altair as alt

    y = alt.Y("stage:N", sort=stages["stage"].to_list(), title=None, axis=alt.Axis(labelLimit=0))
    chart = alt.Chart()
    bars = (
        chart.transform_fold(["remaining", "dropped"], as_=["group", "questions"])
        .mark_bar(height={"band": 0.72})
        .encode(
            x=alt.X("questions:Q", title="questions", axis=alt.Axis(format=",d", tickCount=6)),
            y=y,
            color=alt.Color(
                "group:N",
                scale=alt.Scale(domain=["remaining", "dropped"], range=[BLUE, GREY]),
                legend=alt.Legend(title=None),
            ),
            order=alt.Order("group:N", sort="descending"),
            tooltip=["stage:N", "group:N", alt.Tooltip("questions:Q", format=",")],
        )
    )
    counts = (
        chart.transform_calculate(
            end="datum.remaining + datum.dropped",
            lost="datum.dropped ? ' (−' + format(datum.dropped, ',') + ')' : ''",
            count="format(datum.remaining, ',') + datum.lost",
        )
        .mark_text(align="left", dx=5, fontSize=11, color=INK)
        .encode(x="end:Q", y=y, text="count:N")
    )
    layers = alt.layer(bars, counts, data=stages).properties(width=620, height=alt.Step(26))
    by_origin = layers.facet(
        row=alt.Row(
            "origin:N", sort=[GENERATED, ASKED], title=None, header=alt.Header(labels=False)
        )
    ).resolve_scale(x="independent", y="independent")
    return dress(by_origin, "From all questions to those kept", "what dropped how many")


def funnel_lines(stages: pl.DataFrame) -> list[str]:
    """A line for each origin in `funnels`: its stages with what remained."""
    return [
        ", ".join(f"{stage} {n:,}" for stage, n in part.select("stage", "remaining").iter_rows())
        for part in stages.partition_by("origin", maintain_order=True)
    ]
