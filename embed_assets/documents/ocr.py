"""Optical character recognition of pages without usable text, by Tesseract.

PyMuPDF has Tesseract built in; what it needs from the machine are the trained languages, which the
system's packages bring (Debian: tesseract-ocr, tesseract-ocr-deu, …).
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

from embed_assets.documents.own_text import joined
from embed_assets.errors import SettingsError

SETTING = "EMBED_ASSETS_OCR"
OFF, AUTO = "off", "auto"
DPI = 300
_NO_LANGUAGES = frozenset({"osd", "equ"})
"""Files of Tesseract beside those of its languages."""
INSTALL = (
    "Install Tesseract and its languages (Debian: apt install tesseract-ocr tesseract-ocr-deu), or "
    "set TESSDATA_PREFIX to the folder of its *.traineddata."
)


def installed_languages() -> frozenset[str]:
    """Languages that Tesseract has on this machine, by its names; none where it isn't there."""
    folder = _folder()
    files = folder.glob("*.traineddata") if folder else ()
    return frozenset(file.stem for file in files) - _NO_LANGUAGES


def ocr_languages(chosen: str) -> str | None:
    """Languages to read by, joined by '+'; None for `off`, and for `auto` without Tesseract.

    `auto` reads by all that are installed. SettingsError where a chosen one is not.
    """
    if chosen == OFF:
        return None
    installed = installed_languages()
    if chosen == AUTO:
        return "+".join(sorted(installed)) or None
    lacking = sorted(set(chosen.split("+")) - installed)
    if lacking:
        raise SettingsError(f"Tesseract has no {', '.join(lacking)} here. {INSTALL}", SETTING)
    return chosen


def read_by_ocr(pdf_page: Any, languages: str) -> str:
    """Text of a page's picture, a paragraph for each that Tesseract sees."""
    text_page = pdf_page.get_textpage_ocr(
        language=languages, dpi=DPI, full=True, tessdata=str(_folder())
    )
    blocks = (block[4] for block in text_page.extractBLOCKS() if block[6] == 0)
    texts = (joined(line.strip() for line in block.splitlines()) for block in blocks)
    return "\n\n".join(text for text in texts if text.strip())


def _folder() -> Path | None:
    """Folder of the trained languages."""
    found = os.environ.get("TESSDATA_PREFIX") or _found()
    return Path(found) if found else None


@cache
def _found() -> str | None:
    """The folder where the system has it. PyMuPDF asks several programs."""
    import pymupdf

    try:
        return pymupdf.get_tessdata()
    except RuntimeError:
        return None
