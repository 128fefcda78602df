"""The text of a chunk for people to read: markdown of somebody's PDF, as HTML or as plain words.

The text is not trusted. Its tags are shown and not obeyed, and neither links nor pictures become
any: what stands under a picture is shown in its place.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

LINE_BREAK = re.compile(r"<br */?>", re.IGNORECASE)
"""What the parser of PDFs puts between the lines of a table's cell."""
NO_MARKS = ("code", "lheading", "reference")
"""Rules of markdown that the text of a PDF follows by chance only: indented code and the like."""
LINKS = frozenset({"link_open", "link_close"})
HEADINGS = frozenset({"heading_open", "heading_close"})


def to_html(markdown: str) -> str:
    """The text as HTML that is safe to show. Its headings are paragraphs of class `heading`."""
    parser = _parser()
    return parser.renderer.render(_tokens(markdown), parser.options, {})


def to_words(markdown: str) -> str:
    """The text on one line, without the marks of markdown. A heading ends in a colon."""
    words = ""
    for token in _tokens(markdown):
        if token.type == "heading_close" and words[-1:].isalnum():
            words += ":"
        words += "".join(map(_said, token.children or [token]))
    return " ".join(words.split())


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").disable(NO_MARKS)


def _tokens(markdown: str) -> list[Token]:
    tokens = _parser().parse(LINE_BREAK.sub(" ", markdown))
    for token in tokens:
        if token.type in HEADINGS:
            token.tag = "p"
            token.attrs = {"class": "heading"} if token.nesting == 1 else {}
        if token.children:
            token.children = [_as_text(t) for t in token.children if t.type not in LINKS]
    return tokens


def _as_text(token: Token) -> Token:
    """A picture as the text that stands for it; anything else as it is."""
    return token.copy(type="text", tag="", children=None) if token.type == "image" else token


def _said(token: Token) -> str:
    """What a token adds to the plain words; white space between blocks and lines."""
    if token.type in ("text", "code_inline", "fence"):
        return token.content
    return " " if token.block or token.type in ("softbreak", "hardbreak") else ""
