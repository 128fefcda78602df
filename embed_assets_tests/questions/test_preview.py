"""What a person sees first of a document's questions."""

import polars as pl

from embed_assets.questions.preview import SHOWN, dropped_questions, first_questions
from embed_assets_tests.rows import filled


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
        [(key, chunk, f"Question {key}?", kind, "g", status) for key, chunk, kind, status in rows],
        ["question_id", "chunk_id", "question", "kind", "generator", "status"],
        orient="row",
    )
    assert first_questions(questions, chunks).rows() == [
        (None, "Question 4?", "a person", "evidence not found", None),
        (1, "Question 3?", "g", "kept", "Of A."),
        (4, "Question 2?", "g", "kept", "Of B."),
        (1, "Question 1?", "g", "quotes its chunk", "Of A."),
    ]
    many = pl.concat([questions] * SHOWN)
    assert first_questions(many, chunks).height == SHOWN
