"""Search by words on a task: BM25 alone, and fused with a model's search (hybrid search)."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from embed_assets import lexical
from embed_assets.evaluation import fusion
from embed_assets.evaluation.bm25 import BM25
from embed_assets.evaluation.retrieval import (
    NO_DIMENSION,
    Evaluation,
    evaluate_rankings,
    top_k,
    without_own,
)
from embed_assets.evaluation.scoring import RetrievalTask, measured_by
from embed_assets.models.encoder import Encoder
from embed_assets.resources.warehouse import Warehouse

HYBRID = "hybrid"
BASE_HYBRID, TUNED_HYBRID = (f"{model} + {BM25}" for model in ("base", "tuned"))
"""What the tables call hybrid search with the two models of a training."""


def score_words(task: RetrievalTask) -> Evaluation:
    """Figures of BM25 on a task, under NO_DIMENSION."""
    _, found = task.found_by_words
    return _score(task, (rows for rows, _ in found), NO_DIMENSION)


def score_hybrid(task: RetrievalTask, encoder: Encoder, dense_weight: float) -> Evaluation:
    """Figures of a model's search fused with BM25's, at the model's full size.

    Texts that the model encoded before are not encoded again.
    """
    return score_weights(task, encoder, [dense_weight])[0]


def score_weights(
    task: RetrievalTask, encoder: Encoder, dense_weights: Sequence[float]
) -> list[Evaluation]:
    """Like `score_hybrid`, for each weight."""
    ids, by_words = task.found_by_words
    corpus = encoder.encode_documents([task.texts[key] for key in ids], "Encoding chunks")
    size = corpus.shape[1]
    if not by_words:
        return [_score(task, [], size)] * len(dense_weights)
    queries = encoder.encode_queries(list(task.queries.values()), "Encoding questions")
    k = fusion.CANDIDATES + bool(task.own)
    dense = list(zip(*top_k(queries, corpus, k), strict=True))
    return [
        _score(
            task,
            (fusion.fuse(*both, k, weight)[0] for both in zip(dense, by_words, strict=True)),
            size,
        )
        for weight in dense_weights
    ]


def hybrid_identity(encoder: Encoder, dense_weight: float) -> str:
    """What decides the rankings of hybrid search: the model, BM25 and how they are fused."""
    return f"{encoder.identity}, {lexical.IDENTITY}, {fusion.identity(dense_weight)}"


def measured_hybrid(
    warehouse: Warehouse,
    task: RetrievalTask,
    encoder: Encoder,
    dense_weight: float,
    *,
    run_id: str,
    model: str,
) -> Evaluation:
    """Like `measured`, for a model's search fused with BM25's."""
    return measured_by(
        lambda: score_hybrid(task, encoder, dense_weight),
        hybrid_identity(encoder, dense_weight),
        warehouse,
        task,
        run_id=run_id,
        model=model,
    )


def _score(task: RetrievalTask, found: Iterable[NDArray[np.int64]], dimension: int) -> Evaluation:
    """found: for each question the rows that were found, the best first."""
    ids, questions = task.found_by_words[0], list(task.queries)
    rankings = without_own([[ids[row] for row in rows] for rows in found], questions, task.own)
    return evaluate_rankings(rankings, questions, task.relevant, dimension, task.splits)
