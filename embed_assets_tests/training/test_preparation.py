from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from embed_assets.errors import ProjectError, SettingsError
from embed_assets.graph import TRAINING
from embed_assets.models.card import model_card
from embed_assets.pairs.parts import part_versions
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.training.config import training_config
from embed_assets.training.preparation import (
    merge,
    neighbours,
    pairs_to_train,
    read_training_input,
    select_pairs,
    validation_corpus,
    with_negatives,
    with_related,
)
from embed_assets_tests.training.trainings import pdfs

PAIRS = pl.DataFrame(
    {
        "question_id": ["q1", "q2", "q3", "q4"],
        "anchor": ["how high?", "how wide?", "how high?", "how deep?"],
        "positive": ["text a", "text c", "text e", "text g"],
        "global_chunk_id": ["a", "c", "e", "g"],
        "relevant_chunk_ids": [["a"], ["c", "d"], ["e"], ["g"]],
        "generator": ["extractive", "openai:any", "extractive", None],
    }
)


class OneHot:
    """Embeds each text as its own direction, all with something in common."""

    def encode_queries(self, texts: list[str], progress: str | None = None) -> np.ndarray:
        return np.ones((len(texts), 8), dtype=np.float32)

    def encode_documents(self, texts: list[str], progress: str | None = None) -> np.ndarray:
        return 0.2 + np.eye(len(texts), 8, dtype=np.float32)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    rows = [
        {
            "document_id": "one",
            "chunk_index": index,
            "chunk_id": chunk_id,
            "chunk_text": f"text {chunk_id}",
            "heading_path": "",
            "page_start": 1,
            "page_end": 1,
            "token_count": 2,
            "file_name": "one.pdf",
        }
        for index, chunk_id in enumerate("abcdefg")
    ]
    rows += [rows[0] | {"document_id": "two", "chunk_index": 0}]
    rows += [rows[6] | {"document_id": "two", "chunk_index": 1}]
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    warehouse.replace("chunks", pl.DataFrame(rows, schema=TABLES["chunks"].schema))
    return warehouse


@pytest.fixture
def places(warehouse: Warehouse) -> pl.DataFrame:
    return warehouse.read("SELECT document_id, chunk_index, chunk_id FROM chunks")


def related_pairs(places: pl.DataFrame) -> pl.DataFrame:
    return with_related(PAIRS, neighbours(places, places["chunk_id"]))


def test_neighbours_are_those_in_any_document(places: pl.DataFrame) -> None:
    found = neighbours(places, places["chunk_id"])
    assert set(found.filter(chunk_id="a")["neighbour_id"]) == {"b", "g"}
    assert set(found.filter(chunk_id="d")["neighbour_id"]) == {"c", "e"}


def test_neighbours_are_looked_for_among_some_chunks_alone(places: pl.DataFrame) -> None:
    found = neighbours(places, pl.Series(["a", "c", "d", "g"]))
    assert found.rows() == [("a", "g"), ("c", "d"), ("d", "c"), ("g", "a")]


def test_related_are_all_that_answer_the_question_and_their_neighbours(
    places: pl.DataFrame,
) -> None:
    related = related_pairs(places)["related_chunk_ids"].to_list()
    assert related[0] == ["a", "b", "d", "e", "f", "g"]  # asked of two chunks
    assert related[1] == ["b", "c", "d", "e"]
    assert related[3] == ["a", "f", "g"]


def test_hard_negatives_are_chunks_that_are_trained_on(places: pl.DataFrame) -> None:
    related = related_pairs(places)
    found = with_negatives(related.head(2), related, OneHot(), 1)  # type: ignore[arg-type]
    assert found["negative_ids"].to_list() == [["c"], ["a"]] or found["negative_ids"].to_list() == [
        ["c"],
        ["g"],
    ]
    assert found["negatives"].to_list()[0] == ["text c"]
    assert found.columns[:2] == ["anchor", "positive"]
    assert found["extractive"].to_list() == [True, False]


def test_more_hard_negatives_than_chunks_is_a_wrong_setting(places: pl.DataFrame) -> None:
    related = related_pairs(places)
    with pytest.raises(SettingsError, match="EMBED_ASSETS_HARD_NEGATIVES: 3 hard negatives"):
        with_negatives(related, related, OneHot(), 3)  # type: ignore[arg-type]


def test_a_limit_of_pairs_takes_one_of_each_chunk_before_a_second_of_any() -> None:
    pairs = pl.DataFrame(
        {
            "question_id": [f"{i:02d}" for i in range(9)],
            "global_chunk_id": ["a", "a", "a", "a", "b", "b", "c", "c", "c"],
        }
    )
    assert set(select_pairs(pairs, 3)["global_chunk_id"]) == {"a", "b", "c"}
    assert select_pairs(pairs, 6)["global_chunk_id"].value_counts()["count"].to_list() == [2, 2, 2]
    assert select_pairs(pairs, 0).height == 9


def test_validation_searches_what_answers_and_a_part_of_the_rest() -> None:
    corpus = pl.DataFrame(
        {"chunk_id": [f"{i:02d}" for i in range(20)], "chunk_text": ["text"] * 20}
    )
    questions = pl.DataFrame({"relevant_chunk_ids": [["19", "07"], ["19"]]})
    assert validation_corpus(corpus, questions, 4)["chunk_id"].to_list() == ["07", "19", "00", "01"]
    assert validation_corpus(corpus, questions, 1)["chunk_id"].to_list() == ["07", "19"]
    assert validation_corpus(corpus, questions, 99).height == 20


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    settings = Settings(loss="gist", hard_negatives=2)
    with pytest.raises(SettingsError, match="EMBED_ASSETS_HARD_NEGATIVES"):
        training_config(tmp_path, settings, model_card(settings), "")


def test_processes_share_a_batch_evenly(tmp_path: Path) -> None:
    settings = Settings(processes=3, batch_size=32)
    config = training_config(tmp_path, settings, model_card(settings), "")
    assert (config.processes, config.batch_size) == (3, 33)


def test_extractive_pairs_are_capped_and_people_s_are_not(tmp_path: Path) -> None:
    pairs = pl.DataFrame(
        {
            "question_id": [f"{number:04}" for number in range(2200)],
            "global_chunk_id": [f"c{number // 2}" for number in range(2200)],
            "generator": ["extractive"] * 2000 + ["labelled:q.jsonl"] * 199 + [None],
        }
    )
    chosen = pairs_to_train(pairs, Settings())
    assert chosen.filter(generator="extractive").height == 1024, "512 in each of two epochs"
    assert chosen.filter(pl.col("generator").ne_missing("extractive")).height == 200
    assert chosen["question_id"].is_sorted()
    for settings, count in (
        (Settings(epochs=1), 512 + 200),
        (Settings(epochs=4), 2000 + 200),
        (Settings(method="adapter", epochs=4), 512 + 200),
        (Settings(max_pairs=0), 2200),
        (Settings(max_pairs=100), 100),
    ):
        assert pairs_to_train(pairs, settings).height == count
        config = training_config(tmp_path, settings, model_card(settings), "")
        turns = settings.max_pairs is None and settings.method != "adapter"
        assert config.extractive_per_epoch == (512 if turns else 0)


def test_of_a_training_on_mostly_extractive_questions_half_the_base_is_kept() -> None:
    def share(extractive: int, written: int, **given: object) -> float | str:
        generators = ["extractive"] * extractive + ["openai:any"] * written + [None]
        pairs = pl.DataFrame({"generator": generators})
        return merge(Settings.model_validate(given), pairs)

    assert share(9, 2) == 0.5
    assert share(2, 9) == 1.0
    assert share(9, 2, method="adapter") == 1.0
    assert share(9, 2, merge="best") == "best"
    assert share(9, 2, merge="0.75") == 0.75
    assert share(1024, 500) == 0.5
    assert share(1024, 600) == share(2048, 600, epochs=4) == 1.0, "512 of them in an epoch"
    assert share(1024, 600, max_pairs=0) == 0.5


def test_a_batch_of_one_chunk_is_refused(tmp_path: Path) -> None:
    settings = Settings(pairs_together=8, batch_size=8)
    with pytest.raises(SettingsError, match="EMBED_ASSETS_PAIRS_TOGETHER"):
        training_config(tmp_path, settings, model_card(settings), "")


SPLIT_PAIRS = PAIRS.with_columns(
    document_id=pl.lit("one"),
    generator=pl.lit("extractive"),
    split=pl.Series(["train", "train", "validation", "test_seen_documents"]),
)


def trained_on(warehouse: Warehouse) -> tuple[pl.DataFrame, ...]:
    """What a training reads, without the names of questions and files, and its version."""
    given = read_training_input(warehouse)
    tables = ("training_pairs", "chunks")
    pairs, places = (warehouse.read(f"SELECT * FROM {name}") for name in tables)
    version = pl.DataFrame({"version": part_versions(pairs, places)[TRAINING]})
    names = ("question_id", "document_id", "path")
    frames = (given.pairs, given.validation, given.corpus, given.neighbours, version)
    return tuple(
        frame.drop(names, strict=False).sort(pl.all().exclude("relevant_chunk_ids"))
        for frame in frames
    )


def test_a_training_reads_the_chunks_that_train_or_validate_and_no_others(
    warehouse: Warehouse,
) -> None:
    warehouse.replace("raw_pdfs", pdfs("one", "two"))
    warehouse.replace("training_pairs", SPLIT_PAIRS)
    given = read_training_input(warehouse)
    assert given.corpus.rows() == [("a", "text a"), ("c", "text c"), ("e", "text e")]
    assert given.pairs["relevant_chunk_ids"].to_list() == [["a"], ["c"]], "d is nobody's positive"
    assert given.validation["question_id"].to_list() == ["q3"]
    assert given.neighbours.is_empty(), "b, d and g stand between them"


def test_a_test_question_and_a_held_out_pdf_change_nothing_that_is_trained_on(
    warehouse: Warehouse,
) -> None:
    warehouse.replace("raw_pdfs", pdfs("one"))
    warehouse.replace("training_pairs", SPLIT_PAIRS)
    before = trained_on(warehouse)
    chunks = warehouse.read("SELECT * FROM chunks WHERE chunk_id IN ('b', 'd')")
    held_out = chunks.with_columns(document_id=pl.lit("held-out"), chunk_id=pl.lit("new"))
    held_out = held_out.unique("chunk_id")
    pair = SPLIT_PAIRS.tail(1).with_columns(
        question_id=pl.lit("q0"), document_id=pl.lit("held-out"), global_chunk_id=pl.lit("new")
    )
    warehouse.replace("raw_pdfs", pdfs("one", "held-out"))
    warehouse.replace("chunks", held_out, {"document_id": ["held-out"]})
    warehouse.replace("training_pairs", pl.concat([pair, SPLIT_PAIRS]))
    for old, new in zip(before, trained_on(warehouse), strict=True):
        assert_frame_equal(old, new)


def test_a_new_name_of_a_file_changes_nothing_that_is_trained_on(warehouse: Warehouse) -> None:
    warehouse.replace("raw_pdfs", pdfs("one", "two"))
    warehouse.replace("training_pairs", SPLIT_PAIRS)
    before = trained_on(warehouse)
    new_name = pl.col("document_id").replace("one", "uno")
    chunks = warehouse.read("SELECT * FROM chunks").with_columns(document_id=new_name)
    moved = SPLIT_PAIRS.with_columns(document_id=new_name, question_id=pl.Series(list("9142")))
    warehouse.replace("raw_pdfs", pdfs("uno", "two"))
    warehouse.replace("chunks", chunks)
    warehouse.replace("training_pairs", moved)
    for old, new in zip(before, trained_on(warehouse), strict=True):
        assert_frame_equal(old, new)


def test_pairs_that_an_older_version_made_are_not_trained_on(warehouse: Warehouse) -> None:
    """They don't say which questions are extractive: more of them, and otherwise, would train."""
    warehouse.replace("raw_pdfs", pdfs("one"))
    warehouse.replace("training_pairs", SPLIT_PAIRS)
    assert read_training_input(warehouse).pairs["path", "sha256"].unique().rows() == [
        ("one.pdf", "5a")
    ]
    with duckdb.connect(warehouse.path) as connection:
        connection.execute("ALTER TABLE training_pairs DROP COLUMN generator")
    with pytest.raises(ProjectError, match="Materialize training_pairs again"):
        read_training_input(warehouse)


def test_where_there_are_no_pairs_an_error_says_what_to_do_first(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="materialize training_pairs first"):
        read_training_input(Warehouse(path=str(tmp_path / "warehouse.duckdb")))
