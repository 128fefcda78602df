"""How good the model is while it is trained: validation questions, one encoding, all dimensions."""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import polars as pl

from embed_assets.evaluation.retrieval import evaluate
from embed_assets.machine import Machine
from embed_assets.models.encoder import encode
from embed_assets.training.config import TrainingConfig

BEST_METRIC = "ndcg@10"
"""NDCG@10 at the largest dimension: what epochs and merges are chosen by."""


class Validation:
    """Scores a model in training on the validation questions."""

    def __init__(
        self, config: TrainingConfig, precision: str, machine: Machine | None = None
    ) -> None:
        self._config, self._precision, self._machine = config, precision, machine
        self._questions = pl.read_parquet(config.validation)
        self._corpus = pl.read_parquet(config.corpus)

    def score(self, model: Any) -> dict[str, float]:
        """NDCG@10 by sentence-transformers' name of each dimension, and BEST_METRIC."""
        config = self._config
        embed = functools.partial(encode, model, precision=self._precision, machine=self._machine)
        by_dimension = ndcg_by_dimension(
            embed(self._questions["anchor"].to_list(), "query", config.query_prompt),
            embed(self._corpus["chunk_text"].to_list(), "document", config.document_prompt),
            self._questions,
            self._corpus,
            config.dimensions,
        )
        figures = {f"dim_{d}_cosine_ndcg@10": score for d, score in by_dimension.items()}
        return {BEST_METRIC: by_dimension[max(by_dimension)], **figures}


def ndcg_by_dimension(
    queries: np.ndarray,
    documents: np.ndarray,
    questions: pl.DataFrame,
    corpus: pl.DataFrame,
    dimensions: Sequence[int],
) -> dict[int, float]:
    """NDCG@10 of embedded questions (question_id, relevant_chunk_ids) in a corpus (chunk_id)."""
    ids = questions["question_id"].to_list()
    relevant = dict(zip(ids, map(set, questions["relevant_chunk_ids"].to_list()), strict=True))
    chunk_ids = corpus["chunk_id"].to_list()
    scores = evaluate(queries, documents, ids, chunk_ids, relevant, dimensions).scores
    return dict(scores.filter(metric="ndcg").select("dimension", "score").iter_rows())


def evaluator(validation: Validation, pause: Callable[[], AbstractContextManager[None]]) -> Any:
    """The validation as the trainer's evaluator; `pause` is entered while it runs."""
    from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

    class ValidationEvaluator(SentenceEvaluator):
        primary_metric = BEST_METRIC

        def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
            with pause():
                return validation.score(model)

    return ValidationEvaluator()
