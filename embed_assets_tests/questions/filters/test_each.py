"""What is said of a question and its chunk alone."""

from collections.abc import Set as AbstractSet

import polars as pl
import pytest

from embed_assets.questions.filters.each import filter_each, quotes
from embed_assets.questions.filters.names import FILTERS
from embed_assets.questions.statuses import (
    KEPT,
    POINTS_AT_TEXT,
    UNANSWERABLE,
    VERBATIM,
)

CHUNK = (
    "## Winch\n\nThe float is lifted by **hand** once the winch brake has been released; "
    "a torque of 12 Nm must not be exceeded."
)
ALL = frozenset(FILTERS)


def question(text: str, **columns) -> dict:
    row = {
        "question_id": text,
        "question": text,
        "chunk_id": "winch",
        "relevant_chunk_ids": ["winch"],
        "kind": "factual",
        "purpose": "train",
        "generator": "openai:some-model",
        "status": KEPT,
        "answerable": True,
        "may_train": True,
        "turn": 1,
    }
    return row | columns


def statuses_of_each(*rows: dict, enabled: AbstractSet[str] = ALL) -> list[str]:
    return filter_each(pl.DataFrame(rows), {"winch": CHUNK}, enabled)["status"].to_list()


def test_each_dropped_question_keeps_its_row_and_its_reason():
    rows = [
        question("How is the float lifted?"),
        question("How heavy is the float?", answerable=False),
        question("What does this section say about the winch?"),
        question("How is a torque of 12 nm must not be exceeded?"),
    ]

    assert statuses_of_each(*rows) == [KEPT, UNANSWERABLE, POINTS_AT_TEXT, VERBATIM]


def test_a_filter_that_is_off_drops_nothing():
    rows = [
        question("How heavy is the float?", answerable=False),
        question("What does this section say about the winch?"),
        question("A torque of 12 Nm must not be exceeded"),
    ]

    assert statuses_of_each(*rows, enabled=frozenset()) == [KEPT] * 3
    assert statuses_of_each(*rows, enabled={"pointing"}) == [KEPT, POINTS_AT_TEXT, KEPT]


def test_an_unknown_answerability_counts_as_answerable():
    unknown = pl.DataFrame([question("How is the float lifted?", answerable=None)])

    for questions in (unknown, unknown.drop("answerable")):
        assert filter_each(questions, {"winch": CHUNK}, ALL)["status"].to_list() == [KEPT]


def test_people_s_questions_are_never_judged():
    person = {"kind": "labelled", "generator": "labelled:q.jsonl", "answerable": False}
    rows = [
        question("What does this section say about the winch?", **person),
        question("A torque of 12 Nm must not be exceeded", **person),
    ]

    assert statuses_of_each(*rows) == [KEPT, KEPT]


def test_the_first_reason_stays():
    failed = question("What does this section say about the winch?", status="FAILED")

    assert statuses_of_each(failed) == ["FAILED"]


def test_what_quotes_by_design_may_quote():
    sentence = "a torque of 12 Nm must not be exceeded"

    assert statuses_of_each(question(sentence, generator="extractive"), question(sentence)) == [
        KEPT,
        VERBATIM,
    ]


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("The float is lifted by hand once the winch brake has been released", True),
        ("Is a TORQUE of 12 Nm must not be exceeded?", True),  # 8 of 9 words, markup and case aside
        ("Why is the float lifted by hand?", False),  # 4 of 7 words in a run
        ("the winch brake has", False),  # four words name a thing rather than quote
        ("What must have happened before the float is lifted?", False),
        ("float the lifted is hand by once winch the", False),  # the words, in no run
    ],
)
def test_a_question_that_copies_a_run_of_words_quotes(text, quoted):
    assert quotes(text, CHUNK) is quoted


def test_a_quotation_is_found_where_words_have_no_spaces():
    text = "本产品的保修期自购买之日起为两年。"

    assert quotes("产品的保修期自购买之日起为多久", text)
    assert not quotes("买了之后多长时间内可以免费维修这个产品", text)


def test_a_question_is_no_quotation_for_ending_in_part_of_a_word():
    assert not quotes("one two three four five", "zone two three four fives")
