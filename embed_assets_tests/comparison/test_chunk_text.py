"""A chunk for people to read: the marks of markdown become what they mean, nothing else does."""

import pytest

from embed_assets.comparison.chunk_text import to_html, to_words


@pytest.mark.parametrize(
    ("markdown", "words"),
    [
        ("## **Torque**  \nTighten _all_ bolts.", "Torque: Tighten all bolts."),
        ("### Why?\n\nBecause.", "Why? Because."),
        ("- one\n- two", "one two"),
        ("| a | b |\n| - | - |\n| c<br>d | e |", "a b c d e"),
        ("see [the page](http://x) ![a pump](p.png)", "see the page a pump"),
        ("no_marks_here 3 * 4 * 5 <i>", "no_marks_here 3 * 4 * 5 <i>"),
        ("    far right in the PDF\n---", "far right in the PDF"),
        ("`code` and\n\n```\nmore\n```", "code and more"),
        ("", ""),
    ],
)
def test_the_words_of_a_chunk_stand_on_one_line_without_marks(markdown, words):
    assert to_words(markdown) == words


def test_headings_emphasis_and_tables_are_shown_as_such():
    html = to_html("# Torque\n\n**All** bolts\n\n| a |\n| - |\n| b |")
    assert '<p class="heading">Torque</p>' in html
    assert "<strong>All</strong> bolts" in html
    assert "<td>b</td>" in html


@pytest.mark.parametrize(
    "markdown",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1)) [b](http://x) <http://x> ![c](http://x)",
        "[a]: http://x\n\n[a]",
        '```"><script>\nx\n```',
        "<!-- --><svg/onload=alert(1)>",
    ],
)
def test_no_element_of_a_chunk_s_own_a_link_or_a_picture_comes_out(markdown):
    html = to_html(markdown)
    for tag in ("<script", "<img", "<a ", "<svg", "<!--", "src=x>", 'href="'):
        assert tag not in html
