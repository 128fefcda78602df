"""Scores a model on every held-out question of the warehouse, against all chunks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from embed_assets.evaluation.retrieval import (
    Evaluation,
    evaluate,
    metric_name,
    sentence_transformers_name,
)
from embed_assets.models.encoder import Encoder
from embed_assets.resources.warehouse import Warehouse


@dataclass(frozen=True, eq=False)
class RetrievalTask:
    """Questions to score and the corpus to search.

    questions: question_id, anchor, relevant_chunk_ids, split. corpus: chunk_id, chunk_text, one
    row per distinct text.
    """

    questions: pl.DataFrame
    corpus: pl.DataFrame

    @cached_property
    def queries(self) -> dict[str, str]:
        """Text of each question by its id."""
        return dict(self.questions.select("question_id", "anchor").iter_rows())

    @cached_property
    def texts(self) -> dict[str, str]:
        """Text of each chunk by its id."""
        return dict(self.corpus.select("chunk_id", "chunk_text").iter_rows())

    @cached_property
    def relevant(self) -> dict[str, set[str]]:
        """Ids of the chunks that answer each question, by its id."""
        rows = self.questions.select("question_id", "relevant_chunk_ids").iter_rows()
        return {question: set(chunks) for question, chunks in rows}

    @cached_property
    def splits(self) -> list[str]:
        """Split of each question."""
        return self.questions["split"].to_list()


def retrieval_task(warehouse: Warehouse) -> RetrievalTask:
    """Every question that isn't trained on, and all chunks."""
    return RetrievalTask(
        questions=warehouse.read(
            "SELECT question_id, anchor, relevant_chunk_ids, split FROM training_pairs "
            "WHERE split <> 'train' ORDER BY split, question_id"
        ),
        corpus=warehouse.corpus(),
    )


def score_encoder(
    task: RetrievalTask, encoder: Encoder, dimensions: Sequence[int] | None = None
) -> Evaluation:
    """Figures of a model on a task; at its full size alone without dimensions.

    Each text is encoded once, whatever the dimensions; those that it encoded before, not at all.
    """
    corpus = encoder.encode_documents(list(task.texts.values()), "Encoding chunks")
    queries = encoder.encode_queries(list(task.queries.values()), "Encoding questions")
    return evaluate(
        queries,
        corpus,
        list(task.queries),
        list(task.texts),
        task.relevant,
        dimensions or [corpus.shape[1]],
        task.splits,
    )


def store(warehouse: Warehouse, evaluation: Evaluation, model: str, run_id: str) -> None:
    """Write a model's figures and its results by question. model: what the tables call it."""
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


def ndcg_by_model(scores: Mapping[str, pl.DataFrame]) -> str:
    """NDCG@10 of models at their full size, by split, as a markdown table."""
    ndcg = {model: _full_ndcg(frame) for model, frame in scores.items()}
    splits = sorted({split for of_model in ndcg.values() for split in of_model})
    lines = [f"| model | {' | '.join(splits)} |", "| --- |" + " ---: |" * len(splits)]
    lines += [
        f"| {model} | {' | '.join(f'{of_model[split]:.4f}' for split in splits)} |"
        for model, of_model in ndcg.items()
    ]
    return "\n".join(lines)


def baseline_metrics(scores: Mapping[str, pl.DataFrame]) -> dict[str, float]:
    """NDCG@10 of baselines by its name in MLflow."""
    return {
        metric_name(split, f"{model}_ndcg@10"): score
        for model, frame in scores.items()
        for split, score in _full_ndcg(frame).items()
    }


def _full_ndcg(scores: pl.DataFrame) -> dict[str, float]:
    """NDCG@10 by split at the largest dimension."""
    full = scores.filter(pl.col("dimension") == pl.col("dimension").max(), metric="ndcg")
    return dict(full.select("split", "score").iter_rows())
