"""What a chunk holds besides its markup: headings, blocks of text, labels and tables."""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby

from embed_assets.words import WRITTEN_WORD, count_words, split_terms, word_set

ENGLISH = word_set("the of and to with that this are from for be by is on or as at it")
"""Its commonest little words, by which English is recognised."""


@dataclass(frozen=True)
class Table:
    """A pipe table: its header (empty where the chunk begins after it) and rows, without markup."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def is_glossary(self) -> bool:
        """Two columns, the second of which mostly holds explanations."""
        explained = [len(row) == 2 and count_words(row[1]) >= 4 for row in self.rows]
        return 2 * sum(explained) > len(explained)


@dataclass(frozen=True)
class Passage:
    """A chunk without its markup."""

    chunk_id: str
    headings: tuple[str, ...]
    blocks: tuple[str, ...]
    labels: tuple[str, ...]
    tables: tuple[Table, ...]

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Sentences of the running text and the list items, in order."""
        return tuple(chain.from_iterable(map(split_sentences, self.blocks)))

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """All of its text but the headings."""
        cells = (chain(table.header, *table.rows) for table in self.tables)
        return self.blocks + tuple(chain.from_iterable(cells))

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """Its words as written, in order; from scripts without spaces, likely words."""
        return tuple(chain.from_iterable(map(split_terms, self.texts)))

    @cached_property
    def is_english(self) -> bool:
        """Whether at least one word in twelve is a common little word of English."""
        words = [
            word.casefold() for word in chain.from_iterable(map(WRITTEN_WORD.findall, self.texts))
        ]
        return 12 * sum(word in ENGLISH for word in words) >= len(words) > 0


_HEADING = re.compile(r"^ {0,3}#{1,6}\s")
_QUOTED = re.compile(r"^\s*+(?:>\s?)+")
_CELL_EDGE = re.compile(r"(?<!\\)\|")
_LIST_ITEM = re.compile(r"^\s*(?:[-*+•▪◦●]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+")
_EMPHASISED_LABEL = re.compile(
    r"^(?P<sign>[*_]{1,3})(?P<term>[^*_:]+)(?::(?P=sign)|(?P=sign)(?:\s\([^()]*\))?(?::|\s[–—-]))\s+\S"
)
_LABEL_OF_ITEM = re.compile(
    r"^(?P<term>[^,;:()]{1,200}?)(?:\s\([^()]{0,200}\))?(?::[*_]{0,3}|[*_]{0,3}\s[–—-])"
    r"\s+\S++(?:\s\S++){3}"
)
_NO_TEXT = re.compile(  # rules, code fences, what pymupdf4llm writes in place of a picture
    r"^(?:(?:[-*_=]\s*){3,}|(?:```|~~~).*|.{0,8}==>.*<==.{0,8}|"
    r"\W*(?:Start|End) of picture text\W*)$"
)


def read_passage(chunk_id: str, chunk_text: str, heading_path: str | None) -> Passage:
    """The headings, blocks of text (paragraphs, list items) and tables of a chunk of markdown."""
    own_headings, blocks, labels, tables = [], [], [], []
    lines = ["" if _NO_TEXT.match(line.strip()) else line for line in chunk_text.splitlines()]
    for shape, group in groupby(_mark_blocks(lines), key=lambda pair: pair[0]):
        content = [line for _, line in group]
        if shape[0] == "heading":
            own_headings.append(strip_markup(content[0]))
        elif shape[0] == "table":
            tables.append(_read_table(content))
        elif shape[0] in ("text", "item"):
            block = " ".join(content)
            blocks.append(strip_markup(block))
            pattern = _LABEL_OF_ITEM if shape[0] == "item" else _EMPHASISED_LABEL
            labels += [strip_markup(label["term"]) for label in [pattern.match(block)] if label]
    path = [strip_markup(heading) for heading in (heading_path or "").split(" > ")]
    headings = [_strip_number(heading) for heading in path if heading] or [
        _strip_number(heading) for heading in own_headings
    ]
    return Passage(
        chunk_id,
        tuple(filter(None, headings)),
        tuple(filter(None, blocks)),
        tuple(filter(None, labels)),
        tuple(tables),
    )


def _mark_blocks(lines: Sequence[str]) -> Iterable[tuple[tuple[str, int], str]]:
    """Each line without the sign of its shape, with the shape and number of its block."""
    number, previous = 0, ""
    for line in lines:
        line = _QUOTED.sub("", line)
        if _HEADING.match(line):
            shape, begins = "heading", True
            line = line.strip().lstrip("#").strip().rstrip("#")
        elif line.count("|") >= 2 or (previous == "table" and "|" in line):
            shape, begins = "table", previous != "table"
        elif not line.strip():
            shape, begins = "blank", False
        else:
            item = _LIST_ITEM.match(line)
            begins = item is not None or previous not in ("text", "item")
            shape = ("item" if item else "text") if begins else previous
            line = line[item.end() :] if item else line
        number += begins
        previous = shape
        yield (shape, number), line.strip()


def _read_table(lines: Sequence[str]) -> Table:
    rule = next((i for i, line in enumerate(lines) if _is_table_rule(line)), None)
    rows = [_cells(line) for line in lines if not _is_table_rule(line)]
    rows = [row for row in rows if any(row)]
    if rule is None or rule == 0 or not rows:
        return Table((), tuple(rows))
    return Table(rows[0], tuple(rows[1:]))


def _is_table_rule(line: str) -> bool:
    """`|---|:--:|`, between the header and the rows."""
    return "-" in line and set(line) <= set(" \t|:-")


def _cells(line: str) -> tuple[str, ...]:
    return tuple(strip_markup(cell) for cell in _CELL_EDGE.split(line.strip().strip("|")))


_MARKUP: Sequence[tuple[re.Pattern[str], str]] = [
    (re.compile(r"<!--.{0,1000}?-->", re.S), ""),
    (re.compile(r"<(sup|sub)>[\s\d,*†‡§_∗]{0,50}</\1>"), ""),  # footnote marks
    (re.compile(r"</?[a-zA-Z][^<>]*>"), " "),
    # Images and links.
    (re.compile(r"!?\[([^\]]{0,300})\]\((?:[^()]|\([^()]{0,300}\)){0,300}\)"), r"\1"),
    (re.compile(r"\[\^?[\d,\s–-]+\]"), ""),  # citations
    (re.compile(r"\$([^$\n\\^_]*+[\\^_][^$\n]*+)\$"), r"\1"),  # inline formulas
    (re.compile(r"(?<!\\)\\[a-zA-Z]+\s?"), " "),  # LaTeX commands
    (re.compile(r"\\([^\w\s])"), r"\1"),  # escapes
    (re.compile(r"`+"), ""),
    (re.compile(r"~~|\*+|(?<![^\W_])_+|_+(?![^\W_])"), ""),  # emphasis; not snake_case
    (re.compile(r"[|#{}<>^\\\x00-\x1f\x7f]"), " "),
]


def strip_markup(markdown: str) -> str:
    """The text of some markdown within a line: no emphasis, links, tags, citations or formulas."""
    text = html.unescape(markdown)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


_NUMBER = re.compile(
    r"^(?:(?:chapter|section|appendix|part)\s+)?"
    r"(?:\d+(?:[.-]\d+)*|[A-Z](?:\.\d+)+|[A-Z](?=[.):]))[.):]?\s+",
    re.I,
)
_SPACE_BEFORE = re.compile(r" (?=[.,;:!?)])")


def _strip_number(heading: str) -> str:
    """`3.1 Methods` and `Chapter 3: Methods` are headed Methods."""
    return _NUMBER.sub("", heading).rstrip(" .:;,") or heading


_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:e\.g|i\.e|cf|vs|etc|al|fig|figs|eq|eqs|sec|ref|refs|no|nos|vol|pp?|approx|ca|"
    r"dr|mr|mrs|ms|prof|st|inc|ltd|co|corp|bzw|z\.b|d\.h|usw|nr|abb|n|[A-Z])\.$",
    re.I,
)
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"”’»)]*\s+|(?<=[。！？।॥؟])\s*")


def split_sentences(text: str) -> list[str]:
    """Sentences of a block of text, without their full stops.

    A stop before a small letter ends no sentence (`approx. five`), unless it stands apart, as in
    old corpora (`available . the flow`).
    """
    sentences, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        so_far, rest = text[start : end.start()], text[end.end() :]
        apart = so_far.endswith((" .", " ?", " !"))
        if not apart and (rest[:1].islower() or _ABBREVIATION.search(so_far)):
            continue
        sentences.append(so_far)
        start = end.end()
    return [tidy(sentence) for sentence in [*sentences, text[start:]] if tidy(sentence)]


def tidy(question: str) -> str:
    """A text of one line, without the signs that it begins and ends with."""
    question = _SPACE_BEFORE.sub("", " ".join(question.split()))
    return question.strip(" .,;:-–—·•。।").strip("\"“”'‘’") if question else question
