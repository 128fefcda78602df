"""A question's split follows from the content, never moves, and keeps the tests clean."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

import polars as pl
import pytest

from embed_assets.pairs.selection import make_pairs
from embed_assets.pairs.splits import (
    HELD_OUT_DOCUMENTS,
    LABELLED,
    LEAST_TRAINING_QUESTIONS,
    SEEN,
    SPLITS,
    TRAIN,
    UNSEEN,
    VALIDATION,
    Assignments,
    TooFewQuestionsError,
    assign_splits,
    check_enough,
    position,
)
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import TABLES

NOTHING = Assignments({}, {})


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Corpus:
    """Documents with their chunks, three questions to each chunk unless told otherwise."""

    def __init__(self, documents: Mapping[str, Iterable[str]], each: int = 3) -> None:
        """documents: texts of their chunks by document_id."""
        self.documents = {key: list(texts) for key, texts in documents.items()}
        self.each = each
        self.labelled: list[tuple[str, str]] = []

    @classmethod
    def of(cls, documents: int, chunks: int, first: int = 0) -> "Corpus":
        return cls(
            {
                f"document-{d}": [f"chunk {c} of document {d}" for c in range(chunks)]
                for d in range(first, first + documents)
            }
        )

    def with_documents(self, documents: Mapping[str, Iterable[str]]) -> "Corpus":
        return Corpus({**self.documents, **documents}, self.each)

    def without(self, *document_ids: str) -> "Corpus":
        kept = {k: texts for k, texts in self.documents.items() if k not in document_ids}
        return Corpus(kept, self.each)

    @property
    def questions(self) -> pl.DataFrame:
        rows = [
            (f"{key} {text} {number}", sha(text), key, "train")
            for key, texts in self.documents.items()
            for text in texts
            for number in range(self.each)
        ]
        rows += [(f"labelled {key} {text}", sha(text), key, "test") for key, text in self.labelled]
        names = ("question_id", "chunk_id", "document_id", "purpose")
        return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")

    @property
    def occurrences(self) -> pl.DataFrame:
        return self.questions.select("chunk_id", "document_id").unique()

    def split(self, stored: Assignments = NOTHING) -> tuple[pl.DataFrame, Assignments]:
        hashes = {key: sha(f"bytes of {key}") for key in self.documents}
        return assign_splits(self.questions, self.occurrences, hashes, stored)


def split_of(questions: pl.DataFrame) -> dict[str, str]:
    return dict(questions.select("question_id", "split").iter_rows())


def documents_in(questions: pl.DataFrame, *splits: str) -> set[str]:
    return set(questions.filter(pl.col("split").is_in(splits))["document_id"])


MANY = Corpus.of(documents=40, chunks=50)


@pytest.fixture(scope="module")
def many() -> tuple[pl.DataFrame, Assignments]:
    """2,000 chunks in 40 documents, split for the first time."""
    return MANY.split()


# How much goes where.


def test_a_tenth_of_the_documents_is_held_out(many):
    questions, assignments = many
    held = documents_in(questions, UNSEEN)
    assert 1 <= len(held) <= 10
    assert held == {key for key, split in assignments.documents.items() if split == UNSEEN}


def test_the_chunks_of_the_other_documents_go_80_10_10(many):
    questions, _ = many
    chunks = questions.filter(pl.col("split") != UNSEEN).unique("chunk_id")
    shares = {split: n / chunks.height for split, n in Counter(chunks["split"]).items()}
    assert shares[TRAIN] == pytest.approx(0.8, abs=0.03)
    assert shares[VALIDATION] == pytest.approx(0.1, abs=0.02)
    assert shares[SEEN] == pytest.approx(0.1, abs=0.02)


def test_over_many_documents_a_tenth_of_them_is_held_out():
    questions, _ = Corpus.of(documents=1000, chunks=1).split()
    assert len(documents_in(questions, UNSEEN)) == pytest.approx(100, abs=25)


def test_every_question_gets_a_split(many):
    questions, _ = many
    assert questions.height == MANY.questions.height
    assert set(questions["split"]) == {TRAIN, VALIDATION, SEEN, UNSEEN}


# What stays together.


def test_a_held_out_document_is_held_out_whole(many):
    questions, _ = many
    held = documents_in(questions, UNSEEN)
    assert held
    assert documents_in(questions, TRAIN, VALIDATION, SEEN).isdisjoint(held)


def test_all_questions_of_a_chunk_are_in_one_split(many):
    questions, _ = many
    splits = questions.group_by("chunk_id").agg(pl.col("split").n_unique(), pl.len())
    assert set(splits["split"]) == {1}
    assert set(splits["len"]) == {3}


def test_all_questions_of_a_text_that_stands_in_two_documents_are_in_one_split():
    shared = {f"document-{d}": [f"standard clause {c}" for c in range(30)] for d in range(2)}
    questions, _ = MANY.with_documents({k + "-x": v for k, v in shared.items()}).split()
    clauses = questions.filter(pl.col("question_id").str.contains("standard clause"))
    assert clauses.height == 2 * 30 * 3
    assert set(clauses.group_by("chunk_id").agg(pl.col("split").n_unique())["split"]) == {1}


def test_the_order_in_which_things_come_does_not_matter(many):
    questions, assignments = many
    reverse = Corpus({k: v[::-1] for k, v in reversed(MANY.documents.items())})
    shuffled, again = reverse.split()
    assert split_of(shuffled) == split_of(questions)
    assert again == assignments


# What never moves.


def test_no_question_moves_when_documents_arrive(many):
    questions, assignments = many
    arrived = Corpus.of(documents=60, chunks=20, first=40)
    later, _ = MANY.with_documents(arrived.documents).split(assignments)
    assert split_of(questions).items() <= split_of(later).items()
    assert documents_in(later, UNSEEN) - documents_in(questions, UNSEEN)  # a tenth of the new ones


def test_no_question_moves_when_documents_leave_and_come_back(many):
    questions, assignments = many
    leaving = [*MANY.documents][:15] + sorted(documents_in(questions, UNSEEN))[:1]
    fewer, stored = MANY.without(*leaving).split(assignments)
    assert split_of(fewer).items() <= split_of(questions).items()
    back, _ = MANY.split(stored)
    assert split_of(back) == split_of(questions)


def test_a_changed_document_stays_held_out_or_not_as_it_was(many):
    _, assignments = many
    held = next(key for key, split in assignments.documents.items() if split == UNSEEN)
    other = next(key for key, split in assignments.documents.items() if split == SEEN)
    texts = [f"new text {number}" for number in range(50)]
    for key in (held, other):
        changed = MANY.with_documents({key: [f"{key} {text}" for text in texts]})
        hashes = {name: sha(f"changed bytes of {name}") for name in MANY.documents}
        questions, _ = assign_splits(changed.questions, changed.occurrences, hashes, assignments)
        assert (key in documents_in(questions, UNSEEN)) == (key == held)


def test_splits_made_in_small_steps_never_move():
    corpus, stored, before = Corpus({}), NOTHING, {}
    for number in range(12):
        corpus = corpus.with_documents(Corpus.of(1, 6, first=number).documents)
        questions, stored = corpus.split(stored)
        assert before.items() <= split_of(questions).items()
        before = split_of(questions)
    assert set(before.values()) == {TRAIN, VALIDATION, SEEN, UNSEEN}


# What never trains.


def two_documents() -> tuple[str, str, Assignments]:
    """A held-out document and another, each known to be so."""
    return "held", "open", Assignments({"held": UNSEEN, "open": SEEN}, {})


def test_a_chunk_that_also_stands_in_a_held_out_document_never_trains():
    held, other, stored = two_documents()
    clauses = [f"standard clause {c}" for c in range(40)]
    corpus = Corpus({held: clauses, other: [*clauses, *(f"own text {c}" for c in range(40))]})
    questions, assignments = corpus.split(stored)
    splits = dict(questions.select("chunk_id", "split").unique().iter_rows())
    assert {splits[sha(clause)] for clause in clauses} == {UNSEEN}
    assert {assignments.chunks[sha(clause)] for clause in clauses} == {UNSEEN}
    assert documents_in(questions, TRAIN) == {other}


def test_it_does_not_train_though_nobody_asks_about_it_in_the_held_out_document():
    held, other, stored = two_documents()
    corpus = Corpus({other: [f"clause {c}" for c in range(40)]})
    hidden = pl.DataFrame({"chunk_id": [sha("clause 0")], "document_id": [held]})
    occurrences = pl.concat([corpus.occurrences, hidden])
    questions, _ = assign_splits(corpus.questions, occurrences, {other: sha("x")}, stored)
    assert questions.filter(chunk_id=sha("clause 0")).is_empty()


def test_what_a_document_that_is_not_held_out_asks_about_it_tests_nothing():
    held, other, stored = two_documents()
    clauses = [f"clause {c}" for c in range(40)]
    questions, assignments = Corpus({held: clauses, other: clauses}).split(stored)
    assert documents_in(questions, UNSEEN) == {held}
    assert documents_in(questions, TRAIN, VALIDATION, SEEN) == set()
    left, _ = Corpus({other: clauses}).split(assignments)
    assert left.height == 0  # nor once the held-out document has left


def test_a_chunk_that_trained_is_left_out_once_it_stands_in_a_held_out_document():
    held, other, stored = two_documents()
    alone = Corpus({other: [f"clause {c}" for c in range(40)]})
    questions, assignments = alone.split(stored)
    trained = set(questions.filter(split=TRAIN)["chunk_id"])
    assert trained
    both = alone.with_documents({held: [f"clause {c}" for c in range(40)]})
    later, again = both.split(assignments)
    assert trained.isdisjoint(later["chunk_id"])  # neither trains nor tests
    assert all(again.chunks[chunk] == TRAIN for chunk in trained)  # on record as trained on
    back, _ = alone.split(again)
    assert split_of(back) == split_of(questions)


def test_questions_labelled_for_testing_never_train():
    corpus = Corpus.of(documents=10, chunks=30)
    corpus.labelled = [(key, texts[0]) for key, texts in corpus.documents.items()]
    questions, _ = corpus.split()
    labelled = questions.filter(purpose="test")
    assert labelled.height == 10
    assert set(labelled["split"]) == {LABELLED}
    assert LABELLED not in set(questions.filter(purpose="train")["split"])


def test_questions_labelled_for_testing_move_no_other_question():
    corpus = Corpus.of(documents=10, chunks=30)
    without = split_of(corpus.split()[0])
    corpus.labelled = [(key, texts[0]) for key, texts in corpus.documents.items()]
    assert without.items() <= split_of(corpus.split()[0]).items()


def test_a_document_with_nothing_but_test_questions_is_not_counted_as_held_out():
    corpus = Corpus.of(documents=3, chunks=20)
    corpus.documents["golden"] = []
    corpus.labelled = [("golden", f"golden chunk {c}") for c in range(5)]
    questions, assignments = corpus.split()
    assert "golden" not in assignments.documents
    assert documents_in(questions, LABELLED) == {"golden"}
    assert documents_in(questions, UNSEEN)


# Small corpora.


@pytest.mark.parametrize("documents", [1, 2, 3, 5])
@pytest.mark.parametrize("chunks", [12, 20])
def test_a_small_corpus_gets_splits_that_are_not_empty(documents, chunks):
    questions, _ = Corpus.of(documents, chunks).split()
    counts = Counter(questions["split"])
    assert counts[TRAIN] > counts[VALIDATION] > 0
    assert counts[SEEN] > 0
    assert (counts[UNSEEN] > 0) == (documents > 1)
    check_enough(questions["split"], documents, documents * chunks)


def test_the_one_held_out_of_few_documents_is_not_the_one_with_most_of_the_questions():
    for first in range(0, 200, 4):  # whatever their hashes
        big = f"big-{first}"
        corpus = Corpus.of(4, 10, first).with_documents({big: [f"b{c}" for c in range(100)]})
        held = documents_in(corpus.split()[0], UNSEEN)
        by_its_hash = position(sha(f"bytes of {big}")) < HELD_OUT_DOCUMENTS
        assert (big in held) == by_its_hash


def test_never_are_all_documents_held_out():
    for first in range(0, 400, 2):  # among so many pairs, some have two hashes in the share
        questions, _ = Corpus.of(documents=2, chunks=20, first=first).split()
        assert len(documents_in(questions, UNSEEN)) == 1


def test_a_single_document_is_never_held_out_whatever_its_hash():
    for first in range(100):
        corpus = Corpus.of(documents=1, chunks=20, first=first)
        questions, _ = corpus.split()
        assert documents_in(questions, UNSEEN) == set()
        check_enough(questions["split"], documents=1, chunks=20)


def test_too_few_questions_are_said_to_be_so_and_how_many_are_missing():
    corpus = Corpus({"a": ["one", "two"]}, each=2)
    questions, _ = corpus.split()
    with pytest.raises(TooFewQuestionsError) as error:
        check_enough(questions["split"], documents=1, chunks=2)
    counts = Counter(questions["split"])
    message = str(error.value)
    assert f"{LEAST_TRAINING_QUESTIONS - counts[TRAIN]} for train" in message
    for split in (VALIDATION, SEEN):
        assert (f"1 for {split}" in message) == (counts[split] == 0)
    assert "(1 document with 2 chunks gave 4 questions)" in message
    assert "\n" not in message


def test_no_questions_at_all_are_too_few():
    questions, assignments = Corpus({}).split()
    assert questions.height == 0
    assert assignments == NOTHING
    with pytest.raises(TooFewQuestionsError, match="16 for train and 1 for validation and 1 for"):
        check_enough([], documents=0, chunks=0)


def test_labelled_questions_alone_are_too_few_to_train_on():
    with pytest.raises(TooFewQuestionsError, match="16 for train"):
        check_enough([LABELLED] * 100, documents=1, chunks=100)


def test_just_enough_is_enough():
    check_enough([TRAIN] * LEAST_TRAINING_QUESTIONS + [VALIDATION, SEEN], documents=1, chunks=18)


# From and to the warehouse.


def keep_all(questions: pl.DataFrame) -> pl.DataFrame:
    return questions


def stock(warehouse: Warehouse, corpus: Corpus, *, status: str = "KEPT") -> None:
    """Put a corpus into the warehouse, with the questions' status."""
    now = pl.lit("2026-11-22 12:00:00+0000").str.to_datetime(time_unit="us", time_zone="UTC")
    chunks = [
        (key, index, sha(text), text, "", 1, 1, 3, f"{key}.pdf")
        for key, texts in corpus.documents.items()
        for index, text in enumerate(texts)
    ]
    pdfs = pl.DataFrame({"document_id": list(corpus.documents)}).with_columns(
        path=pl.col("document_id") + ".pdf",
        file_name=pl.col("document_id") + ".pdf",
        content=pl.lit(b""),
        sha256=pl.col("document_id").map_elements(sha, pl.String),
        size_bytes=0,
        modified_at=now,
        loaded_at=now,
        loaded_by=pl.lit("run"),
        etag=None,
    )
    questions = corpus.questions.with_columns(
        relevant_chunk_ids=pl.concat_list("chunk_id"),
        question=pl.col("question_id"),
        answer=None,
        kind=pl.lit("keywords"),
        generator=pl.lit("extractive"),
        prompt_version=pl.lit("1"),
        status=pl.lit(status),
        reason=pl.lit(None, pl.String),
        score=None,
        input_tokens=0,
        output_tokens=0,
        created_at=now,
    )
    frame = pl.DataFrame(chunks, schema=TABLES["chunks"].schema, orient="row")
    warehouse.replace("chunks", frame)
    warehouse.replace("raw_pdfs", pdfs)
    warehouse.replace("synthetic_questions", questions)


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "warehouse.duckdb"))


def test_pairs_are_a_question_and_the_text_of_its_chunk_and_their_splits_are_kept(warehouse):
    corpus = Corpus.of(documents=4, chunks=10)
    corpus.labelled = [("document-0", "chunk 0 of document 0")]
    stock(warehouse, corpus)
    made = make_pairs(warehouse, keep_all)
    pairs, assignments = made.pairs, made.assignments
    assert TABLES["training_pairs"].conform(pairs).height == 4 * 10 * 3 + 1
    for row in pairs.iter_rows(named=True):
        assert row["positive"] in row["anchor"]  # the question's text names its chunk here
        assert row["global_chunk_id"] == sha(row["positive"])
        assert row["generator"] == "extractive"
    assert set(pairs["split"]) == set(SPLITS)
    warehouse.replace("split_assignments", assignments)
    stock(warehouse, corpus.with_documents(Corpus.of(3, 10, first=4).documents))
    later = make_pairs(warehouse, keep_all).pairs
    trained_and_tested = split_of(pairs.filter(pl.col("split") != LABELLED))
    assert trained_and_tested.items() <= split_of(later).items()


def test_a_text_that_stands_in_two_documents_makes_no_pair_twice(warehouse):
    same = [f"clause {c}" for c in range(20)]
    stock(warehouse, Corpus({"a": same, "b": same}))
    pairs = make_pairs(warehouse, keep_all).pairs
    assert pairs["question_id"].n_unique() == pairs.height
    assert pairs.height <= 2 * 20 * 3


def test_questions_that_were_not_kept_make_no_pairs(warehouse):
    stock(warehouse, Corpus.of(documents=2, chunks=5), status="EVIDENCE_NOT_FOUND")
    pairs = make_pairs(warehouse, keep_all).pairs
    assert pairs.height == 0
