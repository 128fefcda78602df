"""The PDF folder: which documents are in it, and what that means for the partitions.

No Dagster in here: the sensor and the command line both decide by these functions.
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import polars as pl

from embed_assets.errors import SettingsError
from embed_assets.partitions import document_id
from embed_assets.tables import TABLES


@dataclass(frozen=True)
class FoundDocument:
    """A PDF in the folder: its id, its place, and by what a change of it is noticed."""

    document_id: str
    path: str
    size_bytes: int
    modified_at: datetime


def scan(folder: Path) -> dict[str, FoundDocument]:
    """Documents in a folder and its subfolders, by id, in the order of their paths.

    Hidden files and folders are left out. SettingsError if the folder can't be read: an unreadable
    folder must never pass for an empty one.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise SettingsError(f"EMBED_ASSETS_PDFS: {folder} {what}. Set it, or give --pdfs.")
    found = sorted(_pdf_files(folder), key=lambda document: document.path)
    return {document.document_id: document for document in found}


def _pdf_files(folder: Path) -> Iterator[FoundDocument]:
    def fail(error: OSError) -> None:
        raise SettingsError(f"EMBED_ASSETS_PDFS: {error.filename}: {error.strerror}.") from error

    for root, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or not name.lower().endswith(".pdf"):
                continue
            file = Path(root, name)
            try:
                stat = file.stat()
            except FileNotFoundError:  # left while we looked, or a dangling link
                continue
            path = PurePosixPath(file.relative_to(folder).as_posix())
            yield FoundDocument(
                document_id=document_id(path),
                path=path.as_posix(),
                size_bytes=stat.st_size,
                modified_at=datetime.fromtimestamp(stat.st_mtime, UTC),
            )


def partitions_to_sync(
    found: Collection[str], existing: Collection[str], in_flight: Collection[str]
) -> tuple[list[str], list[str]]:
    """Document ids to add and to delete so that the partitions match the folder.

    A document in flight (a run works on it) is not deleted: that would kill the run.
    """
    add = [key for key in found if key not in set(existing)]
    delete = [key for key in existing if key not in set(found) and key not in set(in_flight)]
    return add, delete


def check_same_folder(found: Collection[str], existing: Collection[str], folder: Path) -> None:
    """SettingsError if no known document is in the folder any more.

    That is a forgotten --pdfs or an unmounted disk rather than a change, and to follow it would
    delete everything.
    """
    if existing and not set(existing) & set(found):
        raise SettingsError(
            f"EMBED_ASSETS_PDFS: none of this home's {len(existing)} documents is in {folder}. "
            "Give their folder with --pdfs, or another --home for other documents."
        )


def changed_documents(found: Mapping[str, FoundDocument], loaded: pl.DataFrame) -> list[str]:
    """Ids of found documents whose size or time differs from what was loaded, or never loaded.

    loaded: document_id, size_bytes, modified_at.
    """
    known = {key: (size, modified) for key, size, modified in loaded.iter_rows()}
    return [
        key
        for key, document in found.items()
        if known.get(key) != (document.size_bytes, document.modified_at)
    ]


def settled_documents(
    found: Mapping[str, FoundDocument], seen_before: Mapping[str, tuple[int, float]]
) -> list[str]:
    """Ids of documents whose size and time are as they were at the last look.

    A file still being copied would be read by half.
    """
    return [key for key, document in found.items() if seen_before.get(key) == fingerprint(document)]


def fingerprint(document: FoundDocument) -> tuple[int, float]:
    """Size in bytes and time of change: what tells a changed file without reading it."""
    return document.size_bytes, document.modified_at.timestamp()


def load_documents(
    folder: Path, document_ids: Collection[str], run_id: str
) -> tuple[pl.DataFrame, list[str]]:
    """Rows of raw_pdfs for these documents, and the ids of those that have left the folder.

    One that is there but can't be read has no content.
    """
    found = scan(folder)
    now = datetime.now(UTC)
    rows, gone = [], []
    for key in document_ids:
        document = found.get(key)
        if document is None:
            gone.append(key)
            continue
        try:
            content = (folder / document.path).read_bytes()
        except OSError:  # parsing will say that there is nothing to read
            content = b""
        rows.append(
            {
                "document_id": key,
                "path": document.path,
                "file_name": PurePosixPath(document.path).name,
                "content": content,
                "sha256": hashlib.sha256(content).hexdigest(),
                "size_bytes": document.size_bytes,
                "modified_at": document.modified_at,
                "loaded_at": now,
                "loaded_by": run_id,
            }
        )
    return pl.DataFrame(rows, schema=TABLES["raw_pdfs"].schema), gone
