"""Nothing of a page is lost in silence: it is read, or what is missing is said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymupdf
import pytest

from embed_assets.documents.ocr import installed_languages, ocr_languages
from embed_assets.documents.own_text import Line, mojibake, own_lines
from embed_assets.documents.parsing import KEPT, Parsed, document_statuses, partly_read
from embed_assets.documents.passwords import passwords_version, read_passwords
from embed_assets.documents.reading import (
    CUT_OFF,
    CUT_OFF_AFTER,
    LOCKED,
    PLACEHOLDER,
    LockedPdfError,
    Page,
    Reading,
    Source,
    UnreadablePdfError,
    parse_pdf,
)
from embed_assets.documents.text_loss import (
    DAMAGED,
    MOJIBAKE,
    NO_UNICODE,
    SCANNED,
    Taken,
    left_out,
    missing,
)
from embed_assets.errors import SettingsError
from embed_assets.resources.ledger import Cause, Failure
from embed_assets.resources.shared_bytes import BytesInFile
from embed_assets.resources.warehouse import Warehouse
from embed_assets_tests.documents.test_parsing import HOSTILE, parse
from embed_assets_tests.documents.test_parsing import LOCKED as AES

CASES = HOSTILE.parent / "cases"
BOX = pymupdf.Rect(72, 72, 523, 770)
SENTENCES = (
    "Engine coolant is changed in March by the yard in the harbour town.",
    "Brake pads are measured every nine weeks and noted in the green log.",
    "The fuel filter is replaced when the lamp on the panel stays red.",
    "A tyre with less than three millimetres of tread goes to the store.",
)
HEBREW = "המכונה נבדקת פעם בשנה. השמן מוחלף בכל 6 חודשים."
CHINESE = ("使用前要检查油位", "滤芯每六个月更换一次")


def pdf(*draw: Callable[[Any], Any], **save: Any) -> bytes:
    """A PDF with a page for each function, which draws on it."""
    document = pymupdf.open()
    for on_page in draw:
        on_page(document.new_page())
    return document.tobytes(**save)


def upright(page: Any) -> None:
    page.insert_htmlbox(
        BOX, "<h1>Maintenance plan</h1>" + "".join(f"<p>{s}</p>" for s in SENTENCES)
    )


def turned(by: int) -> Callable[[Any], None]:
    """Lines turned by a matrix, on a page that isn't."""

    def draw(page: Any) -> None:
        for place, sentence in enumerate(SENTENCES):
            x, y = {90: (100, 700), 180: (500, 700), 270: (400, 100)}[by]
            down, across = (20 * place, 0) if by == 180 else (0, 20 * place)
            page.insert_text((x + across, y - down), sentence, fontsize=11, rotate=by)

    return draw


def in_the_margin(page: Any) -> None:
    upright(page)
    page.insert_text((560, 600), "Valve seven must stay closed in winter.", fontsize=9, rotate=90)


def stacked(page: Any) -> None:
    """Columns of Chinese from right to left, each sign placed below the one before."""
    for column, text in enumerate(CHINESE):
        for row, sign in enumerate(text):
            page.insert_text((400 - 40 * column, 100 + 18 * row), sign, fontname="china-s")


def right_to_left(page: Any) -> None:
    page.insert_htmlbox(BOX, f'<h1 dir="rtl">מדריך תחזוקה</h1><p dir="rtl">{HEBREW}</p>')


def hidden(page: Any) -> None:
    """A scan with the text that a scanner's program recognised, which isn't shown."""
    scanned(page)
    for place, sentence in enumerate(SENTENCES):
        page.insert_text((72, 100 + 20 * place), sentence, render_mode=3)


def scanned(page: Any) -> None:
    picture = pymupdf.open("pdf", pdf(upright))[0].get_pixmap(dpi=150)
    page.insert_image(page.rect, pixmap=picture)


def shift_jis(page: Any) -> None:
    """Japanese bytes in a font that says it is Western European."""
    text = "こんにちは世界。これは日本語の文書です。".encode("shift_jis").decode("latin-1")
    page.insert_text((72, 100), text)


def blank(page: Any) -> None:
    page.clean_contents()


def without_unicode() -> bytes:
    """The text of a page in a font of which the map to Unicode is gone, and its letters' names."""
    document = pymupdf.open("pdf", pdf(lambda page: page.insert_htmlbox(BOX, SENTENCES[0])))
    for xref in range(1, document.xref_length()):
        if document.xref_get_key(xref, "ToUnicode")[0] == "xref":
            document.xref_set_key(xref, "ToUnicode", "null")
    return document.tobytes()


def xfa() -> bytes:
    """A form of Adobe's whose page is a placeholder."""
    document = pymupdf.open("pdf", pdf(lambda page: page.insert_text((72, 90), "Please wait...")))
    form = document.get_new_xref()
    document.update_object(form, "<</Fields [] /XFA (xdp)>>")
    document.xref_set_key(document.pdf_catalog(), "AcroForm", f"{form} 0 R")
    return document.tobytes()


def damaged() -> bytes:
    """A page that is whole and one whose content can't be unpacked."""
    document = pymupdf.open("pdf", pdf(upright, upright))
    [content] = document[1].get_contents()
    document.update_stream(content, b"not deflated", compress=0)
    document.xref_set_key(content, "Filter", "/FlateDecode")
    return document.tobytes()


def one(content: bytes, reading: Reading | None = None) -> Page:
    [page] = parse_pdf(content, reading or Reading())
    return page


def flat(text: str) -> str:
    return " ".join(text.split())


# Text that the parser drops, or puts in another order.


@pytest.mark.parametrize("by", [90, 180, 270])
def test_text_that_is_turned_by_a_matrix_is_read(by: int):
    page = one(pdf(turned(by)))
    assert [s for s in SENTENCES if s not in flat(page.markdown)] == []
    assert (page.text_share, page.lack) == (1.0, None)


def test_text_on_a_page_that_is_turned_is_read():
    def draw(page: Any) -> None:
        upright(page)
        page.set_rotation(180)

    assert [s for s in SENTENCES if s not in flat(one(pdf(draw)).markdown)] == []


def test_text_in_a_margin_is_added_to_the_parsers():
    alone, page = one(pdf(upright)), one(pdf(in_the_margin))
    assert page.markdown.startswith(alone.markdown)
    assert "Valve seven must stay closed in winter." in page.markdown


def test_signs_that_are_written_downwards_are_read_column_by_column():
    assert "".join(CHINESE) in "".join(one(pdf(stacked)).markdown.split())


def test_text_from_right_to_left_is_in_logical_order_and_keeps_its_headings():
    page = one(pdf(right_to_left))
    assert page.markdown == f"# מדריך תחזוקה\n\n{HEBREW}"


def test_the_hidden_text_of_a_scan_is_its_text():
    page = one(pdf(hidden))
    assert [s for s in SENTENCES if s not in flat(page.markdown)] == []


def test_a_word_that_is_split_or_joined_is_not_missing_and_one_less_is():
    lines = [Line("the exam- ple holds water, water", 0, (0, 0))]
    assert missing(lines, "The the example holds water **wa** ter") == {}
    assert missing(lines, "the example holds water") == {"water": 1}


# Text that is none.


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (without_unicode(), NO_UNICODE),
        (pdf(shift_jis), MOJIBAKE),
        (pdf(scanned), SCANNED),
    ],
    ids=["no Unicode", "Shift-JIS", "scan"],
)
def test_a_page_without_usable_text_says_why(content: bytes, reason: str):
    assert one(content) == Page(1, "", text_share=0.0, lack=reason, needs_ocr=True)


def test_a_blank_page_lacks_nothing():
    assert one(pdf(blank)) == Page(1, "")


def test_a_page_that_is_damaged_is_not_called_scanned():
    whole, broken = parse_pdf(damaged())
    assert whole.text_share == 1.0
    assert broken == Page(2, "", text_share=0.0, lack=DAMAGED)


def test_the_placeholder_of_an_xfa_form_is_not_its_text():
    with pytest.raises(UnreadablePdfError) as error:
        parse_pdf(xfa())
    assert str(error.value) == PLACEHOLDER


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("‚±‚ñ‚É‚¿‚Í", 10),
        ("Ïðèâåò ìèð", 9),
        ("L'été où “à” naîtra, déjà vu à Noël", 3),
        ("Þórður æfði ölið", 0),
        ("· · · ······· §§ ±5 °C", 0),
    ],
)
def test_words_of_another_encoding_are_told_from_those_of_a_language(text: str, letters: int):
    assert mojibake(text) == letters


# What is said of documents.


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "warehouse.duckdb"))


def test_a_document_of_which_pages_are_missing_is_read_in_part(warehouse: Warehouse):
    files = {"mixed": pdf(upright, scanned, blank), "whole": pdf(upright)}
    warehouse.replace("parsed_markdown", parse(files, list(files)).rows)
    assert set(document_statuses(warehouse)["parser_status"]) == {"SUCCESS"}
    [(key, partly)] = partly_read(warehouse).items()
    assert (key, partly.pages, partly.share, partly.error) == ("mixed", [2], 0.5, SCANNED)
    assert partly.in_words == f"50% of its text; page 2: {SCANNED}"


@pytest.mark.parametrize(
    ("on_the_next", "is_left_out"),
    [
        ("Annual report of the harbour, page 2", True),
        ("A line that stands nowhere else in it", False),
        (None, False),
    ],
)
def test_a_long_line_in_a_margin_is_left_out_where_it_runs_over_pages(on_the_next, is_left_out):
    header = (72, 40)
    document = pymupdf.open()
    first = document.new_page()
    first.insert_text(header, "Annual report of the harbour, page 1")
    first.insert_text((500, 800), "Page 1")
    first.insert_textbox(BOX, " ".join(SENTENCES))
    if on_the_next:
        document.new_page().insert_text(header, on_the_next)
    boxes = [
        {"class": "page-header", "bbox": (0, 0, 600, 60)},
        {"class": "page-footer", "bbox": (0, 780, 600, 842)},
    ]
    lines = own_lines(document[0])
    texts = {lines[i].text for i in left_out(document[0], boxes, lines)}
    assert ("Annual report of the harbour, page 1" in texts) == is_left_out
    assert "Page 1" in texts, "so short a line is no text"


@pytest.mark.parametrize("last", [upright, scanned])
def test_a_file_that_is_cut_off_says_so_and_leaves_the_text_of_the_one_before(last):
    whole = pdf(upright, last)
    cut = whole[: whole.rindex(b"trailer")]
    first = parse({"a": cut}, ["a"])
    assert first.rows["error"].to_list()[-1].endswith(CUT_OFF_AFTER)
    later = parse({"a": cut, "b": b"", "c": whole}, ["a", "b", "c"], known=["a", "b", "c"])
    assert {key: (f.cause, f.error) for key, f in later.not_made.items()} == {
        "a": (Cause.CUT_OFF, KEPT),
        "b": (Cause.CUT_OFF, KEPT),
    }
    assert set(later.rows["document_id"]) == {"c"}


@pytest.mark.parametrize(
    ("content", "is_cut_off"), [(b"%PDF-1.7 1 0 obj", True), (b"%PDF-1.7 %%EOF", False)]
)
def test_of_a_file_whose_last_page_broke_the_end_tells_whether_it_is_cut_off(content, is_cut_off):
    ended = Failure(Cause.PROCESS_ENDED, "ended")
    document = Parsed("", BytesInFile("", 0, 0), 2, {1: Page(1, "text")}, {2: ended})
    assert document.is_cut_off(content) == is_cut_off


def test_a_whole_file_that_is_filled_up_with_zeros_replaces_the_one_before():
    slices = parse({"a": pdf(upright) + bytes(5000)}, ["a"], known=["a"])
    assert slices.rows["error"].to_list() == [None]
    assert not slices.not_made


# Passwords.


SECRET = pdf(upright, user_pw="swordfish", **AES)


def test_a_document_is_opened_by_the_password_that_fits(tmp_path: Path):
    file = tmp_path / "passwords"
    file.write_text("first\n\nswordfish\n")
    passwords = read_passwords(file)
    assert passwords == ("first", "swordfish")
    assert "Maintenance plan" in one(SECRET, Reading(passwords)).markdown
    with pytest.raises(LockedPdfError, match=LOCKED):
        parse_pdf(SECRET, Reading(("first",)))


def test_a_locked_document_is_due_again_with_other_passwords():
    slices = parse({"locked": SECRET}, ["locked"], reading=Reading(("first",)))
    failure = slices.incomplete["locked"]
    assert failure.cause is Cause.NEEDS_PASSWORD
    assert failure.tried_with == passwords_version(("first",)) != passwords_version(("second",))


def test_passwords_are_in_no_text_of_a_reading():
    reading = Reading(("swordfish",))
    assert "swordfish" not in f"{reading!r} {reading.tried_with}"


def test_a_file_of_passwords_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"EMBED_ASSETS_PDF_PASSWORDS: .*none: No such file"):
        read_passwords(tmp_path / "none")


# OCR.


def test_without_tesseract_auto_reads_nothing_and_a_language_says_what_to_install(monkeypatch):
    monkeypatch.setattr("embed_assets.documents.ocr._folder", lambda: None)
    assert (ocr_languages("off"), ocr_languages("auto")) == (None, None)
    with pytest.raises(SettingsError, match=r"EMBED_ASSETS_OCR: .*apt install tesseract-ocr"):
        ocr_languages("eng")


def test_the_languages_are_those_that_are_installed(monkeypatch, tmp_path: Path):
    for name in ("deu", "eng", "osd"):
        (tmp_path / f"{name}.traineddata").touch()
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))
    assert ocr_languages("auto") == ocr_languages("deu+eng") == "deu+eng"
    with pytest.raises(SettingsError, match="no fra here"):
        ocr_languages("eng+fra")


def test_what_ocr_read_is_marked(monkeypatch):
    monkeypatch.setattr(
        "embed_assets.documents.reading.read_by_ocr", lambda _, languages: f"read in {languages}"
    )
    first, second = parse_pdf(pdf(upright, scanned), Reading(ocr="eng"))
    assert first.source is Source.PDF
    assert second == Page(2, "read in eng", source=Source.OCR)


@pytest.mark.parametrize(
    ("markdown", "reason", "is_read"),
    [
        ("Most of it.", NO_UNICODE, False),
        ("Most of it.", MOJIBAKE, False),
        ("", NO_UNICODE, True),
        ("", MOJIBAKE, True),
        ("A stamp.", SCANNED, True),
        ("", DAMAGED, False),
    ],
)
def test_ocr_never_takes_the_place_of_usable_text(markdown, reason, is_read):
    assert Taken(markdown, 0.9, reason).may_be_read_by_ocr == is_read


def test_a_page_without_the_layout_model_is_read_without_ocr_too(monkeypatch):
    monkeypatch.setattr("embed_assets.documents.reading.read_by_ocr", None)  # calling it fails
    page = one(pdf(scanned), Reading(ocr="eng", plain=True))
    assert (page.markdown, page.lack, page.needs_ocr, page.plain) == ("", SCANNED, True, True)


def test_where_ocr_fails_the_page_still_says_what_it_lacks_and_may_be_read(monkeypatch):
    def fail(*_: object) -> str:
        raise RuntimeError("no such model")

    monkeypatch.setattr("embed_assets.documents.reading.read_by_ocr", fail)
    page = one(pdf(scanned), Reading(ocr="eng"))
    assert (page.error, page.needs_ocr) == (None, True)
    assert page.lack == f"{SCANNED}; OCR failed: no such model"


@pytest.mark.skipif("eng" not in installed_languages(), reason="needs Tesseract and its English")
def test_tesseract_reads_a_scan():
    page = one(pdf(scanned), Reading(ocr="eng"))
    assert [s for s in SENTENCES if s not in flat(page.markdown)] == []
    assert page.source is Source.OCR


# Files of other projects.


HOSTILE_PAGES: dict[str, str | None] = {
    "docling__right_to_left_01.pdf": "تحسين الإنتاجية وحل المشكلات من خلال البرمجة بلغة R وPython",
    "pdfjs__ArabicCIDTrueType.pdf": "انواع الخطوط العربية",
    "pdfjs__noembed-eucjp.pdf": "あいうえお",
    "pdfjs__SimFang-variant.pdf": "全 世 界 无 产 者",
    "pdfjs__secHandler.pdf": "Security Handler",
    "pdfjs__xref_command_missing.pdf": "Reduced test-case",
    "pdfjs__helloworld-bad.pdf": "Hello, world!",
    "pdfjs__ContentStreamCycleType3insideType3.pdf": "ccc",
    "pdfjs__evaljs.pdf": "Execute",
    "pdfminer__issue-1113-evil-xobjects.pdf": "Hello world",
    "pdfminer__zen_of_python_corrupted.pdf": "Beautiful is better than ugly.",
}
"""What the first page says."""
HOSTILE_LACKS = {
    "derived__scanned_paper_3p.pdf": SCANNED,
    "derived__whitespace_only.pdf": None,
    "docling__sample_with_rotation_mismatch.pdf": SCANNED,
    "pdfjs__PDFBOX-3148-2-fuzzed.pdf": DAMAGED,
    "pdfjs__ThuluthFeatures.pdf": NO_UNICODE,
    "pdfjs__empty_protected.pdf": None,
    "pdfjs__poppler-90-0-fuzzed.pdf": DAMAGED,
    "pdfjs__scan-bad.pdf": f"{SCANNED}; {CUT_OFF_AFTER}",
    "pdfminer__issue-791-non-unicode-cmap.pdf": NO_UNICODE,
}
"""Why the first page has no text."""
HOSTILE_ERRORS = {
    "derived__aes256_user_pw.pdf": LOCKED,
    "derived__truncated_1kb.pdf": CUT_OFF,
    "derived__truncated_50pct.pdf": CUT_OFF,
    "pdfjs__GHOSTSCRIPT-698804-1-fuzzed.pdf": "has no pages: empty or damaged",
    "pdfjs__REDHAT-1531897-0.pdf": "has no pages: empty or damaged",
    "pdfjs__auth-event-ef-open.pdf": LOCKED,
    "pdfjs__bug1020226.pdf": CUT_OFF,
    "pdfjs__issue15893_reduced.pdf": LOCKED,
    "pdfjs__issue21436.pdf": "has no pages: empty or damaged",
    "pdfjs__issue6010_1.pdf": LOCKED,
    "pdfjs__poppler-67295-0.pdf": "is damaged: code=7: Invalid number of pages",
    "pdfjs__poppler-742-0-fuzzed.pdf": "is damaged: code=8: invalid key in dict",
    "pdfjs__poppler-85140-0.pdf": "is damaged: code=7: cannot parse object (4 0 R)",
    "pdfjs__xfa_filled_imm1344e.pdf": PLACEHOLDER,
    "pdfminer__rc4-40.pdf": LOCKED,
    "pypdf__unreadablemetadata.pdf": "has no pages: empty or damaged",
    "qpdf__append-xref-loop.pdf": "has no pages: empty or damaged",
    "qpdf__bad-encryption-length.pdf": LOCKED,
    "qpdf__bad1.pdf": "is no PDF (it doesn't begin as one)",
    "qpdf__enc-XI-long-password.pdf": LOCKED,
    "qpdf__fuzz-16214.pdf": "is no PDF (it doesn't begin as one)",
}
PASSWORDS = {
    "pdfjs__issue15893_reduced.pdf": "test",
    "pdfjs__issue6010_1.pdf": "abc",
    "pdfminer__rc4-40.pdf": "foo",
}
needs_hostile = pytest.mark.skipif(not HOSTILE.is_dir(), reason=f"needs the PDFs in {HOSTILE}")


@needs_hostile
@pytest.mark.parametrize("name", HOSTILE_PAGES)
def test_what_a_hostile_file_says_is_read(name: str):
    first = parse_pdf((HOSTILE / name).read_bytes())[0]
    assert str(HOSTILE_PAGES[name]) in first.markdown.replace("**", "")


@needs_hostile
@pytest.mark.parametrize("name", HOSTILE_LACKS)
def test_why_a_hostile_file_has_no_text_is_said(name: str):
    first = parse_pdf((HOSTILE / name).read_bytes())[0]
    assert (first.markdown, first.lack) == ("", HOSTILE_LACKS[name])


@needs_hostile
@pytest.mark.parametrize("name", HOSTILE_ERRORS)
def test_why_a_hostile_file_cannot_be_read_is_said(name: str):
    with pytest.raises(UnreadablePdfError) as error:
        parse_pdf((HOSTILE / name).read_bytes())
    assert str(error.value) == HOSTILE_ERRORS[name]


@needs_hostile
@pytest.mark.parametrize("name", PASSWORDS)
def test_a_hostile_file_opens_with_its_password(name: str):
    pages = parse_pdf((HOSTILE / name).read_bytes(), Reading((PASSWORDS[name],)))
    assert pages[0].markdown


CASES_SAID = {
    "font-without-unicode/pdfs/humidity.pdf": NO_UNICODE,
    "hebrew-arabic/pdfs/guide.pdf": HEBREW.replace("6", "שישה"),
    "sideways-text/pdfs/plan.pdf": "Brake pads are measured every nine weeks",
    "xfa-placeholder/pdfs/grant.pdf": PLACEHOLDER,
}


@pytest.mark.skipif(not CASES.is_dir(), reason=f"needs the cases in {CASES}")
@pytest.mark.parametrize("name", CASES_SAID)
def test_a_reported_case_is_read_or_says_why(name: str):
    try:
        pages = parse_pdf((CASES / name).read_bytes())
        said = " ".join(f"{page.markdown} {page.lack or ''}" for page in pages)
    except UnreadablePdfError as error:
        said = str(error)
    assert CASES_SAID[name] in said
