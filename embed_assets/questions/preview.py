"""What a person sees first of a document's questions: some of them, and why others were dropped."""

from collections import Counter
from collections.abc import Iterable

import polars as pl

from embed_assets.questions.labelled.evidence import LABELLED
from embed_assets.questions.statuses import DROPPED, KEPT, in_order, in_words

SHOWN = 5
"""Questions of a document that are shown, at most."""


def dropped_questions(statuses: Iterable[str]) -> pl.DataFrame:
    """Reason in words and number of questions, in the order in which questions are dropped.

    statuses: one per question.
    """
    counts = Counter(statuses)
    rows = [(in_words(status), counts[status]) for status in in_order(counts)]
    return pl.DataFrame(rows, {"reason": pl.String, "questions": pl.Int64}, orient="row")


def first_questions(questions: pl.DataFrame, chunks: pl.DataFrame) -> pl.DataFrame:
    """Questions of a document: page, question, by, purpose, status in words, chunk (its text).

    Some of each purpose and writer: of each the kept ones first, in the order of their chunks.
    People's stand first.
    """
    places = chunks.unique("chunk_id", keep="first", maintain_order=True).select(
        "chunk_id", "chunk_index", page="page_start", chunk="chunk_text"
    )
    by_people = pl.col("kind").eq_missing(LABELLED)
    by = pl.when(by_people).then(pl.lit("a person")).otherwise(pl.col("generator"))
    first = (~by_people, pl.col("status") != KEPT, "chunk_index", "question_id")
    return (
        questions.join(places, on="chunk_id", how="left")
        .with_columns(by=by)
        .sort(first, nulls_last=True)
        .with_columns(turn=pl.int_range(pl.len()).over("by", "purpose"))
        .sort("turn", maintain_order=True)
        .head(SHOWN)
        .sort(first, nulls_last=True)
        .select(
            "page",
            "question",
            "by",
            "purpose",
            status=pl.col("status").replace({KEPT: in_words(KEPT), **DROPPED}),
            chunk="chunk",
        )
    )
