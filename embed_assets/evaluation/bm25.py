"""BM25: what plain words find, without any model."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from embed_assets.evaluation.metrics import DEPTH
from embed_assets.evaluation.retrieval import (
    NO_DIMENSION,
    Evaluation,
    evaluate_rankings,
    without_own,
)
from embed_assets.lexical import find_by_words

BM25 = "bm25"


def bm25_rankings(
    queries: Sequence[str], corpus: Mapping[str, str], k: int = DEPTH
) -> list[list[str]]:
    """Ids of the k texts of the corpus that BM25 ranks best for each query, the best first.

    A text that shares no word with a query is not found, so a list may be shorter than k. Equal
    scores stand in the order of the ids.
    """
    ids, found = find_by_words(queries, corpus, k)
    return [[ids[row] for row in rows] for rows, _ in found]


def evaluate_bm25(
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    relevant: Mapping[str, AbstractSet[str]],
    splits: Sequence[str] | None = None,
    own: Mapping[str, str] | None = None,
) -> Evaluation:
    """BM25's scores under NO_DIMENSION. queries, corpus: texts by id; the rest as in `evaluate`."""
    rankings = bm25_rankings(list(queries.values()), corpus, DEPTH + bool(own))
    rankings = without_own(rankings, list(queries), own)
    return evaluate_rankings(rankings, list(queries), relevant, NO_DIMENSION, splits)
