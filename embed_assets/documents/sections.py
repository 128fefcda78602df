"""The pages of a document as sections: the lines between its headings, each with its page.

Headings of four levels (`#` to `####`) divide a document, in no block of code. A table that goes on
over a page is one table: the parser takes the first row of a page for column names, or repeats the
names.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from embed_assets.words import JOINERS

LEVELS = 4
DEEPEST_LEVEL = 6
"""Levels that markdown has; the deepest don't divide a document."""
LINE, BLOCK, PAGE = "\n", "  \n", "\n\n"
"""What stands before a line: within a paragraph, before a paragraph or a heading, on a new page."""
FENCES = ("```", "~~~")
_CELL_EDGE = re.compile(r"(?<!\\)\|")

Path = tuple[tuple[int, str], ...]
"""Levels and texts of headings, outermost first."""


@dataclass
class Line:
    """A line of text; of a table, the names of its columns and the rule below them are one line.

    before: LINE, BLOCK or PAGE. names: that line, where this one is a row below it.
    """

    text: str
    page: int
    before: str
    names: str | None = None


@dataclass
class Section:
    """headings: level and text of those above, outermost first."""

    headings: Path
    lines: list[Line] = field(default_factory=list)

    @property
    def first_lines(self) -> list[Line]:
        """The lines up to the first that is no heading."""
        end = next((n for n, line in enumerate(self.lines) if not is_heading(line.text)), None)
        return self.lines[:end]


def read_sections(pages: Iterable[tuple[int, str]]) -> list[Section]:
    """Sections of a document that have lines. pages: (page from 1, markdown), in order.

    A heading without text goes with the subheading under it.
    """
    sections = [Section(())]
    for page, markdown in pages:
        for level, line in _lines(page, markdown):
            if level:
                above = tuple(h for h in sections[-1].headings if h[0] < level)
                headings = (*above, (level, line.text[level:].strip()))
                if headings != sections[-1].headings:
                    _begin(sections, headings)
            sections[-1].lines.append(line)
    found = [section for section in sections if section.lines]
    for section in found:
        section.lines = list(_tables(section.lines))
    return found


def _begin(sections: list[Section], headings: Path) -> None:
    """Begin a section, or go on with the one that is nothing but headings above this one."""
    last = sections[-1]
    if len(headings) > len(last.headings) and len(last.first_lines) == len(last.lines):
        last.headings = headings
    else:
        sections.append(Section(headings))


def _lines(page: int, markdown: str) -> Iterator[tuple[int, Line]]:
    """Level of the heading that a line is (0 of others), and the line; blank ones only in code.

    A block of code ends with its page: the parser closes each, and one that isn't would take all
    headings that follow.
    """
    before, fence = PAGE, ""
    for raw in markdown.split("\n"):
        text = _readable(raw)
        if fence:
            fence = "" if text.startswith(fence) else fence
            yield 0, Line(text, page, before)
            before = LINE
            continue
        fence = _opened_fence(text)
        level = 0 if fence else level_of(text)
        if text:
            yield level, Line(text, page, BLOCK if level and before != PAGE else before)
        before = before if before == PAGE and not text else LINE if text else BLOCK


def _readable(line: str) -> str:
    """A line with plain spaces, without control characters and what has no glyph."""
    if not line.isprintable():
        line = "".join(
            c if c.isprintable() or c in JOINERS else " " if c.isspace() else "" for c in line
        )
    return line.strip()


def _opened_fence(line: str) -> str:
    """The fence by which a line opens a block of code; empty of others, as of ```` ```x``` ````."""
    fence = next((fence for fence in FENCES if line.startswith(fence)), "")
    return "" if fence == FENCES[0] and line.count(fence) > 1 else fence


def level_of(line: str) -> int:
    """Level of a heading that divides the document, 0 of another line."""
    level = len(line) - len(line.lstrip("#"))
    return level if level <= LEVELS and line[level : level + 1] in ("", " ") else 0


def is_heading(line: str) -> bool:
    """Whether a line is a heading of any level, with text."""
    level = len(line) - len(line.lstrip("#"))
    return 0 < level <= DEEPEST_LEVEL and line[level : level + 1] == " "


def _tables(lines: list[Line]) -> Iterator[Line]:
    """The lines, rows with the names of their columns; without what a new page repeats of them."""
    names: str | None = None
    rest = iter(zip(lines, [*lines[1:], Line("", 0, PAGE)], strict=True))
    for line, following in rest:
        if _is_rule(following) and len(cells(line.text)) == len(cells(following.text)):
            next(rest)
            if names is None or line.before != PAGE or not _goes_on(names, line.text):
                names = f"{line.text}\n{following.text}"
                yield Line(names, line.page, line.before)
            elif not _repeats(names, line.text):
                yield Line(line.text, line.page, LINE, names)
            continue
        if names is not None and ("|" not in line.text or line.before == BLOCK):
            names = None
        yield Line(line.text, line.page, line.before, names)


def _is_rule(line: Line) -> bool:
    """Whether a line is `|---|:-:|`, below the names of columns."""
    return line.before == LINE and {"|", "-"} <= set(line.text) <= set("|-: ")


def _goes_on(names: str, row: str) -> bool:
    """Whether a table of these columns goes on with what the parser took for names of others.

    Names that are repeated tell, a figure below a name that is none, and names that stood in bold.
    """
    columns, found = cells(names.partition("\n")[0]), cells(row)
    figures = any(_is_figure(f) and not _is_figure(c) for f, c in zip(found, columns, strict=False))
    filled = list(filter(None, columns))
    plain = bool(filled) and all(map(_is_bold, filled)) and not any(map(_is_bold, found))
    return len(found) == len(columns) and (_repeats(names, row) or figures or plain)


def _repeats(names: str, row: str) -> bool:
    return row == names.partition("\n")[0] or not any(cells(row))


def _is_figure(cell: str) -> bool:
    """Whether the first letter or digit of a cell is a digit."""
    return next((c.isdigit() for c in cell if c.isalnum()), False)


def _is_bold(cell: str) -> bool:
    return cell.startswith("**")


def cells(row: str) -> list[str]:
    """Texts of the cells of a table's row."""
    return [
        cell.strip() for cell in _CELL_EDGE.split(row.strip().removeprefix("|").removesuffix("|"))
    ]
