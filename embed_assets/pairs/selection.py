"""Which questions become pairs: what the filters over all questions keep, each with its split.

What trains and validates depends on the questions and chunks of these two splits alone. A held-out
document changes them only if it holds one of their chunks: such a chunk never trains. So a
machine's test question yields to a like one that trains. A person's test question is the exception:
a training question that repeats it is dropped.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import polars as pl

from embed_assets.models.card import model_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.pairs.leakage import OCCURRENCES, TRAINED, nearly_same
from embed_assets.pairs.splits import (
    LABELLED,
    SEEN,
    TRAIN,
    UNSEEN,
    VALIDATION,
    Assignments,
    TooFewQuestionsError,
    assign_splits,
    check_enough,
)
from embed_assets.questions.filters.names import enabled_filters
from embed_assets.questions.filters.together import filter_together, may_join
from embed_assets.questions.statuses import CORPUS_WIDE, DUPLICATE, KEPT, NEAR_DUPLICATE
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
"""Sets `status` and adds to relevant_chunk_ids. Given what `filter_together` is, and `positive`."""

FIRST_KEPT = (LABELLED, VALIDATION, TRAIN, UNSEEN, SEEN)
"""Of two splits that hold the same text, the one that keeps it stands first."""
TURNS = {LABELLED: 0, VALIDATION: 1, TRAIN: 1, UNSEEN: 2, SEEN: 2}
"""People's tests; what decides a training; a machine's tests."""


def make_pairs(warehouse: Warehouse, filter_questions: Filter) -> Pairs:
    """Pairs from what the warehouse holds: every question that the filter keeps, with its split."""
    questions, split, assignments = _questions_by_split(warehouse)
    filtered = filter_questions(
        drop_near_leaks(drop_leaks(split)).with_columns(
            question=pl.col("anchor"),
            turn=pl.col("split").replace_strict(TURNS, return_dtype=pl.Int64),
            may_train=pl.col("split") == TRAIN,
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
        pairs,
        pl.DataFrame(rows, schema=TABLES["split_assignments"].schema),
        statuses.with_columns(pl.col("status").fill_null(KEPT)),
    )


def _questions_by_split(
    warehouse: Warehouse,
) -> tuple[pl.DataFrame, pl.DataFrame, Assignments]:
    """Questions that may become pairs; those that have a split, with it; the splits to store."""
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
        warehouse.read(OCCURRENCES),
        dict(warehouse.read("SELECT document_id, sha256 FROM raw_pdfs").iter_rows()),
        Assignments(_of_kind(stored, "document"), _of_kind(stored, "chunk")),
    )
    return questions, split, assignments


def why_too_few(warehouse: Warehouse) -> str | None:
    """Why the questions are too few to train on, whatever the filters keep; None if they may do."""
    places = warehouse.read("SELECT document_id, chunk_id FROM chunks")
    _, split, _ = _questions_by_split(warehouse)
    pairs = drop_leaks(split).filter(status=KEPT)
    try:
        check_enough(pairs["split"], places["document_id"].n_unique(), places.height)
    except TooFewQuestionsError as error:
        return str(error)
    return None


def corpus_filter(warehouse: Warehouse, settings: Settings) -> Filter:
    """The filters that look at all questions together, through the base model's eyes."""
    enabled = enabled_filters(settings.filters)
    card = model_card(settings)

    def apply(questions: pl.DataFrame) -> pl.DataFrame:
        encoder = CachedEncoder(warehouse, card, settings)
        texts = dict(questions.select("chunk_id", "positive").iter_rows())
        return filter_together(
            questions,
            enabled,
            lambda asked: encoder.encode_queries(asked, "Encoding questions"),
            lambda ids: encoder.encode_documents([texts[key] for key in ids], "Encoding chunks"),
        )

    return apply


def drop_leaks(questions: pl.DataFrame) -> pl.DataFrame:
    """The questions with a status: DUPLICATE where another split keeps the same text.

    questions: anchor, split, relevant_chunk_ids. A question asked of two documents, or written by a
    person and by a machine, would otherwise be trained on in one split and tested in another. Case
    and signs don't count. FIRST_KEPT says which split keeps it; the question kept takes over the
    chunks of those dropped, where `may_join` lets it. It is no filter that can be turned off.
    """
    place = {split: place for place, split in enumerate(FIRST_KEPT)}
    words = [" ".join(normalised_words(text)) or text for text in questions["anchor"]]
    first: dict[str, str] = {}
    splits = questions["split"].to_list()
    for key, split in zip(words, splits, strict=True):
        first[key] = min(first.get(key, split), split, key=place.__getitem__)
    leaks = [split != first[key] for key, split in zip(words, splits, strict=True)]
    relevant = questions["relevant_chunk_ids"].to_list()
    left: dict[str, list[str]] = {}
    for key, split, leak, chunks in zip(words, splits, leaks, relevant, strict=True):
        if leak and may_join(TURNS[split], TURNS[first[key]], into_tests=True):
            left.setdefault(key, []).extend(chunks)
    joined = [
        chunks if leak or key not in left else list(dict.fromkeys([*chunks, *left[key]]))
        for key, leak, chunks in zip(words, leaks, relevant, strict=True)
    ]
    return questions.with_columns(
        pl.Series("relevant_chunk_ids", joined, pl.List(pl.String)),
        pl.Series("status", [DUPLICATE if leak else KEPT for leak in leaks], pl.String),
    )


def drop_near_leaks(questions: pl.DataFrame) -> pl.DataFrame:
    """The questions, NEAR_DUPLICATE where one tests and another trains that is nearly the same.

    questions: anchor, split, status. A person's test question keeps its place; a machine's yields.
    It is no filter that can be turned off.
    """
    anchors, splits = questions["anchor"].to_list(), questions["split"].to_list()
    statuses = questions["status"].to_list()

    def drop(which: Collection[str], beside: Collection[str]) -> None:
        mine, others = (
            [place for place, split in enumerate(splits) if split in of and statuses[place] == KEPT]
            for of in (which, beside)
        )
        repeats = nearly_same([anchors[p] for p in mine], [anchors[p] for p in others])
        for place in repeats:
            statuses[mine[place]] = NEAR_DUPLICATE

    drop(TRAINED, [LABELLED])
    drop([UNSEEN, SEEN], TRAINED)
    return questions.with_columns(pl.Series("status", statuses, pl.String))


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
