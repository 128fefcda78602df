"""Chunks fit the model, keep their headings, and say truly on which pages they stand."""

import hashlib
import re
import unicodedata
from itertools import pairwise

import polars as pl
import pymupdf
import pytest

from embed_assets.documents.chunking import chunk_documents, chunk_markdown
from embed_assets.documents.reading import PARSER, parse_pdf
from embed_assets.settings import Headings
from embed_assets.tables import TABLES

LIMIT = 50  # of which a chunk may have 45 words, and share 5 with the next

Chunk = dict


def count_words(text: str) -> int:
    return len(text.split())


def words(name: str, count: int) -> str:
    """So many different words: a0 a1 a2 …"""
    return " ".join(f"{name}{number}" for number in range(count))


def chunked(
    *pages: str, limit: int = LIMIT, first: int = 1, headings: Headings = "first"
) -> list[Chunk]:
    return list(chunk_markdown(list(enumerate(pages, first)), count_words, limit, headings))


def spans(chunks: list[Chunk]) -> list[tuple[int, int]]:
    return [(chunk["page_start"], chunk["page_end"]) for chunk in chunks]


def lines(chunk: Chunk) -> list[str]:
    return [line.strip() for line in chunk["chunk_text"].splitlines() if line.strip()]


# Pages.


def test_a_section_that_begins_on_one_page_and_ends_on_the_next_has_both():
    chunks = chunked(
        f"# Alpha\n\n{words('a', 20)}",
        f"# Beta\n\n{words('b', 15)}",
        f"{words('c', 15)}\n\n# Gamma\n\n{words('d', 20)}",
    )
    assert [chunk["heading_path"] for chunk in chunks] == ["Alpha", "Beta", "Gamma"]
    assert spans(chunks) == [(1, 1), (2, 3), (3, 3)]
    assert "b14" in chunks[1]["chunk_text"]
    assert "c0" in chunks[1]["chunk_text"]


def test_a_long_section_over_three_pages_has_the_pages_of_each_of_its_chunks():
    chunks = chunked(
        f"# Alpha\n\n{words('a', 40)}",
        f"{words('b', 100)}",
        f"{words('c', 20)}\n\n{words('d', 20)}",
    )
    pages_of = {"a": 1, "b": 2, "c": 3, "d": 3}
    for chunk in chunks:
        present = {pages_of[letter] for letter in re.findall(r"\b([abcd])\d+", chunk["chunk_text"])}
        assert spans([chunk]) == [(min(present), max(present))]


def test_a_chunk_that_begins_right_at_a_page_break_does_not_count_the_page_before():
    chunks = chunked(words("a", 40), words("b", 40))
    assert spans(chunks) == [(1, 1), (2, 2)]


def test_a_chunk_that_ends_right_at_a_page_break_does_not_count_the_page_after():
    chunks = chunked(f"{words('a', 30)}\n\n# Beta", words("b", 30))
    assert spans(chunks) == [(1, 1), (1, 2)]  # the heading stands at the foot of page 1


def test_a_text_that_stands_twice_has_each_time_its_own_page():
    note = "See the note at the end of it all."
    chunks = chunked(f"{words('a', 14)}\n\n{note}", f"{words('b', 14)}\n\n{note}")
    assert [chunk["chunk_text"] for chunk in chunks if chunk["chunk_text"] == note] == [note]
    assert spans(chunks) == [(1, 2), (2, 2)]


def test_a_document_of_one_repeated_line_has_the_right_pages_to_its_end():
    page = "\n\n".join(["Yes or no, tick one."] * 30)
    chunks = chunked(page, page, page)
    starts = [start for start, _ in spans(chunks)]
    assert starts == sorted(starts)
    assert {page for span in spans(chunks) for page in span} == {1, 2, 3}
    assert spans(chunks)[-1] == (3, 3)
    per_page = [sum(start <= page <= end for start, end in spans(chunks)) for page in (1, 2, 3)]
    assert max(per_page) - min(per_page) <= 1  # the pages are alike, and so are their shares


def test_a_page_without_text_shifts_no_number():
    chunks = list(
        chunk_markdown([(2, f"# Two\n\n{words('a', 9)}"), (5, words("b", 9))], count_words, LIMIT)
    )
    assert spans(chunks) == [(2, 5)]
    chunks = chunked(f"# A\n\n{words('a', 9)}", "", f"# C\n\n{words('c', 9)}")
    assert spans(chunks) == [(1, 1), (3, 3)]


def test_no_mark_of_a_page_is_left_in_a_chunk():
    chunks = chunked(words("a", 70), "", words("b", 70), f"## H\n\n{words('c', 5)}")
    text = "\n".join(chunk["chunk_text"] + chunk["heading_path"] for chunk in chunks)
    assert "⟦" not in text
    assert "of this document" not in text


# Headings.


def test_a_chunk_has_the_headings_above_it_outermost_first_and_without_emphasis():
    chunks = chunked(
        f"# **Lock manual**\n\n{words('a', 9)}\n\n## 2 _The_ `gates`\n\n{words('b', 9)}\n\n"
        f"#### *Oak* posts\n\n{words('c', 9)}\n\n# snake_case and 2 * 3\n\n{words('d', 9)}"
    )
    assert [chunk["heading_path"] for chunk in chunks] == [
        "Lock manual",
        "Lock manual > 2 The gates",
        "Lock manual > 2 The gates > Oak posts",
        "snake_case and 2 3",
    ]


def test_the_headings_stay_with_the_first_piece_of_their_section():
    first, *rest = chunked(f"# Alpha\n\n## Beta\n\n{words('b', 120)}")
    assert lines(first)[:2] == ["# Alpha", "## Beta"]
    assert "b0" in first["chunk_text"]
    assert rest
    assert all("#" not in chunk["chunk_text"] for chunk in rest)
    assert {chunk["heading_path"] for chunk in [first, *rest]} == {"Alpha > Beta"}


@pytest.mark.parametrize(
    "pages",
    [
        ("# Alpha\n\n## Beta\n\nThe text of it.",),
        ("# Alpha", "## Beta\n\nThe text of it."),
        ("# Alpha\n\n## Beta", "The text of it."),
        ("# Alpha", "", "## Beta", "### Gamma\n\nThe text of it."),
        (f"# Alpha\n\n{words('a', 44)}",),
        (f"# Alpha\n\n{words('a', 43)} {'x' * 400}",),
    ],
)
def test_no_chunk_is_nothing_but_headings_when_text_follows_below(pages):
    chunks = chunked(*pages)
    assert all(any(not line.startswith("#") for line in lines(chunk)) for chunk in chunks)
    assert lines(chunks[0])[0] == "# Alpha"
    assert chunks[0]["page_start"] == 1


def test_a_heading_with_nothing_below_it_is_not_lost():
    chunks = chunked("# Alpha\n\nThe text of it.\n\n# Beta\n\n# Gamma")
    assert [chunk["chunk_text"] for chunk in chunks[1:]] == ["# Beta", "# Gamma"]


def test_a_heading_as_long_as_a_chunk_is_cut_like_text():
    chunks = chunked(f"# {words('h', 100)}\n\n{words('a', 10)}")
    assert max(chunk["token_count"] for chunk in chunks) <= 45
    assert "a9" in chunks[-1]["chunk_text"]


def test_a_hash_in_a_code_block_is_no_heading():
    [chunk] = chunked("# Setup\n\n```\n# a comment\nrun\n```\n\ndone")
    assert chunk["heading_path"] == "Setup"


def test_every_chunk_begins_with_the_headings_above_it_if_asked_to():
    text = f"# Alpha\n\n{words('a', 9)}\n\n## Beta\n\n##### Deep\n\n{words('b', 120)}"
    alpha, first, *rest = chunked(text, headings="every")
    assert lines(alpha)[0] == "# Alpha"
    assert lines(first)[:3] == ["# Alpha", "## Beta", "##### Deep"]
    assert rest
    assert all(lines(chunk)[:2] == ["# Alpha", "## Beta"] for chunk in rest)
    assert max(chunk["token_count"] for chunk in [alpha, first, *rest]) <= 45


def test_of_headings_that_would_fill_a_chunk_the_innermost_stand_above():
    text = f"# {words('h', 15)}\n\n## {words('i', 10)}\n\n{words('a', 90)}"
    _, *rest = chunked(text, headings="every")
    assert {lines(chunk)[0] for chunk in rest} == {f"## {words('i', 10)}"}
    assert max(chunk["token_count"] for chunk in rest) <= 45


@pytest.mark.parametrize("headings", ["first", "every"])
@pytest.mark.parametrize("length", [3, 20, 25, 60])
def test_no_word_of_a_heading_is_lost_however_long_it_is(headings, length):
    text = f"# Alpha\n\n## {words('h', length)}\n\n## {words('h', length)}\n\n{words('a', 90)}"
    together = " ".join(chunk["chunk_text"] for chunk in chunked(text, headings=headings)).split()
    assert {"Alpha", *words("h", length).split(), *words("a", 90).split()} <= {*together}


def test_a_heading_of_a_whole_page_is_cut_where_it_stands_beside_each_chunk():
    chunks = chunked(f"# {words('h', 3000)}")
    assert len(chunks) > 60
    assert max(len(chunk["heading_path"]) for chunk in chunks) < 600


def test_a_block_of_code_that_nothing_closes_ends_with_its_page():
    chunks = chunked("# Setup\n\n```\nrun it", "# Next\n\ndone here")
    assert [chunk["heading_path"] for chunk in chunks] == ["Setup", "Next"]


def test_a_text_above_a_subheading_keeps_its_own_headings():
    text = f"# Alpha\n\n{words('a', 9)}\n\n##### x\n\n## Beta\n\n{words('b', 9)}"
    assert [chunk["heading_path"] for chunk in chunked(text)] == ["Alpha", "Alpha > Beta"]


# Tables.

NAMES_OF_COLUMNS = ["|Cartridge|Flow limit|", "|---|---|"]


def table_rows(first: int, last: int) -> list[str]:
    return [f"|FC-{n} of steel|{n} l/min|" for n in range(first, last)]  # 4 words each


def test_a_chunk_that_begins_within_a_table_has_the_names_of_its_columns():
    rows = table_rows(100, 140)
    chunks = chunked("\n".join(["# Filters", "", "See the table.", "", *NAMES_OF_COLUMNS, *rows]))
    assert len(chunks) > 4
    assert lines(chunks[0])[:5] == ["# Filters", "See the table.", *NAMES_OF_COLUMNS, rows[0]]
    for chunk in chunks[1:]:
        assert lines(chunk)[:2] == NAMES_OF_COLUMNS
        assert lines(chunk)[2] in rows
        assert chunk["token_count"] <= 45
    assert set(rows) <= {line for chunk in chunks for line in lines(chunk)}


def test_the_text_after_a_table_has_no_names_of_columns_above_it():
    text = "\n".join([*NAMES_OF_COLUMNS, *table_rows(1, 5), "", words("a", 200)])
    assert all(lines(chunk)[0] != NAMES_OF_COLUMNS[0] for chunk in chunked(text)[2:])


def test_no_chunk_ends_with_the_names_of_columns():
    for before in range(1, 40):
        chunks = chunked("\n".join([words("a", before), "", *NAMES_OF_COLUMNS, *table_rows(1, 9)]))
        assert all(lines(chunk)[-1].startswith("|FC-") for chunk in chunks[1:])


@pytest.mark.parametrize("repeated", [True, False])
def test_a_table_that_goes_on_over_a_page_is_one_table_with_each_rows_page(repeated):
    """The parser takes the first row of a page for the names of columns."""
    rows = table_rows(100, 130)
    rule = NAMES_OF_COLUMNS[1]
    second = [*NAMES_OF_COLUMNS, *rows[10:]] if repeated else [rows[10], rule, *rows[11:]]
    chunks = chunked("\n".join([*NAMES_OF_COLUMNS, *rows[:10]]), "\n".join(second))
    for chunk in chunks:
        assert lines(chunk)[:2] == NAMES_OF_COLUMNS
        assert chunk["chunk_text"].count(rule) == 1
        pages = [1 if line in rows[:10] else 2 for line in lines(chunk)[2:]]
        assert spans([chunk]) == [(pages[0], pages[-1])]
    assert set(rows) <= {line for chunk in chunks for line in lines(chunk)}


def test_a_row_that_is_not_in_bold_as_the_names_are_is_no_names():
    page = "\n".join(["|**Part**|**Made of**|", "|---|---|", *["|nut|good steel|"] * 30])
    other = "\n".join(["|bolt|brass|", "|---|---|", *["|cap|tin plate|"] * 30])
    assert all("**Part**" in lines(chunk)[0] for chunk in chunked(page, other))


@pytest.mark.parametrize("other", ["|Tool|Use|", "|Part|Number|Price|"])
def test_another_table_on_the_next_page_has_its_own_names(other):
    rule = "|---" * (other.count("|") - 1) + "|"
    more = [other, rule, *[other.replace("Tool", "saw").replace("Part", "nut")] * 99]
    chunks = chunked("\n".join([*NAMES_OF_COLUMNS, *table_rows(1, 20)]), "\n".join(more))
    assert lines(chunks[-1])[:2] == [other, rule]


def test_names_of_columns_that_would_fill_a_chunk_stand_once():
    names = f"|{words('n', 30)}|more|"
    chunks = chunked("\n".join([names, "|---|---|", *table_rows(1, 40)]))
    assert sum("n0" in chunk["chunk_text"] for chunk in chunks) == 1
    assert max(chunk["token_count"] for chunk in chunks) <= 45


def test_a_row_longer_than_a_chunk_is_cut_and_each_part_has_the_names():
    chunks = chunked("\n".join([*NAMES_OF_COLUMNS, f"|{words('a', 120)}|{words('b', 60)}|"]))
    assert all(lines(chunk)[:2] == NAMES_OF_COLUMNS for chunk in chunks[1:])
    assert max(chunk["token_count"] for chunk in chunks) <= 45
    found = {word for chunk in chunks for word in re.findall(r"[ab]\d+", chunk["chunk_text"])}
    assert len(found) == 180


def test_rows_of_figures_alone_are_a_chunk_since_the_columns_have_names():
    chunks = chunked("\n".join(["|Port|State|", "|---|---|", *["|1|0|"] * 100]))
    assert sum(chunk["chunk_text"].count("|1|0|") for chunk in chunks) >= 100


def test_a_table_without_names_of_columns_repeats_none():
    chunks = chunked("\n".join(["|||", "|---|---|", *table_rows(1, 40)]))
    assert sum("|||" in chunk["chunk_text"] for chunk in chunks) == 1


# Lengths.


@pytest.mark.parametrize("limit", [32, 50, 200])
def test_no_chunk_is_longer_than_nine_tenths_of_the_limit(limit):
    pages = [f"# H {n}\n\n{words('a', 30 * n)}\n\n## S\n\n{words('b', 77)}" for n in range(1, 5)]
    chunks = chunked(*pages, limit=limit)
    assert len(chunks) > 4
    assert max(chunk["token_count"] for chunk in chunks) <= 0.9 * limit
    assert all(chunk["token_count"] == count_words(chunk["chunk_text"]) for chunk in chunks)


def test_neighbours_overlap_by_at_most_a_tenth_of_the_limit():
    chunks = chunked(words("a", 200))
    for before, after in pairwise(chunks):
        shared = set(before["chunk_text"].split()) & set(after["chunk_text"].split())
        assert 1 <= len(shared) <= 5
        assert before["chunk_text"].endswith(" ".join(after["chunk_text"].split()[: len(shared)]))


def test_every_word_of_a_document_is_in_a_chunk():
    pages = [words("a", 130), f"# B\n\n{words('b', 61)}\n\n- {words('c', 47)}", words("d", 3)]
    text = " ".join(chunk["chunk_text"] for chunk in chunked(*pages))
    assert set(" ".join(pages).split()) <= set(text.split())


def test_a_text_without_spaces_is_cut_all_the_same():
    chunks = list(chunk_markdown([(1, "水" * 500)], len, 100))
    assert max(len(chunk["chunk_text"]) for chunk in chunks) <= 90
    assert sum(len(chunk["chunk_text"]) for chunk in chunks) >= 500


def test_a_text_without_spaces_is_cut_after_a_clause_where_there_is_one():
    chunks = list(chunk_markdown([(1, "水泵漏水时先关阀门。再拧紧螺栓！" * 40)], len, 100))
    assert all(chunk["chunk_text"][-1] in "。！" for chunk in chunks)


def test_no_character_loses_its_marks():
    chunks = list(chunk_markdown([(1, "ก็ดื่มน้ำ" * 60)], len, 50))
    assert all(unicodedata.category(chunk["chunk_text"][0])[0] == "L" for chunk in chunks)


@pytest.mark.parametrize("space", ["\xa0", "\u3000", "\u2009", "\t"])
def test_a_space_of_any_kind_parts_words(space):
    assert [chunk["chunk_text"] for chunk in chunked(f"10{space}000{space}Euro")] == ["10 000 Euro"]


def test_what_joins_letters_within_a_word_stays():
    [chunk] = chunked("می‌خواهم بروم")
    assert chunk["chunk_text"] == "می‌خواهم بروم"


@pytest.mark.parametrize(
    "unit",
    [
        *("##### x\n", "# A\n## B\n", "# *_`", "x", "word ", "水", "。", " ", "\n", "\u0301", "#"),
        *("|", "> ", "```\n", "|a|b|\n|---|---|\n", "| | |\n", "|1|2|\n\n", "- ", "\ue000", "\x00"),
    ],
)
def test_any_text_is_chunked_in_time_linear_in_its_length(unit):
    """A pattern that backtracked, or a loop in a loop, would not come back from this."""
    chunks = chunked(unit * (60_000 // len(unit)), "the end")
    assert "the end" in chunks[-1]["chunk_text"]


def test_what_holds_no_word_is_no_chunk():
    assert chunked("", "   ", "- - -\n\n* * *", "7", "1 2 3") == []


@pytest.mark.parametrize("text", ["全 世 界", "H a l t", "é à"])
def test_letters_that_are_spaced_apart_are_a_word(text):
    assert bool(chunked(text)) == (len(text) > 3)


# What a chunk is known by.


def test_a_chunks_id_is_the_md5_of_its_text():
    for chunk in chunked(f"# Größe\n\n{words('a', 70)}"):
        assert chunk["chunk_id"] == hashlib.md5(chunk["chunk_text"].encode("utf-8")).hexdigest()


def test_the_same_text_in_two_documents_has_one_id():
    section = f"# Terms\n\n{words('t', 20)}"
    here, there = chunked(section), chunked(f"# Other\n\n{words('o', 9)}", section)
    assert here[0]["chunk_id"] == there[1]["chunk_id"]


def markdown_rows(document_id: str, *pages: tuple[int, str, str]) -> pl.DataFrame:
    """Rows of parsed_markdown. pages: (page, parser_status, markdown)."""
    rows = [
        {
            "document_id": document_id,
            "page": page,
            "markdown": text,
            "parser_status": status,
            "error": None,
            "parser": PARSER,
        }
        for page, status, text in pages
    ]
    return pl.DataFrame(rows, schema=TABLES["parsed_markdown"].schema)


def test_chunks_of_a_document_are_numbered_from_0_whatever_order_its_pages_come_in():
    parsed = pl.concat(
        [
            markdown_rows("b", (2, "SUCCESS", words("y", 40)), (1, "SUCCESS", words("x", 40))),
            markdown_rows("a", (1, "SUCCESS", words("a", 20))),
        ]
    )
    chunks = chunk_documents(parsed, {"a": "a.pdf", "b": "dir b.pdf"}, count_words, LIMIT)
    assert TABLES["chunks"].conform(chunks).equals(chunks)
    keys = chunks.select("document_id", "chunk_index", "page_start", "file_name").rows()
    assert keys == [("a", 0, 1, "a.pdf"), ("b", 0, 1, "dir b.pdf"), ("b", 1, 2, "dir b.pdf")]


def test_documents_and_pages_without_text_have_no_chunks():
    parsed = pl.concat(
        [
            markdown_rows("broken", (0, "ERROR", "")),
            markdown_rows("scan", (0, "EMPTY", "")),
            markdown_rows("a", (1, "EMPTY", ""), (2, "SUCCESS", "The text."), (3, "ERROR", "")),
        ]
    )
    chunks = chunk_documents(parsed, {"a": "a.pdf"}, count_words, LIMIT)
    assert chunks.select("document_id", "page_start", "page_end").rows() == [("a", 2, 2)]


def test_no_documents_give_an_empty_frame_that_fits_the_table():
    chunks = chunk_documents(TABLES["parsed_markdown"].empty(), {}, count_words, LIMIT)
    assert chunks.equals(TABLES["chunks"].empty())


# From a real PDF.

NAMES = ["zinnia", "quokka", "bodkin", "fjord"]
REPEATED = "Close both gates, look upstream, and wait for the green board."


def pdf_with_a_word_of_its_own_in_each_paragraph() -> bytes:
    """Four pages; a section begins on page 2 and ends on page 3, and some text repeats."""
    document = pymupdf.open()
    for number, name in enumerate(NAMES):
        paragraphs = "".join(
            f"<p>Paragraph {name}{place} tells how the keeper winds the ground paddles halfway "
            "first, because a sudden inflow throws a short boat against the sill.</p>"
            for place in range(8)
        )
        heading = f"<h1>Part {number}</h1>" if number != 2 else ""
        page = document.new_page()
        page.insert_htmlbox(
            pymupdf.Rect(72, 72, 523, 770),
            f"{heading}<p>{REPEATED}</p>{paragraphs}<p>{REPEATED}</p>",
        )
    return document.tobytes()


def test_on_a_real_pdf_every_chunk_covers_the_pages_of_the_words_it_holds():
    pages = parse_pdf(pdf_with_a_word_of_its_own_in_each_paragraph())
    numbered = [(page.number, page.markdown) for page in pages]
    chunks = list(chunk_markdown(numbered, count_words, 64))
    found = set()
    for chunk in chunks:
        names = re.findall(rf"\b(({'|'.join(NAMES)})\d)\b", chunk["chunk_text"])
        held = {NAMES.index(name) + 1 for _, name in names}
        if not held:  # the end of a section that no more fitted into the chunk before
            assert chunk["chunk_text"] == REPEATED
            continue
        # The repeated text may reach over a page's edge; the words of its own may not.
        assert chunk["page_start"] <= min(held)
        assert max(held) <= chunk["page_end"]
        assert chunk["page_end"] - chunk["page_start"] <= 1
        found |= {word for word, _ in names}
    assert found == {f"{name}{place}" for name in NAMES for place in range(8)}
    across = [c for c in chunks if (c["page_start"], c["page_end"]) == (2, 3)]
    assert [c["heading_path"] for c in across] == ["Part 1"]
