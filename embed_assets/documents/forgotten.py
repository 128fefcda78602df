"""Documents that were forgotten: neither their path nor their content comes in again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from embed_assets.errors import ProjectError
from embed_assets.resources.ledger import Cause, Failure
from embed_assets.resources.warehouse import Warehouse

REMEMBER = "`embed-assets forget --remember` lets it in"


@dataclass(frozen=True)
class Forgotten:
    """When paths and contents were forgotten. contents: by sha256."""

    paths: Mapping[str, datetime] = field(default_factory=dict)
    contents: Mapping[str, datetime] = field(default_factory=dict)

    def why_not(self, path: str, sha256: str = "") -> str | None:
        """Why a file may not come in, if it may not. It does not say what was forgotten."""
        if path in self.paths:
            return f"forgotten on {self.paths[path]:%Y-%m-%d}; {REMEMBER}"
        if sha256 in self.contents:
            return f"its content was forgotten on {self.contents[sha256]:%Y-%m-%d}; {REMEMBER}"
        return None

    def refusal(self, path: str, sha256: str = "") -> Failure | None:
        """The same, as the ledger keeps it."""
        reason = self.why_not(path, sha256)
        return Failure(Cause.FORGOTTEN, reason) if reason else None


def read_forgotten(warehouse: Warehouse) -> Forgotten:
    """What was forgotten in this home."""
    rows = warehouse.read("SELECT path, sha256, forgotten_at FROM forgotten").rows()
    return Forgotten(
        {path: at for path, _, at in rows}, {sha256: at for _, sha256, at in rows if sha256}
    )


def remember(warehouse: Warehouse, paths: Sequence[str]) -> list[dict[str, str]]:
    """Let documents in again; gives document_id and path of each.

    Copies of the same bytes were forgotten together, and are remembered together. ProjectError, and
    nothing is done, where a path was not forgotten.
    """
    known = warehouse.read("SELECT path, sha256, document_id FROM forgotten ORDER BY path")
    if unknown := [path for path in paths if path not in set(known["path"])]:
        raise ProjectError(f"{', '.join(unknown)}: never forgotten. Nothing was done.")
    named = pl.col("path").is_in(list(paths))
    contents = known.filter(named, pl.col("sha256") != "")["sha256"].to_list()
    lifted = known.filter(named | pl.col("sha256").is_in(contents))
    with warehouse.transaction() as transaction:
        transaction.delete("forgotten", {"path": lifted["path"].unique().to_list()})
        transaction.delete("attempts", {"cause": [Cause.FORGOTTEN]})
    return lifted.select("document_id", "path").unique(maintain_order=True).to_dicts()
