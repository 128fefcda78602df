"""Texts in a cell, and lists that were written as texts."""

import numpy as np
import pytest

from embed_assets.questions.labelled.texts import cell_texts, is_empty, list_in_text, passage

TEXTS = ['It\'s "here".\n\nTwo lines', "back\\slash, [1]", "Öl"]


@pytest.mark.parametrize(
    "written",
    [
        repr(TEXTS),
        '["It\'s \\"here\\".\\n\\nTwo lines", "back\\\\slash, [1]", "\\u00d6l"]',
        str(np.array(TEXTS, dtype=object)),
        repr(np.array(TEXTS, dtype=object)),
    ],
    ids=["Python", "JSON", "NumPy's str", "NumPy's repr"],
)
def test_a_list_that_was_written_as_a_text_is_a_list(written: str):
    assert list_in_text(written) == TEXTS
    assert cell_texts(written) == TEXTS


@pytest.mark.parametrize(
    "text",
    [
        "[1] See page two.",
        "[see page two]",
        "[1, 2]",
        "['a', print('b')]",
        "[__import__('os').system('true')]",
        "['a' + 'b']",
        "[f'{x}']",
        "['open]",
        "[",
        "array(x)",
    ],
)
def test_what_only_begins_like_a_list_is_a_text(text: str):
    assert list_in_text(text) is None
    assert cell_texts(text) == [text]


@pytest.mark.parametrize("begin", ["'", "[", "'\\", '"a" \'', "' ,"])
def test_a_hostile_list_does_not_take_for_ever(begin: str):
    text = f"[{begin * 99_999}]"
    assert cell_texts(text) == [text]


def test_texts_may_stand_in_objects_and_lists():
    assert cell_texts([{"page_content": "a", "metadata": {}}, {"text": ["b", None]}]) == ["a", "b"]
    with pytest.raises(TypeError, match="an object without a text"):
        cell_texts([{"url": "x"}])
    with pytest.raises(TypeError, match="bytes"):
        cell_texts(b"x")
    with pytest.raises(ValueError, match="half a character"):
        cell_texts("half \ud83d")


def test_the_hop_of_ragas_is_no_part_of_a_passage():
    assert passage("<12-hop>\n\nThe gates close.") == "The gates close."
    assert passage("The <1-hop> gates") == "The <1-hop> gates"


def test_a_cell_that_says_nothing_is_empty():
    nothing = [None, float("nan"), "", " \n", "nan", "NaN", "#N/A", "null", "<NA>", [], {}, "None"]
    assert all(is_empty(value) for value in nothing)
    assert not any(is_empty(value) for value in (0, False, "no", ["a"]))
    assert not is_empty("None", words_mean_nothing=False)  # as an answer it may be meant
