"""A document is parsed in ranges of pages: what breaks costs a page, what was parsed is kept."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pymupdf
import pytest

from embed_assets.documents import parsing
from embed_assets.documents.cutting import cut_documents
from embed_assets.documents.folder import remove_documents
from embed_assets.documents.parsing import Parsed, parse_documents
from embed_assets.documents.reading import (
    TOO_LONG,
    UNSIZED,
    Page,
    Reading,
    clean_markdown,
    parse_pages,
    parse_pdf,
    with_levels,
)
from embed_assets.documents.text_loss import NO_UNICODE
from embed_assets.models.card import ModelCard
from embed_assets.resources.kept_pages import TABLE, PageKeeper, drop_kept_pages, read_kept_pages
from embed_assets.resources.ledger import Cause, Failure, Slices
from embed_assets.resources.shared_bytes import BytesInFile, bytes_in_file
from embed_assets.resources.warehouse import Warehouse
from embed_assets.resources.workers import WorkerPool
from embed_assets.tables import TABLES
from embed_assets_tests.documents.lines import READ, count_lines, cut_or_hang, lines, read_lines
from embed_assets_tests.documents.test_parsing import BOX, PROSE, raw_pdfs

LIMIT = 3.0

# Headings.


def manual(sizes: Sequence[int]) -> bytes:
    """A PDF with a page for each size, which the page's heading has; smaller ones on every page."""
    document = pymupdf.open()
    for number, size in enumerate(sizes):
        document.new_page().insert_htmlbox(
            BOX,
            f"<p style='font-size:{size}px'><b>{number + 1} Of gates and sluices</b></p>"
            f"<p style='font-size:11px'>{PROSE * 2}</p>"
            f"<p style='font-size:14px'><b>{number + 1}.1 Maintaining the gates</b></p>"
            f"<p style='font-size:11px'>{PROSE * 2}</p>",
        )
    return document.tobytes()


def headings(pages: Sequence[Page]) -> list[str]:
    lines = [line for page in pages for line in page.markdown.splitlines()]
    return [line.partition(" ")[0] for line in lines if line.startswith("#")]


def test_pages_that_were_parsed_in_ranges_equal_those_of_the_whole_document():
    content = manual([17, 20, 24, 30, 36])
    whole = parse_pdf(content)
    ranges = [parse_pages(content, begin, begin + 2) for begin in (0, 2, 4)]
    by_themselves = [page for pages in ranges for page in with_levels(pages)]
    assert headings(by_themselves) != headings(whole), "ranges by themselves give other levels"
    assert with_levels([page for pages in ranges for page in pages]) == whole
    import pymupdf4llm

    with pymupdf.open(stream=content) as document:
        alone: Any = pymupdf4llm.to_markdown(
            document, page_chunks=True, header=False, footer=False, use_ocr=False
        )
    assert [page.markdown for page in whole] == [clean_markdown(p["text"]) for p in alone]
    assert len(set(headings(whole))) == 6


def sized(points: int) -> str:
    """The mark of a heading whose level isn't known yet."""
    return "#" * (UNSIZED + points)


def test_only_what_is_a_heading_gets_another_level():
    page = Page(1, f"{sized(12)} A\n\n# no heading\n\n{sized(12)}text")
    other = Page(2, f"{sized(20)} B")
    assert [p.markdown for p in with_levels([page, other])] == [
        f"## A\n\n# no heading\n\n{sized(12)}text",
        "# B",
    ]


# Ranges.


@pytest.fixture
def pages_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A parser of lines, three at a time; the file in which it writes what it reads."""
    monkeypatch.setattr(parsing, "count_shared_pages", count_lines)
    monkeypatch.setattr(parsing, "parse_pages", read_lines)
    monkeypatch.setattr(parsing, "PAGES_AT_ONCE", 3)
    monkeypatch.setenv(READ, str(tmp_path / "read"))
    return tmp_path / "read"


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "warehouse.duckdb"))


def parse(files: dict[str, bytes], pool: WorkerPool | None = None, **keeping: Any) -> Slices:
    pool = pool or WorkerPool(processes=1, timeout=LIMIT)
    return parse_documents(raw_pdfs(files), list(files), pool, **keeping)


def pages_of(slices: Slices, key: str = "a") -> list[tuple[int, str, str, str | None]]:
    rows = slices.rows.filter(document_id=key).sort("page")
    return rows.select("page", "markdown", "parser_status", "error").rows()


ENDED = "its process ended with exit code -9"


def test_a_page_that_ends_its_worker_costs_itself_and_the_document_is_tried_again(pages_read):
    slices = parse({"a": lines("one", "two", "three", "four", "die", "six", "seven"), "b": b"good"})
    assert pages_of(slices) == [
        (1, "one", "SUCCESS", None),
        (2, "two", "SUCCESS", None),
        (3, "three", "SUCCESS", None),
        (4, "four", "SUCCESS", None),
        (5, "", "ERROR", ENDED),
        (6, "six", "SUCCESS", None),
        (7, "seven", "SUCCESS", None),
    ]
    [(key, failure)] = slices.incomplete.items()
    assert (key, failure.cause, failure.error) == ("a", Cause.PROCESS_ENDED, f"page 5: {ENDED}")
    assert pages_of(slices, "b") == [(1, "good", "SUCCESS", None)]
    assert slices.not_made == {}


def test_a_page_that_hangs_costs_itself_and_says_by_which_limit(pages_read):
    slices = parse({"a": lines("one", "dawdle", "three", "four")})
    assert pages_of(slices)[1] == (2, "", "ERROR", "took longer than 3 s")
    assert [markdown for _, markdown, _, _ in pages_of(slices)] == ["one", "", "three", "four"]
    failure = slices.incomplete["a"]
    assert (failure.cause, failure.limit) == (Cause.TIME_LIMIT, LIMIT)
    assert failure.error == "page 2: took longer than 3 s"


def test_a_page_that_takes_too_long_is_read_by_its_own_text(pages_read, warehouse, monkeypatch):
    files = {"a": lines("one", "dense", "three", "four")}
    slices = parse(files, warehouse=warehouse)
    assert pages_of(slices)[1] == (2, "dense", "SUCCESS", TOO_LONG)
    assert [error for *_, error in pages_of(slices)] == [None, TOO_LONG, None, None]
    failure = slices.incomplete["a"]
    assert (failure.cause, failure.limit) == (Cause.NO_LAYOUT, LIMIT)
    monkeypatch.setitem(parsing.MOST_BROKEN, Cause.TIME_LIMIT, 1)
    pages_read.unlink()
    slices = parse({"a": lines(*["dense"] * 9)})
    assert [(text, error) for _, text, _, error in pages_of(slices)] == [("dense", TOO_LONG)] * 9
    # Of the first range three and one, then each plainly.
    assert pages_read.read_text().count("dense") < 9 + 3 * 3 + 3


def test_a_real_page_has_its_text_without_the_layout_model(monkeypatch):
    content = manual([17, 20])
    monkeypatch.setattr("embed_assets.documents.reading._markdown", None)  # calling it fails
    pages = parse_pages(content, reading=Reading(plain=True))
    assert [page.number for page in pages] == [1, 2]
    assert all(page.plain and "Maintaining the gates" in page.markdown for page in pages)
    assert all(page.markdown.count(PROSE.split(".")[0]) == 4 for page in pages)


def test_pages_that_took_too_long_count_whatever_else_they_lack():
    document = Parsed("", BytesInFile("", 0, 0), 9, limit=Failure(Cause.TIME_LIMIT, "late", 3.0))
    number = parsing.MOST_BROKEN[Cause.TIME_LIMIT]
    document.pages = {n: Page(n, "text", lack=NO_UNICODE, plain=True) for n in range(1, number)}
    assert not document.is_slow
    document.pages[number] = Page(number, "", plain=True)  # it is blank
    assert document.is_slow
    failure = parsing._may_be_more(document, Reading())
    assert failure == Failure(
        Cause.NO_LAYOUT, f"{number - 1} pages by their own text alone: late", 3.0
    )


def test_a_document_of_which_most_was_lost_for_a_passing_cause_is_no_document_yet(pages_read):
    slices = parse({"a": lines("", "", "die"), "b": b"die"})
    assert slices.rows.is_empty()
    errors = {key: failure.error for key, failure in slices.not_made.items()}
    assert errors == {"a": f"page 3: {ENDED}", "b": ENDED}


@pytest.mark.parametrize(("broken", "is_none"), [(2, False), (3, True)])
def test_half_of_a_document_is_better_than_what_is_older_and_less_is_not(broken, is_none):
    pages = {number: Page(number, "text") for number in range(1, 5 - broken)}
    ended = Failure(Cause.PROCESS_ENDED, ENDED)
    failures = dict.fromkeys(range(5 - broken, 5), ended)
    document = Parsed("", BytesInFile("", 0, 0), 4, pages, failures)
    assert document.says_nothing == is_none
    named = "2, 3, 4" if broken == 3 else "3, 4"
    assert document.lost == Failure(Cause.PROCESS_ENDED, f"pages {named}: {ENDED}")


def test_pages_of_a_document_that_breaks_too_often_are_not_tried_one_by_one_for_ever(
    pages_read, monkeypatch
):
    monkeypatch.setitem(parsing.MOST_BROKEN, Cause.PROCESS_ENDED, 1)
    slices = parse({"a": lines(*["one"] * 30, *["die"] * 30)})
    found = pages_of(slices)
    assert len(found) == 60
    assert {status for _, _, status, _ in found[:30]} == {"SUCCESS"}
    assert {error for _, _, _, error in found[30:]} == {ENDED}
    # Of the first two ranges one page each, and what was in hand meanwhile.
    assert pages_read.read_text().count("die") < 12


def test_an_error_of_the_parser_itself_is_not_tried_again(pages_read):
    slices = parse({"a": lines("one", "two", "three", "raise")})
    assert pages_of(slices)[3] == (4, "", "ERROR", "ValueError: no such font")
    assert slices.incomplete == {}
    assert pages_read.read_text().split() == ["one", "two", "three", "raise"]


def test_the_largest_document_goes_first_and_equal_contents_are_parsed_once(pages_read):
    long = lines(*"abcdefg")
    slices = parse({"s": lines("short"), "t": long, "u": long})
    assert pages_read.read_text().split() == [*"abcdefg", "short"]
    assert pages_of(slices, "t") == pages_of(slices, "u")
    assert slices.rows["document_id"].n_unique() == 3


# Kept pages.


def kept_of(warehouse: Warehouse) -> list[int]:
    return warehouse.read(f"SELECT page FROM {TABLE} ORDER BY page")["page"].to_list()


class Stopped(BaseException):
    """What a person does with Ctrl-C."""


def stop_at(monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    """Stop the work when so many pages were kept."""
    keep, seen = PageKeeper.keep, []

    def keep_or_stop(keeper: PageKeeper, sha256: str, found: dict[int, Any]) -> None:
        keep(keeper, sha256, found)
        seen.extend(found)
        if len(seen) >= pages:
            raise Stopped

    monkeypatch.setattr(PageKeeper, "keep", keep_or_stop)


def test_what_was_parsed_before_a_stop_is_not_parsed_again(
    pages_read, warehouse, monkeypatch, capsys
):
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight")
    files = {"a": lines(*words)}
    with monkeypatch.context() as patch:
        stop_at(patch, pages=6)
        with pytest.raises(Stopped):
            parse(files, warehouse=warehouse)
    assert kept_of(warehouse) == [1, 2, 3, 4, 5, 6]
    pages_read.unlink()
    slices = parse(files, warehouse=warehouse)
    assert pages_read.read_text().split() == ["seven", "eight"]
    assert [markdown for _, markdown, _, _ in pages_of(slices)] == [*words]
    assert "Parsing PDFs: 100%, 8/8 [" in capsys.readouterr().err


def test_pages_of_another_version_are_parsed_anew(pages_read, warehouse):
    files = {"a": lines("new", "b", "c")}
    sha256 = raw_pdfs(files)["sha256"][0]
    page = {"number": 1, "markdown": "old", "error": None}
    row = {"sha256": sha256, "version": "1", "page": 1, "made": json.dumps(page)}
    warehouse.replace(TABLE, pl.DataFrame([row]))
    assert read_kept_pages(warehouse, [sha256], "1")[sha256][0]["markdown"] == "old"
    assert pages_of(parse(files, warehouse=warehouse, version="2"))[0][1] == "new"
    assert pages_of(parse(files, warehouse=warehouse, version="1"))[0][1] == "old"


def test_pages_are_written_now_and_then_and_not_once_all_are_there(warehouse, monkeypatch):
    monkeypatch.setattr("embed_assets.resources.kept_pages.SECONDS_BETWEEN_WRITES", 0)
    with PageKeeper(warehouse, "1") as keeper:
        keeper.keep("x", {1: {}})
        assert kept_of(warehouse) == [1]
        monkeypatch.setattr("embed_assets.resources.kept_pages.SECONDS_BETWEEN_WRITES", 60)
        keeper.keep("x", {2: {}})
        assert kept_of(warehouse) == [1]
    assert kept_of(warehouse) == [1], "the document itself is stored next"


def test_while_others_write_pages_wait_for_the_next_time(warehouse, monkeypatch):
    monkeypatch.setattr("embed_assets.resources.kept_pages.SECONDS_BETWEEN_WRITES", 0)
    monkeypatch.setattr("embed_assets.resources.kept_pages.PATIENCE", 0.1)
    with PageKeeper(warehouse, "1") as keeper:
        with warehouse.transaction():
            keeper.keep("x", {1: {}})
        keeper.keep("x", {2: {}})
    assert kept_of(warehouse) == [1, 2]


@pytest.fixture
def kept(warehouse: Warehouse) -> Warehouse:
    """A home with a kept page of each of two documents on record, and of one that is not."""
    row = {
        **dict.fromkeys(TABLES["raw_pdfs"].columns, None),
        "content": b"",
        "size_bytes": 0,
        "modified_at": "2026-11-27T12:00:00Z",
        "loaded_at": "2026-11-27T12:00:00Z",
        **dict.fromkeys(("path", "file_name", "loaded_by"), ""),
    }
    documents = pl.DataFrame([{**row, "document_id": key, "sha256": f"of {key}"} for key in "ab"])
    times = pl.col("modified_at", "loaded_at").str.to_datetime("%+", time_unit="us")
    pages = pl.DataFrame(
        [
            {"sha256": f"of {key}", "version": version, "page": page, "made": "{}"}
            for page, (key, version) in enumerate([("a", "1"), ("b", "1"), ("b", "0"), ("c", "1")])
        ]
    )
    with warehouse.transaction() as transaction:
        transaction.upsert("raw_pdfs", documents.with_columns(times))
        transaction.upsert(TABLE, pages)
    return warehouse


def test_kept_pages_go_when_their_document_is_stored_or_their_version_is_no_more(kept):
    with kept.transaction() as transaction:
        assert drop_kept_pages(transaction, ["a"], "1") == 3
    assert kept_of(kept) == [1]


def test_kept_pages_go_with_their_document(kept):
    remove_documents(kept, ["b"])
    assert kept_of(kept) == [0]


# What workers read.


@pytest.mark.parametrize("by_process", [True, False])
def test_bytes_are_shared_in_a_file_of_which_nothing_stays(tmp_path, monkeypatch, by_process):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if not by_process:
        monkeypatch.setattr("os.path.exists", lambda path: False)
    with bytes_in_file([b"one", b"", b"three"]) as shared:
        assert [part.read() for part in shared] == [b"one", b"", b"three"]
        named = list(tmp_path.iterdir())
        assert [file.stat().st_mode & 0o777 for file in named] == ([] if by_process else [0o600])
        with WorkerPool(processes=1, timeout=60).start(1) as workers:
            assert [o.result for o in workers.map(BytesInFile.read, shared)] == [
                b"one",
                b"",
                b"three",
            ]
    assert list(tmp_path.iterdir()) == []


# Chunks.


def test_a_document_that_hangs_the_chunker_costs_itself(monkeypatch):
    monkeypatch.setattr("embed_assets.documents.cutting.chunk_document", cut_or_hang)
    pages = pl.DataFrame(
        [
            {"document_id": key, "page": 1, "markdown": "text", "parser_status": status}
            | {"error": None, "parser": ""}
            for key, status in (("a", "SUCCESS"), ("hangs", "SUCCESS"), ("empty", "EMPTY"))
        ],
        schema=TABLES["parsed_markdown"].schema,
    )
    card = ModelCard("m", "m", 100, "", "")
    slices = cut_documents(pages, {"a": "a.pdf"}, card, WorkerPool(processes=1, timeout=LIMIT))
    assert slices.rows.select("document_id", "file_name").rows() == [("a", "a.pdf")]
    causes = {key: failure.cause for key, failure in slices.not_made.items()}
    assert causes == {"hangs": Cause.TIME_LIMIT}
