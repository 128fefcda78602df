"""Hard negatives: chunks that the base model takes for an answer, and that are none.

Only chunks that are trained on may be one: a chunk held out for a test must not be pushed away from
questions. What scores nearly as well as the true answer often is one, so it is left alone
(positive-aware mining: Moreira et al. 2024, NV-Retriever, 'TopK-PercPos').
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np

POSITIVE_SHARE = 0.95
"""A negative scores at most this share of the positive's cosine."""
BLOCK = 1024
"""Questions scored at a time: bounds the memory, not the result."""


def mine_negatives(
    questions: np.ndarray,
    chunks: np.ndarray,
    chunk_ids: Sequence[str],
    positives: Sequence[str],
    related: Sequence[AbstractSet[str]],
    count: int,
) -> list[list[str]]:
    """Ids of `count` chunks for each question: the best scored among those that may be negatives.

    questions: float (questions, size). chunks: float (chunks, size), of distinct chunk_ids, those
    that are trained on. positives: each question's chunk_id, one of those. related: by question,
    the ids of chunks that are no negatives of it. Where fewer than `count` chunks score low enough,
    the least alike of the rest fill up. ValueError where there are not `count` unrelated chunks.
    """
    place_of = {chunk_id: place for place, chunk_id in enumerate(chunk_ids)}
    chunks = _normalised(chunks)
    mined: list[list[str]] = []
    for start in range(0, len(questions), BLOCK):
        scores = _normalised(questions[start : start + BLOCK]) @ chunks.T
        for row, mine, positive in zip(
            scores, related[start : start + BLOCK], positives[start : start + BLOCK], strict=True
        ):
            best = row[place_of[positive]]
            row[[place_of[other] for other in mine | {positive} if other in place_of]] = np.nan
            hardest = _hardest(row, best - (1 - POSITIVE_SHARE) * abs(best), count)
            mined.append([chunk_ids[place] for place in hardest])
    return mined


def _hardest(scores: np.ndarray, most: float, count: int) -> list[int]:
    """Places of the `count` largest scores up to `most`, then of the smallest above it."""
    allowed = np.flatnonzero(~np.isnan(scores))
    if len(allowed) < count:
        raise ValueError(
            f"{count} hard negatives are wanted and only {len(allowed)} chunks are no answer."
        )
    low = allowed[scores[allowed] <= most]
    high = allowed[scores[allowed] > most]
    if len(low) > count:
        low = low[np.argpartition(-scores[low], count - 1)[:count]]
    low = low[np.lexsort((low, -scores[low]))]
    high = high[np.argsort(scores[high], kind="stable")]
    return [int(place) for place in [*low, *high][:count]]


def _normalised(embeddings: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.maximum(norms, 1e-12)
