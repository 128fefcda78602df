"""PDF bytes become markdown, page by page, or a row that says why not.

pymupdf4llm's layout mode is used: it finds headings by their looks, joins the lines of a paragraph
and tells running headers and footers from text, which its faster mode does not.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import polars as pl

from embed_assets.errors import ProjectError, one_line
from embed_assets.resources.ledger import Cause, Failure, Slices
from embed_assets.resources.warehouse import Warehouse
from embed_assets.resources.workers import Outcome, WorkerPool, lacks_memory, report
from embed_assets.tables import TABLES
from embed_assets.terminal import progress_bar
from embed_assets.wording import counted

PARSER = f"pymupdf4llm-layout {version('pymupdf')}"
COUNT_TIMEOUT = 30.0
"""Seconds for counting the pages of a document; one that takes longer counts as one page."""
NOT_READ = "the file was not read"
PDF_BEGINS, PDF_ENDS, MARKED_WITHIN = b"%PDF-", b"%%EOF", 1024
"""What a PDF begins and ends with, within so many bytes."""
PASSING = frozenset({Cause.PROCESS_ENDED, Cause.NO_MEMORY})
"""Causes that say nothing of the file."""
_PICTURE_MARK = re.compile(
    r"<!--.*?-->|"
    r"\*{0,2}(==> picture \[[^\]\n]*\] intentionally omitted <==|----- (Start|End) of picture text"
    r" -----)\*{0,2}(<br>)?"
)
_LINE_BREAK = re.compile(r"<br\s*/?>")
_TAG = re.compile(r"</?(sup|sub|u|s|mark)>")


class UnreadablePdfError(ProjectError):
    """The file can't be read as a PDF; the message says why in one line."""


@dataclass(frozen=True)
class Page:
    """One page as markdown, or in one line why there is none. number: from 1."""

    number: int
    markdown: str
    error: str | None = None


def parse_documents(
    raw_pdfs: pl.DataFrame, document_ids: Collection[str], pool: WorkerPool
) -> Slices:
    """Rows of parsed_markdown for these documents, whatever state their files are in.

    raw_pdfs: document_id, file_name, content. What a passing cause kept from being read has no
    rows: a status is a fact about the file.
    """
    there = raw_pdfs.sort("document_id")
    ids, contents = there["document_id"].to_list(), there["content"].to_list()
    rows: list[dict[str, Any]] = []
    incomplete: dict[str, Failure] = {}
    not_made = {
        key: Failure(Cause.UNREADABLE_FILE, NOT_READ) for key in set(document_ids) - set(ids)
    }
    if ids:
        with pool.start(len(ids)) as workers:
            pages = [
                of_document.result or 1
                for of_document in workers.map(count_pages, contents, timeout=COUNT_TIMEOUT)
            ]
            ended = 0
            with progress_bar("Parsing PDFs", sum(pages), "page") as bar:

                def move_on(done: Sequence[int]) -> None:
                    at_work = map(min, done[ended:], pages[ended:])
                    bar.update(max(0, sum(pages[:ended]) + sum(at_work) - bar.n))

                parsed = workers.map(parse_pdf, contents, watch=move_on)
                for key, outcome in zip(ids, parsed, strict=True):
                    failure = outcome.failure
                    if failure is not None and failure.cause in PASSING:
                        not_made[key] = failure
                    else:
                        rows += _rows(key, outcome)
                    if failure is not None and failure.cause is Cause.TIME_LIMIT:
                        incomplete[key] = failure
                    ended += 1
                    said = f"{ended} of {counted(len(ids), 'document')}"
                    said += f", next {ids[ended]}" if ended < len(ids) else ""
                    bar.set_postfix_str(said, refresh=False)
                    move_on([0] * len(ids))
    frame = pl.DataFrame(rows, schema=TABLES["parsed_markdown"].schema)
    return Slices(frame, not_made=not_made, incomplete=incomplete)


def count_pages(content: bytes) -> int:
    """Pages of a PDF. Runs in a worker process. UnreadablePdfError as `parse_pdf` has it."""
    with _open(content) as document:
        return document.page_count


def parse_pdf(content: bytes) -> list[Page]:
    """Pages of a PDF as markdown. Runs in a worker process, and reports each page.

    UnreadablePdfError if it is no PDF, is damaged, needs a password or has no pages. A page on
    which the parser fails carries its error, the others their text.
    """
    with _open(content) as document:
        indices = list(range(document.page_count))
        try:
            pages = _pages(document, indices)
        except Exception as error:
            _raise_if_passing(error)
            # Somewhere a page breaks the parser: find it, keep the others.
            pages = [_page_or_error(document, index) for index in indices]
        report(document.page_count)
        return pages


def _open(content: bytes) -> Any:
    import pymupdf

    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    try:
        document = pymupdf.open(stream=content, filetype="pdf")
        is_pdf, locked = document.is_pdf, document.needs_pass
        has_pages = is_pdf and not locked and document.page_count > 0
    except Exception as error:
        _raise_if_passing(error)
        raise UnreadablePdfError(_what_is_wrong(content, error)) from error
    if locked:
        raise UnreadablePdfError("needs a password")
    if not has_pages:
        raise UnreadablePdfError(_what_is_wrong(content))
    return document


def _what_is_wrong(content: bytes, error: Exception | None = None) -> str:
    """Why a file gave no pages, by its bytes. error: what the library said, where it said anything.

    Readers look for the first line of a PDF, and for the last, in 1024 bytes (PDF 1.7, H.3).
    """
    if not content:
        return "the file is empty"
    if PDF_BEGINS not in content[:MARKED_WITHIN]:
        return "is no PDF (it doesn't begin as one)"
    if PDF_ENDS not in content[-MARKED_WITHIN:]:
        return "is cut off (its end is missing)"
    if error is None:
        return "has no pages: empty or damaged"
    # The library's own error says no more than that opening failed; what it comes from says why.
    return one_line(f"is damaged: {error.__cause__ or error}")


def _pages(document: Any, indices: list[int]) -> list[Page]:
    pages = _markdown(document, indices, margins=False)
    # The one line of a page passes for a running header. Without a picture, it is all there is.
    lines = [i for i, page in zip(indices, pages, strict=True) if _is_lost(document[i], page)]
    if not lines:
        return pages
    found = {page.number: page for page in _markdown(document, lines, margins=True)}
    return [found.get(page.number, page) for page in pages]


def _is_lost(pdf_page: Any, page: Page) -> bool:
    """Whether a page has text, of which none was taken, and no picture (a scan with a stamp)."""
    return not page.markdown and bool(pdf_page.get_text().strip()) and not pdf_page.get_images()


def _markdown(document: Any, indices: list[int], *, margins: bool) -> list[Page]:
    """Pages as the parser has them. margins: with running headers and footers."""
    import pymupdf4llm

    # A page without text (blank, or scanned) has nothing for the layout model to look at.
    readable = [index for index in indices if document[index].get_text().strip()]
    if not readable:
        return [Page(index + 1, "") for index in indices]
    with _reporting(document):
        parts: Any = pymupdf4llm.to_markdown(
            document,
            pages=readable,
            page_chunks=True,
            header=margins,
            footer=margins,
            use_ocr=False,
        )
    texts = dict(zip(readable, (part["text"] for part in parts), strict=True))
    return [Page(index + 1, clean_markdown(texts.get(index, ""))) for index in indices]


@contextmanager
def _reporting(document: Any) -> Iterator[None]:
    """Report, as the parser takes up a page, that those before it are done.

    The parser has no hook for it, and what it makes of a page depends on the others: page by page
    it would give other headings. It loads all pages of a form once more, before it begins.
    """
    load, number_of_loads = document.load_page, itertools.count()
    first = document.page_count if document.is_form_pdf else 0

    def load_page(number: int) -> Any:
        if next(number_of_loads) >= first:
            report(number)
        return load(number)

    document.load_page = load_page
    try:
        yield
    finally:
        del document.load_page


def _page_or_error(document: Any, index: int) -> Page:
    try:
        return _pages(document, [index])[0]
    except Exception as error:
        _raise_if_passing(error)
        return Page(index + 1, "", one_line(f"the parser failed: {type(error).__name__}: {error}"))


def _raise_if_passing(error: Exception) -> None:
    """MemoryError where memory ran out: that says nothing of the file."""
    if isinstance(error, MemoryError) or lacks_memory():
        raise MemoryError from error


def clean_markdown(text: str) -> str:
    """Markdown without the parser's HTML and its remarks about pictures, in valid Unicode."""
    text = _PICTURE_MARK.sub("", text).replace("\x00", "")
    text = _TAG.sub("", _LINE_BREAK.sub(" ", text))
    return text.encode("utf-8", "replace").decode("utf-8").strip()


def _rows(document_id: str, outcome: Outcome[bytes, list[Page]]) -> list[dict[str, Any]]:
    """Rows of a document's pages, or one of page 0 that says why it has none."""
    pages = outcome.result or []
    if outcome.failure is not None:
        pages = [Page(0, "", outcome.failure.error)]
    elif all(page.error for page in pages):
        pages = [replace(pages[0], number=0)]
    elif not any(page.markdown for page in pages):
        reason = "no text on any page: scanned, or only pictures"
        return [_row(document_id, Page(0, "", reason), "EMPTY")]
    return [_row(document_id, page) for page in pages]


def _row(document_id: str, page: Page, status: str | None = None) -> dict[str, Any]:
    of_page = "SUCCESS" if page.markdown else "EMPTY"
    return {
        "document_id": document_id,
        "page": page.number,
        "markdown": page.markdown,
        "parser_status": status or ("ERROR" if page.error else of_page),
        "error": page.error,
        "parser": PARSER,
    }


def document_statuses(
    warehouse: Warehouse, document_ids: Sequence[str] | None = None
) -> pl.DataFrame:
    """One row per document: document_id, parser_status, error, pages; of all without ids.

    A document with text on one page is a SUCCESS, whatever its other pages are.
    """
    which = "" if document_ids is None else "WHERE document_id IN (SELECT unnest(?::VARCHAR[])) "
    return warehouse.read(
        "SELECT document_id, CASE WHEN bool_or(parser_status = 'SUCCESS') THEN 'SUCCESS' "
        "ELSE arg_min(parser_status, page) END AS parser_status, "
        "arg_min(error, page) FILTER (error IS NOT NULL) AS error, "
        "count(*) FILTER (page > 0) AS pages "
        f"FROM parsed_markdown {which}GROUP BY document_id ORDER BY document_id",
        [] if document_ids is None else [list(document_ids)],
    )
