"""What a ranking is worth: the retrieval metrics, one number per question.

Formulas over arrays, nothing else: searching, truncating and averaging are in `retrieval`.

All functions but the graded one read the same two arrays. `hits`, bool of shape (questions,
retrieved), says whether the chunk at each place answers the question, the best place first.
`relevant_counts`, integers of shape (questions,), says how many chunks answer it, retrieved or not:
at least one. Where a corpus is smaller than k, the places it cannot fill count as misses. All
results are float64 of shape (questions,), between 0 and 1.

The definitions are those of sentence-transformers' InformationRetrievalEvaluator, which calls the
hit rate accuracy and has no F1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]
Counts = NDArray[np.int64]
Gains = NDArray[np.float64]
Values = NDArray[np.float64]

SHALLOW_CUTOFFS = (1, 3, 5, 10)
"""The k of accuracy, hit_rate, precision, recall and f1."""

DEPTH = 100
"""How many chunks are retrieved for each question: the largest k of any metric."""


def hit_rate(hits: Hits, k: int) -> Values:
    """1 where a relevant chunk is among the first k, else 0: sentence-transformers' accuracy."""
    return (hits[:, :k].sum(axis=1) > 0).astype(np.float64)


def precision(hits: Hits, k: int) -> Values:
    """Share of the first k places that hold a relevant chunk. Manning et al. 2008, section 8.4."""
    return hits[:, :k].sum(axis=1) / k


def recall(hits: Hits, relevant_counts: Counts, k: int) -> Values:
    """Share of the relevant chunks that are among the first k. Manning et al. 2008, section 8.4."""
    return hits[:, :k].sum(axis=1) / relevant_counts


def f1(hits: Hits, relevant_counts: Counts, k: int) -> Values:
    """Harmonic mean of each question's own precision and recall at k; 0 where both are 0.

    Averaged over questions this is the mean of the F1s, not the F1 of the mean precision and the
    mean recall, which some recipes report and which is larger or equal. van Rijsbergen 1979.
    """
    # 2PR / (P + R) with P = found / k and R = found / relevant, without the 0 / 0.
    return 2 * hits[:, :k].sum(axis=1) / (k + relevant_counts)


def reciprocal_rank(hits: Hits, k: int) -> Values:
    """1 / rank of the first relevant chunk, 0 where none is among the first k. Voorhees 1999."""
    ranks = first_ranks(hits[:, :k])
    return np.divide(1.0, ranks, out=np.zeros(len(ranks)), where=ranks > 0)


def ndcg(hits: Hits, relevant_counts: Counts, k: int) -> Values:
    """Normalised discounted cumulative gain at k, with gain 1 and discount log2(rank + 1).

    The ideal ranking has min(k, relevant) relevant chunks on top. Järvelin & Kekäläinen 2002.
    """
    return graded_ndcg(hits, np.arange(k) < relevant_counts[:, None], k)


def graded_ndcg(gains: Gains | Hits, relevant_gains: Gains | Hits, k: int) -> Values:
    """Normalised discounted cumulative gain at k where some chunks are more relevant than others.

    gains, (questions, retrieved): how relevant the chunk at each place is, 0 for not at all.
    relevant_gains, (questions, most relevant chunks of a question): those of all relevant chunks,
    retrieved or not, the largest first, 0 where a question has fewer; at least one is positive.
    The gain is linear, as in trec_eval and so in BEIR's figures. Järvelin & Kekäläinen 2002.
    """
    return _discounted(gains[:, :k]) / _discounted(relevant_gains[:, :k])


def average_precision(hits: Hits, relevant_counts: Counts, k: int) -> Values:
    """Sum of the precisions at the ranks of the relevant chunks up to k, over min(k, relevant).

    Manning et al. 2008, section 8.4; cut off at k as sentence-transformers does.
    """
    top = hits[:, :k]
    ranks = np.arange(1, k + 1)[: hits.shape[1]]
    precisions: Values = np.divide(top.cumsum(axis=1), ranks)
    return np.sum(precisions, axis=1, where=top) / np.minimum(relevant_counts, k)


def first_ranks(hits: Hits) -> NDArray[np.int64]:
    """Rank, from 1, of each question's first relevant chunk; 0 where none was retrieved."""
    if hits.shape[1] == 0:
        return np.zeros(len(hits), dtype=np.int64)
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0).astype(np.int64)


def score_questions(hits: Hits, relevant_counts: Counts) -> dict[tuple[str, int], Values]:
    """Every metric at every cutoff that we report: (metric, k) to one value per question.

    accuracy and hit_rate are one number under two names, since recipes report both.
    """
    values: dict[tuple[str, int], Values] = {}
    for k in SHALLOW_CUTOFFS:
        values["accuracy", k] = values["hit_rate", k] = hit_rate(hits, k)
        values["precision", k] = precision(hits, k)
        values["recall", k] = recall(hits, relevant_counts, k)
        values["f1", k] = f1(hits, relevant_counts, k)
    values["ndcg", 10] = ndcg(hits, relevant_counts, 10)
    values["mrr", 10] = reciprocal_rank(hits, 10)
    values["map", DEPTH] = average_precision(hits, relevant_counts, DEPTH)
    return values


def padded(rows: Sequence[Sequence[float]]) -> Gains:
    """Rows of different lengths as one array, filled up with 0."""
    array = np.zeros((len(rows), max(map(len, rows), default=0)))
    for target, row in zip(array, rows, strict=True):
        target[: len(row)] = row
    return array


def _discounted(gains: Gains | Hits) -> Values:
    """Sum of each question's gains, (questions, places), each over log2(rank + 1)."""
    return gains @ (1.0 / np.log2(np.arange(2, gains.shape[1] + 2)))
