"""What a person sees first of a document's questions."""

import polars as pl

from embed_assets.questions.preview import SHOWN, dropped_questions, first_questions
from embed_assets_tests.rows import filled

PURPOSES = {"labelled": "test", "question": "train"}


def test_reasons_are_in_words_and_in_the_order_in_which_questions_are_dropped():
    statuses = ["DUPLICATE", "KEPT", "VERBATIM", "DUPLICATE", "NEW_REASON"]
    assert dropped_questions(statuses).rows() == [
        ("quotes its chunk", 1),
        ("duplicate", 2),
        ("NEW_REASON", 1),
    ]
    assert dropped_questions(["KEPT"]).is_empty()


def test_people_s_questions_come_first_then_those_that_are_kept_with_page_and_chunk():
    chunks = filled(
        "chunks",
        [
            {"chunk_id": "a", "chunk_index": 0, "chunk_text": "Of A.", "page_start": 1},
            {"chunk_id": "b", "chunk_index": 1, "chunk_text": "Of B.", "page_start": 4},
            {"chunk_id": "a", "chunk_index": 2, "chunk_text": "Of A.", "page_start": 9},
        ],
    )
    rows = [
        ("1", "a", "question", "VERBATIM"),
        ("2", "b", "question", "KEPT"),
        ("3", "a", "question", "KEPT"),
        ("4", "", "labelled", "EVIDENCE_NOT_FOUND"),
    ]
    questions = pl.DataFrame(
        [
            (key, chunk, f"Question {key}?", kind, "g", PURPOSES[kind], status)
            for key, chunk, kind, status in rows
        ],
        ["question_id", "chunk_id", "question", "kind", "generator", "purpose", "status"],
        orient="row",
    )
    assert first_questions(questions, chunks).rows() == [
        (None, "Question 4?", "a person", "test", "evidence not found", None),
        (1, "Question 3?", "g", "train", "kept", "Of A."),
        (4, "Question 2?", "g", "train", "kept", "Of B."),
        (1, "Question 1?", "g", "train", "quotes its chunk", "Of A."),
    ]


def test_some_of_each_writer_and_purpose_are_shown_however_many_people_asked():
    writers = [("labelled", "q", "test")] * 20 + [("labelled", "q", "train")] * 20
    writers += [("question", "extractive", "train")] * 20 + [("question", "openai:m", "train")]
    questions = pl.DataFrame(
        [
            (f"{n:02}", "a", "Why?", kind, by, purpose, "KEPT")
            for n, (kind, by, purpose) in enumerate(writers)
        ],
        ["question_id", "chunk_id", "question", "kind", "generator", "purpose", "status"],
        orient="row",
    )
    chunks = filled("chunks", [{"chunk_id": "a", "chunk_index": 0}])
    shown = first_questions(questions, chunks)
    assert shown.select("by", "purpose").rows() == [
        ("a person", "test"),
        ("a person", "test"),
        ("a person", "train"),
        ("extractive", "train"),
        ("openai:m", "train"),
    ]
    assert shown.height == SHOWN
