"""Which questions become pairs: what the corpus-wide filters keep, each with its split."""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from embed_assets.models.card import model_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.pairs.splits import SPLITS, TRAIN, Assignments, assign_splits
from embed_assets.questions.filters.names import enabled_filters
from embed_assets.questions.filters.together import filter_together
from embed_assets.questions.statuses import CORPUS_WIDE, DUPLICATE, KEPT
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.words import normalised_words


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows of training_pairs and split_assignments, and the status of each question by its id."""

    pairs: pl.DataFrame
    assignments: pl.DataFrame
    statuses: pl.DataFrame


Filter = Callable[[pl.DataFrame], pl.DataFrame]
"""Sets `status`. Given question_id, question, kind, purpose, relevant_chunk_ids, status, may_train.
"""


def make_pairs(warehouse: Warehouse, filter_questions: Filter) -> Pairs:
    """Pairs from what the warehouse holds: every question that the filter keeps, with its split."""
    questions = warehouse.read(
        "SELECT q.question_id, q.question AS anchor, c.chunk_text AS positive, q.chunk_id, "
        "q.relevant_chunk_ids, q.document_id, q.generator, q.purpose, q.kind, q.score "
        "FROM synthetic_questions q "
        "JOIN (SELECT DISTINCT chunk_id, chunk_text FROM chunks) c USING (chunk_id) "
        "WHERE q.status IN (SELECT unnest(?::VARCHAR[])) ORDER BY q.question_id",
        [[KEPT, *CORPUS_WIDE]],
    )
    stored = warehouse.read("SELECT kind, id, split FROM split_assignments")
    split, assignments = assign_splits(
        questions,
        warehouse.read("SELECT DISTINCT chunk_id, document_id FROM chunks"),
        dict(warehouse.read("SELECT document_id, sha256 FROM raw_pdfs").iter_rows()),
        Assignments(_of_kind(stored, "document"), _of_kind(stored, "chunk")),
    )
    filtered = filter_questions(
        drop_leaks(split).with_columns(
            question=pl.col("anchor"), may_train=pl.col("split") == TRAIN
        )
    )
    kept = merge_test_questions(filtered.filter(pl.col("status") == KEPT))
    pairs = kept.rename({"chunk_id": "global_chunk_id"}).select(
        list(TABLES["training_pairs"].columns)
    )
    rows = [
        {"kind": kind, "id": key, "split": name}
        for kind, known in (("document", assignments.documents), ("chunk", assignments.chunks))
        for key, name in known.items()
    ]
    # A question that belongs to no split passed no filter, and failed none.
    statuses = questions.select("question_id").join(
        filtered.select("question_id", "status"), on="question_id", how="left"
    )
    return Pairs(
        pairs.select(list(TABLES["training_pairs"].columns)),
        pl.DataFrame(rows, schema=TABLES["split_assignments"].schema),
        statuses.with_columns(pl.col("status").fill_null(KEPT)),
    )


def corpus_filter(warehouse: Warehouse, settings: Settings) -> Filter:
    """The filters that look at the whole corpus, through the base model's eyes."""
    enabled = enabled_filters(settings.filters)
    card = model_card(settings)

    def apply(questions: pl.DataFrame) -> pl.DataFrame:
        encoder = CachedEncoder(warehouse, card, settings.precision)
        corpus = warehouse.corpus()
        texts = corpus["chunk_text"].to_list()
        return filter_together(
            questions,
            enabled,
            lambda asked: encoder.encode_queries(asked, "Encoding questions"),
            corpus["chunk_id"].to_list(),
            lambda: encoder.encode_documents(texts, "Encoding chunks"),
        )

    return apply


def drop_leaks(questions: pl.DataFrame) -> pl.DataFrame:
    """The questions with a status: DUPLICATE where the same text stands in a stricter split.

    questions: anchor, split. A question asked of two documents, or written by a person and by a
    machine, would otherwise be trained on in one split and tested in another. Case and signs don't
    count. It is no filter that can be turned off.
    """
    strictness = pl.col("split").replace_strict({s: i for i, s in enumerate(SPLITS)})
    words = [" ".join(normalised_words(text)) or text for text in questions["anchor"]]
    leaks = strictness < strictness.max().over("words")
    return (
        questions.with_columns(words=pl.Series(words, dtype=pl.String))
        .with_columns(status=pl.when(leaks).then(pl.lit(DUPLICATE)).otherwise(pl.lit(KEPT)))
        .drop("words")
    )


def merge_test_questions(questions: pl.DataFrame) -> pl.DataFrame:
    """The questions, those not trained on once per text, with every chunk that answers it anywhere.

    questions: as selected in make_pairs, with split. A question found in two documents, or asked in
    two files, is one question to a retriever: it keeps the id, chunk and document of its best
    match.
    """
    is_test = pl.col("split") != TRAIN
    tests = questions.filter(is_test).sort(
        "score", "question_id", descending=[True, False], nulls_last=True
    )
    kept = [name for name in questions.columns if name not in ("anchor", "relevant_chunk_ids")]
    merged = tests.group_by("anchor", maintain_order=True).agg(
        pl.col(kept).first(),
        pl.col("relevant_chunk_ids").explode().unique(maintain_order=True),
    )
    return pl.concat([questions.filter(~is_test), merged.select(questions.columns)])


def _of_kind(stored: pl.DataFrame, kind: str) -> dict[str, str]:
    return dict(stored.filter(pl.col("kind") == kind).select("id", "split").iter_rows())
