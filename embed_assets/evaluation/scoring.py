"""Scores a model on every held-out question of the warehouse, against all chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from embed_assets.evaluation.retrieval import Evaluation, evaluate, sentence_transformers_name
from embed_assets.resources.embeddings import CachedEncoder
from embed_assets.resources.encoder import ModelCard
from embed_assets.resources.tracking import metric_name
from embed_assets.resources.warehouse import Warehouse


@dataclass(frozen=True, eq=False)
class RetrievalTask:
    """Questions to score and the corpus to search.

    questions: question_id, anchor, relevant_chunk_ids, split. corpus: chunk_id, chunk_text, one
    row per distinct text.
    """

    questions: pl.DataFrame
    corpus: pl.DataFrame


def retrieval_task(warehouse: Warehouse) -> RetrievalTask:
    """Every question that isn't trained on, and all chunks."""
    return RetrievalTask(
        questions=warehouse.read(
            "SELECT question_id, anchor, relevant_chunk_ids, split FROM training_pairs "
            "WHERE split <> 'train' ORDER BY split, question_id"
        ),
        corpus=warehouse.corpus(),
    )


def score_model(
    warehouse: Warehouse,
    task: RetrievalTask,
    source: str,
    card: ModelCard,
    precision: Literal["auto", "fp32", "bf16"],
    dimensions: Sequence[int],
) -> Evaluation:
    """Figures of the model at `source` on a task.

    Each text is encoded once, whatever the dimensions; those that it encoded before, not at all.
    """
    encoder = CachedEncoder(warehouse, source, card, precision)
    corpus = encoder.encode_documents(task.corpus["chunk_text"].to_list(), "Encoding chunks")
    queries = encoder.encode_queries(task.questions["anchor"].to_list(), "Encoding questions")
    ids = task.questions["question_id"].to_list()
    relevant = task.questions["relevant_chunk_ids"].to_list()
    return evaluate(
        queries,
        corpus,
        ids,
        task.corpus["chunk_id"].to_list(),
        dict(zip(ids, map(set, relevant), strict=True)),
        dimensions,
        task.questions["split"].to_list(),
    )


def store(warehouse: Warehouse, evaluation: Evaluation, model: str, run_id: str) -> None:
    """Write a model's figures and its results by question. model: base or tuned."""
    labels = (pl.lit(run_id).alias("run_id"), pl.lit(model).alias("model"))
    slice_of_run = {"run_id": [run_id], "model": [model]}
    for table, frame in (
        ("evaluation_results", evaluation.scores),
        ("query_results", evaluation.queries),
    ):
        warehouse.replace(table, frame.with_columns(*labels), where=slice_of_run)


def mlflow_metrics(scores: pl.DataFrame) -> dict[str, float]:
    """Figures by their name in MLflow."""
    return {
        metric_name(split, sentence_transformers_name(dimension, metric, k)): score
        for split, dimension, metric, k, score in scores.select(
            "split", "dimension", "metric", "k", "score"
        ).iter_rows()
    }


def ndcg_table(scores: pl.DataFrame) -> str:
    """NDCG@10 by split and dimension as a markdown table."""
    ndcg = scores.filter(pl.col("metric") == "ndcg")
    splits = sorted(ndcg["split"].unique())
    lines = [f"| dimension | {' | '.join(splits)} |", "| ---: |" + " ---: |" * len(splits)]
    for dimension in sorted(ndcg["dimension"].unique(), reverse=True):
        row = dict(
            ndcg.filter(pl.col("dimension") == dimension).select("split", "score").iter_rows()
        )
        lines.append(f"| {dimension} | {' | '.join(f'{row[s]:.4f}' for s in splits)} |")
    return "\n".join(lines)
