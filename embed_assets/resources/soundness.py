"""What is damaged in the warehouse: its schema, its keys, and its rows against the ledger.

Damage of what can be made again is mended by having the ledger forget it: the next plan sees that
it is not made.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl

from embed_assets.graph import DOCUMENT_ASSETS, GRAPH, SEARCH_INDEX
from embed_assets.resources.contents import Contents
from embed_assets.resources.duckdb_connection import quoted
from embed_assets.resources.ledger import UNPARTITIONED, Records, Slice, slice_version
from embed_assets.resources.warehouse import Transaction, Warehouse
from embed_assets.tables import TABLES
from embed_assets.wording import counted

AT_ONCE = 256
"""Documents whose rows are in memory at a time."""
EVALUATED = ("base_eval", "comparison")
MADE_AGAIN: Mapping[str, tuple[str, ...]] = {
    **{asset: (asset,) for asset in (*DOCUMENT_ASSETS, "training_pairs")},
    **dict.fromkeys(("evaluations", "evaluation_results", "query_results"), EVALUATED),
    **dict.fromkeys(
        (
            *("model_comparisons", "hybrid_comparisons", "hybrid_weights"),
            *("learning_curves", "failed_baselines"),
        ),
        ("comparison",),
    ),
    "search_indexes": (SEARCH_INDEX,),
    **dict.fromkeys(("embeddings", "materializations", "attempts", "pair_changes"), ()),
    **dict.fromkeys(("former_paths", "departed", "removals"), ()),
}
"""Tables that the project does without, and the assets that fill them. People's decisions and the
record of what was trained are in the others."""
BACKUP = "Put the warehouse back from a backup."


@dataclass(frozen=True)
class Damage:
    """What is damaged. what: a table, a version or a file. found: what is wrong, in words.

    slices: what is to be made again. table: the one to build anew. strays: documents whose rows
    belong to nothing. remedy: what a person does, where nothing of this helps.
    """

    what: str
    found: str
    slices: tuple[Slice, ...] = ()
    table: str = ""
    strays: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def can_be_mended(self) -> bool:
        """Whether the project can make it whole."""
        return not self.remedy


def damaged_tables(warehouse: Warehouse) -> list[Damage]:
    """Tables that are not as `tables.py` has them."""
    return [
        Damage(name, f"it has {difference}", table=name)
        for name, difference in warehouse.differences()
    ]


def damaged_slices(
    warehouse: Warehouse, records: Records, code_versions: Mapping[str, str], *, deep: bool
) -> list[Damage]:
    """Slices whose rows are not those that the ledger says were made.

    code_versions: of today; slices of other code are made again whatever they hold, and are not
    looked at. deep: whether the bytes of PDFs are read too.
    """
    damage = [*_stray_documents(warehouse, records)]
    paths = warehouse.paths()
    for asset in DOCUMENT_ASSETS:
        wrong = _wrong_slices(warehouse, records, asset, code_versions, deep=deep)
        for key, found in wrong:
            damage.append(Damage(asset, f"{paths.get(key, key)}: {found}", ((asset, key),)))
    known = {key for row in damage for _, key in row.slices}
    for key in sorted(_without_chunk(warehouse, records) - known):
        of = ("synthetic_questions", key)
        damage.append(Damage(of[0], f"{paths.get(key, key)}: their chunks are gone", (of,)))
    return damage + _damaged_pairs(warehouse, records, code_versions)


def _stray_documents(warehouse: Warehouse, records: Records) -> Iterator[Damage]:
    """Rows of documents that nothing knows."""
    known = {key for _, key in (*records.made, *records.tried)} | warehouse.paths().keys()
    for asset in DOCUMENT_ASSETS[1:]:
        ids = warehouse.read(f"SELECT DISTINCT document_id FROM {asset} ORDER BY 1")["document_id"]
        if strays := [key for key in ids if key not in known]:
            found = f"rows of {counted(len(strays), 'document')} that nothing else knows"
            yield Damage(asset, f"{found}: {', '.join(strays[:3])}", strays=tuple(strays))


def _wrong_slices(
    warehouse: Warehouse,
    records: Records,
    asset: str,
    code_versions: Mapping[str, str],
    *,
    deep: bool,
) -> Iterator[tuple[str, str]]:
    """Documents whose rows are not as recorded, and what is wrong with them."""
    made = {key: row for (name, key), row in records.made.items() if name == asset and key}
    there = _row_counts(warehouse, asset)
    for key, row in made.items():
        if row.data_version and not there.get(key):
            yield key, "its rows are gone"
        elif not row.data_version and there.get(key):
            yield key, f"{counted(there[key], 'row')} where none was made"
    as_made = [
        key
        for key in sorted(made.keys() & there.keys())
        if made[key].data_version and made[key].code_version == code_versions.get(asset)
    ]
    if asset == "raw_pdfs":
        yield from _wrong_pdfs(warehouse, records, deep=deep)
        return
    renamed = set(warehouse.read("SELECT document_id FROM former_paths")["document_id"])
    columns = ", ".join(f'"{name}"' for name in TABLES[asset].columns)
    for keys in _blocks([key for key in as_made if key not in renamed]):
        rows = warehouse.read(
            f"SELECT {columns} FROM {asset} WHERE document_id IN (SELECT unnest(?::VARCHAR[]))",
            [keys],
        )
        for (key,), part in rows.partition_by("document_id", as_dict=True).items():
            if slice_version(asset, part) != made[asset_key := str(key)].data_version:
                yield asset_key, "its rows are not those that were made"


def _row_counts(warehouse: Warehouse, asset: str) -> dict[str, int]:
    sql = f"SELECT document_id, count(*) AS n FROM {asset} GROUP BY 1"
    return dict(warehouse.read(sql).iter_rows())


def _wrong_pdfs(warehouse: Warehouse, records: Records, *, deep: bool) -> Iterator[tuple[str, str]]:
    content = "sha256(content)" if deep and not warehouse.contents else "sha256"
    rows = warehouse.read(
        f"SELECT document_id, {content} AS sha256, octet_length(content) = size_bytes AS is_whole, "
        "size_bytes FROM raw_pdfs ORDER BY document_id"
    )
    if warehouse.contents:
        rows = _looked_at(warehouse.contents, rows, deep=deep)
    for key, sha256, is_whole in rows.drop("size_bytes").iter_rows():
        recorded = records.data_version("raw_pdfs", key)
        if recorded and (sha256 != recorded or not is_whole):
            yield key, "its bytes are not those that were read"


def _looked_at(contents: Contents, rows: pl.DataFrame, *, deep: bool) -> pl.DataFrame:
    """Rows with what is kept in the place of what should be. deep: whether the bytes are read."""
    kept = contents.all()
    sizes = {name: found.size_bytes for name, found in kept.items()}
    rows = rows.with_columns(
        is_whole=pl.col("sha256").replace_strict(sizes, default=-1, return_dtype=pl.Int64)
        == pl.col("size_bytes")
    )
    if not deep:
        return rows
    named = [
        hashlib.sha256(contents.read([name])[name]).hexdigest() if name in kept else name
        for name in rows["sha256"]
    ]
    return rows.with_columns(sha256=pl.Series(named, dtype=pl.String))


def _without_chunk(warehouse: Warehouse, records: Records) -> set[str]:
    """Documents with questions about chunks that they no longer have."""
    lost = warehouse.read(
        "SELECT DISTINCT document_id FROM synthetic_questions q WHERE chunk_id <> '' "
        "AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.chunk_id = q.chunk_id)"
    )["document_id"]
    return {
        key
        for key in lost
        if (row := records.made.get(("synthetic_questions", key)))
        and row.input_version == records.input_version("synthetic_questions", key)
    }


def _damaged_pairs(
    warehouse: Warehouse, records: Records, code_versions: Mapping[str, str]
) -> list[Damage]:
    """What was made of all documents together: its rows against the ledger."""
    damage = []
    pairs, of_pairs = records.made.get(("training_pairs", UNPARTITIONED)), "training_pairs"
    if pairs and pairs.data_version and pairs.code_version == code_versions.get(of_pairs):
        columns = ", ".join(TABLES[of_pairs].columns)
        rows = warehouse.read(f"SELECT {columns} FROM {of_pairs}")
        renamed = warehouse.count("former_paths")
        if rows.is_empty() or (not renamed and slice_version(of_pairs, rows) != pairs.data_version):
            found = "its rows are gone" if rows.is_empty() else "its rows are not those made"
            damage.append(Damage(of_pairs, found, ((of_pairs, UNPARTITIONED),)))
    for asset, table in (
        ("base_eval", "evaluations"),
        ("comparison", "model_comparisons"),
        ("finetuned_model", "models"),
    ):
        made = records.made.get((asset, UNPARTITIONED))
        if made and made.data_version and not warehouse.count(table):
            damage.append(Damage(table, "its rows are gone", ((asset, UNPARTITIONED),)))
    return damage


def _blocks(keys: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), AT_ONCE):
        yield list(keys[start : start + AT_ONCE])


def mend_tables(warehouse: Warehouse, damage: Iterable[Damage], kept: Path) -> list[Damage]:
    """Build damaged tables anew with their rows; gives those that couldn't be.

    Where rows don't fit, a table that is made again begins empty, and its rows are kept as Parquet
    in a folder: nothing that was there is lost.
    """
    left = []
    for table in dict.fromkeys(row.table for row in damage if row.table):
        if _rebuild(warehouse, table):
            continue
        if table not in MADE_AGAIN:
            left.append(Damage(table, "its rows don't fit its columns", remedy=BACKUP))
            continue
        kept.mkdir(parents=True, exist_ok=True)
        file = kept / f"{table}-{datetime.now(UTC):%Y%m%d-%H%M%S}.parquet"
        with warehouse.mending() as transaction:
            transaction.execute(f"COPY {table} TO '{quoted(str(file))}' (FORMAT parquet)")
            transaction.execute(f"DROP TABLE {table}")
            transaction.execute(warehouse.ddl(table))
            for asset in MADE_AGAIN[table]:
                transaction.delete("materializations", {"asset": [asset]})
    return left


def _rebuild(warehouse: Warehouse, name: str) -> bool:
    """Make a table anew with all its rows, and with columns of a person's own; whether they fit."""
    table = TABLES[name]
    own = {c: s for c, s in warehouse.stored_tables()[name].items() if c not in table.columns}
    try:
        with warehouse.mending() as transaction:
            transaction.execute(f"CREATE TEMP TABLE rows_kept AS FROM {name}")
            transaction.execute(f"DROP TABLE {name}")
            transaction.execute(warehouse.ddl(name))
            for column, stored in own.items():
                written = column.replace('"', '""')
                transaction.execute(f'ALTER TABLE {name} ADD COLUMN "{written}" {stored.sql}')
            transaction.execute(f"INSERT INTO {name} BY NAME SELECT * FROM rows_kept")
    except (duckdb.ConstraintException, duckdb.ConversionException, duckdb.BinderException):
        return False
    return True


def forget_slices(transaction: Transaction, damage: Iterable[Damage]) -> None:
    """Have the next plan make slices again, and delete rows that belong to nothing."""
    for row in damage:
        for asset, key in row.slices:
            where = {"asset": [asset], "document_id": [key]}
            transaction.delete("materializations", where)
            transaction.delete("attempts", where)
        for table in DOCUMENT_ASSETS if row.strays else ():
            transaction.delete(table, {"document_id": list(row.strays)})


def makes_again(damage: Iterable[Damage]) -> list[str]:
    """Assets that the next run makes again once the damage is mended, in order."""
    chosen = {asset for row in damage for asset, _ in row.slices}
    chosen |= {asset for row in damage for asset in MADE_AGAIN.get(row.table, ())}
    return [asset for asset in GRAPH if asset in chosen]
