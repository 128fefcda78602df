"""A person's question is one test question, wherever and however often it is answered."""

import polars as pl

from embed_assets.pairs.selection import drop_leaks, merge_test_questions


def questions(*rows: tuple[str, str, list[str], str, str, float | None]) -> pl.DataFrame:
    """rows: question_id, text, relevant chunks (best first), document, purpose, score."""
    names = ["question_id", "anchor", "relevant_chunk_ids", "document_id", "purpose", "score"]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(
        chunk_id=pl.col("relevant_chunk_ids").list.first(),
        positive=pl.col("relevant_chunk_ids").list.first().str.to_uppercase(),
        split=pl.when(pl.col("purpose") == "test")
        .then(pl.lit("test_labelled"))
        .otherwise(pl.lit("train")),
    )


def test_a_test_question_answered_in_two_documents_is_one_with_the_chunks_of_both():
    merged = merge_test_questions(
        questions(
            ("q1", "Why?", ["a", "b"], "copy-1", "test", 0.8),
            ("q2", "Why?", ["c", "b"], "rig-2", "test", 1.0),
        )
    )
    [row] = merged.to_dicts()
    assert row["relevant_chunk_ids"] == ["c", "b", "a"]
    assert (row["question_id"], row["chunk_id"], row["positive"]) == ("q2", "c", "C")
    assert (row["document_id"], row["score"]) == ("rig-2", 1.0)


def test_of_matches_that_are_equally_good_always_the_same_is_kept():
    rows = [("q2", "Why?", ["a"], "x", "test", 1.0), ("q1", "Why?", ["b"], "y", "test", 1.0)]
    for order in (rows, rows[::-1]):
        assert merge_test_questions(questions(*order))["question_id"].to_list() == ["q1"]


def test_other_questions_and_those_for_training_stay_as_they_are():
    given = questions(
        ("q1", "Why?", ["a"], "x", "train", None),
        ("q2", "Why?", ["b"], "x", "train", 0.9),
        ("q3", "Why?", ["a", "b"], "x", "test", 0.9),
        ("q4", "How?", ["a"], "x", "test", 0.9),
    )
    merged = merge_test_questions(given)
    assert merged.sort("question_id").equals(given)
    assert merge_test_questions(given.clear()).equals(given.clear())


def asked_in(*rows: tuple[str, str]) -> pl.DataFrame:
    """rows: text and split. The number of each row is the chunk that answers it."""
    return pl.DataFrame(rows, schema=["anchor", "split"], orient="row").with_columns(
        relevant_chunk_ids=pl.concat_list(pl.int_range(pl.len()).cast(pl.String))
    )


def test_a_text_that_stands_in_one_split_stays():
    rows = asked_in(("What is the fee?", "train"), ("How long?", "test_seen_documents"))
    assert drop_leaks(rows)["status"].to_list() == ["KEPT", "KEPT"]


def test_a_text_stands_in_one_split_alone():
    rows = asked_in(
        ("What is the fee?", "train"),
        ("what is the FEE", "validation"),
        ("What is the fee?", "test_unseen_documents"),
        ("What is the fee?", "test_seen_documents"),
        ("…", "train"),
        ("?", "validation"),
        ("Why?", "test_seen_documents"),
        ("Why?", "test_unseen_documents"),
        ("Why?", "test_unseen_documents"),
        ("How?", "train"),
        ("How?", "test_labelled"),
        ("How?", "test_unseen_documents"),
    )
    kept = drop_leaks(rows).filter(status="KEPT")
    assert kept.select("split", "relevant_chunk_ids").rows() == [
        ("validation", ["1", "0"]),  # nothing from the tests
        ("train", ["4"]),
        ("validation", ["5"]),
        ("test_unseen_documents", ["7", "6"]),
        ("test_unseen_documents", ["8", "6"]),
        ("test_labelled", ["10", "9", "11"]),
    ]
