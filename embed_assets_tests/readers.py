"""In place of the parser: what a file says is its text, or what it does to its worker."""

import os
import signal
import time
from pathlib import Path

from embed_assets.documents.reading import (
    AS_IT_IS,
    CUT_OFF_AFTER,
    LOCKED,
    LockedPdfError,
    Page,
    Reading,
)
from embed_assets.documents.text_loss import SCANNED

ENOUGH = ("alder", "birch", "hornbeam", "elm", "hawthorn", "rowan")
"""Names of documents that give enough questions to train on together."""
READ = "READ"
"""Environment variable: a file that gets a line for each file that is read."""


def write_documents(folder: Path, *names: str) -> None:
    """Files of two pages' text each, in which no sentence is as in another."""
    from embed_assets_tests.e2e.conftest import DOCUMENTS  # no worker needs what it imports

    for name in names:
        text = list(DOCUMENTS.values())[len(name) % len(DOCUMENTS)].strip()
        text = text.replace(" the ", f" the {name} ").replace(".", f" at {name}.")
        file = folder / f"{name}.pdf"
        file.write_text(text)
        os.utime(file, (1_700_000_000, 1_700_000_000))


def read(
    content: bytes, begin: int = 0, end: int | None = None, reading: Reading = AS_IT_IS
) -> list[Page]:
    """The text of a file as its one page, unless it says otherwise."""
    text = content.decode()
    if log := os.environ.get(READ):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{text.split()[0]}\n")
    if text.startswith("dawdle"):
        time.sleep(6)
    if text.startswith("locked") and not reading.passwords:
        raise LockedPdfError(LOCKED)
    if text.startswith("drawn") or (text.startswith("scanned") and not reading.ocr):
        return [Page(1, text), Page(2, "", text_share=0.0, lack=SCANNED, needs_ocr=True)]
    if text.startswith("%PDF-1.7 cut"):
        return [Page(1, text, lack=CUT_OFF_AFTER, cut_off=True)]
    return [Page(1, text)]


def read_or_die(
    content: bytes, begin: int = 0, end: int | None = None, reading: Reading = AS_IT_IS
) -> list[Page]:
    """The same, but that some files end their worker, as the system does for lack of memory."""
    if b"die" in content:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(content, begin, end, reading)
