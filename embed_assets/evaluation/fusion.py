"""Fusion: one ranking of two, for search by meaning and by words together (hybrid search)."""

import numpy as np
from numpy.typing import NDArray

Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows of a corpus and their scores, the best first."""
CANDIDATES = 100
"""How many rows of each list are fused."""
RANK_CONSTANT = 10


def fuse(dense: Found, lexical: Found, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k best rows of two rankings of one corpus, and their fused scores; equal ones by row.

    Reciprocal rank fusion: a row's score is the sum of 1 / (RANK_CONSTANT + rank) over the lists
    that hold it. Cormack, Clarke & Buettcher 2009.
    """
    rows = np.unique(np.concatenate([dense[0], lexical[0]]))
    scores = np.zeros(len(rows))
    for found, _ in (dense, lexical):
        scores[np.searchsorted(rows, found)] += 1 / (RANK_CONSTANT + 1 + np.arange(len(found)))
    best = np.argsort(-scores, kind="stable")[:k]
    return rows[best], scores[best]
