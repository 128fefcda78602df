"""Corpus-wide filters: what they drop stays on record, and is decided anew each time."""

import random
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from embed_assets.pairs.selection import Pairs, corpus_filter, make_pairs
from embed_assets.pairs.splits import HELD_OUT_DOCUMENTS, UNSEEN, position
from embed_assets.questions.filters.names import FILTERS
from embed_assets.questions.filters.together import filter_together
from embed_assets.questions.statuses import CORPUS_WIDE, KEPT
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets_tests.pairs.test_splits import Corpus, keep_all, sha, stock
from embed_assets_tests.tiny_model import WORDS, make_tiny_model


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "warehouse.duckdb"))


def drop(*dropped: str):
    def apply(questions: pl.DataFrame) -> pl.DataFrame:
        status = pl.when(pl.col("question_id").is_in(dropped)).then(pl.lit("DUPLICATE"))
        return questions.with_columns(status=status.otherwise("status"))

    return apply


def test_what_a_filter_drops_makes_no_pair_and_keeps_its_row(warehouse):
    stock(warehouse, Corpus.of(documents=3, chunks=6))
    every = make_pairs(warehouse, keep_all).pairs["question_id"].to_list()
    made = make_pairs(warehouse, drop(every[0]))
    assert made.pairs["question_id"].to_list() == every[1:]
    statuses = dict(made.statuses.iter_rows())
    assert statuses[every[0]] == "DUPLICATE"
    assert {statuses[key] for key in every[1:]} == {"KEPT"}


def test_what_was_dropped_once_is_judged_again(warehouse):
    stock(warehouse, Corpus.of(documents=3, chunks=6))
    every = make_pairs(warehouse, keep_all).pairs
    dropped = make_pairs(warehouse, drop(every["question_id"][0])).statuses
    with warehouse.transaction() as transaction:
        transaction.update("synthetic_questions", dropped)
    assert make_pairs(warehouse, keep_all).pairs.equals(every)


def test_the_round_trip_looks_at_training_questions_alone(warehouse):
    stock(warehouse, Corpus.of(documents=3, chunks=6))
    seen = {}

    def look(questions: pl.DataFrame) -> pl.DataFrame:
        seen.update(questions.select("split", "may_train").iter_rows())
        return questions

    make_pairs(warehouse, look)
    assert seen.pop("train") is True
    assert seen
    assert set(seen.values()) == {False}


def embed(texts: Sequence[str]) -> np.ndarray:
    """The sum of a random vector for each word: texts that share words are alike."""
    seeds = [[int(sha(word)[:8], 16) for word in f"{text} ".split()] or [0] for text in texts]
    return np.stack(
        [sum(np.random.default_rng(seed).normal(size=32) for seed in row) for row in seeds]
    )


def filter_all(questions: pl.DataFrame) -> pl.DataFrame:
    texts = dict(questions.select("chunk_id", "positive").iter_rows())
    return filter_together(
        questions, set(FILTERS), embed, lambda ids: embed([texts[key] for key in ids]), near=0.65
    )


def test_a_held_out_document_changes_no_training_whatever_it_asks(warehouse):
    known = Corpus.of(documents=3, chunks=30)
    shuffle = random.Random(1)
    texts = [" ".join(shuffle.sample(WORDS.split()[20:50], 4)) for _ in range(150)]

    def asked(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(question=pl.Series(shuffle.choices(texts, k=rows.height)))

    def questions() -> pl.DataFrame:
        return warehouse.read("SELECT * FROM synthetic_questions ORDER BY question_id")

    def trained(made: Pairs) -> pl.DataFrame:
        return made.pairs.filter(pl.col("split").is_in(["train", "validation"])).sort("question_id")

    stock(warehouse, known)
    first = asked(questions())
    warehouse.replace("synthetic_questions", first)
    before = make_pairs(warehouse, filter_all)
    assert set(before.statuses["status"]) == {KEPT, *CORPUS_WIDE}
    warehouse.replace("split_assignments", before.assignments)

    held = next(f"new-{n}" for n in range(99) if position(sha(f"new-{n}")) < HELD_OUT_DOCUMENTS)
    stock(warehouse, known.with_documents({held: [f"own {c}" for c in range(50)]}))
    by_people = pl.when(pl.int_range(pl.len()) % 5 == 0).then(pl.lit("labelled"))
    theirs = asked(questions().filter(document_id=held)).with_columns(
        kind=by_people.otherwise("kind")
    )
    warehouse.replace("synthetic_questions", pl.concat([first, theirs]))
    after = make_pairs(warehouse, filter_all)

    assert dict(after.assignments.select("id", "split").iter_rows())[held] == UNSEEN
    assert after.pairs.filter(document_id=held).height
    assert trained(after).equals(trained(before))


def test_what_repeats_a_test_of_people_does_not_train_and_leaves_its_chunk_to_it(warehouse):
    corpus = Corpus.of(documents=3, chunks=10)
    stock(warehouse, corpus)
    before = make_pairs(warehouse, keep_all).pairs
    pair = before.filter(split="train").row(0, named=True)
    rows = warehouse.read("SELECT * FROM synthetic_questions")
    other = before.filter(split="train").row(-1, named=True)["global_chunk_id"]
    test = rows.filter(question_id=pair["question_id"]).with_columns(
        question_id=pl.lit("test"),
        kind=pl.lit("labelled"),
        purpose=pl.lit("test"),
        chunk_id=pl.lit(other),
        relevant_chunk_ids=pl.lit([other]),
    )
    warehouse.replace("synthetic_questions", pl.concat([rows, test]))

    pairs = make_pairs(warehouse, keep_all).pairs

    assert set(before["question_id"]) - set(pairs["question_id"]) == {pair["question_id"]}
    [tested] = pairs.filter(question_id="test").to_dicts()
    assert tested["relevant_chunk_ids"] == [other, pair["global_chunk_id"]]


def test_the_filters_of_the_settings_are_applied_with_the_base_models_embeddings(
    warehouse, tmp_path
):
    stock(warehouse, Corpus.of(documents=3, chunks=6))
    rows = warehouse.read("SELECT * FROM synthetic_questions ORDER BY question_id")
    twice = rows.with_columns(
        question=pl.when(pl.int_range(pl.len()) < 2)
        .then(pl.lit("Which valve closes the pump?"))
        .otherwise("question")
    )
    warehouse.replace("synthetic_questions", twice)
    settings = Settings(
        pdfs=tmp_path, home=tmp_path, model=str(make_tiny_model(tmp_path / "m")), filters="all"
    )
    made = make_pairs(warehouse, corpus_filter(warehouse, settings))
    statuses = dict(made.statuses.iter_rows())
    first, second = rows["question_id"][:2]
    assert sorted([statuses[first], statuses[second]])[0] == "DUPLICATE"
    assert TABLES["training_pairs"].conform(made.pairs).height == made.pairs.height
    assert warehouse.count("embeddings") > 0


def test_without_filters_no_model_is_loaded(warehouse, tmp_path):
    stock(warehouse, Corpus.of(documents=3, chunks=6))
    settings = Settings(
        pdfs=tmp_path, home=tmp_path, model=str(make_tiny_model(tmp_path / "m")), filters="none"
    )
    made = make_pairs(warehouse, corpus_filter(warehouse, settings))
    assert made.pairs.equals(make_pairs(warehouse, keep_all).pairs)
    assert warehouse.count("embeddings") == 0
