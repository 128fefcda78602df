"""What a version has learned from and was tested on: documents, their chunks, and the questions.

As much of it as a page can show. All that a version learned from is in its Parquet file of pairs.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.comparison.verdict import Comparison
from embed_assets.pairs.splits import TEST_SPLITS, TRAIN
from embed_assets.resources.warehouse import Warehouse
from embed_assets.training.record import read_version_pairs
from embed_assets.training.start import as_named_today

MOST_DOCUMENTS = 300
MOST_QUESTIONS = 2_000
"""What a page shows at most."""

QUESTIONS = pl.Schema(
    {
        "question_id": pl.String,
        "anchor": pl.String,
        "split": pl.String,
        "document_id": pl.String,
        "chunk_id": pl.String,
        "positive": pl.String,
        "base_rank": pl.Int64,
        "tuned_rank": pl.Int64,
    }
)


@dataclass(frozen=True)
class Asked:
    """A question that trained or tested the version. The ranks are those of the first answer.

    A question that trained has no ranks; in a test None says that the model missed the answer.
    """

    question_id: str
    text: str
    split: str
    base_rank: int | None
    tuned_rank: int | None


@dataclass(frozen=True)
class Passage:
    """A chunk of a document with the questions that it answers. Pages are None where it is gone."""

    chunk_id: str
    text: str
    heading: str
    page_start: int | None
    page_end: int | None
    questions: tuple[Asked, ...]


@dataclass(frozen=True)
class Source:
    """A document, how many of its questions trained and tested the version, and how these went.

    base, tuned: NDCG@10 over its test questions, None where it has none. passages: those shown.
    """

    document_id: str
    path: str
    sha256: str
    trained: int
    tested: int
    base: float | None
    tuned: float | None
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class Sources:
    """The documents that are shown, and how much there is altogether."""

    documents: tuple[Source, ...]
    all_documents: int
    all_questions: int

    @property
    def questions(self) -> int:
        """How many questions are shown."""
        return sum(len(p.questions) for source in self.documents for p in source.passages)


def find_sources(
    warehouse: Warehouse,
    record: Mapping[str, Any],
    result: Comparison,
    wanted: Collection[str] = (),
) -> Sources:
    """What a version learned from and was tested on, a document that moved since by its new name.

    record: as `version_lineage` gives it. wanted: ids of questions that are shown in any case;
    of the others each document gets as many as another, as long as there is room.
    """
    tested = result.queries.filter(pl.col("dimension") == pl.col("dimension").max())
    pdfs = warehouse.read("SELECT document_id, path, sha256 FROM raw_pdfs ORDER BY path")
    questions = pl.concat([_trained(record["pairs"], pdfs), _tested(warehouse, tested)]).unique(
        "question_id", keep="first", maintain_order=True
    )
    documents = _documents(record, pdfs, tested)
    shown = documents.head(MOST_DOCUMENTS)
    chosen = _chosen(questions.join(shown.select("document_id"), on="document_id"), wanted)
    passages = _passages(warehouse, chosen)
    return Sources(
        tuple(
            Source(**row, passages=tuple(passages.get(row["document_id"], ())))
            for row in shown.sort(pl.col("path").str.to_lowercase()).iter_rows(named=True)
        ),
        documents.height,
        questions.height,
    )


def _trained(pairs: str | None, pdfs: pl.DataFrame) -> pl.DataFrame:
    """The questions that a version has learned from. pairs: its Parquet file, if it is kept."""
    if pairs is None or not Path(pairs).is_file():
        return QUESTIONS.to_frame()
    return as_named_today(read_version_pairs(Path(pairs)), pdfs).select(
        "question_id",
        "anchor",
        pl.lit(TRAIN).alias("split"),
        "document_id",
        pl.col("global_chunk_id").alias("chunk_id"),
        "positive",
        pl.lit(None, pl.Int64).alias("base_rank"),
        pl.lit(None, pl.Int64).alias("tuned_rank"),
    )


def _tested(warehouse: Warehouse, queries: pl.DataFrame) -> pl.DataFrame:
    """The questions that were scored, each with the chunk that answers it best."""
    answers = warehouse.read(
        "SELECT question_id, global_chunk_id AS chunk_id, positive FROM training_pairs "
        "WHERE split <> ?",
        [TRAIN],
    )
    return queries.join(answers, on="question_id").select(QUESTIONS.names()).cast(QUESTIONS)


def _documents(
    record: Mapping[str, Any], pdfs: pl.DataFrame, queries: pl.DataFrame
) -> pl.DataFrame:
    """A row per document that a version learned from or was tested on, what taught most first.

    Columns: those of Source without its passages. pdfs: document_id, path, sha256 of all that are
    there.
    """
    learned = pl.DataFrame(
        record["documents"],
        schema={
            "document_id": pl.String,
            "path": pl.String,
            "sha256": pl.String,
            "questions": pl.Int64,
        },
    ).rename({"questions": "trained"})
    known = pl.concat(
        [as_named_today(learned, pdfs), pdfs.with_columns(trained=pl.lit(0, pl.Int64))]
    )
    tests = (
        queries.filter(pl.col("split").is_in(TEST_SPLITS))
        .group_by("document_id")
        .agg(
            tested=pl.len().cast(pl.Int64),
            # Sorted, because the last bit of a sum of floats depends on the order of its terms.
            base=pl.col("base_ndcg_at_10").sort().mean(),
            tuned=pl.col("tuned_ndcg_at_10").sort().mean(),
        )
    )
    return (
        known.group_by("document_id", maintain_order=True)
        .agg(pl.col("path", "sha256").first(), pl.col("trained").sum())
        .join(tests, on="document_id", how="left")
        .with_columns(pl.col("tested").fill_null(0))
        .filter(pl.col("trained") + pl.col("tested") > 0)
        .sort(-pl.col("trained"), -pl.col("tested"), "path")
        .select("document_id", "path", "sha256", "trained", "tested", "base", "tuned")
    )


def _chosen(questions: pl.DataFrame, wanted: Collection[str]) -> pl.DataFrame:
    """The questions that are shown: those that are wanted, and from each document alike."""
    turn = pl.int_range(pl.len()).over("document_id")
    return (
        questions.sort("document_id", "split", "question_id")
        .with_columns(
            turn=pl.when(pl.col("question_id").is_in(list(wanted))).then(-1).otherwise(turn)
        )
        .sort("turn", "document_id")
        .head(MOST_QUESTIONS)
    )


def _passages(warehouse: Warehouse, questions: pl.DataFrame) -> dict[str, list[Passage]]:
    """The chunks that answer these questions, by document, as they follow each other in it."""
    places = warehouse.read(
        "SELECT document_id, chunk_id, chunk_index, heading_path, page_start, page_end FROM chunks "
        "WHERE chunk_id IN (SELECT unnest(?::VARCHAR[]))",
        [questions["chunk_id"].unique().sort().to_list()],
    ).unique(["document_id", "chunk_id"], keep="first", maintain_order=True)
    rows = questions.join(places, on=["document_id", "chunk_id"], how="left").sort(
        "document_id", "chunk_index", "chunk_id", "split", "question_id", nulls_last=True
    )
    found: dict[str, list[Passage]] = {}
    for (document, chunk), group in rows.group_by("document_id", "chunk_id", maintain_order=True):
        first = group.row(0, named=True)
        found.setdefault(str(document), []).append(
            Passage(
                chunk_id=str(chunk),
                text=first["positive"],
                heading=first["heading_path"] or "",
                page_start=first["page_start"],
                page_end=first["page_end"],
                questions=tuple(
                    Asked(
                        question_id=row["question_id"],
                        text=row["anchor"],
                        split=row["split"],
                        base_rank=row["base_rank"],
                        tuned_rank=row["tuned_rank"],
                    )
                    for row in group.iter_rows(named=True)
                ),
            )
        )
    return found
