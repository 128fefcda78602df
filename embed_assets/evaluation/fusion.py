"""Fusion: one ranking of two, for search by meaning and by words together (hybrid search)."""

import numpy as np
from numpy.typing import NDArray

from embed_assets.lexical import Found

CANDIDATES = 100
"""How many rows of each list are fused."""


def identity(dense_weight: float) -> str:
    """What identifies these rankings; to be changed where they change."""
    return f"min-max {dense_weight} of {CANDIDATES}"


def fuse(
    dense: Found, lexical: Found, k: int, dense_weight: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k best rows of two rankings of one corpus, and their fused scores; equal ones by row.

    Of each list the first CANDIDATES count: scores from 0 (the last of them) to 1 (the first), 0
    for a row that the list lacks. A fused score is their mean, weighted by dense_weight (0 to 1)
    and the rest of 1, so it is 1 for what is first in both; scores of different queries can't be
    compared. Rows beyond follow by their rank, with 0: however many are asked for, the first are
    the same. Lee 1997 (CombSUM on min-max scores); Bruch, Gai & Ingber 2023, who find such sums
    better than reciprocal ranks (Cormack et al. 2009) and little dependent on how scores are
    normalised.

    Chosen, with a weight of .5, on cranfield, ohr_law and the sample's base model, where its mean
    NDCG@10 was .023 above the best of the reciprocal ranks; benchmarks/fusion.py, docs/results.md.
    """
    lists = [(found[:CANDIDATES], scores[:CANDIDATES]) for found, scores in (dense, lexical)]
    rows = np.unique(np.concatenate([found for found, _ in lists]))
    fused = np.zeros(len(rows))
    for (found, scores), weight in zip(lists, (dense_weight, 1 - dense_weight), strict=True):
        fused[np.searchsorted(rows, found)] += weight * _from_0_to_1(scores.astype(np.float64))
    best = np.argsort(-fused, kind="stable")[:k]
    rest = _in_turn(dense[0][CANDIDATES:], lexical[0][CANDIDATES:])
    rest = rest[~np.isin(rest, rows)][: k - len(best)]
    return np.concatenate([rows[best], rest]), np.append(fused[best], np.zeros(len(rest)))


def _in_turn(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of two rankings, each once, by the better of its ranks."""
    ranks = np.append(np.arange(len(one)), np.arange(len(other)))
    rows = np.append(one, other)[np.argsort(ranks, kind="stable")]
    return rows[np.sort(np.unique(rows, return_index=True)[1])]


def _from_0_to_1(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores between those of the last and the first; 1 where all are equal."""
    spread = np.ptp(scores) if len(scores) else 0.0
    return (scores - scores.min()) / spread if spread > 0 else np.ones(len(scores))
