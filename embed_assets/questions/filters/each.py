"""What can be said of a question and its chunk alone, when the question is made."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import polars as pl

from embed_assets.questions.filters.pointing import points_at_text
from embed_assets.questions.labelled.evidence import LABELLED
from embed_assets.questions.statuses import KEPT, POINTS_AT_TEXT, UNANSWERABLE, VERBATIM
from embed_assets.settings import EXTRACTIVE
from embed_assets.words import count_words, normalised_words

QUOTED_SHARE = 0.8
LEAST_QUOTED_WORDS = 5


def filter_each(
    questions: pl.DataFrame, chunk_texts: Mapping[str, str], enabled: AbstractSet[str]
) -> pl.DataFrame:
    """The questions with the status that each has by itself: unanswerable, pointing, verbatim.

    questions: question, chunk_id, kind, generator, status and, where the generator says so,
    answerable (bool; null counts as answerable). chunk_texts: chunk_id -> text. Rows that are not
    KEPT, and people's questions, stay as they are.
    """
    status = [
        _status_of(row, chunk_texts.get(row["chunk_id"], ""), enabled)
        if row["status"] == KEPT and row["kind"] != LABELLED
        else row["status"]
        for row in questions.iter_rows(named=True)
    ]
    return questions.with_columns(pl.Series("status", status, pl.String))


def _status_of(row: Mapping[str, Any], chunk_text: str, enabled: AbstractSet[str]) -> str:
    if "unanswerable" in enabled and row.get("answerable") is False:
        return UNANSWERABLE
    if "pointing" in enabled and points_at_text(row["question"]):
        return POINTS_AT_TEXT
    judged = "verbatim" in enabled and row["generator"] != EXTRACTIVE
    if judged and quotes(row["question"], chunk_text):
        return VERBATIM
    return KEPT


def quotes(question: str, text: str) -> bool:
    """Whether the text holds 80 % of the question's words in one run, and the question has five.

    Words are compared without case, signs and markup. Four words in five leave room for `What is`
    before a clause that was copied, and not for a question that only names what it asks about.
    """
    words = normalised_words(question)
    if count_words(question) < LEAST_QUOTED_WORDS:
        return False
    length = max(1, int(np.ceil(QUOTED_SHARE * len(words))))
    within = f" {' '.join(normalised_words(text))} "
    starts = range(len(words) - length + 1)
    return any(f" {' '.join(words[start : start + length])} " in within for start in starts)
