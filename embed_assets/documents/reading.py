"""What a worker process does with a PDF: bytes become markdown, page by page.

pymupdf4llm's layout mode is used: it finds headings by their looks, joins the lines of a paragraph
and tells running headers and footers from text, which its faster mode does not.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from embed_assets.errors import ProjectError, one_line
from embed_assets.resources.shared_bytes import SharedBytes
from embed_assets.resources.worker import is_worker, lacks_memory, report

PARSER = f"pymupdf4llm-layout {version('pymupdf')}"
PDF_BEGINS, PDF_ENDS, MARKED_WITHIN = b"%PDF-", b"%%EOF", 1024
"""What a PDF begins and ends with, within so many bytes."""
_PICTURE_MARK = re.compile(
    r"<!--.{0,1000}?-->|"
    r"\*{0,2}(==> picture \[[^\]\n]{0,100}\] intentionally omitted <==|"
    r"----- (Start|End) of picture text -----)\*{0,2}(<br>)?"
)
_LINE_BREAK = re.compile(r"<br\s*/?>")
HEADINGS = ("title", "section-header")
LEVELS = 6
_HEADING = re.compile(r"#{1,6}(?!#)")
_TAG = re.compile(r"</?(sup|sub|u|s|mark)>")


class UnreadablePdfError(ProjectError):
    """The file can't be read as a PDF; the message says why in one line."""


@dataclass(frozen=True)
class Page:
    """One page as markdown, or in one line why there is none. number: from 1.

    headings: of a page whose document isn't known yet as a whole, where in the markdown each
    heading begins, and its font size in points; see `with_levels`.
    """

    number: int
    markdown: str
    error: str | None = None
    headings: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class PageRange:
    """Pages of a document, by indices from 0. end: behind the last; None for all there are."""

    content: SharedBytes
    begin: int = 0
    end: int | None = None

    @property
    def numbers(self) -> range:
        """Numbers of these pages, from 1; 0 for all there are."""
        return range(1) if self.end is None else range(self.begin + 1, self.end + 1)

    @property
    def size(self) -> int:
        """How many pages these count for."""
        return len(self.numbers)


PageReader = Callable[[bytes, int, int | None], list[Page]]
"""`parse_pages`, or what stands for it."""


def count_shared_pages(content: SharedBytes) -> int:
    """Pages of a PDF. Runs in a worker process. UnreadablePdfError as `parse_pages` has it."""
    with _open(content.read()) as document:
        return document.page_count


def read_range(read: PageReader, pages: PageRange) -> list[Page]:
    """What a reader makes of these pages. Runs in a worker process."""
    return read(pages.content.read(), pages.begin, pages.end)


def parse_pdf(content: bytes) -> list[Page]:
    """Pages of a PDF as markdown, as `parse_pages` has them, in this process."""
    return with_levels(parse_pages(content))


def parse_pages(content: bytes, begin: int = 0, end: int | None = None) -> list[Page]:
    """Pages of a PDF as markdown, and reports each. begin, end: as in PageRange.

    UnreadablePdfError if it is no PDF, is damaged, needs a password or has no pages. A page on
    which the parser fails carries its error, the others their text.
    """
    with _open(content) as document:
        indices = list(range(document.page_count))[begin:end]
        try:
            pages = _pages(document, indices)
        except Exception as error:
            _raise_if_passing(error)
            # Somewhere a page breaks the parser: find it, keep the others.
            pages = [_page_or_error(document, index) for index in indices]
        report(len(indices))
        return pages


def with_levels(pages: Sequence[Page]) -> list[Page]:
    """All pages of a document, with the levels that the parser gives headings by their sizes.

    It numbers the six largest sizes of the document's headings; smaller ones are of the sixth level
    too. (`update_header_tags` of pymupdf4llm does this over the pages that it is given.)
    """
    largest = sorted({size for page in pages for _, size in page.headings}, reverse=True)
    level_of = {size: min(place, LEVELS) for place, size in enumerate(largest, start=1)}
    return [_with_levels(page, level_of) for page in pages]


def _with_levels(page: Page, level_of: dict[int, int]) -> Page:
    markdown = page.markdown
    for start, size in sorted(page.headings, reverse=True):
        if found := _HEADING.match(markdown, start):
            markdown = markdown[:start] + "#" * level_of[size] + markdown[found.end() :]
    return replace(page, markdown=markdown, headings=())


@functools.cache
def _compute_in_one_thread() -> None:
    """Have the layout model use one thread in this process.

    By default it starts one for each core, and they wait for work actively: beside other workers
    that costs a third more processor time than it needs.
    """
    import onnxruntime

    class OneThread(onnxruntime.InferenceSession):
        def __init__(self, *given: Any, sess_options: Any = None, **options: Any) -> None:
            sess_options = sess_options or onnxruntime.SessionOptions()
            sess_options.intra_op_num_threads = 1
            super().__init__(*given, sess_options=sess_options, **options)

    onnxruntime.InferenceSession = OneThread


def _open(content: bytes) -> Any:
    if is_worker():
        _compute_in_one_thread()
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
    from pymupdf4llm.helpers.document_layout import parse_document
    from pymupdf4llm.ocr import OCRMode

    # A page without text (blank, or scanned) has nothing for the layout model to look at.
    readable = [index for index in indices if document[index].get_text().strip()]
    if not readable:
        return [Page(index + 1, "") for index in indices]
    with _reporting(document, indices[0]):
        # As `pymupdf4llm.to_markdown` does it, which keeps the sizes of headings to itself.
        parsed: Any = parse_document(
            document, pages=readable, force_text=True, use_ocr=OCRMode.NEVER
        )
        parts = parsed.to_markdown(header=margins, footer=margins, page_chunks=True)
    found = {
        index: _page(index + 1, layout, part)
        for index, layout, part in zip(readable, parsed.pages, parts, strict=True)
    }
    return [found.get(index) or Page(index + 1, "") for index in indices]


def _page(number: int, layout: Any, part: Any) -> Page:
    """One page of the parser's. layout: its boxes. part: its text, and where the boxes begin."""
    text = part["text"]
    headings = tuple(
        (len(_without_remarks(text[: said["pos"][0]]).lstrip()), box.max_fontsize)
        for box, said in zip(layout.boxes, part["page_boxes"], strict=True)
        if box.boxclass in HEADINGS
    )
    return Page(number, clean_markdown(text), headings=headings)


@contextmanager
def _reporting(document: Any, begin: int) -> Iterator[None]:
    """Report, as the parser takes up a page, that those from `begin` to it are done.

    The parser has no hook for it. It loads all pages of a form once more, before it begins.
    """
    load, number_of_loads = document.load_page, itertools.count()
    first = document.page_count if document.is_form_pdf else 0

    def load_page(number: int) -> Any:
        if next(number_of_loads) >= first:
            report(number - begin)
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
    return _without_remarks(text).strip()


def _without_remarks(text: str) -> str:
    text = _PICTURE_MARK.sub("", text).replace("\x00", "")
    text = _TAG.sub("", _LINE_BREAK.sub(" ", text))
    return text.encode("utf-8", "replace").decode("utf-8")
