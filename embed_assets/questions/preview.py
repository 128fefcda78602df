"""What a person sees first of a document's questions: some of them, and why others were dropped."""

from collections import Counter
from collections.abc import Iterable

import polars as pl

from embed_assets.questions.funnel import REASONS
from embed_assets.questions.labelled.evidence import LABELLED
from embed_assets.questions.statuses import KEPT

SHOWN = 5
"""Questions of a document that are shown, at most."""


def dropped_questions(statuses: Iterable[str]) -> pl.DataFrame:
    """Reason in words and number of questions, in the order in which questions are dropped.

    statuses: one per question.
    """
    counts = Counter(statuses)
    order = [*REASONS, *sorted(set(counts) - set(REASONS) - {KEPT})]
    rows = [(REASONS.get(status, status), counts[status]) for status in order if counts[status]]
    return pl.DataFrame(rows, {"reason": pl.String, "questions": pl.Int64}, orient="row")


def first_questions(questions: pl.DataFrame, chunks: pl.DataFrame) -> pl.DataFrame:
    """The first questions of a document: page, question, by, status in words, chunk (its text).

    Those that people wrote come first, then those that are kept, each in the order of their chunks.
    """
    places = chunks.unique("chunk_id", keep="first", maintain_order=True).select(
        "chunk_id", "chunk_index", page="page_start", chunk="chunk_text"
    )
    by_people = pl.col("kind") == LABELLED
    return (
        questions.join(places, on="chunk_id", how="left")
        .sort(~by_people, pl.col("status") != KEPT, "chunk_index", "question_id", nulls_last=True)
        .head(SHOWN)
        .select(
            "page",
            "question",
            by=pl.when(by_people).then(pl.lit("a person")).otherwise(pl.col("generator")),
            status=pl.col("status").replace({KEPT: "kept", **REASONS}),
            chunk="chunk",
        )
    )
