"""The PDF folder: which documents are in it, which of them are on record, and where they moved.

What is to be done about it is decided in `automation/plan.py`.
"""

import functools
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

import polars as pl

from embed_assets.documents.entries import (
    Entries,
    FoundDocument,
    Rules,
    entries_of,
    read_pdf,
    reason,
)
from embed_assets.documents.forgotten import Forgotten
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.partitions import document_id
from embed_assets.places import Place, RemotePath
from embed_assets.resources.kept_pages import drop_kept_pages
from embed_assets.resources.ledger import Cause, Failure, Slices, document_tables
from embed_assets.resources.warehouse import Transaction, Warehouse
from embed_assets.tables import TABLES


def survey(folder: Place, rules: Rules | None = None) -> Entries:
    """The PDFs in a folder and its subfolders, and what can't be read there.

    Hidden files and folders are left out. SettingsError if the folder itself can't be listed: an
    unreadable folder must never pass for an empty one.
    """
    try:
        return entries_of(folder, rules or Rules())
    except FileNotFoundError:
        raise _no_folder(folder, "does not exist") from None
    except NotADirectoryError:
        raise _no_folder(folder, "is not a folder") from None
    except OSError as error:
        said = f"{folder} can't be listed: {reason(error)}."
        if isinstance(folder, RemotePath):
            said += " docs/settings.md says what a bucket needs."
        raise SettingsError(said, "EMBED_ASSETS_PDFS") from None


def scan(folder: Place, rules: Rules | None = None) -> dict[str, FoundDocument]:
    """The PDFs alone, by id, in the order of their paths."""
    return survey(folder, rules).documents


def _no_folder(folder: Place, what: str) -> SettingsError:
    return SettingsError(f"EMBED_ASSETS_PDFS: {folder} {what}. Set it, or give --pdfs.")


def _no_file(folder: Place, keys: Sequence[str]) -> str:
    """That there is no PDF for partitions that a person chose, and what to do."""
    named = ", ".join(f"'{key}'" for key in keys[:3]) + (", …" if len(keys) > 3 else "")
    what = f"the partition {named}" if len(keys) == 1 else f"{len(keys)} partitions ({named})"
    return (
        f"There is no PDF for {what} in {folder}. Put the file into that folder and press the job "
        "`everything`: partitions come and go with the files by themselves."
    )


@dataclass(frozen=True)
class Loaded:
    """What is on record of a document that was read. path: relative to the folder."""

    path: str
    size_bytes: int
    modified_at: datetime
    sha256: str
    etag: str | None = None

    def is_as(self, document: FoundDocument) -> bool:
        """Whether the file still has the size, time and etag that it was read with."""
        return (self.size_bytes, self.modified_at, self.etag) == (
            document.size_bytes,
            document.modified_at,
            document.etag,
        )


def read_loaded(warehouse: Warehouse) -> dict[str, Loaded]:
    """Documents on record by id."""
    rows = warehouse.read(
        "SELECT document_id, path, size_bytes, modified_at, sha256, etag FROM raw_pdfs"
    )
    return {key: Loaded(*rest) for key, *rest in rows.iter_rows()}


def find_moved(
    folder: Place,
    found: Mapping[str, FoundDocument],
    loaded: Mapping[str, Loaded],
    rules: Rules | None = None,
) -> dict[str, str]:
    """Documents that lie elsewhere now, by their bytes: id now -> id on record.

    Where another document has taken the place of one, that one has moved too: two may have swapped
    names. A file is read only if a document of its size is on record, and perhaps no longer where
    it was.
    """
    changed = {k for k in loaded.keys() & found.keys() if not loaded[k].is_as(found[k])}
    gone: dict[tuple[int, str], list[str]] = {}
    for key in sorted(changed | (loaded.keys() - found.keys())):
        gone.setdefault((loaded[key].size_bytes, loaded[key].sha256), []).append(key)
    sizes = {size for size, _ in gone}
    moved: dict[str, str] = {}
    for key in sorted(changed | (found.keys() - loaded.keys())):
        document = found[key]
        if document.size_bytes not in sizes:
            continue
        try:
            sha256 = _sha256(folder, document, rules or Rules())
        except OSError:  # loading it will say why
            continue
        before = gone.get((document.size_bytes, sha256), [])
        if key in before:  # its time alone has changed
            before.remove(key)
        elif before:
            moved[key] = before.pop(0)
    return moved


@functools.lru_cache(maxsize=100_000)
def _sha256(folder: Place, document: FoundDocument, rules: Rules) -> str:
    """Of a file's bytes; read once for each version of the file, however often a plan is made."""
    return hashlib.sha256(read_pdf(folder, document, rules)[0]).hexdigest()


def first_moves(moved: Mapping[str, str], most: int) -> dict[str, str]:
    """About so many moves that can be made before the rest: none takes the place of one of these.

    moved: id now -> id on record.
    """
    left, chosen = dict(moved), dict[str, str]()
    while left and len(chosen) < most:
        taken = set(left.values())
        # Where each takes another's place they have swapped: all of them move at once.
        free = [key for key in left if key not in taken][: most - len(chosen)] or list(left)
        chosen |= {key: left.pop(key) for key in free}
    return chosen


def move_documents(
    warehouse: Warehouse, moved: Mapping[str, str], found: Mapping[str, FoundDocument]
) -> None:
    """Give documents on record the ids and paths that they have now, in one transaction.

    What hangs on their content (pages, chunks, questions, pairs, splits) stays as it is. moved: id
    now -> id on record.
    """
    loaded = read_loaded(warehouse)
    rows = [
        {
            "document_id": key,
            "before": before,
            "path": found[key].path,
            "file_name": PurePosixPath(found[key].path).name,
            "modified_at": found[key].modified_at,
            "etag": found[key].etag,
            "path_before": loaded[before].path,
        }
        for key, before in moved.items()
    ]
    with warehouse.transaction() as transaction:
        taken = set(moved) - set(moved.values())
        _record_departure(transaction, sorted(taken))
        # What was on record of another file at the new path.
        for table in (*document_tables(), "former_paths"):
            transaction.delete(table, {"document_id": sorted(taken)})
        drop_kept_pages(transaction)
        transaction.register("moved", pl.DataFrame(rows))
        for table in (*document_tables(), "training_pairs", "former_paths"):
            _rename(transaction, table, "document_id")
        transaction.execute(
            "UPDATE raw_pdfs AS t SET path = m.path, file_name = m.file_name, "
            "modified_at = m.modified_at, etag = m.etag FROM moved m "
            "WHERE t.document_id = m.document_id"
        )
        transaction.execute(
            "UPDATE chunks AS t SET file_name = m.file_name FROM moved m "
            "WHERE t.document_id = m.document_id"
        )
        transaction.delete("split_assignments", {"kind": ["document"], "id": sorted(taken)})
        _rename(transaction, "split_assignments", "id")
        transaction.upsert_selected(
            "former_paths", "SELECT path_before AS path, document_id FROM moved"
        )


def _rename(transaction: Transaction, table: str, column: str) -> None:
    """Put the id that a document has now in place of the one before, in two steps: ids may swap."""
    transaction.execute(
        f"UPDATE {table} AS t SET {column} = '>' || m.document_id FROM moved m "
        f"WHERE t.{column} = m.before"
    )
    transaction.execute(
        f"UPDATE {table} SET {column} = substr({column}, 2) WHERE {column} LIKE '>%'"
    )


def remove_documents(warehouse: Warehouse, document_ids: Sequence[str]) -> None:
    """Remove every trace of documents that left the folder, in one transaction.

    Splits once given stay on record (a document that comes back must land where it was), and so
    does what past models were trained on, how many documents left when, and what they were called.
    """
    left = 0
    with warehouse.transaction() as transaction:
        _record_departure(transaction, document_ids)
        for table in (*document_tables(), "former_paths"):
            deleted = transaction.delete(table, {"document_id": document_ids})
            left += deleted if table == "raw_pdfs" else 0
        drop_kept_pages(transaction)
        if left:  # a key that a person made up is no document
            record_removal(transaction, left)


def _record_departure(transaction: Transaction, document_ids: Sequence[str]) -> None:
    """Remember what documents that leave are called, and were before: a person may forget them."""
    for sql in (  # the paths that they have now come last, and win
        "SELECT f.path, r.sha256, r.document_id, $2 AS departed_at FROM former_paths f "
        "JOIN raw_pdfs r USING (document_id) WHERE r.document_id IN (SELECT unnest($1))",
        "SELECT path, sha256, document_id, $2 AS departed_at FROM raw_pdfs "
        "WHERE document_id IN (SELECT unnest($1))",
    ):
        transaction.upsert_selected("departed", sql, [list(document_ids), datetime.now(UTC)])


def record_removal(transaction: Transaction, documents: int) -> None:
    """Remember how many documents left just now."""
    removal = {"removed_at": [datetime.now(UTC)], "documents": [documents]}
    transaction.upsert("removals", pl.DataFrame(removal, schema=TABLES["removals"].schema))


def load_documents(
    folder: Place,
    document_ids: Collection[str],
    run_id: str,
    forgotten: Forgotten | None = None,
    rules: Rules | None = None,
    *,
    entries: Entries | None = None,
    chosen: bool = False,
) -> Slices:
    """Rows of raw_pdfs for these documents.

    There are none of files that can't be read just now, nor of what was forgotten. entries: of the
    folder, where they are known. chosen: whether a person chose the documents: ProjectError where
    one of them has no file, since nothing would show that.
    """
    forgotten, rules = forgotten or Forgotten(), rules or Rules()
    entries = entries or survey(folder, rules)
    found = entries.documents
    odd = {document_id(PurePosixPath(path)): why for path, why in entries.odd.items()}
    if chosen and (stray := [key for key in document_ids if key not in {*found, *odd}]):
        raise ProjectError(_no_file(folder, stray))
    now = datetime.now(UTC)
    rows: list[dict[str, object]] = []
    not_made: dict[str, Failure] = {}
    for key in document_ids:
        document = found.get(key)
        if document is None:
            why = odd.get(key, f"there is no such file in {folder}")
            not_made[key] = Failure(Cause.UNREADABLE_FILE, why)
            continue
        try:
            content, document = read_pdf(folder, document, rules)
        except OSError as error:
            said = f"the file may not be read: {reason(error)}"
            not_made[key] = Failure(Cause.UNREADABLE_FILE, said)
            continue
        sha256 = hashlib.sha256(content).hexdigest()
        if refused := forgotten.refusal(document.path, sha256):
            not_made[key] = refused
            continue
        rows.append(
            {
                "document_id": key,
                "path": document.path,
                "file_name": PurePosixPath(document.path).name,
                "content": content,
                "sha256": sha256,
                "size_bytes": document.size_bytes,
                "modified_at": document.modified_at,
                "etag": document.etag,
                "loaded_at": now,
                "loaded_by": run_id,
            }
        )
    return Slices(
        pl.DataFrame(rows, schema=TABLES["raw_pdfs"].schema),
        not_made=not_made,
        looked_at={key: found[key].version for key in not_made if key in found},
    )
