"""Make the sample corpus: one PDF per markdown source, and the joined questions.

The corpus is written by hand in markdown so that it can be reviewed and changed as text; the PDFs
are made from it so that the pipeline reads what its users have: paged documents whose headings,
tables and figures must be recognised from the layout. The same sources give the same bytes, so
PDFs that change in a fresh build were forgotten when their source was changed.

Run it from anywhere: python data/sample/source/make_pdfs.py
"""

import json
import re
import sys
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise, takewhile
from pathlib import Path
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

import yaml
from reportlab import platypus
from reportlab.graphics.charts.barcharts import VerticalBarChart
from reportlab.graphics.charts.lineplots import LinePlot
from reportlab.graphics.shapes import STATE_DEFAULTS, Drawing, Group, Line, Polygon, Rect, String
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.utils import simpleSplit
from reportlab.pdfbase.pdfmetrics import registerFont, stringWidth
from reportlab.pdfbase.ttfonts import TTFont

SOURCE = Path(__file__).parent
OUTPUT = SOURCE.parent
COMPANY = "Tessarin Halometrics AB"
Spec: TypeAlias = dict[str, Any]
Flowable: TypeAlias = Any  # reportlab comes without types

PAGE_WIDTH, PAGE_HEIGHT = A4
MARGIN, MARGIN_TOP, MARGIN_BOTTOM = 70.0, 76.0, 66.0
WIDTH, HEIGHT = PAGE_WIDTH - 2 * MARGIN, PAGE_HEIGHT - MARGIN_TOP - MARGIN_BOTTOM
# The height of each kind of block that must fit below its heading or introduction.
LEAST_ROOM = {"text": 30, "item": 18, "table": 66, "figure": 240}

INK, PALE, RULE = HexColor("#1f3a5f"), HexColor("#e9eef4"), HexColor("#8a97a6")
COLOURS = [HexColor(c) for c in ("#1f3a5f", "#b5562b", "#3b8276", "#7a5c99", "#777777")]
DASHES = [None, (6, 2), (2, 2), (8, 2, 2, 2), (1, 2)]

# Helvetica shows what Windows-1252 holds; Vera, which reportlab ships, shows others (Ω, ≥).
HELVETICA = bytes(range(32, 256)).decode("cp1252", errors="ignore")
BEYOND_HELVETICA = re.compile(f"[^{re.escape(HELVETICA)}]")
VERA = TTFont("Vera", "Vera.ttf")
registerFont(VERA)

BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=10, leading=13.5, spaceAfter=6)
BODY.spaceBefore = 6  # the larger of two spaces counts
BODY.allowWidows = BODY.allowOrphans = 0
ITEM = ParagraphStyle("item", BODY, leftIndent=20, bulletIndent=5, spaceBefore=0, spaceAfter=3.5)
CELL = ParagraphStyle("cell", BODY, fontSize=9, leading=11.5, spaceBefore=0, spaceAfter=0)
HEAD_CELL = ParagraphStyle("head cell", CELL, fontName="Helvetica-Bold")
CAPTION = ParagraphStyle("caption", CELL, fontName="Helvetica-Oblique", spaceBefore=5)
CAPTION.spaceAfter = 12
HEADING = ParagraphStyle("heading", fontName="Helvetica-Bold", textColor=INK)
HEADINGS = [  # stepped, and all above 12: some PDF readers tell the levels by nothing else
    ParagraphStyle("h1", HEADING, fontSize=22, leading=26, spaceAfter=6),
    ParagraphStyle("h2", HEADING, fontSize=18, leading=21, spaceAfter=6, spaceBefore=12),
    ParagraphStyle("h3", HEADING, fontSize=15, leading=18, spaceAfter=5, spaceBefore=9),
    ParagraphStyle("h4", HEADING, fontSize=13, leading=16, spaceAfter=4, spaceBefore=8),
]
STATE_DEFAULTS["fontSize"] = 8  # of figures


@dataclass(frozen=True)
class Block:
    """A heading, list item, table, figure or paragraph, as its source lines."""

    kind: str
    lines: list[str]


BLOCK_START = re.compile(
    r"(?P<heading>#{1,4} )|(?P<item>- |\d+\. )|(?P<table>\|)|(?P<figure>```figure)|(?P<blank>\s*$)"
)


def read_blocks(body: str) -> list[Block]:
    """Gather lines into blocks; table rows and wrapped text extend the block before them."""
    blocks = [Block("blank", [])]
    lines = (line.rstrip() for line in body.splitlines())
    for line in lines:
        start, last = BLOCK_START.match(line), blocks[-1]
        kind = start.lastgroup if start and start.lastgroup else "text"
        if kind == "figure":
            blocks.append(Block(kind, list(takewhile(lambda inner: inner != "```", lines))))
        elif (last.kind, kind) in {("table", "table"), ("text", "text"), ("item", "text")}:
            last.lines.append(line.strip())
        else:
            blocks.append(Block(kind, [line]))
    return [block for block in blocks if block.kind != "blank"]


def in_vera(match: re.Match[str]) -> str:
    """Set a character that Helvetica lacks in Vera, and refuse it if Vera lacks it too."""
    if ord(match[0]) not in VERA.face.charToGlyph:
        raise ValueError(f"no font at hand shows {match[0]!r}")
    return f'<font name="Vera">{match[0]}</font>'


def paragraph(text: str, style: ParagraphStyle, bullet: str | None = None) -> Flowable:
    """Set text, with its markdown turned into reportlab's markup."""
    text = re.sub(r"\*\*(\S|\S.*?\S)\*\*", r"<b>\1</b>", escape(text))
    text = re.sub(r"\*(\S|\S.*?\S)\*", r"<i>\1</i>", text)
    return platypus.Paragraph(BEYOND_HELVETICA.sub(in_vera, text), style, bulletText=bullet)


def column_widths(rows: list[list[str]]) -> list[float]:
    """Give each column its longest word, and share what is left by how much text it holds."""

    def longest(texts: Iterable[str]) -> float:
        widths = (stringWidth(text, HEAD_CELL.fontName, CELL.fontSize) for text in texts)
        return float(max(widths)) + 13

    columns = [[cell.replace("*", "") for cell in column] for column in zip(*rows, strict=True)]
    least = [longest(" ".join(column).split()) for column in columns]
    whole = [longest(column) for column in columns]
    base = whole if sum(whole) <= WIDTH else least
    shares = [full - width + 9 for full, width in zip(whole, base, strict=True)]
    spare = WIDTH - sum(base)
    return [w + spare * share / sum(shares) for w, share in zip(base, shares, strict=True)]


def table(lines: list[str]) -> Flowable:
    """Draw every rule of a table: they are what table finders go by."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    del rows[1]  # the dashes under the header
    cells = [[paragraph(cell, CELL if i else HEAD_CELL) for cell in r] for i, r in enumerate(rows)]
    drawn = platypus.Table(cells, column_widths(rows), repeatRows=1, spaceBefore=6, spaceAfter=12)
    drawn.setStyle([("GRID", (0, 0), (-1, -1), 0.5, RULE), ("VALIGN", (0, 0), (-1, -1), "TOP")])
    drawn.setStyle([("BACKGROUND", (0, 0), (-1, 0), PALE)])
    drawn.setStyle([("NOSPLIT", (0, 0), (0, 2)), ("NOSPLIT", (0, -2), (0, -1))])
    return drawn


def add_chart(drawing: Drawing, chart: Flowable, axes: list[Any], y_label: str) -> None:
    """Fit a chart into its drawing, with depths growing downwards."""
    chart.x, chart.y, chart.width, chart.height = 50, 34, drawing.width - 64, drawing.height - 46
    for axis in axes:  # ticks would make page readers take the axes for the rules of a table
        axis.strokeColor, axis.visibleTicks = RULE, False
    values = axes[-1]
    values.labels.dx, values.reverseDirection = -3, "Depth" in y_label
    values.visibleGrid, values.gridStrokeColor, values.gridStrokeWidth = True, RULE, 0.25
    drawing.add(chart)
    upwards = (0, 1, -1, 0, 14, chart.y + chart.height / 2)
    drawing.add(Group(String(0, 0, y_label, textAnchor="middle"), transform=upwards))


def line_figure(spec: Spec) -> Drawing:
    """Draw each series in its own colour and dashes, so that a grey print still tells them."""
    drawing, plot = Drawing(WIDTH, 210), LinePlot()
    plot.data = [[tuple(point) for point in points] for points in spec["series"].values()]
    add_chart(drawing, plot, [plot.xValueAxis, plot.yValueAxis], spec["y"])
    plot.width -= 110
    drawing.add(String(plot.x + plot.width / 2, 6, spec["x"], textAnchor="middle"))
    left = plot.x + plot.width + 14
    for i, name in enumerate(spec["series"]):
        y = plot.y + plot.height - 8 - 14 * i
        pen = {"strokeColor": COLOURS[i], "strokeDashArray": DASHES[i], "strokeWidth": 1.5}
        sample = Line(left, y, left + 20, y)
        sample.setProperties(pen)
        plot.lines[i].setProperties(pen)
        drawing.add(sample)
        drawing.add(String(left + 25, y - 3, name))
    return drawing


def bar_figure(spec: Spec) -> Drawing:
    """Draw one bar for each name, with its value at its end."""
    drawing, chart = Drawing(WIDTH, 200), VerticalBarChart()
    chart.data = [list(spec["bars"].values())]
    chart.categoryAxis.categoryNames = list(spec["bars"])
    add_chart(drawing, chart, [chart.categoryAxis, chart.valueAxis], spec["y"])
    chart.valueAxis.forceZero = True
    chart.categoryAxis.labels.maxWidth = chart.width / len(spec["bars"]) - 6
    chart.bars[0].fillColor, chart.bars[0].strokeColor = COLOURS[0], None
    chart.barLabelFormat, chart.barLabels.nudge = "%g", 7
    return drawing


def flow_figure(spec: Spec) -> Drawing:
    """Draw the steps as boxes one under the other, joined by arrows."""
    box_width, leading, gap, middle = 260.0, 11.0, 16.0, WIDTH / 2
    steps = [simpleSplit(step, "Helvetica", 8, box_width - 16) for step in spec["steps"]]
    heights = [len(lines) * leading + 10 for lines in steps]
    drawing = Drawing(WIDTH, sum(heights) + gap * (len(steps) - 1))
    top = drawing.height
    for lines, height in zip(steps, heights, strict=True):
        if top < drawing.height:
            drawing.add(Line(middle, top + gap, middle, top + 5, strokeColor=INK))
            arrow = [middle, top, middle - 3.5, top + 6, middle + 3.5, top + 6]
            drawing.add(Polygon(arrow, fillColor=INK, strokeColor=None))
        box = Rect(middle - box_width / 2, top - height, box_width, height, rx=3, ry=3)
        box.fillColor, box.strokeColor = PALE, None
        drawing.add(box)
        for j, line in enumerate(lines):
            drawing.add(String(middle, top - 13 - j * leading, line, textAnchor="middle"))
        top -= height + gap
    return drawing


def figure(lines: list[str]) -> Flowable:
    """Draw a figure and keep its caption with it."""
    spec = yaml.safe_load("\n".join(lines))
    drawing = {"line": line_figure, "bar": bar_figure, "flow": flow_figure}[spec["type"]](spec)
    return platypus.KeepTogether([drawing, paragraph(spec["caption"], CAPTION)])


def flowable(block: Block) -> Flowable:
    """Set any block."""
    if block.kind in {"table", "figure"}:
        return table(block.lines) if block.kind == "table" else figure(block.lines)
    start, _, rest = " ".join(block.lines).partition(" ")
    if block.kind == "heading":
        return paragraph(rest, HEADINGS[len(start) - 1])
    if block.kind == "item":
        return paragraph(rest, ITEM, "•" if start == "-" else start)
    return paragraph(f"{start} {rest}", BODY)


def story(blocks: list[Block]) -> list[Flowable]:
    """Lay the blocks out, with headings and introductions on the page of what they lead into."""
    flowables: list[Flowable] = []
    chain: list[Flowable] = []
    for block, following in pairwise([*blocks, Block("end", [])]):
        chain.append(flowable(block))
        introduces = block.kind == "text" and following.kind in {"item", "table"}
        if not introduces and block.kind != "heading":
            if len(chain) > 1:
                room = sum(part.wrap(WIDTH, HEIGHT)[1] + 12 for part in chain[:-1])
                flowables.append(platypus.CondPageBreak(room + LEAST_ROOM[block.kind]))
            flowables += chain
            chain = []
    return flowables + chain


def draw_margins(canvas: Any, front: dict[str, str]) -> None:
    """Repeat on every page what identifies the document."""
    canvas.setStrokeColor(RULE)
    canvas.setFillColor(INK)
    canvas.setLineWidth(0.5)
    canvas.setFont("Helvetica", 8)
    top, bottom, right = PAGE_HEIGHT - 52, 50, PAGE_WIDTH - MARGIN
    canvas.line(MARGIN, top, right, top)
    canvas.line(MARGIN, bottom, right, bottom)
    canvas.drawString(MARGIN, top + 5, front["header"])
    canvas.drawString(MARGIN, bottom - 12, COMPANY)
    identity = f"{front['number']}, revision {front['revision']}"
    canvas.drawCentredString(PAGE_WIDTH / 2, bottom - 12, identity)
    canvas.drawRightString(right, bottom - 12, f"Page {canvas.getPageNumber()}")


def build_pdf(source: Path) -> None:
    """Make the PDF of one source: a title block from its front matter, then its blocks."""
    _, head, body = source.read_text(encoding="utf-8").split("---\n", 2)
    front = yaml.load(head, Loader=yaml.BaseLoader)  # keeps dates and revisions as written
    title, *blocks = read_blocks(body)
    identity = "<br/>".join(f"{key.title()} {front[key]}" for key in ("number", "revision", "date"))
    rule = platypus.HRFlowable("100%", thickness=1.2, color=INK, spaceBefore=0, spaceAfter=14)
    frame = platypus.Frame(MARGIN, MARGIN_BOTTOM, WIDTH, HEIGHT, 0, 0, 0, 0)
    pages = platypus.PageTemplate("page", [frame], lambda canvas, _: draw_margins(canvas, front))
    pdf = str(OUTPUT / f"{source.stem}.pdf")
    document = platypus.BaseDocTemplate(pdf, title=front["title"], author=COMPANY, invariant=1)
    document.addPageTemplates(pages)
    document.build([flowable(title), platypus.Paragraph(identity, BODY), rule, *story(blocks)])


def normalised(text: str) -> str:
    """Keep letters and digits only: line breaks, bullets and markdown come and go in a PDF."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())


@cache
def page_texts(name: str) -> list[str]:
    """Read the pages of a PDF without their headers and footers, which part running text."""
    import pymupdf  # the project keeps it off module level

    body = (0, MARGIN_TOP, PAGE_WIDTH, PAGE_HEIGHT - MARGIN_BOTTOM)
    with pymupdf.open(OUTPUT / name) as pdf:
        return [normalised(page.get_text(clip=body)) for page in pdf.pages()]


def pages_of(evidence: str, name: str) -> list[int]:
    """Find the pages on which a passage begins."""
    pages = page_texts(name)
    ends = list(accumulate(map(len, pages)))
    found = re.finditer(re.escape(normalised(evidence)), "".join(pages))
    return sorted({bisect_right(ends, match.start()) + 1 for match in found})


def join_questions() -> None:
    """Give each question the page of its evidence, and join the parts into one file."""
    parts = [part.read_text(encoding="utf-8") for part in sorted(SOURCE.glob("questions-*.jsonl"))]
    rows = [json.loads(line) for part in parts for line in part.splitlines() if line]
    asked = Counter(row["question"] for row in rows)
    errors = [f"asked {times} times: {text}" for text, times in asked.items() if times > 1]
    for row in rows:
        pages = pages_of(row["evidence_text"], row["file_name"])
        row["page"] = pages[0] if pages else None
        if len(pages) != 1:
            errors.append(f"evidence on pages {pages} of {row['file_name']}: {row['question']}")
    if errors:
        sys.exit("\n".join(errors))
    keys = ("question", "file_name", "page", "evidence_text", "answer")
    joined = [json.dumps({key: row[key] for key in keys}, ensure_ascii=False) for row in rows]
    (OUTPUT / "questions.jsonl").write_text("\n".join(joined) + "\n", encoding="utf-8")


def main() -> None:
    """Build everything anew."""
    for source in sorted(SOURCE.glob("*.md")):
        build_pdf(source)
    join_questions()


if __name__ == "__main__":
    main()
