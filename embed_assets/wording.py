"""How counts and changes are said, in the terminal, the UI and the report alike.

And how the text of others is shown, so that it is nothing but text.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_OBEYED = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb"
_ALL_OBEYED = re.compile(f"[{_OBEYED}]")
_OBEYED_IN_LINES = re.compile(f"(?![\t\n])[{_OBEYED}]")
_MARKDOWN = re.compile(
    r"[\\`*_{}\[\]<>#!|~$&]|^\s*(?:[-+=]|\d+[.)])|\w@\w|://|\bwww\.|mailto:", re.IGNORECASE
)
"""What may mean something in markdown, or in the HTML in it."""
_AFTER_BACKSLASH = re.compile(r"(?<=\\)\|")
_BACKTICKS = re.compile("`+")
_PLAIN_CODE = re.compile(r"`[\w ./=-]+`")
"""Code as our own sentences have it, `embed-assets run`: nothing in it means anything."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    r"""Text in one line, with what a terminal obeys rather than shows written out: `\x1b`, `\n`.

    That is control characters, line separators, what turns the direction of text around, and halves
    of characters (Unicode Technical Report 36, Trojan Source 2021).
    """
    return _ALL_OBEYED.sub(_written_out, text)


def printable_lines(text: str) -> str:
    """The same for text whose line breaks and tabs are its own."""
    return _OBEYED_IN_LINES.sub(_written_out, text)


def in_markdown(text: str) -> str:
    """Text of others in a sentence of markdown: as it is, or as code where it may mean something.

    In code neither links nor pictures, nor tags, nor addresses are any. It has more backticks
    around it than in it: https://spec.commonmark.org/0.31.2/#code-spans.
    """
    shown = printable(text)
    if not _MARKDOWN.search(_PLAIN_CODE.sub("code", shown)):
        return shown
    fence = "`" * (1 + max(map(len, _BACKTICKS.findall(shown)), default=0))
    room = " " if shown.strip(" ") != shown or "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{room}{shown}{room}{fence}"


def in_cell(text: str) -> str:
    """The same in a cell of a table.

    Of a bar after a backslash renderers disagree whether it ends the cell: a rule stands for it.
    """
    return _AFTER_BACKSLASH.sub("\u2502", in_markdown(text)).replace("|", "\\|")


def in_lines(rows: Iterable[str]) -> str:
    """Rows as lines; a line break within a row begins none."""
    return "\n".join(map(printable, rows))


def to_json(summary: Mapping[str, Any]) -> str:
    """JSON in UTF-8 that can be shown in a terminal."""
    shown = json.dumps(summary, ensure_ascii=False)
    return _ALL_OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", shown)


def _written_out(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: `1 document`, `1,200 documents`. plural: where it is not noun + s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def signed_percent(percent: float | None) -> str:
    """A change in percent: `+17.3 %`; a dash where there is none."""
    return "–" if percent is None else f"{percent:+.1f} %".replace("-", "\N{MINUS SIGN}")


def change(before: float, after: float) -> str:
    """By how much of itself a figure changed, as `signed_percent` says it; a dash from nothing."""
    return signed_percent(100 * (after - before) / before if before else None)


def watt_hours(energy: float) -> str:
    """An amount of energy: `12.35 Wh`; a small one with two digits that count: `0.0031 Wh`."""
    return f"{energy:,.2f} Wh" if energy >= 0.1 else f"{energy:.2g} Wh"
