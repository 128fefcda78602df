"""What the kinds that the package left out ask, so that their figures can be made again."""

from collections.abc import Callable

import pytest

from embed_assets.questions.extractive.passages import Passage, read_passage
from embed_assets.questions.extractive.salience import Salience
from embed_assets.words import count_words

kinds = pytest.importorskip("benchmarks.extractive_kinds")

LEAK_TEST = """Hang the closed pike at 5 m for fifteen minutes and read the page of the purser.

| Depth | Time | Greatest rise |
|---|---|---|
| Shallow basin | 15 min | 3 points |
| Pressure vessel | **40 min** | 1 point |
"""
TABLE = LEAK_TEST[LEAK_TEST.index("| Depth") :]
BATTERY = "At four hours left the purser finishes the cast in hand and starts no more."


def ask(kind: Callable[[Passage, Salience], list[str]], text: str, path: str = "") -> list[str]:
    """The questions of a kind about a chunk that is its whole document."""
    passage = read_passage("id", text, path)
    return kind(passage, Salience.of([passage]))


@pytest.mark.parametrize(
    ("path", "text", "asked"),
    [
        ("Manual > 3.1 Opening the housing", LEAK_TEST, "How do you go about opening the housing?"),
        ("Manual > 3.2 Leak test", LEAK_TEST, "Leak test"),
        ("Manual > Battery", BATTERY, "Manual: Battery"),  # a single word says too little
    ],
)
def test_a_heading_is_asked_first_as_one_asks(path, text, asked):
    assert ask(kinds.heading_questions, text, path)[0] == asked


def test_a_heading_is_asked_last_with_the_chunks_own_terms():
    charger = "The charger warms the cells before it charges them: the charger shows a snowflake."
    narrowed = ask(kinds.heading_questions, charger, "Manual > Charging in the cold")[-1]
    assert narrowed.startswith("Charging in the cold: ")
    assert "charger" in narrowed
    assert ask(kinds.heading_questions, charger) == []


def test_the_rows_of_a_table_are_its_sentences_where_it_stands_alone():
    assert ask(kinds.sentence_questions, TABLE) == [
        "Depth: Shallow basin, Time: 15 min, Greatest rise: 3 points",
        "Depth: Pressure vessel, Time: 40 min, Greatest rise: 1 point",
    ]
    rest = TABLE.split("\n", 2)[2]  # a chunk that begins inside a table has no header
    assert "Shallow basin, 15 min, 3 points" in ask(kinds.sentence_questions, rest)
    assert len(ask(kinds.sentence_questions, LEAK_TEST)) == 1


def test_sentences_that_stand_on_their_own_come_before_those_that_point_elsewhere():
    text = "This ruins its resin, springs and bearings. Grease the bearings with white grease only."
    assert ask(kinds.sentence_questions, text) == [
        "Grease the bearings with white grease only",
        "This ruins its resin, springs and bearings",
    ]


def test_a_table_of_contents_has_no_sentences():
    contents = "Charging ........ 8\n\nUpdating the watch ........ 9\n\nPowering on and off ..... 9"
    assert ask(kinds.sentence_questions, contents) == []


def test_a_long_sentence_is_cropped_at_a_comma():
    long = "The winch " + "lowers the pike and " * 6 + "stops at the floor, " + "and waits " * 30
    (question,) = ask(kinds.sentence_questions, long)
    assert question.endswith("stops at the floor")
    assert count_words(question) <= 30
