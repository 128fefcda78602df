"""Markdown becomes chunks that fit the embedding model, with their headings and pages.

MarkdownHeaderTextSplitter cuts at headings (# to ####), then RecursiveCharacterTextSplitter cuts
what is still too long, measured in the embedding model's own tokens. Neither knows of pages, so a
mark on a line of its own goes in front of each page, travels with the text, and is taken out again.
"""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl

from embed_assets.models.card import token_counter
from embed_assets.models.identity import text_id
from embed_assets.tables import TABLES

CHUNK_SHARE = 0.9
OVERLAP_SHARE = 0.1
CHUNKER = "1"
HEADING_LEVELS = ["#", "##", "###", "####"]
_PAGE_MARK = re.compile(r"\s*⟦page (\d+) of this document⟧\s*")
_HAS_WORD = re.compile(r"\w{2,}")
_HEADING_LINES = re.compile(r"(\s*(#{1,6} .*|⟦page \d+ of this document⟧)\s*(\n|$))*")
_EMPHASIS = re.compile(r"\*\*|__|(?<!\w)_|_(?!\w)|\*|`")

TokenCounter = Callable[[str], int]


@dataclass(frozen=True)
class Uncut:
    """A document to cut: its rows of parsed_markdown, and its file's name."""

    document_id: str
    file_name: str
    pages: pl.DataFrame


def chunk_document(source: str, token_limit: int, document: Uncut) -> pl.DataFrame:
    """Rows of chunks of one document. Runs in a worker process. source: as of the model's card."""
    names = {document.document_id: document.file_name}
    return chunk_documents(document.pages, names, _token_counter(source), token_limit)


@functools.cache
def _token_counter(source: str) -> TokenCounter:
    return token_counter(source)


def chunk_documents(
    parsed_markdown: pl.DataFrame,
    file_names: dict[str, str],
    count_tokens: TokenCounter,
    token_limit: int,
) -> pl.DataFrame:
    """Rows of chunks for every document that has text.

    parsed_markdown: document_id, page, markdown, parser_status. file_names: by document_id.
    token_limit: what the embedding model takes; chunks keep to 0.9 of it and overlap by 0.1.
    """
    readable = parsed_markdown.filter(pl.col("parser_status") == "SUCCESS")
    rows: list[dict[str, Any]] = []
    for key, pages in readable.sort("document_id", "page").group_by(
        "document_id", maintain_order=True
    ):
        document_id = str(key[0])
        texts = list(pages.select("page", "markdown").iter_rows())
        chunks = chunk_markdown(texts, count_tokens, token_limit)
        rows += [
            {
                "document_id": document_id,
                "chunk_index": index,
                "file_name": file_names.get(document_id, ""),
                **chunk,
            }
            for index, chunk in enumerate(chunks)
        ]
    return pl.DataFrame(rows, schema=TABLES["chunks"].schema)


def chunk_markdown(
    pages: list[tuple[int, str]], count_tokens: TokenCounter, token_limit: int
) -> Iterator[dict[str, Any]]:
    """Chunks of one document. pages: (page from 1, markdown), in order."""
    page = pages[0][0] if pages else 1
    for section in _sections(_with_marks(pages)):
        heading_path = " > ".join(
            _plain(section.metadata[marks]) for marks in HEADING_LEVELS if marks in section.metadata
        )
        finder = _PageFinder(section.page_content, page)
        for start, end, text in _pieces(section.page_content, count_tokens, token_limit):
            page_start, page_end = finder.span(start, end)
            yield {
                "chunk_id": text_id(text),
                "chunk_text": text,
                "heading_path": heading_path,
                "page_start": page_start,
                "page_end": page_end,
                "token_count": count_tokens(text),
            }
        page = finder.last


def _sections(markdown: str) -> list[Any]:
    """Texts between headings, each with its own heading and, as metadata, those above it."""
    from langchain_text_splitters import MarkdownHeaderTextSplitter

    by_heading = MarkdownHeaderTextSplitter(
        [(marks, marks) for marks in HEADING_LEVELS], strip_headers=False
    )
    sections = by_heading.split_text(markdown)
    for above, below in pairwise(sections):
        # A heading without text goes with the subheading under it. The splitter does this too, but
        # not where a page ends between them, as after a title page.
        deeper = len(below.metadata) > len(above.metadata)
        if deeper and _HEADING_LINES.fullmatch(above.page_content):
            below.page_content = f"{above.page_content}\n\n{below.page_content}"
            above.page_content = ""
    return [section for section in sections if section.page_content]


def _pieces(
    section: str, count_tokens: TokenCounter, token_limit: int
) -> Iterator[tuple[int, int, str]]:
    """Start, end and text of a section's chunks. The headings stay with the first of them."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    matched = _HEADING_LINES.match(section)
    head = matched.group() if matched else ""
    head_tokens = count_tokens(_without_marks(head)) + 2  # and the blank line after it
    size, overlap = int(token_limit * CHUNK_SHARE), int(token_limit * OVERLAP_SHARE)
    if head_tokens > size // 2:
        head, head_tokens = "", 0
    by_length = RecursiveCharacterTextSplitter(
        chunk_size=size - head_tokens,
        chunk_overlap=min(overlap, (size - head_tokens) // 2),
        length_function=lambda text: count_tokens(_without_marks(text)),
    )
    start, end = len(head) - 1, 0
    for index, piece in enumerate(by_length.split_text(section[len(head) :]) or [""]):
        # Pieces are stretches of the text; each begins after the one before it began, and ends no
        # sooner, which tells it from a like text within that one. (The splitter's own start index
        # counts overlap in characters, and here lengths are tokens.)
        start = section.find(piece, max(start + 1, end - len(piece)))
        end = start + len(piece)
        begin = 0 if index == 0 else start
        text = _without_marks(section[begin:end])
        if _HAS_WORD.search(text):
            yield begin, end, text


class _PageFinder:
    """Tells on which pages a stretch of a section lies, by the marks in its text."""

    def __init__(self, text: str, page_before: int) -> None:
        self._text = text
        self._page_before = page_before
        self._marks = [(m.start(), m.end(), int(m[1])) for m in _PAGE_MARK.finditer(text)]
        self.last = self._marks[-1][2] if self._marks else page_before

    def span(self, start: int, end: int) -> tuple[int, int]:
        """First and last page with text of text[start:end]; marks at its edges don't count."""
        for mark_start, mark_end, _ in self._marks:
            if mark_start <= start < mark_end:
                start = mark_end
            if mark_start < end <= mark_end:
                end = mark_start
        return self._page_at(start), self._page_at(max(start, end - 1))

    def _page_at(self, position: int) -> int:
        before = [page for _, mark_end, page in self._marks if mark_end <= position]
        return before[-1] if before else self._page_before


def _with_marks(pages: list[tuple[int, str]]) -> str:
    return "\n\n".join(f"⟦page {page} of this document⟧\n\n{text}" for page, text in pages)


def _without_marks(text: str) -> str:
    return _PAGE_MARK.sub("\n\n", text).strip()


def _plain(heading: str) -> str:
    """A heading without its markdown emphasis."""
    return " ".join(_EMPHASIS.sub("", heading).split())
