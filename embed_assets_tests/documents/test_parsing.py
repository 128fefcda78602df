"""Whatever state its file is in, a document ends as pages of markdown or as a reason why not."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pymupdf
import pytest

from embed_assets.documents.parsing import NOT_READ, document_statuses, parse_documents
from embed_assets.documents.reading import (
    AS_IT_IS,
    PARSER,
    Page,
    Reading,
    UnreadablePdfError,
    clean_markdown,
    parse_pdf,
)
from embed_assets.documents.reading import LOCKED as LOCKED_OUT
from embed_assets.documents.reading import (
    LOCKED as NEEDS_PASSWORD,
)
from embed_assets.errors import ProjectError
from embed_assets.resources.ledger import Cause, Failure, Slices
from embed_assets.resources.warehouse import Warehouse
from embed_assets.resources.workers import WorkerPool
from embed_assets.tables import TABLES

HOSTILE = Path(__file__).parents[3] / "shared" / "data" / "hostile_pdfs"
BOX = pymupdf.Rect(72, 72, 523, 770)
PROSE = (
    "The keeper winds the ground paddles halfway first, because a sudden inflow throws a short "
    "boat against the sill. The chamber fills in six minutes when the river is low. "
)


def pdf(*pages: str, **save_options) -> bytes:
    """A real PDF with a page per HTML text; an empty text makes a blank page."""
    document = pymupdf.open()
    for html in pages:
        page = document.new_page()
        if html:
            page.insert_htmlbox(BOX, html)
    return document.tobytes(**save_options)


def chapter(number: int, word: str) -> str:
    return (
        f"<h1>Chapter {number} of the manual</h1><p>{PROSE * 2}The word is {word}.</p>"
        f"<h2>Maintaining the gates</h2><p>{PROSE * 2}</p>"
    )


MANUAL = pdf(chapter(1, "windlass"), chapter(2, "towpath"))


def stamped_scan() -> bytes:
    """A page that is a picture with a line of real text at its foot."""
    document = pymupdf.open()
    page = document.new_page()
    grey = pymupdf.Pixmap(pymupdf.csGRAY, pymupdf.IRect(0, 0, 60, 80))
    grey.clear_with(200)
    page.insert_image(BOX, pixmap=grey)
    page.insert_text((72, 800), "Exhibit A, page 1")
    return document.tobytes()


def one_line_pages() -> bytes:
    document = pymupdf.open()
    for number in range(2):
        document.new_page().insert_text((72, 90), f"Valve {number} opens at four bar.")
    return document.tobytes()


HTML_PAGE = b"<!DOCTYPE html><html><body><h1>404</h1><p>Not found</p></body></html>"
NO_PAGES = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
)
NO_PDF = r"is no PDF \(it doesn't begin as one\)"
CUT_OFF = r"is cut off \(its end is missing\)"
DAMAGED = MANUAL[:20] + bytes(len(MANUAL) - 60) + MANUAL[-40:]
AES_256: int = pymupdf.PDF_ENCRYPT_AES_256  # pyright: ignore[reportAttributeAccessIssue]
TEXT_FIELD: int = pymupdf.PDF_WIDGET_TYPE_TEXT  # pyright: ignore[reportAttributeAccessIssue]
LOCKED = {"encryption": AES_256, "owner_pw": "owner"}
FILES = {
    "blank": pdf("", "", ""),
    "encrypted": pdf(chapter(1, "secret"), user_pw="user", **LOCKED),
    "half-blank": pdf("", chapter(1, "lone"), ""),
    "html": HTML_PAGE,
    "manual": MANUAL,
    "no-bytes": b"",
    "no-copying": pdf(chapter(1, "readable"), user_pw="", permissions=0, **LOCKED),
    "one-line-pages": one_line_pages(),
    "stamped-scan": stamped_scan(),
    "truncated": MANUAL[:500],
    "zz-last": pdf(chapter(9, "finale")),
}


def raw_pdfs(files: dict[str, bytes]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "document_id": list(files),
            "sha256": [hashlib.sha256(content).hexdigest() for content in files.values()],
            "content": list(files.values()),
        }
    )


def parse(
    files: dict[str, bytes], keys: Sequence[str], pool: WorkerPool | None = None, **how: Any
) -> Slices:
    pool = pool or WorkerPool(processes=1, timeout=120)
    return parse_documents(raw_pdfs(files), keys, pool, **how)


@pytest.fixture(scope="module")
def slices() -> Slices:
    """All the files, parsed in one go, and a document whose file was not read."""
    return parse(FILES, [*FILES, "vanished"])


@pytest.fixture(scope="module")
def parsed(slices: Slices) -> pl.DataFrame:
    return TABLES["parsed_markdown"].conform(slices.rows)


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "warehouse.duckdb"))


def statuses_of(warehouse: Warehouse, rows: pl.DataFrame) -> pl.DataFrame:
    warehouse.replace("parsed_markdown", rows)
    return document_statuses(warehouse)


def rows_of(parsed: pl.DataFrame, document_id: str) -> list[dict]:
    return parsed.filter(pl.col("document_id") == document_id).sort("page").to_dicts()


# How far it is.


def form(pages: int) -> bytes:
    """A PDF with a field to fill in on each page, which the parser goes through first."""
    document = pymupdf.open("pdf", pdf(*(chapter(n, f"field {n}") for n in range(pages))))
    for page in document:
        field: Any = pymupdf.Widget()
        field.field_name, field.field_type = f"name {page.number}", TEXT_FIELD
        field.rect = pymupdf.Rect(100, 700, 300, 720)
        page.add_widget(field)
    return document.tobytes()


def reported(monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[int]:
    """What a worker reports of a PDF while it parses it."""
    pages: list[int] = []
    monkeypatch.setattr("embed_assets.documents.reading.report", pages.append)
    parse_pdf(content)
    return pages


@pytest.mark.parametrize(
    ("content", "pages"),
    [
        (pdf(*(chapter(n, f"lock {n}") for n in range(4))), [0, 1, 2, 3, 4]),
        (pdf(chapter(1, "one page")), [0, 1]),
        (pdf(""), [1]),
        (form(pages=3), [0, 1, 2, 3]),
    ],
    ids=["four pages", "one page", "nothing to read", "a form"],
)
def test_each_page_is_reported_as_it_is_taken_up_and_all_of_them_at_the_end(
    monkeypatch: pytest.MonkeyPatch, content: bytes, pages: list[int]
):
    assert reported(monkeypatch, content) == pages


def test_pages_are_counted_though_some_files_break_or_end_their_worker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The bar ends at all pages there are: one for each file whose pages can't be counted."""
    files = {"a": MANUAL, "b": b"%PDF-1.7 and then nothing", "c": pdf(chapter(1, "c"))}
    parse(files, list(files))
    assert "Parsing PDFs: 100%, 4/4 [" in capsys.readouterr().err


# One PDF.


def test_pages_are_numbered_from_one_and_hold_their_own_text():
    first, second = parse_pdf(MANUAL)
    assert (first.number, second.number) == (1, 2)
    assert "windlass" in first.markdown
    assert "windlass" not in second.markdown
    assert "towpath" in second.markdown
    assert first.error is None


def test_headings_become_markdown_headings_of_their_level():
    lines = [line.replace("*", "").strip() for line in parse_pdf(MANUAL)[0].markdown.splitlines()]
    assert "# Chapter 1 of the manual" in lines
    assert "## Maintaining the gates" in lines


def test_the_lines_of_a_paragraph_are_joined():
    paragraphs = parse_pdf(MANUAL)[0].markdown.split("\n\n")
    assert f"{PROSE * 2}The word is windlass." in [" ".join(p.split()) for p in paragraphs]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (FILES["html"], NO_PDF),
        (FILES["encrypted"], NEEDS_PASSWORD),
        (FILES["truncated"], CUT_OFF),
        (NO_PAGES, "has no pages: empty or damaged"),
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), NO_PDF),
        (random.Random(7).randbytes(9000), NO_PDF),
        (MANUAL[:400], CUT_OFF),
        (DAMAGED, "is damaged: .+"),
    ],
    ids=[
        "html",
        "encrypted",
        "truncated",
        "no pages",
        "no bytes",
        "broken picture",
        "random bytes",
        "only its beginning",
        "pages overwritten",
    ],
)
def test_what_cannot_be_read_as_a_pdf_says_why_in_one_line(content, reason):
    with pytest.raises(UnreadablePdfError, match=f"^({reason})$") as error:
        parse_pdf(content)
    assert "\n" not in str(error.value)


def test_markdown_has_no_html_and_no_remarks_about_pictures():
    text = (
        "a<br>b<br/>c x<sup>2</sup> <u>under</u> <mark>marked</mark>\n"
        "**==> picture [10 x 20] intentionally omitted <==**\n"
        "**----- Start of picture text -----**<br>label<br>"
        "**----- End of picture text -----**<br>\n"
        "<!-- Start of picture text -->\n end\x00"
    )
    cleaned = clean_markdown(text)
    assert " ".join(cleaned.split()) == "a b c x2 under marked label end"


def test_markdown_keeps_what_only_looks_like_html_or_is_of_the_document():
    text = "if a < b and c > d: use <pump> or <s1>, a | b | `x<y>`, <!-- a remark --> and <s>so</s>"
    assert clean_markdown(text) == text


def test_markdown_is_valid_unicode_whatever_the_font_says():
    assert clean_markdown("good \ud800 bad").encode("utf-8") == b"good ? bad"


def test_running_headers_and_page_numbers_are_left_out():
    document = pymupdf.open(stream=MANUAL)
    for number, page in enumerate(document.pages(), start=1):
        page.insert_text((72, 30), "Hartwell Lock Manual, third edition", fontsize=8)
        page.insert_text((290, 825), f"{number}", fontsize=8)
    first, second = parse_pdf(document.tobytes())
    assert "third edition" not in first.markdown + second.markdown
    assert second.markdown == parse_pdf(MANUAL)[1].markdown


def test_a_file_cut_off_in_the_middle_keeps_the_pages_that_are_whole():
    first, second = parse_pdf(MANUAL[: len(MANUAL) // 2])
    assert "windlass" in first.markdown
    assert second.markdown == ""


# Many.


def test_every_document_has_rows_and_those_after_a_failing_one_too(parsed, warehouse):
    found = statuses_of(warehouse, parsed)
    statuses = dict(found.select("document_id", "parser_status").iter_rows())
    assert statuses == {
        "blank": "EMPTY",
        "encrypted": "ERROR",
        "half-blank": "SUCCESS",
        "html": "ERROR",
        "manual": "SUCCESS",
        "no-bytes": "ERROR",
        "no-copying": "SUCCESS",
        "one-line-pages": "SUCCESS",
        "stamped-scan": "EMPTY",
        "truncated": "ERROR",
        "zz-last": "SUCCESS",
    }


def test_each_text_stands_under_its_own_document(parsed):
    for document_id, word in (("manual", "towpath"), ("zz-last", "finale"), ("half-blank", "lone")):
        found = parsed.filter(pl.col("markdown").str.contains(word))["document_id"].to_list()
        assert found == [document_id]


def test_a_document_that_fails_has_one_row_with_page_0_and_why_in_one_line(parsed):
    for document_id in ("encrypted", "html", "no-bytes", "truncated"):
        [row] = rows_of(parsed, document_id)
        assert (row["page"], row["markdown"], row["parser_status"]) == (0, "", "ERROR")
        assert row["error"]
        assert "\n" not in row["error"]
        assert "Error:" not in row["error"]  # a reason for people, not an exception's name
    assert rows_of(parsed, "encrypted")[0]["error"] == NEEDS_PASSWORD


def test_a_document_without_text_on_any_page_is_empty_not_an_error(parsed):
    [row] = rows_of(parsed, "blank")
    assert (row["page"], row["parser_status"]) == (0, "EMPTY")
    assert row["error"] == "no text on any page: blank, or small drawings alone"


def test_a_blank_page_among_others_keeps_its_number(parsed):
    pages = [(row["page"], row["parser_status"]) for row in rows_of(parsed, "half-blank")]
    assert pages == [(1, "EMPTY"), (2, "SUCCESS"), (3, "EMPTY")]


def test_the_one_line_of_a_page_does_not_pass_for_a_running_header(parsed):
    texts = [row["markdown"] for row in rows_of(parsed, "one-line-pages")]
    assert texts == ["Valve 0 opens at four bar.", "Valve 1 opens at four bar."]


def test_a_scan_is_empty_though_a_line_is_stamped_on_it(parsed):
    [row] = rows_of(parsed, "stamped-scan")
    assert (row["page"], row["parser_status"]) == (0, "EMPTY")


def test_documents_that_ocr_or_a_password_may_open_are_on_record_as_such(slices):
    assert slices.incomplete == {
        "encrypted": Failure(Cause.NEEDS_PASSWORD, LOCKED_OUT, tried_with=""),
        "stamped-scan": Failure(Cause.NEEDS_OCR, "1 page without usable text", tried_with=""),
    }


def test_of_a_file_that_was_not_read_nothing_is_said_but_that_it_was_tried(slices):
    assert slices.not_made == {"vanished": Failure(Cause.UNREADABLE_FILE, NOT_READ)}
    assert "vanished" not in slices.rows["document_id"]
    assert "vanished" not in slices.incomplete


def test_a_document_that_forbids_copying_but_opens_is_read(parsed):
    assert "readable" in rows_of(parsed, "no-copying")[0]["markdown"]


def test_every_row_names_the_parser_and_its_version(parsed):
    assert parsed["parser"].unique().to_list() == [PARSER]
    assert PARSER.rpartition(" ")[2][0].isdigit()


def test_no_documents_give_no_rows_that_fit_the_table():
    assert TABLES["parsed_markdown"].conform(parse({}, []).rows).height == 0


def test_a_documents_status_counts_its_pages_and_keeps_its_first_error(warehouse):
    pages = pl.DataFrame(
        {
            "document_id": ["a", "a", "a", "b", "c"],
            "page": [3, 1, 2, 0, 0],
            "markdown": ["", "text", "", "", ""],
            "parser_status": ["ERROR", "SUCCESS", "EMPTY", "ERROR", "EMPTY"],
            "error": ["page 3 broke", None, None, "needs a password", "no text"],
            "parser": PARSER,
            "text_share": [0.0, 1.0, None, None, None],
            "text_source": None,
        },
        schema=TABLES["parsed_markdown"].schema,
    )
    assert statuses_of(warehouse, pages).rows() == [
        ("a", "SUCCESS", "page 3 broke", 3),
        ("b", "ERROR", "needs a password", 0),
        ("c", "EMPTY", "no text", 0),
    ]
    assert document_statuses(warehouse, ["b"])["document_id"].to_list() == ["b"]


# What says nothing of the file.


def die_or_dawdle(
    content: bytes, begin: int, end: int | None, reading: Reading = AS_IT_IS
) -> list[Page]:
    """In place of `parse_pages`, in a worker: ends its process, takes too long, or reads."""
    if content == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if content == b"dawdle":
        time.sleep(60)
    if content == b"much":
        raise MemoryError
    return [Page(1, content.decode())]


@pytest.fixture(scope="module")
def mishaps() -> Slices:
    files = {name: name.encode() for name in ("die", "dawdle", "good", "much")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embed_assets.documents.parsing.parse_pages", die_or_dawdle)
        return parse(files, list(files), WorkerPool(processes=2, timeout=5.4))


def test_what_a_passing_cause_did_is_no_status_of_the_document(mishaps):
    assert {key: failure.cause for key, failure in mishaps.not_made.items()} == {
        "die": Cause.PROCESS_ENDED,
        "much": Cause.NO_MEMORY,
    }
    assert set(mishaps.rows["document_id"]) == {"good", "dawdle"}
    assert rows_of(mishaps.rows, "good")[0]["markdown"] == "good"


@pytest.mark.parametrize("lacking", [True, False])
def test_a_parser_that_breaks_for_lack_of_memory_says_nothing_of_the_page(monkeypatch, lacking):
    def break_down(*_: object, **__: object) -> None:
        raise RuntimeError("std::bad_alloc")

    monkeypatch.setattr("embed_assets.documents.reading._markdown", break_down)
    monkeypatch.setattr("embed_assets.documents.reading.lacks_memory", lambda: lacking)
    if lacking:
        with pytest.raises(MemoryError):
            parse_pdf(pdf("One page."))
    else:
        [page] = parse_pdf(pdf("One page."))
        assert page.error == "the parser failed: RuntimeError: std::bad_alloc"


def lacks_a_library(*_: object, **__: object) -> None:
    raise ModuleNotFoundError("No module named 'pymupdf4llm'")


def test_a_library_that_is_missing_is_no_fault_of_the_document(monkeypatch):
    monkeypatch.setattr("embed_assets.documents.reading._markdown", lacks_a_library)
    with pytest.raises(ImportError):
        parse_pdf(pdf("One page."))
    monkeypatch.setattr("embed_assets.documents.parsing.parse_pages", lacks_a_library)
    with pytest.raises(ProjectError, match=r"pymupdf4llm'\. Install the project"):
        parse({"a": pdf("One page.")}, ["a"], WorkerPool(processes=1))


def test_a_document_that_takes_too_long_says_by_which_limit(mishaps):
    [row] = rows_of(mishaps.rows, "dawdle")
    assert (row["parser_status"], row["error"]) == ("ERROR", "took longer than 5.4 s")
    [(key, failure)] = mishaps.incomplete.items()
    assert (key, failure.cause, failure.limit) == ("dawdle", Cause.TIME_LIMIT, 5.4)


HOSTILE_FILES = {
    "pdfjs__poppler-67295-0.pdf": "ERROR",  # raises only when its pages are counted
    "pdfjs__poppler-85140-0.pdf": "ERROR",
    "pdfjs__issue21436.pdf": "ERROR",  # opens with 0 pages and no exception
    "qpdf__append-xref-loop.pdf": "ERROR",
    "qpdf__bad-encryption-length.pdf": "ERROR",
    "derived__whitespace_only.pdf": "EMPTY",
    "pdfjs__helloworld-bad.pdf": "SUCCESS",
    "pdfminer__issue-1113-evil-xobjects.pdf": "SUCCESS",
}


@pytest.mark.skipif(not HOSTILE.is_dir(), reason=f"needs the hostile PDFs in {HOSTILE}")
def test_hostile_files_from_other_projects_end_as_rows(warehouse):
    files = {name: (HOSTILE / name).read_bytes() for name in HOSTILE_FILES}
    statuses = statuses_of(warehouse, parse(files, list(files)).rows)
    assert dict(statuses.select("document_id", "parser_status").iter_rows()) == HOSTILE_FILES
    failed = statuses.filter(pl.col("parser_status") != "SUCCESS")
    assert failed["error"].null_count() == 0
    assert not failed["error"].str.contains("\n").any()


PARSE = """
import sys
from embed_assets.documents.reading import parse_pdf
print(len(parse_pdf(sys.stdin.buffer.read())))
"""


def test_the_layout_model_s_library_reports_to_nobody(tmp_path):
    """It (onnxruntime) queues what it knows of the machine below HOME, to send it later."""
    given = {k: v for k, v in os.environ.items() if k not in ("TF_BUILD", "ORT_DISABLE_TELEMETRY")}
    command = [sys.executable, "-c", PARSE]
    said = subprocess.check_output(command, input=MANUAL, env={**given, "HOME": str(tmp_path)})
    assert said == b"2\n"
    assert not list(tmp_path.rglob("*onnxruntime*"))
