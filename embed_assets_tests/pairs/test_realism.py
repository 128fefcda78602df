"""What questions are like is told as it is: by whom, for what, how hard."""

from pathlib import Path

import polars as pl
import pytest

from embed_assets.pairs import realism as module
from embed_assets.pairs.realism import SCHEMA, read_realism, realism, realism_table
from embed_assets.resources.warehouse import Warehouse
from embed_assets_tests.rows import chunk, filled

TEXTS = {
    "valve": "Open the valve before the pump is started.",
    "winch": "The winch lifts two tonnes, and the drum is of steel.",
    "drum": "A drum of steel, a drum of brass, a drum of tin.",
}
CORPUS = pl.DataFrame({"chunk_id": list(TEXTS), "chunk_text": list(TEXTS.values())})


def questions(*rows: tuple[str, str, str, str]) -> pl.DataFrame:
    """By writer, use, question and the chunk that answers."""
    return pl.DataFrame(
        [
            {"question_id": str(n), "writer": w, "use": u, "anchor": q, "relevant_chunk_ids": [c]}
            for n, (w, u, q, c) in enumerate(rows)
        ],
        schema=dict.fromkeys(("question_id", "writer", "use", "anchor"), pl.String)
        | {"relevant_chunk_ids": pl.List(pl.String)},
    )


def test_people_come_first_and_each_writer_and_use_has_its_figures():
    rows = realism(
        questions(
            ("rules", "trains", "valve pump", "valve"),
            ("rules", "trains", "steel drum", "winch"),
            ("people", "tests", "How do I begin at dawn?", "valve"),
            ("a language model", "tests", "What can the winch lift? ", "winch"),
        ),
        CORPUS,
    )
    assert rows.schema == SCHEMA
    assert rows.drop("looked_at").rows() == [
        ("people", "tests", 1, 6.0, 0.0, 0.0, 0.0, 1.0),
        ("a language model", "tests", 1, 5.0, 0.5, 1.0, 1.0, 1.0),
        # Of "steel drum" all stands in the answer, and more of it in another chunk.
        ("rules", "trains", 2, 2.0, 1.0, 0.5, 1.0, 0.0),
    ]


def test_of_several_answers_the_nearest_counts_and_those_that_left_do_not():
    asked = questions(("people", "tests", "drum of brass", "winch")).with_columns(
        relevant_chunk_ids=pl.lit(["winch", "gone", "drum"], pl.List(pl.String))
    )
    [row] = realism(asked, CORPUS).to_dicts()
    assert (row["shared_words"], row["found_first"]) == (1.0, 1.0)
    left = questions(*[("people", "tests", "winch", chunk) for chunk in ("winch", "gone")])
    [row] = realism(left, CORPUS).to_dicts()
    assert (row["questions"], row["found_first"], row["found_in_ten"]) == (2, 1.0, 1.0)
    [row] = realism(left[1:], CORPUS).to_dicts()
    assert (row["found_first"], row["found_in_ten"]) == (None, None)


def test_a_question_without_words_has_no_share_and_is_not_found():
    rows = realism(questions(("people", "tests", "the of?", "valve")), CORPUS)
    assert rows.select("shared_words", "found_in_ten").row(0) == (None, 0.0)
    assert realism_table(rows).row(0)[-4:] == ("–", "0 %", "0 %", "100 %")


def test_many_questions_are_looked_at_in_part_and_counted_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LOOKED_AT", 2)
    asked = questions(*[("rules", "tests", "valve", "valve")] * 5)
    rows = realism(asked, CORPUS)
    assert rows.select("questions", "looked_at").row(0) == (5, 2)
    assert realism_table(rows)["questions"].item() == "2 of 5"


def test_a_large_corpus_is_searched_in_part_with_every_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SEARCHED", 1)
    [row] = realism(questions(("rules", "trains", "steel drum", "winch")), CORPUS).to_dicts()
    assert row["found_first"] == 1.0


def test_no_questions_have_no_rows():
    assert realism_table(realism(questions(), CORPUS)).is_empty()


def test_who_wrote_a_stored_question_follows_from_its_kind_and_generator(tmp_path: Path):
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    made = [
        ("a", "labelled", "labelled:q.csv", "test_labelled"),
        ("b", "labelled", "labelled:q.csv", "train"),
        ("c", "keywords", "extractive", "validation"),
        ("d", "question", "openai:m", "test_seen_documents"),
        # Of an older home, and two whose question is gone since.
        ("e", "keywords", None, "train"),
        ("f", None, None, "train"),
        ("g", None, "labelled:q.csv", "test_labelled"),
    ]
    pairs = [
        {"question_id": i, "anchor": "valve?", "generator": by, "split": split}
        | {"relevant_chunk_ids": ["md5 of valve"]}
        for i, _, by, split in made
    ]
    asked = [
        {"question_id": i, "kind": kind, "generator": by or "extractive"}
        for i, kind, by, _ in made
        if kind
    ]
    with warehouse.transaction() as transaction:
        transaction.replace("chunks", chunk("d", "valve"))
        transaction.replace("training_pairs", filled("training_pairs", pairs))
        transaction.replace("synthetic_questions", filled("synthetic_questions", asked))
    assert read_realism(warehouse).select("writer", "use", "questions").rows() == [
        ("people", "tests", 2),
        ("people", "trains or chooses", 1),
        ("a language model", "tests", 1),
        ("rules", "trains or chooses", 2),
        ("not known", "trains or chooses", 1),
    ]
