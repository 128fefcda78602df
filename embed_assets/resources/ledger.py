"""The ledger: what each slice was made from, and what could not be made.

A slice is what an asset holds of one document, or all that an unpartitioned asset holds. Its row in
`materializations` is written in the transaction that writes the slice, so that no crash can part
the two. A failure is a row in `attempts`: its cause, how often, when it is tried again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from embed_assets.graph import GRAPH
from embed_assets.resources.causes import Cause
from embed_assets.resources.warehouse import Transaction, Warehouse, digest
from embed_assets.tables import TABLES

UNPARTITIONED = ""
Slice = tuple[str, str]
"""An asset and a document_id; UNPARTITIONED stands for no document."""
PEOPLES_ROWS = "labelled"
"""Part of a code version: the rows of people's files of questions."""


PAUSES = tuple(timedelta(minutes=m) for m in (5, 30, 120, 720))
"""Before the second try, the third and so on. There is none after the last."""
OTHER_MEANS = frozenset({Cause.NEEDS_PASSWORD, Cause.NEEDS_OCR})
"""Causes that another setting takes away."""
NEVER_BY_ITSELF = OTHER_MEANS | {
    Cause.TIME_LIMIT,
    Cause.NO_LAYOUT,
    Cause.NOT_ASKED,
    Cause.FORGOTTEN,
    Cause.CUT_OFF,
}
"""Trying again would end the same: a higher limit, a new budget or a person's word is needed."""


@dataclass(frozen=True)
class Failure:
    """What went wrong. limit: in seconds, where one was reached. tried_with: version of what was
    tried where another setting may help.
    """

    cause: Cause
    error: str
    limit: float | None = None
    tried_with: str | None = None

    @property
    def other_means(self) -> Cause | None:
        """By what another setting may help, of OTHER_MEANS."""
        if self.cause in OTHER_MEANS:
            return self.cause
        return None if self.tried_with is None else Cause.NEEDS_OCR


@dataclass(frozen=True)
class Materialization:
    """What a slice was made by, made from, and what it holds.

    parts: by name, versions of parts of what it holds, and of its code version.
    """

    code_version: str
    input_version: str
    data_version: str
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Attempt:
    """What was tried in vain: on what, and how often.

    next_at: when it is tried again; None where only a change or a person starts another try.
    """

    failure: Failure
    code_version: str
    input_version: str
    attempts: int
    tried_at: datetime
    next_at: datetime | None

    def is_about(self, code_version: str, input_version: str) -> bool:
        """Whether it was tried with this code on this input."""
        return (self.code_version, self.input_version) == (code_version, input_version)


@dataclass(frozen=True, eq=False)
class Slices:
    """What an asset made of the documents of a run.

    rows: of the asset's table. not_made: documents of which nothing can be said for now, and why:
    their slices stay as they are. incomplete: documents that were made, and are to be made again
    though nothing changes, and why. looked_at: version of what was tried in vain, where no asset
    says it. parts: of the code version, by name. code_version: of what made them, where that is not
    known before.
    """

    rows: pl.DataFrame
    not_made: Mapping[str, Failure] = field(default_factory=dict)
    incomplete: Mapping[str, Failure] = field(default_factory=dict)
    looked_at: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    code_version: str = ""


@dataclass(frozen=True)
class Records:
    """All that the ledger holds, by slice."""

    made: Mapping[Slice, Materialization] = field(default_factory=dict)
    tried: Mapping[Slice, Attempt] = field(default_factory=dict)

    def data_version(self, asset: str, document_id: str = UNPARTITIONED) -> str:
        """Version of what a slice holds; empty where there is none."""
        known = self.made.get((asset, document_id))
        return known.data_version if known else ""

    def input_version(self, asset: str, document_id: str = UNPARTITIONED) -> str:
        """Version of all that a slice is made from."""
        made_from = GRAPH[asset]
        if made_from.partitioned:
            return input_version([self.data_version(u, document_id) for u in made_from.upstream])
        if made_from.part:
            known = self.made.get((made_from.upstream[0], UNPARTITIONED))
            return known.parts.get(made_from.part, "") if known else ""
        return digest(
            # Most go without the ids of documents: a file that moved changes nothing.
            sorted(
                (name, key, row.data_version) if made_from.named else (name, row.data_version)
                for (name, key), row in self.made.items()
                if name in made_from.upstream and row.data_version
            )
        )


def next_attempt(
    before: Attempt | None, failure: Failure, code: str, inputs: str, now: datetime
) -> Attempt:
    """The attempt that has just failed. before: the one before it, if any."""
    count = before.attempts + 1 if before and before.is_about(code, inputs) else 1
    waits = count <= len(PAUSES) and failure.cause not in NEVER_BY_ITSELF
    next_at = now + PAUSES[count - 1] if waits else None
    return Attempt(failure, code, inputs, count, now, next_at)


def read_records(
    warehouse: Warehouse, *assets: str, documents: Sequence[str] | None = None
) -> Records:
    """Records of these assets, of all without any; of these documents, of all without them."""
    chosen, about = "WHERE asset IN (SELECT unnest(?::VARCHAR[]))", [list(assets or GRAPH)]
    if documents is not None:
        chosen += " AND document_id IN (SELECT unnest(?::VARCHAR[]))"
        about.append(list(documents))
    made = warehouse.read(
        "SELECT asset, document_id, code_version, input_version, data_version, parts "
        f"FROM materializations {chosen}",
        about,
    )
    tried = warehouse.read(
        "SELECT asset, document_id, cause, error, limit_reached, tried_with, code_version, "
        f"input_version, attempts, tried_at, next_at FROM attempts {chosen}",
        about,
    )
    return Records(
        {
            (asset, key): Materialization(code, inputs, data, json.loads(parts) if parts else {})
            for asset, key, code, inputs, data, parts in made.iter_rows()
        },
        {
            (asset, key): Attempt(Failure(Cause(cause), error, limit, tried_with), *rest)
            for asset, key, cause, error, limit, tried_with, *rest in tried.iter_rows()
        },
    )


def documents_on_record(warehouse: Warehouse, asset: str) -> list[str]:
    """Documents of which an asset was made, or tried in vain."""
    rows = warehouse.read(
        "SELECT document_id FROM materializations WHERE asset = $1 "
        "UNION SELECT document_id FROM attempts WHERE asset = $1 ORDER BY ALL",
        [asset],
    )
    return rows["document_id"].to_list()


def write_made(
    transaction: Transaction, asset: str, made: Mapping[str, Materialization], run_id: str
) -> None:
    """Record slices by document_id as made, and forget what was tried in vain before."""
    now = datetime.now(UTC)
    rows = [
        {
            **vars(row),
            "asset": asset,
            "document_id": key,
            "parts": json.dumps(row.parts) if row.parts else None,
            "dagster_run_id": run_id,
            "materialized_at": now,
        }
        for key, row in made.items()
    ]
    table = TABLES["materializations"]
    transaction.upsert(table.name, pl.DataFrame(rows, schema=table.schema))
    transaction.delete("attempts", {"asset": [asset], "document_id": list(made)})


def write_tried(
    transaction: Transaction, asset: str, tried: Mapping[str, Attempt], run_id: str
) -> None:
    """Record by document_id what was tried in vain."""
    rows = [
        {
            **vars(attempt),
            **vars(attempt.failure),
            "asset": asset,
            "document_id": key,
            "limit_reached": attempt.failure.limit,
            "dagster_run_id": run_id,
        }
        for key, attempt in tried.items()
    ]
    table = TABLES["attempts"]
    transaction.upsert(table.name, pl.DataFrame(rows, schema=table.schema))


def data_version(table_name: str, rows: pl.DataFrame) -> str:
    """Version of what rows say, whenever and by whom they were made; empty of no rows."""
    if rows.is_empty():
        return ""
    table = TABLES[table_name]
    lasting = [name for name in table.columns if name not in table.volatile]
    for name, (value, later) in table.decided_later.items():
        kept = pl.when(pl.col(name).is_in(later)).then(pl.lit(value)).otherwise(name)
        rows = rows.with_columns(kept.alias(name))
    ordered = rows.select(lasting).sort(table.key)
    return hashlib.sha256(ordered.write_ndjson().encode()).hexdigest()[:16]


def slice_version(asset: str, rows: pl.DataFrame) -> str:
    """A PDF's version is its sha256; of everything else, what its rows say."""
    if asset == "raw_pdfs" and not rows.is_empty():
        return str(rows["sha256"][0])
    return data_version(asset, rows)


def input_version(versions: Sequence[str]) -> str:
    """Version of what a slice is made from: that of its input, or of its inputs together."""
    return versions[0] if len(versions) == 1 else digest(tuple(versions))


def document_tables() -> Iterable[str]:
    """Tables with rows of single documents: those that a document takes along when it leaves."""
    assets = (asset.table for asset in GRAPH.values() if asset.partitioned)
    return (*assets, "materializations", "attempts")
