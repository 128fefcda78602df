"""Since when the pairs that train and validate are what they are: what a retraining waits by."""

from datetime import UTC, datetime

import polars as pl

from embed_assets.graph import GRAPH
from embed_assets.resources.warehouse import Transaction, Warehouse
from embed_assets.tables import TABLES

TABLE = TABLES["pair_changes"]


def unpaired_since(warehouse: Warehouse) -> datetime | None:
    """When the oldest slice of a document was made that the pairs don't know yet, if one was."""
    return warehouse.read(
        "SELECT min(materialized_at) FROM materializations "
        "WHERE asset IN (SELECT unnest(?::VARCHAR[])) AND materialized_at > coalesce("
        "(SELECT max(materialized_at) FROM materializations WHERE asset = 'training_pairs'), "
        "TIMESTAMPTZ '1970-01-01')",
        [list(GRAPH["training_pairs"].upstream)],
    ).item()


def last_version(warehouse: Warehouse) -> str | None:
    """Version of the pairs that train and validate as they were made last."""
    rows = warehouse.read("SELECT version FROM pair_changes ORDER BY changed_at DESC LIMIT 1")
    return None if rows.is_empty() else rows.item()


def record_change(transaction: Transaction, version: str, since: datetime | None) -> None:
    """Remember that they are others now. since: when the oldest of what changed them was made."""
    row = {"changed_at": since or datetime.now(UTC), "version": version}
    transaction.upsert(TABLE.name, pl.DataFrame([row], schema=TABLE.schema))


def changed_since(warehouse: Warehouse, trained_on: str | None) -> datetime | None:
    """When they first became others than those of a version, if they did since."""
    rows = warehouse.read("SELECT changed_at, version FROM pair_changes ORDER BY changed_at")
    versions = rows["version"].to_list()
    known = [place for place, version in enumerate(versions) if version == trained_on]
    later = rows["changed_at"].slice(known[-1] + 1 if known else 0)
    return None if later.is_empty() else later[0]
