"""In place of the parser and the chunker: a file's lines stand for its pages.

Each says what becomes of its worker. Nothing heavy is imported: workers start often.
"""

import os
import signal
import time
from typing import TYPE_CHECKING

from embed_assets.documents.reading import TOO_LONG, Page, Reading
from embed_assets.resources.shared_bytes import SharedBytes

if TYPE_CHECKING:
    import polars as pl

    from embed_assets.documents.chunking import Uncut

READ = "PAGES_READ"
"""Environment variable: a file that gets a line for each page that is read."""


def lines(*words: str) -> bytes:
    """A file of these pages."""
    return "\n".join(words).encode()


def count_lines(reading: Reading, content: SharedBytes) -> int:
    """In place of `count_shared_pages`."""
    return len(content.read().splitlines())


def read_lines(content: bytes, begin: int, end: int | None, reading: Reading) -> list[Page]:
    """In place of `parse_pages`."""
    found = content.decode().splitlines()[begin:end]
    if log := os.environ.get(READ):
        with open(log, "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in found)
    for line in found:
        if line == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if line == "dawdle" or (line == "dense" and not reading.plain):
            time.sleep(60)
        if line == "raise":
            raise ValueError("no such font")
    lack = TOO_LONG if reading.plain else None
    return [
        Page(begin + number, line, lack=lack, plain=reading.plain)
        for number, line in enumerate(found, start=1)
    ]


def cut_or_hang(source: str, token_limit: int, headings: str, document: "Uncut") -> "pl.DataFrame":
    """In place of `chunk_document`."""
    if document.document_id == "hangs":
        time.sleep(60)
    import polars as pl

    from embed_assets.tables import TABLES

    row = dict.fromkeys(TABLES["chunks"].columns, document.file_name)
    numbers = dict.fromkeys(("chunk_index", "page_start", "page_end", "token_count"), 1)
    row = {**row, **numbers, "document_id": document.document_id}
    return pl.DataFrame([row], TABLES["chunks"].schema)
