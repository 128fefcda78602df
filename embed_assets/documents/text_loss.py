"""What the parser lost of a page, by the page's own text, and how the page is taken instead.

The parser leaves out running headers and footers on purpose; it drops text that isn't upright, puts
the words of right-to-left lines in the order of the paper, and takes signs without Unicode for
text.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embed_assets.documents.own_text import (
    Line,
    is_right_to_left,
    is_stacked,
    joined,
    mojibake,
    own_lines,
    paragraphs,
    without_unicode,
    words,
)

MARGINS = frozenset({"page-header", "page-footer"})
LARGEST_MARGIN = 1 / 3
"""Of a page's text, what running headers and footers may be at most."""
LEAST_KEPT = 0.98
"""Share of a page's text from which on only whole lines are missed: formulas cost the rest."""
LEAST_SHARE = 0.95
"""Share of a page's text below which it is listed."""
FEWEST_LETTERS = 20
"""Lost letters and digits below which nothing is done about them."""
MOSTLY = 0.5
COVERED, SCAN = 0.5, 0.8
"""Share of the page from which on a picture covers it, and is a scan though letters stand on it."""
A_LOGO, SOME_RULES = 0.2, 50
"""Share of a page that is pictures, and number of drawings, up to which they show no text."""
FEW_LETTERS = 60
"""Letters on a page that a picture covers, up to which they are a stamp on a scan, or a title."""
MOST_LOOKED_FOR = 200_000_000
"""Words times letters that are searched through for words that were split or joined."""
_BEGINS = re.compile(r"\s*(?:(?<!#)#+ |[-*+] |> |\d{1,9}\. )?")
_FIGURES = re.compile(r"\d+")
_CELL_END = re.compile(r"(\||<br>|\n)")

SCANNED = "a picture covers the page: scanned"
DRAWN = "there are only drawings or pictures on the page"
DAMAGED = "the page is damaged"
NO_UNICODE = "its font doesn't say which letters its signs are (no Unicode)"
MOJIBAKE = "its font says wrong letters (those of another encoding)"
DROPPED = "text was lost"


@dataclass(frozen=True)
class Taken:
    """What was made of a page. share: of its text, from 0 to 1; None where it has none.

    reason: in one line why much of it is missing, where much is.
    """

    markdown: str
    share: float | None
    reason: str | None = None

    @property
    def may_be_read_by_ocr(self) -> bool:
        """Whether OCR may read the page better: it has no usable text, or a stamp on a scan."""
        unusable = not self.markdown and self.reason in (NO_UNICODE, MOJIBAKE)
        return unusable or self.reason in (SCANNED, DRAWN)


def without_text(pdf_page: Any) -> Taken:
    """A page that has no text of its own, and why."""
    reason = _why_without_text(pdf_page)
    return Taken("", 0.0 if reason else None, reason)


def _why_without_text(pdf_page: Any) -> str | None:
    import pymupdf

    pymupdf.TOOLS.reset_mupdf_warnings()
    pdf_page.get_textpage()
    warned = "error" in pymupdf.TOOLS.mupdf_warnings()
    if _is_covered(pdf_page):
        return SCANNED
    if warned or (pdf_page.parent.is_repaired and not pdf_page.read_contents().strip()):
        return DAMAGED
    return DRAWN if _may_show_text(pdf_page) else None


def _may_show_text(pdf_page: Any) -> bool:
    """Whether a page of drawings and pictures has more than a logo or a few rules."""
    return _pictured(pdf_page) > A_LOGO or len(pdf_page.get_cdrawings()) > SOME_RULES


def _is_covered(pdf_page: Any) -> bool:
    return _pictured(pdf_page) > COVERED


def _pictured(pdf_page: Any) -> float:
    """Share of a page that is pictures. Strips of one scan are as one picture."""
    size = abs(pdf_page.rect)
    sizes = (_size(image["bbox"]) for image in pdf_page.get_image_info())
    return sum(min(of_one, size) for of_one in sizes) / size if size else 0.0


def left_out(pdf_page: Any, boxes: Iterable[Mapping[str, Any]], lines: Sequence[Line]) -> set[int]:
    """Lines, by place, that the parser took for running headers and footers, where they are such.

    Such a line is short, or stands on a page nearby too. Where they make up much of the page, they
    are its text, but for a stamp on a scan.
    """
    letters = [sum(map(len, words(line.text))) for line in lines]
    found = {
        i
        for i in _in_margins(boxes, lines)
        if letters[i] < FEWEST_LETTERS or _runs(pdf_page, lines[i])
    }
    small = sum(letters[i] for i in found) <= LARGEST_MARGIN * sum(letters)
    stamp = len(found) == len(lines) and sum(letters) <= FEW_LETTERS and _is_covered(pdf_page)
    return found if small or stamp else set()


def _runs(pdf_page: Any, line: Line) -> bool:
    """Whether a line, but for its figures, stands on one of the pages nearby too.

    Left and right pages may have other headers.
    """
    document, number = pdf_page.parent, pdf_page.number
    nearby = (number + by for by in (1, -1, 2, -2) if 0 <= number + by < document.page_count)
    return any(_without_figures(line.text) in _lines_of(document, page) for page in nearby)


def _lines_of(document: Any, page: int) -> frozenset[str]:
    """Lines of a page without their figures."""
    of_document = vars(document).setdefault("lines_without_figures", {})  # goes with the document
    if page not in of_document:
        lines = own_lines(document[page])
        of_document[page] = frozenset(_without_figures(line.text) for line in lines)
    return of_document[page]


def _without_figures(text: str) -> str:
    return _FIGURES.sub("", "".join(words(text))).casefold()


def hides_text(pdf_page: Any, boxes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the parser took text of a page for running headers and footers, by its boxes."""
    if not any(box["class"] in MARGINS for box in boxes):
        return False
    lines = own_lines(pdf_page)
    return bool(_in_margins(boxes, lines)) and not left_out(pdf_page, boxes, lines)


def _in_margins(boxes: Iterable[Mapping[str, Any]], lines: Sequence[Line]) -> set[int]:
    """Lines, by place, in the parser's headers and footers. Those across the paper are no such."""
    margins = [box["bbox"] for box in boxes if box["class"] in MARGINS]
    return {
        i
        for i, line in enumerate(lines)
        if line.upright and any(_holds(bbox, line) for bbox in margins)
    }


def taken(
    pdf_page: Any, markdown: str, boxes: Sequence[Mapping[str, Any]], clean: Callable[[str], str]
) -> Taken:
    """A page as markdown with all of its text that can be had.

    markdown, boxes: the parser's, as `to_markdown` gives them in chunks. clean: what takes the
    parser's own remarks out of markdown.
    """
    lines = own_lines(pdf_page)
    own = "".join("".join(line.text.split()) for line in lines)
    if not own:
        return without_text(pdf_page)
    wrong = {NO_UNICODE: without_unicode(own), MOJIBAKE: sum(mojibake(x.text) for x in lines)}
    reason = max(wrong, key=lambda of: wrong[of])
    readable = 1 - min(1.0, sum(wrong.values()) / len(own))
    if readable < MOSTLY:
        return Taken("", 0.0, reason)
    margins = left_out(pdf_page, boxes, lines)
    body = [line for i, line in enumerate(lines) if i not in margins]
    if not body:
        return Taken("", 0.0, SCANNED)
    text = clean(_in_logical_order(markdown, boxes, lines))
    text, kept = _completed(text, body)
    few = sum(len(word) for line in body for word in words(line.text)) <= FEW_LETTERS
    if few and _pictured(pdf_page) > SCAN:
        return Taken(text, 0.0, SCANNED)
    share = round(kept * readable, 3)
    if share >= LEAST_SHARE:
        return Taken(text, share)
    return Taken(text, share, reason if readable < kept else DROPPED)


def _completed(text: str, lines: Sequence[Line]) -> tuple[str, float]:
    """Markdown with what it lacked of these lines, and its share of their letters."""
    if is_stacked(lines):
        return paragraphs(lines), 1.0
    lost = missing(lines, text)
    letters, all_letters = _letters(lost), sum(len(w) for line in lines for w in words(line.text))
    if not all_letters:
        return text or paragraphs(lines), 1.0
    if letters < FEWEST_LETTERS and letters < MOSTLY * all_letters:
        return text, 1.0
    if letters > MOSTLY * all_letters:
        return paragraphs(lines), 1.0
    few = letters <= (1 - LEAST_KEPT) * all_letters
    left = Counter(lost)
    added = [line for line in lines if _is_lost(line, left, FEWEST_LETTERS if few else 0)]
    text = f"{text}\n\n{paragraphs(added)}" if added else text
    return text, 1 - _letters(missing(lines, text)) / all_letters


def _is_lost(line: Line, left: Counter[str], fewest: int) -> bool:
    """Whether most of a line's letters are among the words left to find, which it takes out.

    fewest: letters that it must have.
    """
    there = Counter(words(line.text))
    if _letters(there) < fewest or _letters(there & left) <= MOSTLY * _letters(there):
        return False
    left.subtract(there & left)
    return True


def missing(lines: Iterable[Line], text: str) -> Counter[str]:
    """Words of lines that a text lacks, with how often. One that it splits or joins is there."""
    own = Counter(word for line in lines for word in words(line.text))
    given = words(text)
    lost = own - Counter(given)
    run = "".join(given)
    if len(lost) * len(run) > MOST_LOOKED_FOR:
        return lost
    return Counter({word: n for word, n in lost.items() if run.count(word) < own[word]})


def _letters(of: Counter[str]) -> int:
    return sum(len(word) * n for word, n in of.items())


def _in_logical_order(
    markdown: str, boxes: Sequence[Mapping[str, Any]], lines: Sequence[Line]
) -> str:
    """The parser's markdown with right-to-left text as the page's own lines have it."""
    if not any(is_right_to_left(line.text) for line in lines):
        return markdown
    # A box may hold others: a line belongs to the smallest.
    smallest_first = sorted(range(len(boxes)), key=lambda i: _size(boxes[i]["bbox"]))
    owners = {
        id(x): next((i for i in smallest_first if _holds(boxes[i]["bbox"], x)), -1) for x in lines
    }
    for i in sorted(range(len(boxes)), key=lambda i: boxes[i]["pos"], reverse=True):
        box, (start, stop) = boxes[i], boxes[i]["pos"]
        there = [line for line in lines if owners[id(line)] == i]
        if start == stop or not any(is_right_to_left(line.text) for line in there):
            continue
        part = markdown[start:stop]
        if box["class"] == "table":
            part = _cells_in_logical_order(part, there)
        else:
            begins = _BEGINS.match(part)
            part = f"{begins[0] if begins else ''}{joined(line.text for line in there)}\n\n"
        markdown = markdown[:start] + part + markdown[stop:]
    return markdown


def _cells_in_logical_order(table: str, lines: Iterable[Line]) -> str:
    """A table whose cells' lines are as the page's own lines with the same words."""
    known = {_bag(line.text): line.text for line in lines if is_right_to_left(line.text)}
    return "".join(known.get(_bag(part), part) for part in _CELL_END.split(table))


def _bag(text: str) -> frozenset[tuple[str, int]]:
    return frozenset(Counter(words(text)).items())


def _size(bbox: Sequence[float]) -> float:
    return (bbox[2] - bbox[0]) * (bbox[3] - bbox[1])


def _holds(bbox: Sequence[float], line: Line) -> bool:
    """Whether a line's middle is in a box; 1 point for its rounding."""
    (x, y), (x0, y0, x1, y1) = line.centre, bbox
    return x0 - 1 <= x <= x1 + 1 and y0 - 1 <= y <= y1 + 1
