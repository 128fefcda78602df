"""What a worker process does with a PDF: bytes become markdown, page by page.

pymupdf4llm's layout mode is used: it finds headings by their looks, joins the lines of a paragraph
and tells running headers and footers from text, which its faster mode does not.
"""

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from embed_assets.errors import ProjectError, one_line
from embed_assets.resources.workers import lacks_memory, report

PARSER = f"pymupdf4llm-layout {version('pymupdf')}"
PDF_BEGINS, PDF_ENDS, MARKED_WITHIN = b"%PDF-", b"%%EOF", 1024
"""What a PDF begins and ends with, within so many bytes."""
_PICTURE_MARK = re.compile(
    r"<!--.{0,1000}?-->|"
    r"\*{0,2}(==> picture \[[^\]\n]{0,100}\] intentionally omitted <==|"
    r"----- (Start|End) of picture text -----)\*{0,2}(<br>)?"
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
