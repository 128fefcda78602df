"""Scores models on every held-out question of the warehouse, against all chunks.

A figure knows what it was measured on: which model, by its identity, and which questions and
corpus, by their versions. What was measured once is read back, and never measured again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

import polars as pl

from embed_assets.evaluation.metrics import DEPTH
from embed_assets.evaluation.retrieval import (
    QUERIES_SCHEMA,
    SCORES_SCHEMA,
    Evaluation,
    evaluate,
    metric_name,
    sentence_transformers_name,
)
from embed_assets.lexical import Found, find_by_words
from embed_assets.models.encoder import Encoder
from embed_assets.pairs.splits import split_title
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.tables import TABLES

EVALUATION_VERSION = "1"
PART_IDENTITY = "part "
"""How the identity begins of a model that is no version: trained on a part of a version's pairs."""

_SNAPSHOT = """
SELECT 'chunk' AS kind, chunk_id AS id, any_value(chunk_text) AS text,
    NULL AS relevant_chunk_ids, NULL AS split, NULL AS document_id
FROM chunks GROUP BY chunk_id
UNION ALL
SELECT 'question', question_id, anchor, relevant_chunk_ids, split, document_id
FROM training_pairs WHERE split <> 'train'
ORDER BY kind, split, id
"""
"""Questions and corpus in one statement: nothing is written between the two."""


@dataclass(frozen=True, eq=False)
class RetrievalTask:
    """Questions to score and the corpus to search.

    questions: question_id, anchor, relevant_chunk_ids, split, document_id. corpus: chunk_id,
    chunk_text, one row per distinct text. own: the chunk that is no result for a question, by
    question_id.
    """

    questions: pl.DataFrame
    corpus: pl.DataFrame
    own: Mapping[str, str] = field(default_factory=dict)

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

    @cached_property
    def found_by_words(self) -> tuple[list[str], list[Found]]:
        """Ids of the chunks in their order, and what BM25 finds for each question: rows among them.

        One more than are scored where `own` names any.
        """
        return find_by_words(list(self.queries.values()), self.texts, DEPTH + bool(self.own))

    @cached_property
    def questions_version(self) -> str:
        """Version of what is asked: the questions, the chunks that answer them, the splits."""
        asked = self.questions.select(
            "question_id", "anchor", pl.col("relevant_chunk_ids").list.sort(), "split"
        )
        rows = asked.sort("question_id").rows()
        return digest((rows, sorted(self.own.items())) if self.own else rows)

    @cached_property
    def corpus_version(self) -> str:
        """Version of what is searched: a chunk's id is the digest of its text."""
        return digest(self.corpus["chunk_id"].sort().to_list())


def retrieval_task(warehouse: Warehouse) -> RetrievalTask:
    """Every question that isn't trained on, and all chunks, as they stand together."""
    rows = warehouse.read(_SNAPSHOT)
    chunks, questions = rows.filter(kind="chunk"), rows.filter(kind="question")
    return RetrievalTask(
        questions=questions.select(
            pl.col("id").alias("question_id"),
            pl.col("text").alias("anchor"),
            *("relevant_chunk_ids", "split", "document_id"),
        ),
        corpus=chunks.select(pl.col("id").alias("chunk_id"), pl.col("text").alias("chunk_text")),
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
        task.own,
    )


def measured(
    warehouse: Warehouse,
    task: RetrievalTask,
    encoder: Encoder,
    dimensions: Sequence[int] | None = None,
    *,
    run_id: str,
    model: str,
) -> Evaluation:
    """Figures of a model on a task, at its full size alone without dimensions, and stored.

    Read back where this model was measured on these questions and this corpus before. dimensions:
    the model's own size among them. run_id: MLflow run that shows the figures. model: what the
    tables call it.
    """
    return measured_by(
        lambda: score_encoder(task, encoder, dimensions),
        encoder.identity,
        warehouse,
        task,
        dimensions,
        run_id=run_id,
        model=model,
    )


def measured_by(
    measure: Callable[[], Evaluation],
    identity: str,
    warehouse: Warehouse,
    task: RetrievalTask,
    dimensions: Sequence[int] | None = None,
    *,
    run_id: str,
    model: str,
) -> Evaluation:
    """Like `measured`, for whatever has this identity: `measure` gives its figures."""
    key = {
        "identity": identity,
        "questions_version": task.questions_version,
        "corpus_version": task.corpus_version,
        "evaluation_version": EVALUATION_VERSION,
    }
    evaluation = _read_back(warehouse, key, dimensions) or measure()
    _store(warehouse, evaluation, key, {"run_id": run_id, "model": model})
    return evaluation


def _store(
    warehouse: Warehouse, evaluation: Evaluation, key: Mapping[str, str], labels: Mapping[str, str]
) -> None:
    """Write a model's figures and its results by question.

    key: what the figures are of. labels: run_id and model, as the tables call them.
    """
    largest_first = evaluation.scores["dimension"].unique().sort(descending=True).to_list()
    row = {**key, **labels, "dimensions": largest_first, "measured_at": datetime.now(UTC)}
    labelled = [pl.lit(value).alias(name) for name, value in labels.items()]
    with warehouse.transaction() as transaction:
        for table, frame in (
            ("evaluations", pl.DataFrame([row], schema=TABLES["evaluations"].schema)),
            ("evaluation_results", evaluation.scores.with_columns(labelled)),
            ("query_results", evaluation.queries.with_columns(labelled)),
        ):
            transaction.replace(table, frame, {name: [value] for name, value in labels.items()})


def _read_back(
    warehouse: Warehouse, key: Mapping[str, str], dimensions: Sequence[int] | None
) -> Evaluation | None:
    """The evaluation of this key at these dimensions, or at the largest; None if there is none."""
    conditions = " AND ".join(f"{column} = ?" for column in key)
    found = warehouse.read(
        "SELECT run_id, model, dimensions FROM evaluations "
        f"WHERE {conditions} AND list_has_all(dimensions, ?::BIGINT[]) "
        "ORDER BY measured_at DESC LIMIT 1",
        [*key.values(), list(dimensions or ())],
    )
    if found.is_empty():
        return None
    run_id, model, largest_first = found.row(0)

    def rows(table: str, schema: pl.Schema) -> pl.DataFrame:
        stored = warehouse.read(
            f"SELECT {', '.join(schema)} FROM {table} WHERE run_id = ? AND model = ? "
            "AND dimension IN (SELECT unnest(?::BIGINT[]))",
            [run_id, model, list(dimensions or largest_first[:1])],
        )
        return stored.sort(-pl.col("dimension"), *list(schema)[:-1]).cast(schema)

    return Evaluation(
        scores=rows("evaluation_results", SCORES_SCHEMA),
        queries=rows("query_results", QUERIES_SCHEMA),
    )


def figure_count(warehouse: Warehouse, run_id: str) -> int:
    """How many rows of evaluation_results are of an MLflow run."""
    sql = "SELECT count(*) FROM evaluation_results WHERE run_id = ?"
    return warehouse.read(sql, [run_id]).item()


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
    largest_first = scores.filter(metric="ndcg").sort("dimension", descending=True)
    by_dimension = largest_first.group_by("dimension", maintain_order=True)
    return _table_by_split(
        {str(d): dict(rows.select("split", "score").iter_rows()) for (d,), rows in by_dimension}
    )


def ndcg_by_model(evaluations: Mapping[str, Evaluation]) -> str:
    """NDCG@10 of models at their full size, by split, as a markdown table."""
    return _table_by_split({model: full_ndcg(found.scores) for model, found in evaluations.items()})


def _table_by_split(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A markdown table with a row for each split. columns: score by split."""
    splits = sorted({split for scores in columns.values() for split in scores})
    lines = ["| questions |" + "".join(f" {name} |" for name in columns)]
    lines.append("| --- |" + " ---: |" * len(columns))
    for split in splits:
        scores = "".join(f" {row[split]:.4f} |" for row in columns.values())
        lines.append(f"| {split_title(split)} |{scores}")
    return "\n".join(lines)


def baseline_metrics(evaluations: Mapping[str, Evaluation]) -> dict[str, float]:
    """NDCG@10 of baselines by its name in MLflow."""
    return {
        metric_name(split, f"{model}_ndcg@10"): score
        for model, found in evaluations.items()
        for split, score in full_ndcg(found.scores).items()
    }


def full_ndcg(scores: pl.DataFrame) -> dict[str, float]:
    """NDCG@10 by split at the largest dimension."""
    full = scores.filter(pl.col("dimension") == pl.col("dimension").max(), metric="ndcg")
    return dict(full.select("split", "score").iter_rows())
