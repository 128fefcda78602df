"""Pages that were parsed of documents whose parsing has not ended: a kill costs seconds of work.

They are kept by the content's sha256 and the version of the parser, and go when the document is
stored with nothing to be read again, leaves, is forgotten or is parsed by another version.
"""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import polars as pl

from embed_assets.resources.warehouse import (
    Transaction,
    Warehouse,
    WarehouseBusyError,
    WarehouseError,
)
from embed_assets.tables import TABLES

TABLE = "kept_pages"
SECONDS_BETWEEN_WRITES = 2.0
"""Others write too, and a transaction takes a twentieth of a second or more."""
PATIENCE = 1.0
"""Seconds to wait for other writers: what could not be written now is written next time."""


def read_kept_pages(
    warehouse: Warehouse, contents: Collection[str], version: str
) -> dict[str, list[dict[str, Any]]]:
    """Pages as they were given to `PageKeeper`, by the sha256 of their document."""
    rows = warehouse.read(
        f"SELECT sha256, made FROM {TABLE} "
        "WHERE sha256 IN (SELECT unnest(?::VARCHAR[])) AND version = ? ORDER BY sha256, page",
        [list(contents), version],
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for sha256, made in rows.iter_rows():
        found.setdefault(sha256, []).append(json.loads(made))
    return found


def drop_kept_pages(
    transaction: Transaction, made: Sequence[str] = (), version: str | None = None
) -> int:
    """Drop pages of documents that are stored now or are on record no more; how many there were.

    made: ids of those that are stored. version: of the parser; those of others go too.
    """
    return transaction.execute(
        f"DELETE FROM {TABLE} WHERE version <> coalesce($2, version) "
        "OR sha256 NOT IN (SELECT sha256 FROM raw_pdfs) OR sha256 IN "
        "(SELECT sha256 FROM raw_pdfs WHERE document_id IN (SELECT unnest($1::VARCHAR[])))",
        [list(made), version],
    )


class PageKeeper:
    """Keeps pages as they come, some at a time; all at the end where the work ends early."""

    def __init__(self, warehouse: Warehouse | None, version: str) -> None:
        """warehouse: none where nothing is to be kept. version: of the parser."""
        self._warehouse = warehouse and warehouse.model_copy(update={"lock_timeout": PATIENCE})
        self._version = version
        self._rows: list[dict[str, Any]] = []
        self._written_at = time.monotonic()

    def __enter__(self) -> "PageKeeper":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # else they are stored where they belong
            self._write()

    def keep(self, sha256: str, pages: Mapping[int, Any]) -> None:
        """Keep pages by their numbers: anything that JSON can say."""
        self._rows += [
            {"sha256": sha256, "version": self._version, "page": number, "made": json.dumps(page)}
            for number, page in pages.items()
        ]
        if time.monotonic() - self._written_at >= SECONDS_BETWEEN_WRITES:
            self._write()

    def _write(self) -> None:
        if self._warehouse is None or not self._rows:
            return
        frame = pl.DataFrame(self._rows, schema=TABLES[TABLE].schema)
        try:
            with self._warehouse.transaction() as transaction:
                transaction.upsert(TABLE, frame)
        except (WarehouseBusyError, WarehouseError):
            pass  # the pages are stored in the end
        else:
            self._rows = []
        self._written_at = time.monotonic()
