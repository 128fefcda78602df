"""Counts and changes are said in one way."""

import pytest
from markdown_it import MarkdownIt

from embed_assets.wording import (
    change,
    counted,
    in_cell,
    in_lines,
    in_markdown,
    printable,
    signed_percent,
    watt_hours,
)
from embed_assets_tests.hostile import HOSTILE, OBEYED


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 documents"), (1, "1 document"), (2, "2 documents"), (1200, "1,200 documents")],
)
def test_a_count_has_its_noun_in_the_right_number(count: int, said: str) -> None:
    assert counted(count, "document") == said


def test_a_noun_may_have_a_plural_of_its_own() -> None:
    assert counted(2, "library", "libraries") == "2 libraries"
    assert counted(1, "library", "libraries") == "1 library"


def test_a_change_has_its_sign() -> None:
    assert signed_percent(17.26) == "+17.3 %"
    assert change(0.5, 0.4) == "\N{MINUS SIGN}20.0 %"


def test_what_there_was_none_of_has_not_changed_by_percents() -> None:
    assert change(0.0, 0.4) == signed_percent(None) == "–"


def test_a_small_amount_of_energy_is_not_none():
    said = [watt_hours(energy) for energy in (12.3456, 0.03, 0.0031, 0)]
    assert said == ["12.35 Wh", "0.03 Wh", "0.0031 Wh", "0 Wh"]


def rendered(markdown: str) -> tuple[set[str], list[str]]:
    """Kinds of what markdown becomes, and its texts, with code and tags as they would be shown."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)
    inline = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in (*tokens, *inline) if token.type != "inline"}
    return kinds, [child.content for child in inline]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_text_of_others_means_nothing_in_markdown(text):
    kinds, texts = rendered(f"{in_markdown(text)}: it can't be read")
    assert kinds <= {"paragraph_open", "paragraph_close", "text", "code_inline"}
    assert "".join(texts) == f"{printable(text)}: it can't be read"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_text_of_others_stays_in_its_cell(text):
    kinds, texts = rendered(f"| a | b |\n| --- | --- |\n| {in_cell(text)} | end |")
    assert {kind for kind in kinds if not kind.startswith(("t", "code_inline"))} == set()
    shown = printable(text).strip().replace("\\|", "\\\u2502")
    assert "".join(texts) == f"ab{shown}end"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_bar_in_a_cell_has_two_backslashes_before_it(text):
    """Of those GitHub's grammar, which Dagster has, makes a backslash and the end of the cell."""
    assert "\\\\|" not in in_cell(text)


@pytest.mark.parametrize("text", ["a.pdf", "Grüße (2).pdf", "file not found: it has left", ""])
def test_ordinary_text_is_no_code_in_markdown(text):
    assert in_markdown(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m\n\t\r", r"\x1b[31m\n\t\r"),
        ("\x9b\x7f\u202e\udce9\ud83d", r"\x9b\x7f\u202e\xe9\ud83d"),
        ("عربي‏ עברית‎ हिन्\u200dदी 👩\u200d🔬", "عربي‏ עברית‎ हिन्\u200dदी 👩\u200d🔬"),
    ],
)
def test_what_a_terminal_obeys_is_written_out_and_what_people_write_stays(text, shown):
    assert printable(text) == shown


def test_a_line_break_in_a_row_begins_no_line():
    assert in_lines(["one\ntwo", "three"]) == "one\\ntwo\nthree"
    assert not OBEYED.search(in_lines(HOSTILE.values()))
