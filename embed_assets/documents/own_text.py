"""A page's own text: its lines as the PDF has them, and how much of it is letters at all.

MuPDF gives a sign without a Unicode value as U+FFFD if it isn't asked for glyph numbers, and lines
from right to left in logical order.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

UPRIGHT = 0.9
"""Cosine of the angle up to which a line is upright."""
WORD = re.compile(r"[^\W_]+")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff]")
_PRESENTED = re.compile("[\ufb00-\ufb06\ufb13-\ufdff\ufe70-\ufefc]+")
"""Ligatures and forms of letters, which Unicode holds for old encodings alone."""
_WITHOUT_SPACES = (
    "\u0e00-\u0edf\u1000-\u109f\u1780-\u17ff\u2e80-\u312f\u31a0-\u9fff\uf900-\ufaff"
    "\uff00-\uffef\U00020000-\U0003ffff"
)
_JOINED = re.compile(f"(?<=[{_WITHOUT_SPACES}]) (?=[{_WITHOUT_SPACES}])")
_STACKED = re.compile(f"[{_WITHOUT_SPACES}]")
_HIGH_IN_1252 = frozenset(bytes([b]).decode("cp1252", "ignore") for b in range(0x80, 0xA0)) - {""}


@dataclass(frozen=True)
class Line:
    """A line of a page. block: number of its paragraph. centre: in points, from the top left.
    upright: whether it is written as the page is held.
    """

    text: str
    block: int
    centre: tuple[float, float]
    upright: bool = True


def own_lines(pdf_page: Any) -> list[Line]:
    """Lines of a page in the PDF's order, whatever their direction; blank ones are left out."""
    import pymupdf

    flags = pymupdf.TEXTFLAGS_TEXT & ~pymupdf.TEXT_CID_FOR_UNKNOWN_UNICODE
    text_page = pdf_page.get_textpage(flags=flags)
    by_letter = _RIGHT_TO_LEFT.search(text_page.extractText()) is not None
    found = text_page.extractRAWDICT() if by_letter else text_page.extractDICT()
    lines = []
    for number, block in enumerate(found["blocks"]):
        for line in block.get("lines", ()):
            spans = line["spans"]
            if by_letter:
                text = _in_logical_order([char for span in spans for char in span["chars"]])
            else:
                text = "".join(span["text"] for span in spans)
            text = _PRESENTED.sub(lambda m: unicodedata.normalize("NFKC", m[0]), text)
            if text.strip():
                x0, y0, x1, y1 = line["bbox"]
                centre, upright = ((x0 + x1) / 2, (y0 + y1) / 2), line["dir"][0] > UPRIGHT
                lines.append(Line(" ".join(text.split()), number, centre, upright))
    return lines


def _in_logical_order(chars: Sequence[Any]) -> str:
    """Text of a line's letters. A sign that stands for two Arabic letters gives its second one no
    width, and a line that MuPDF turns has that one first.
    """
    letters = [char["c"] for char in chars]
    for i, char in enumerate(chars[:-1]):
        following = chars[i + 1]["bbox"]
        without_width = char["bbox"][2] - char["bbox"][0] < 0.01 < following[2] - following[0]
        same_place = abs(char["bbox"][2] - following[2]) < 0.5
        both = is_right_to_left(letters[i]) and is_right_to_left(letters[i + 1])
        if without_width and same_place and both and unicodedata.category(letters[i]) == "Lo":
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def is_right_to_left(text: str) -> bool:
    """Whether there is a letter of a script that is written from right to left."""
    return _RIGHT_TO_LEFT.search(text) is not None


def is_stacked(lines: Sequence[Line]) -> bool:
    """Whether the text is written downwards, each sign a line of its own."""
    signs = sum(len(line.text) == 1 and bool(_STACKED.match(line.text)) for line in lines)
    return signs > 3 and signs > len(lines) / 2


def paragraphs(lines: Iterable[Line]) -> str:
    """Lines as text, a paragraph for each block."""
    blocks = groupby(lines, key=lambda line: line.block)
    return "\n\n".join(joined(line.text for line in block) for _, block in blocks)


def joined(texts: Iterable[str]) -> str:
    """Lines of a paragraph as one. Scripts without spaces get none where two lines meet."""
    return _JOINED.sub("", " ".join(texts))


def words(text: str) -> list[str]:
    """Words by letters and digits alone, whatever their form."""
    return WORD.findall(unicodedata.normalize("NFKC", text))


def without_unicode(text: str) -> int:
    """Signs of which no letter is known: no Unicode value, one of the font's own, a control."""
    return sum(c == "\ufffd" or unicodedata.category(c) in ("Co", "Cc") for c in text)


def mojibake(text: str) -> int:
    """Letters of words that are another encoding's bytes, read as Western European ones.

    More than half of such a word are letters above ASCII, several of them; no language that is
    written in that encoding has such words.
    """
    return sum(len(word) for word in text.split() if _is_mojibake(word))


def _is_mojibake(word: str) -> bool:
    high = [c for c in word if "\x80" <= c <= "\xff" or c in _HIGH_IN_1252]
    return len(high) > len(word) / 2 and len(set(high)) > 2
