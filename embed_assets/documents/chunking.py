"""Markdown becomes chunks that fit the embedding model, with their headings, columns and pages.

Headings (# to ####) divide a document into sections. A section that is too long is cut between
lines, and a line that is too long by LangChain's RecursiveCharacterTextSplitter between words,
clauses or characters; lengths are in the embedding model's own tokens. Lines are joined here, since
the splitter knows neither of pages nor of columns. Time and memory are linear in the text, whatever
it holds.
"""

import functools
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import polars as pl

from embed_assets.documents.sections import (
    BLOCK,
    Line,
    Path,
    Section,
    cells,
    level_of,
    read_sections,
)
from embed_assets.models.card import token_counter
from embed_assets.models.identity import text_id
from embed_assets.settings import Headings
from embed_assets.tables import TABLES
from embed_assets.words import ANY_CHARACTER, CLAUSE_END, HAS_WORD

CHUNK_SHARE = 0.9
OVERLAP_SHARE = 0.1
CHUNKER = "2"
MOST_ABOVE = 0.5
"""Share of a chunk that headings, or the names of columns, may take; longer ones stand once."""
LONGEST_WORD = 32
"""Characters of a text whose length in tokens is remembered."""
LONGEST_HEADING = 500
"""Characters of a heading in a path, which stands beside each chunk."""
EDGES = ["(?= )", CLAUSE_END.pattern, ANY_CHARACTER.pattern]
"""Where a line may be cut, the best first."""
_EMPHASIS = re.compile(r"\*\*|__|(?<!\w)_|_(?!\w)|\*|`")

TokenCounter = Callable[[str], int]


@dataclass(frozen=True)
class Uncut:
    """A document to cut: its rows of parsed_markdown, and its file's name."""

    document_id: str
    file_name: str
    pages: pl.DataFrame


def chunk_document(
    source: str, token_limit: int, headings: Headings, document: Uncut
) -> pl.DataFrame:
    """Rows of chunks of one document. Runs in a worker process. source: as of the model's card."""
    names = {document.document_id: document.file_name}
    return chunk_documents(document.pages, names, _token_counter(source), token_limit, headings)


@functools.cache
def _token_counter(source: str) -> TokenCounter:
    return token_counter(source)


def chunk_documents(
    parsed_markdown: pl.DataFrame,
    file_names: dict[str, str],
    count_tokens: TokenCounter,
    token_limit: int,
    headings: Headings = "first",
) -> pl.DataFrame:
    """Rows of chunks for every document that has text.

    parsed_markdown: document_id, page, markdown, parser_status. file_names: by document_id. The
    rest as `chunk_markdown` takes it.
    """
    readable = parsed_markdown.filter(pl.col("parser_status") == "SUCCESS")
    rows: list[dict[str, Any]] = []
    for key, pages in readable.sort("document_id", "page").group_by(
        "document_id", maintain_order=True
    ):
        document_id = str(key[0])
        texts = list(pages.select("page", "markdown").iter_rows())
        chunks = chunk_markdown(texts, count_tokens, token_limit, headings)
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
    pages: list[tuple[int, str]],
    count_tokens: TokenCounter,
    token_limit: int,
    headings: Headings = "first",
) -> Iterator[dict[str, Any]]:
    """Chunks of one document. pages: (page from 1, markdown), in order.

    token_limit: what the embedding model takes; chunks keep to 0.9 of it and overlap by 0.1.
    headings: `first`, a section's headings stand with its first chunk; `every`, each chunk begins
    with all headings above it. A chunk that begins within a table has the names of its columns.
    """
    for section in read_sections(pages):
        heading_path = " > ".join(filter(None, (_plain(text) for _, text in section.headings)))
        for piece in _pieces(section, count_tokens, token_limit, headings):
            yield {
                "chunk_id": text_id(piece.text),
                "chunk_text": piece.text,
                "heading_path": heading_path,
                "page_start": piece.page_start,
                "page_end": piece.page_end,
                "token_count": count_tokens(piece.text),
            }


@dataclass(frozen=True)
class _Piece:
    text: str
    page_start: int
    page_end: int


def _pieces(
    section: Section, count: TokenCounter, token_limit: int, headings: Headings
) -> Iterator[_Piece]:
    """Texts of a section's chunks, and their pages."""
    size, overlap = int(token_limit * CHUNK_SHARE), int(token_limit * OVERLAP_SHARE)
    text = _Text(section.lines)
    head = section.first_lines
    begins = text.starts[len(head)] if len(head) < len(section.lines) else len(text.content)
    first, others = text.content[:begins], ""
    if headings == "every":
        own = sum(bool(level_of(line.text)) for line in head)
        outer = section.headings[: max(0, len(section.headings) - own)]
        first = _as_lines(outer, count, size) + first
        others = _as_lines(section.headings, count, size)
    taken = max(count(first.strip()), count(others.strip())) + 2  # and the blank line after it
    if taken > size * MOST_ABOVE:
        head, begins, first = [], 0, ""  # they are cut like text
        taken = count(others.strip()) + 2 if others else 0
    room = size - taken
    cutter = _Cutter(text.content, count, room, min(overlap, room // 2))
    lines = text.spans(len(head), cutter)
    for number, span in enumerate(list(cutter.cut(lines)) or [_Span(begins, begins, 0)]):
        above = f"{span.names}\n" if span.names else ""
        above = first + above if number == 0 else above
        within = text.content[span.start : span.end].strip()
        if HAS_WORD.search(above + within):
            above = above if number == 0 else others + above
            yield _Piece((above + within).strip(), *text.pages(span, from_top=number == 0))


def _as_lines(headings: Path, count: TokenCounter, size: int) -> str:
    """Headings as lines; of too many, the innermost."""
    lines = [f"{'#' * level} {text}{BLOCK}" for level, text in headings]
    while lines and count("".join(lines).strip()) + 2 > size * MOST_ABOVE:
        del lines[0]
    return "".join(lines)


@dataclass(frozen=True, slots=True)
class _Span:
    """A stretch of a text. size: in tokens. names: of its table's columns, where they stand above.

    names_size: in tokens, 0 without.
    """

    start: int
    end: int
    size: int
    names: str = ""
    names_size: int = 0


class _Text:
    """The lines of a section as one text, which knows the page of each place."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        parts = [(line.before if number else "", line.text) for number, line in enumerate(lines)]
        self.content = "".join(before + text for before, text in parts)
        ends = list(accumulate(len(before) + len(text) for before, text in parts))
        self._ends = ends
        self.starts = [end - len(text) for end, (_, text) in zip(ends, parts, strict=True)]
        """Where each line begins."""

    def spans(self, first: int, cutter: "_Cutter") -> Iterator[_Span]:
        """The lines from one on. The names of columns are one with their first row, if both fit."""
        place = first
        while place < len(self._lines):
            start = self._ends[place - 1] if place > first else self.starts[place]
            names = self._lines[place].names
            opens = names is None and self._names_of(place + 1) is not None
            if opens and cutter.span(start, self._ends[place + 1]).size < cutter.room:
                place += 1
            yield cutter.span(start, self._ends[place], names or "")
            place += 1

    def _names_of(self, place: int) -> str | None:
        return self._lines[place].names if place < len(self._lines) else None

    def pages(self, span: _Span, *, from_top: bool) -> tuple[int, int]:
        """First and last page of a span; from_top: of all down to its end."""
        return self._page_at(0 if from_top else span.start), self._page_at(max(0, span.end - 1))

    def _page_at(self, place: int) -> int:
        return self._lines[bisect_right(self._ends, place)].page


class _Cutter:
    """Cuts a text into spans of less than `room` tokens that overlap by `overlap` at most."""

    def __init__(self, content: str, count: TokenCounter, room: int, overlap: int) -> None:
        self.room = room
        self._content = content
        self._overlap = overlap
        self._count = count
        self._count_word = functools.lru_cache(100_000)(count)
        self._names_size = functools.lru_cache(2)(self._size_of_names)

    def span(self, start: int, end: int, names: str = "") -> _Span:
        """A stretch of the text with its size; too long names of columns are left out."""
        size = self._size(self._content[start:end])
        names_size = self._names_size(names)
        if not names_size:
            return _Span(start, end, size)
        return _Span(start, end, size, names, names_size)

    def _size(self, text: str) -> int:
        return self._count_word(text) if len(text) <= LONGEST_WORD else self._count(text)

    def _size_of_names(self, names: str) -> int:
        """Tokens of the names of columns and their rule; 0 where they are too many, or empty."""
        size = self._count(f"{names}\n") if any(cells(names.partition("\n")[0])) else 0
        return size if size <= self.room * MOST_ABOVE else 0

    def cut(self, spans: Iterable[_Span]) -> Iterator[_Span]:
        """Chunks of these neighbours, each as long as may be."""
        fitting: list[_Span] = []
        for span in spans:
            if span.size + span.names_size < self.room:
                fitting.append(span)
                continue
            yield from self._join(fitting)
            fitting = []
            yield from self._divide(span)
        yield from self._join(fitting)

    def _divide(self, span: _Span) -> Iterator[_Span]:
        """A line that is too long, cut at the best edges that it has."""
        from langchain_text_splitters import RecursiveCharacterTextSplitter  # takes a second

        by_length = RecursiveCharacterTextSplitter(
            EDGES,
            keep_separator="end",
            is_separator_regex=True,
            strip_whitespace=False,
            chunk_size=self.room - span.names_size,
            chunk_overlap=self._overlap,
            length_function=self._size,
        )
        start = span.start
        for text in by_length.split_text(self._content[span.start : span.end]):
            # Of like texts within a line any will do: they have one page.
            start = self._content.index(text, start)
            yield _Span(start, start + len(text), 0, span.names)

    def _join(self, spans: Iterable[_Span]) -> Iterator[_Span]:
        joined: deque[_Span] = deque()
        total = 0
        for span in spans:
            if joined and self._exceeds(joined, total + span.size):
                yield _Span(joined[0].start, joined[-1].end, total, joined[0].names)
                while joined and (
                    total > self._overlap or self._exceeds(joined, total + span.size)
                ):
                    total -= joined.popleft().size
            joined.append(span)
            total += span.size
        if joined:
            yield _Span(joined[0].start, joined[-1].end, total, joined[0].names)

    def _exceeds(self, joined: Sequence[_Span], size: int) -> bool:
        return joined[0].names_size + size > self.room


def _plain(heading: str) -> str:
    """A heading without its markdown emphasis; a very long one cut."""
    plain = " ".join(_EMPHASIS.sub("", heading).split())
    return plain if len(plain) <= LONGEST_HEADING else f"{plain[:LONGEST_HEADING]}…"
