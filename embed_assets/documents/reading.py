"""What a worker process does with a PDF: bytes become markdown, page by page.

pymupdf4llm's layout mode is used: it finds headings by their looks, joins the lines of a paragraph
and tells running headers and footers from text, which its faster mode does not.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib.metadata import version
from typing import Any

from embed_assets.documents.ocr import read_by_ocr
from embed_assets.documents.passwords import passwords_version
from embed_assets.documents.text_loss import hides_text, taken, without_text
from embed_assets.errors import ProjectError, one_line
from embed_assets.resources.causes import Cause
from embed_assets.resources.shared_bytes import SharedBytes
from embed_assets.resources.worker import is_worker, lacks_memory, report

PARSER = f"pymupdf4llm-layout+own-text {version('pymupdf')}"
PDF_BEGINS, PDF_ENDS, MARKED_WITHIN = b"%PDF-", (b"%%EOF", b"startxref"), 1024
"""What a PDF begins with, what stands at its end, and within how many bytes."""
CUT_OFF = "is cut off (its end is missing)"
TOO_LONG = "the parser took too long: headings and tables are plain text"
CUT_OFF_AFTER = f"the file {CUT_OFF}: pages may be missing after it"
LOCKED = "is encrypted, and no password in EMBED_ASSETS_PDF_PASSWORDS opens it"
PLACEHOLDER = (
    "is an XFA form, of which PDF readers see a placeholder only: print it to a PDF with Adobe "
    "Reader"
)
LEVELS = 6
"""Levels of headings in markdown."""
UNSIZED = 100
"""A heading of 12 points has 112 # until its level is known: more than text has."""
_SIZED_HEADING = re.compile(rf"^#{{{UNSIZED},}}(?= )", re.MULTILINE)
_PICTURE_MARK = re.compile(
    r"<!-- (?:Start|End) of picture text -->|"
    r"\*{0,2}(==> picture \[[^\[\]\n]*\] intentionally omitted <==|"
    r"----- (Start|End) of picture text -----)\*{0,2}(<br>)?"
)
_LINE_BREAK = re.compile(r"<br\s*/?>")
_TAG = re.compile(r"</?(sup|u|mark)>")


class UnreadablePdfError(ProjectError):
    """The file can't be read as a PDF; the message says why in one line."""

    cause = Cause.FAILED


class LockedPdfError(UnreadablePdfError):
    """The file needs a password that isn't known."""

    cause = Cause.NEEDS_PASSWORD


class UnfinishedPdfError(UnreadablePdfError):
    """The file has no end: its copying was broken off, or goes on."""

    cause = Cause.CUT_OFF


class Source(StrEnum):
    """Where the text of a page is from."""

    PDF = "pdf"
    OCR = "ocr"


@dataclass(frozen=True)
class Page:
    """One page as markdown, or in one line why there is none. number: from 1.

    error: why the page could not be read. text_share: share of the page's text that the markdown
    has, from 0 to 1; None where it has no text, or none knows how much. lack: in one line why much
    is missing from a page that was read. needs_ocr: whether OCR may read more. plain: whether it
    was read without the layout model, which took too long. cut_off: whether the file ends here, and
    should not.
    """

    number: int
    markdown: str
    error: str | None = None
    text_share: float | None = None
    lack: str | None = None
    source: Source = Source.PDF
    needs_ocr: bool = False
    plain: bool = False
    cut_off: bool = False


@dataclass(frozen=True)
class Reading:
    """How PDFs are read. passwords: tried on encrypted ones. ocr: Tesseract's languages, joined by
    '+'; None: pages without text stay so. plain: by their own text, without the layout model and
    OCR.
    """

    passwords: tuple[str, ...] = field(default=(), repr=False)
    ocr: str | None = None
    plain: bool = False

    @property
    def tried_with(self) -> dict[Cause, str]:
        """Versions of what is tried, by what it is tried against; empty where there is nothing."""
        return {
            Cause.NEEDS_PASSWORD: passwords_version(self.passwords),
            Cause.NEEDS_OCR: self.ocr or "",
        }


AS_IT_IS = Reading()


@dataclass(frozen=True)
class PageRange:
    """Pages of a document, by indices from 0. end: behind the last; None for all there are.

    plain: as in Reading, where the layout model took too long.
    """

    content: SharedBytes
    begin: int = 0
    end: int | None = None
    plain: bool = False

    @property
    def numbers(self) -> range:
        """Numbers of these pages, from 1; 0 for all there are."""
        return range(1) if self.end is None else range(self.begin + 1, self.end + 1)

    @property
    def size(self) -> int:
        """How many pages these count for."""
        return len(self.numbers)


NO_LAYOUT: Mapping[str, Any] = {"text": "", "page_boxes": ()}
"""What the parser would say of a page that it doesn't look at."""

PageReader = Callable[[bytes, int, int | None, Reading], list[Page]]
"""`parse_pages`, or what stands for it."""


def count_shared_pages(reading: Reading, content: SharedBytes) -> int:
    """Pages of a PDF. Runs in a worker process. UnreadablePdfError as `parse_pages` has it."""
    with _open(content.read(), reading.passwords) as document:
        return document.page_count


def read_range(read: PageReader, reading: Reading, pages: PageRange) -> list[Page]:
    """What a reader makes of these pages. Runs in a worker process."""
    reading = replace(reading, plain=pages.plain)
    return read(pages.content.read(), pages.begin, pages.end, reading)


def parse_pdf(content: bytes, reading: Reading = AS_IT_IS) -> list[Page]:
    """Pages of a PDF as markdown, as `parse_pages` has them, in this process."""
    return with_levels(parse_pages(content, reading=reading))


def parse_pages(
    content: bytes, begin: int = 0, end: int | None = None, reading: Reading = AS_IT_IS
) -> list[Page]:
    """Pages of a PDF as markdown, and reports each. begin, end: as in PageRange.

    Headings are marked with their size, see `with_levels`. UnreadablePdfError if it is no PDF, is
    damaged, needs a password, has no pages, or is a form that only Adobe's programs fill with its
    text. A page on which the parser fails carries its error, the others their text.
    """
    with _open(content, reading.passwords) as document:
        if is_placeholder(document):
            raise UnreadablePdfError(PLACEHOLDER)
        indices = list(range(document.page_count))[begin:end]
        try:
            pages = _pages(document, indices, reading)
        except Exception as error:
            _raise_if_passing(error)
            # Somewhere a page breaks the parser: find it, keep the others.
            pages = [_page_or_error(document, index, reading) for index in indices]
        report(len(indices))
        at_the_end = indices[-1:] == [document.page_count - 1]
        if at_the_end and document.is_repaired and is_unfinished(content):
            lacks = filter(None, [pages[-1].lack, CUT_OFF_AFTER])
            pages[-1] = replace(pages[-1], lack="; ".join(lacks), cut_off=True)
        return pages


def with_levels(pages: Sequence[Page]) -> list[Page]:
    """All pages of a document, with the levels that the parser gives headings by their sizes.

    It numbers the six largest sizes of the document's headings; smaller ones are of the sixth level
    too. (`update_header_tags` of pymupdf4llm does this over the pages that it is given.)
    """
    found = (len(marks) for page in pages for marks in _SIZED_HEADING.findall(page.markdown))
    largest_first = sorted(set(found), reverse=True)
    level = {size: min(place, LEVELS) for place, size in enumerate(largest_first, start=1)}

    def with_level(marks: re.Match[str]) -> str:
        return "#" * level[len(marks[0])]

    return [replace(p, markdown=_SIZED_HEADING.sub(with_level, p.markdown)) for p in pages]


def is_placeholder(document: Any) -> bool:
    """Whether a PDF's pages only stand in for an XFA form, which Adobe's programs alone show.

    Such a form has no fields of the older kind on its page, or says that it needs rendering (PDF
    1.7, 8.6.7).
    """
    catalog = document.pdf_catalog()
    if document.xref_get_key(catalog, "AcroForm/XFA")[0] == "null":
        return False
    if document.xref_get_key(catalog, "NeedsRendering")[1] == "true":
        return True
    return document.page_count == 1 and next(iter(document[0].widgets()), None) is None


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


def _open(content: bytes, passwords: Sequence[str]) -> Any:
    if is_worker():
        _compute_in_one_thread()
    import pymupdf

    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    try:
        document = pymupdf.open(stream=content, filetype="pdf")
        is_pdf = document.is_pdf
        locked = document.needs_pass and not any(map(document.authenticate, passwords))
        has_pages = is_pdf and not locked and document.page_count > 0
    except Exception as error:
        _raise_if_passing(error)
        raise _what_is_wrong(content, error) from error
    if locked:
        raise LockedPdfError(LOCKED)
    if not has_pages:
        raise _what_is_wrong(content)
    return document


def _what_is_wrong(content: bytes, error: Exception | None = None) -> UnreadablePdfError:
    """Why a file gave no pages, by its bytes. error: what the library said, where it said anything.

    Readers look for the first line of a PDF, and for the last, in 1024 bytes (PDF 1.7, H.3).
    """
    if not content:
        return UnfinishedPdfError("the file is empty")
    if PDF_BEGINS not in content[:MARKED_WITHIN]:
        return UnreadablePdfError("is no PDF (it doesn't begin as one)")
    if is_unfinished(content):
        return UnfinishedPdfError(CUT_OFF)
    if error is None:
        return UnreadablePdfError("has no pages: empty or damaged")
    # The library's own error says no more than that opening failed; what it comes from says why.
    said = error.__cause__ or error
    if isinstance(said, TypeError):  # it failed to say it
        return UnreadablePdfError("is damaged")
    return UnreadablePdfError(one_line(f"is damaged: {said}"))


def is_unfinished(content: bytes) -> bool:
    """Whether a file is empty, or begins as a PDF and lacks the end of one."""
    begins = PDF_BEGINS in content[:MARKED_WITHIN]
    end = content.rstrip(b"\0\r\n ")[-MARKED_WITHIN:]  # disks fill a file up with zeros
    return not content or (begins and not any(mark in end for mark in PDF_ENDS))


def _pages(document: Any, indices: list[int], reading: Reading) -> list[Page]:
    if reading.plain:
        pages = [_page(document[index], NO_LAYOUT, reading) for index in indices]
        too_long = {page.number: TOO_LONG for page in pages if page.markdown}
        return [replace(p, lack=p.lack or too_long.get(p.number), plain=True) for p in pages]
    # A page without text (blank, or scanned) has nothing for the layout model to look at.
    readable = [index for index in indices if document[index].get_text().strip()]
    parts = _markdown(document, readable, indices[0], margins=False)
    # The one line of a page passes for a running header, and so does text across the paper.
    hidden = [i for i, part in parts.items() if hides_text(document[i], part["page_boxes"])]
    parts |= _markdown(document, hidden, indices[0], margins=True)
    return [_page(document[index], parts.get(index), reading) for index in indices]


def _page(pdf_page: Any, part: Mapping[str, Any] | None, reading: Reading) -> Page:
    """A page with all of its text that can be had. part: the parser's, if it saw the page."""
    of_page = (
        taken(pdf_page, part["text"], part["page_boxes"], clean_markdown)
        if part
        else without_text(pdf_page)
    )
    number, needs_ocr = pdf_page.number + 1, of_page.may_be_read_by_ocr
    if needs_ocr and reading.ocr and not reading.plain:
        try:
            text = clean_markdown(read_by_ocr(pdf_page, reading.ocr))
        except Exception as error:
            _raise_if_passing(error)
            of_page = replace(of_page, reason=one_line(f"{of_page.reason}; OCR failed: {error}"))
            text = ""
        if text:
            return Page(number, text, source=Source.OCR)
    return Page(
        number,
        of_page.markdown,
        text_share=of_page.share,
        lack=of_page.reason,
        needs_ocr=needs_ocr,
    )


def _markdown(document: Any, readable: list[int], begin: int, *, margins: bool) -> dict[int, Any]:
    """Pages as the parser has them, by index. margins: with running headers and footers.

    begin: index from which pages are reported.
    """
    from pymupdf4llm.helpers.document_layout import parse_document
    from pymupdf4llm.ocr import OCRMode

    if not readable:
        return {}
    with _reporting(document, begin):
        # As `pymupdf4llm.to_markdown` does it, which keeps the sizes of headings to itself.
        parsed: Any = parse_document(
            document, pages=readable, force_text=True, use_ocr=OCRMode.NEVER
        )
        for page in parsed.pages:
            for box in page.boxes:
                if box.max_fontsize is not None:
                    box.header_level = UNSIZED + box.max_fontsize
        parts = parsed.to_markdown(header=margins, footer=margins, page_chunks=True)
    return dict(zip(readable, parts, strict=True))


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


def _page_or_error(document: Any, index: int, reading: Reading) -> Page:
    try:
        return _pages(document, [index], reading)[0]
    except Exception as error:
        _raise_if_passing(error)
        return Page(index + 1, "", one_line(f"the parser failed: {type(error).__name__}: {error}"))


def _raise_if_passing(error: Exception) -> None:
    """MemoryError where memory ran out, ImportError where a library is missing: neither says
    anything of the file.
    """
    if isinstance(error, MemoryError) or lacks_memory():
        raise MemoryError from error
    if isinstance(error, ImportError):
        raise error


def clean_markdown(text: str) -> str:
    """Markdown without the parser's HTML and its remarks about pictures, in valid Unicode."""
    text = _PICTURE_MARK.sub("", text).replace("\x00", "")
    text = _TAG.sub("", _LINE_BREAK.sub(" ", text))
    return text.encode("utf-8", "replace").decode("utf-8").strip()
