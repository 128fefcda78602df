"""What a spreadsheet would take for a formula is marked in an export, and read back as it was."""

import csv
import io

import pytest

from embed_assets.questions.formulas import mark_formulas, unmark_formulas
from embed_assets.questions.labelled.files import CHUNK_BREAK
from embed_assets_tests.hostile import FORMULAS, HOSTILE

PLAIN = ("What is it?", "a=b", "1+1", "", "it's", "'quoted' text", "'tis")


@pytest.mark.parametrize("text", FORMULAS.values(), ids=FORMULAS)
def test_a_formula_begins_with_an_apostrophe(text):
    assert mark_formulas(text, CHUNK_BREAK) == f"'{text}"


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_stays_as_it_is(text):
    assert mark_formulas(text, CHUNK_BREAK) == unmark_formulas(text, CHUNK_BREAK) == text


def test_what_is_read_back_is_what_was_written_also_through_a_table():
    texts = [*PLAIN, *HOSTILE.values(), CHUNK_BREAK.join(FORMULAS.values())]
    texts += [mark_formulas(text, CHUNK_BREAK) for text in texts]
    for text in texts:
        file = io.StringIO()
        csv.writer(file).writerow([mark_formulas(text, CHUNK_BREAK)])
        [[cell]] = csv.reader(io.StringIO(file.getvalue(), newline=""))
        assert unmark_formulas(cell, CHUNK_BREAK) == text.replace("\r\n", "\n") or "\r" in text
