"""Corpus-wide filters: what they drop stays on record, and is decided anew each time."""

import polars as pl
import pytest

from embed_assets.pairs.selection import corpus_filter, make_pairs
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets_tests.pairs.test_splits import Corpus, keep_all, stock
from embed_assets_tests.tiny_model import make_tiny_model


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
    warehouse.update(
        "synthetic_questions", make_pairs(warehouse, drop(every["question_id"][0])).statuses
    )
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
