"""The warehouse: everything that touches the tables goes through here.

They are in a DuckDB file (`warehouse_file.py`), or in a DuckLake, where several machines work on
them (`ducklake.py`). What was made from what is in `ledger.py`.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
from pydantic import PrivateAttr

from embed_assets.lake_address import lake_address
from embed_assets.resources.contents import Contents
from embed_assets.resources.duckdb_connection import (
    Statements,
    Store,
    WarehouseBusyError,
    WarehouseError,
    query,
    until_stopped,
    without_pandas,
)
from embed_assets.resources.warehouse_file import FileStore
from embed_assets.settings import Settings
from embed_assets.tables import TABLES, StoredColumn, Table

__all__ = ["SchemaError", "Transaction", "Warehouse", "WarehouseBusyError", "WarehouseError"]

LOCK_TIMEOUT = 120.0
WAREHOUSE = "EMBED_ASSETS_WAREHOUSE"


class SchemaError(WarehouseError):
    """A table is not as this release has it. The message says which, how, and what to do."""

    def __init__(self, name: str, table: str, difference: str, *, is_newer: bool) -> None:
        how = (
            "A newer release of embed_assets made it: use that one, or another --home."
            if is_newer
            else "`embed-assets check` says what else is damaged, and `check --mend` mends it."
        )
        super().__init__(f"{name}: the table {table} has {difference}. {how}")


class Warehouse(dg.ConfigurableResource):
    """Reads with SQL, writes in transactions.

    path: of the home's DuckDB file. lake: address of the DuckLake that takes its place, if any.
    lock_timeout: seconds that others are waited for.
    """

    path: str
    lake: str = ""
    lock_timeout: float = LOCK_TIMEOUT
    _log: Callable[[str], object] | None = PrivateAttr(default=None)
    _shared: duckdb.DuckDBPyConnection | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, settings: Settings) -> "Warehouse":
        """The warehouse that the settings name."""
        return cls(path=str(settings.warehouse_file), lake=settings.warehouse)

    @property
    def _store(self) -> Store:
        if not self.lake:
            return FileStore(self.path, self.lock_timeout, self._log)
        from embed_assets.resources.ducklake import LakeStore

        return LakeStore(lake_address(self.lake, WAREHOUSE), self.lock_timeout, self._log)

    @property
    def name(self) -> str:
        """What it is called where a person reads it: the path of its file, or its address."""
        return self._store.name

    @property
    def short_name(self) -> str:
        """The same, of a file without its folder."""
        return self.lake or Path(self.path).name

    def patient(self, log: Callable[[str], object]) -> "Warehouse":
        """The same for work that is done: it waits as long as it must.

        log: is told for whom, beside the terminal.
        """
        patient = self.model_copy(update={"lock_timeout": math.inf})
        patient._log = log
        return patient

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Result of a query. Changes nothing; a table never written is empty, a column null."""
        if self._shared is not None:
            return _query_as_today(self._shared, sql, parameters)
        store = self._store
        if not store.is_there:
            with until_stopped(duckdb.connect(":memory:")) as connection:
                _complete(connection)
                return query(connection, sql, parameters)

        def ask(connection: duckdb.DuckDBPyConnection) -> pl.DataFrame:
            _check_schema_once(connection, store)
            return _query_as_today(connection, sql, parameters)

        return store.read(ask)

    @contextmanager
    def at_once(self) -> Iterator["Warehouse"]:
        """The same for several reads that follow each other, which may be cheaper so.

        Keep it short: others wait.
        """
        store = self._store
        if self._shared is not None or not store.is_there:
            yield self
            return
        with store.kept_open() as connection:
            if connection is not None:
                _check_schema_once(connection, store)
            shared = self.model_copy()
            shared._shared = connection
            yield shared

    @property
    def is_there(self) -> bool:
        """Whether anything was ever written. WarehouseError where that was lost."""
        return self._store.is_there

    @property
    def is_writable(self) -> bool:
        """Whether it may be written to, or made."""
        return self._store.is_writable

    def holds(self, file: Path) -> bool:
        """Whether a file is the tables' own, of which `compact` takes care."""
        return self._store.holds(file)

    @property
    def size_bytes(self) -> int:
        """How much its files take, what was deleted included."""
        store = self._store
        return store.size_bytes if store.is_there else 0

    @property
    def contents(self) -> Contents | None:
        """Where the bytes of PDFs are; None where they are in raw_pdfs."""
        return Contents(lake_address(self.lake, WAREHOUSE).pdfs) if self.lake else None

    def with_contents(self, raw_pdfs: pl.DataFrame) -> pl.DataFrame:
        """Rows of raw_pdfs with their bytes, wherever these are."""
        if not self.contents:
            return raw_pdfs
        found = self.contents.read(raw_pdfs["sha256"].unique().to_list())
        filled = [found[sha256] for sha256 in raw_pdfs["sha256"]]
        return raw_pdfs.with_columns(content=pl.Series(filled, dtype=pl.Binary))

    def keep_contents(self, raw_pdfs: pl.DataFrame) -> pl.DataFrame:
        """Rows of raw_pdfs as they are stored, their bytes being kept where they belong."""
        if not self.contents:
            return raw_pdfs
        self.contents.keep(dict(raw_pdfs.select("sha256", "content").iter_rows()))
        return raw_pdfs.with_columns(content=pl.lit(None, dtype=pl.Binary))

    def corpus(self) -> pl.DataFrame:
        """What is searched: chunk_id and chunk_text of each distinct text, by chunk_id."""
        return self.read(
            "SELECT chunk_id, any_value(chunk_text) AS chunk_text FROM chunks "
            "GROUP BY chunk_id ORDER BY chunk_id"
        )

    def count(self, table: str) -> int:
        """Rows in a table."""
        return int(self.read(f"SELECT count(*) AS n FROM {TABLES[table].name}")["n"][0])

    def replace(
        self,
        table_name: str,
        frame: pl.DataFrame,
        where: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Replace rows in a transaction of its own, as `Transaction.replace` does."""
        TABLES[table_name].conform(frame)  # a frame that doesn't fit waits for no lock
        with self.transaction() as transaction:
            transaction.replace(table_name, frame, where)

    def paths(self, document_ids: Sequence[str] | None = None) -> dict[str, str]:
        """Path relative to the PDF folder by document_id; of all documents without ids."""
        sql = "SELECT document_id, path FROM raw_pdfs"
        if document_ids is None:
            return dict(self.read(f"{sql} ORDER BY path").iter_rows())
        sql += " WHERE document_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY path"
        return dict(self.read(sql, [list(document_ids)]).iter_rows())

    @contextmanager
    def transaction(self) -> Iterator["Transaction"]:
        """What is written inside is written together, or not at all. Keep it short: others wait."""
        store = self._store

        def prepare(statements: Statements) -> None:
            _check_schema(statements, store)
            for table in TABLES.values():
                statements.execute(table.ddl(keyed=store.keeps_keys))

        with store.transaction(prepare) as statements:
            yield Transaction(statements, keeps_keys=store.keeps_keys)

    def stored_tables(self) -> dict[str, dict[str, StoredColumn]]:
        """Tables as they stand, their columns by name; none where nothing was ever written."""
        store = self._store
        return store.read(_stored_tables) if store.is_there else {}

    def differences(self) -> list[tuple[str, str]]:
        """In what stored tables are not as this release has them: the table, and what, in words."""
        return [
            (name, said)
            for name, columns in self.stored_tables().items()
            if name in TABLES
            for said in TABLES[name].differences(columns, keyed=self._store.keeps_keys)
        ]

    def ddl(self, table_name: str) -> str:
        """Makes a table as this warehouse has it."""
        return TABLES[table_name].ddl(keyed=self._store.keeps_keys)

    @contextmanager
    def mending(self) -> Iterator["Transaction"]:
        """A transaction on tables as they stand, right or wrong."""
        store = self._store
        with store.transaction() as statements:
            yield Transaction(statements, keeps_keys=store.keeps_keys)

    def compact(self, keep: timedelta = timedelta()) -> None:
        """Free the room of deleted rows: their bytes still stand where they were.

        keep: how long a DuckLake can still say what stood in it before.
        """
        store = self._store
        if not store.is_there:
            return
        store.compact(keep)
        if self.contents:
            used = self.read("SELECT DISTINCT sha256 FROM raw_pdfs")["sha256"]
            self.contents.drop_unused(set(used), keep)


def _query_as_today(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any]
) -> pl.DataFrame:
    """Result of a query on the tables of `tables.py`, whatever of them is stored."""
    with suppress(duckdb.CatalogException, duckdb.BinderException):
        return query(connection, sql, parameters)
    _complete(connection)
    return query(connection, sql, parameters)


def _complete(connection: duckdb.DuckDBPyConnection) -> None:
    """Have a connection see all tables of `tables.py` with all their columns.

    A table is missing where the first write was killed half-way, a column where an older version
    made the table.
    """
    stored = _stored_tables(connection)
    [(database,)] = connection.execute("SELECT current_database()").fetchall()
    for name, table in TABLES.items():
        if name not in stored:
            connection.execute(table.ddl(keyed=False, temporary=True))
        elif missing := [column for column in table.columns if column not in stored[name]]:
            nulls = [f'NULL::{table.columns[c].sql} AS "{c}"' for c in missing]
            chosen = ", ".join(["*", *nulls])
            of_today = f'SELECT {chosen} FROM "{database}".main.{name}'
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {of_today}")


_checked: set[tuple[str, int]] = set()
"""Stores whose schema this process has found right."""


def _check_schema_once(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    if (known := store.identity) not in _checked:
        _check_schema(connection, store)
        _checked.add(known)


def _check_schema(statements: Statements, store: Store) -> None:
    """SchemaError where a table is not as this release has it."""
    for name, columns in _stored_tables(statements).items():
        if name not in TABLES:
            continue
        if said := TABLES[name].differences(columns, keyed=store.keeps_keys):
            is_newer = any(c.required for n, c in columns.items() if n not in TABLES[name].columns)
            raise SchemaError(store.name, name, said[0], is_newer=is_newer)


def _stored_tables(statements: Statements) -> dict[str, dict[str, StoredColumn]]:
    """Tables of a warehouse, their columns by name."""
    here = "database_name = current_database() AND schema_name = 'main'"
    keys = statements.execute(
        "SELECT table_name, constraint_column_names FROM duckdb_constraints() "
        f"WHERE {here} AND constraint_type = 'PRIMARY KEY'"
    ).fetchall()
    in_key = {(table, column) for table, columns in keys for column in columns}
    tables: dict[str, dict[str, StoredColumn]] = {}
    for table, column, sql, required in statements.execute(
        "SELECT table_name, column_name, data_type, "
        "NOT is_nullable AND coalesce(column_default, 'NULL') = 'NULL' "
        "FROM duckdb_columns() JOIN duckdb_tables() "
        "USING (database_name, schema_name, table_name) "
        f"WHERE {here} ORDER BY table_name, column_index"
    ).fetchall():
        stored = StoredColumn(sql, required, (table, column) in in_key)
        tables.setdefault(table, {})[column] = stored
    return tables


class Transaction:
    """Writes that happen together."""

    def __init__(self, statements: Statements, *, keeps_keys: bool) -> None:
        """keeps_keys: whether the store itself holds rows to their keys."""
        self._statements, self._keeps_keys = statements, keeps_keys

    def replace(
        self,
        table_name: str,
        frame: pl.DataFrame,
        where: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Replace the rows in which every `where` column has one of its values; all without it.

        Raises TableMismatchError before anything is touched if the frame doesn't fit its table.
        """
        table = TABLES[table_name]
        rows = table.conform(frame)
        self.delete(table_name, where or {})
        if not rows.is_empty():
            self.register("new_rows", rows)
            if not self._keeps_keys:
                self._check_keys(table, rows, where or {})
            self.execute(f"INSERT INTO {table_name} BY NAME SELECT * FROM new_rows")

    def upsert(self, table_name: str, frame: pl.DataFrame) -> None:
        """Insert rows, each in place of the one with its key."""
        table = TABLES[table_name]
        rows = table.conform(frame)
        if not rows.is_empty():
            _check_once(table, rows)
            self.register("new_rows", rows)
            self.upsert_selected(table_name, "FROM new_rows")

    def upsert_selected(self, table_name: str, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Insert the rows of a query, each in place of the one with its key; no key comes twice."""
        if self._keeps_keys:  # a MERGE into a table with an index takes ten times as long
            self.execute(f"INSERT OR REPLACE INTO {table_name} BY NAME {sql}", parameters)
            return
        key = ", ".join(f'"{name}"' for name in TABLES[table_name].key)
        self.execute(
            f"MERGE INTO {table_name} USING ({sql}) AS chosen USING ({key}) "
            "WHEN MATCHED THEN UPDATE BY NAME WHEN NOT MATCHED THEN INSERT BY NAME",
            parameters,
        )

    def update(self, table_name: str, frame: pl.DataFrame) -> None:
        """Change columns of rows that are there. frame: the table's key, and those columns."""
        key = TABLES[table_name].key
        changed = [name for name in frame.columns if name not in key]
        assignments = ", ".join(f'"{name}" = new_rows."{name}"' for name in changed)
        same = " AND ".join(f'old."{name}" = new_rows."{name}"' for name in key)
        sql = f"UPDATE {table_name} AS old SET {assignments} FROM new_rows WHERE {same}"
        self.register("new_rows", frame)
        self.execute(sql)

    def delete(self, table_name: str, where: Mapping[str, Sequence[Any]]) -> int:
        """Delete the rows in which every `where` column has one of its values; all without it.

        Gives how many there were.
        """
        conditions = " AND ".join(f'"{column}" IN (SELECT unnest(?))' for column in where)
        sql = f"DELETE FROM {table_name}" + (f" WHERE {conditions}" if conditions else "")
        return self.execute(sql, [list(values) for values in where.values()])

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement that the other methods can't say; gives how many rows it changed."""
        with without_pandas():
            rows = self._statements.execute(sql, list(parameters)).fetchall()
        return int(rows[0][0]) if rows else 0

    def register(self, name: str, frame: pl.DataFrame) -> None:
        """Let statements read a frame under this name."""
        with without_pandas():
            self._statements.register(name, frame.to_arrow())

    def _check_keys(
        self, table: Table, rows: pl.DataFrame, where: Mapping[str, Sequence[Any]]
    ) -> None:
        """ConstraintException where a key would come twice. where: what was just deleted."""
        _check_once(table, rows)
        in_slice = set(where) <= set(table.key) and all(
            rows[column].is_in(list(values)).all() for column, values in where.items()
        )
        if in_slice:  # none of their keys is left
            return
        key = ", ".join(f'"{name}"' for name in table.key)
        said = f"{table.name}: a row with such a key is there"
        # The statement itself fails, also where it is run again, and by no error that a lost
        # connection gives: this is no number.
        found = f"CAST(concat('{said}: ', {key}) AS INTEGER)"
        sql = f"SELECT {found} FROM {table.name} SEMI JOIN new_rows USING ({key}) LIMIT 1"
        try:
            self.execute(sql)
        except duckdb.ConversionException as error:
            raise duckdb.ConstraintException(f"{said}.") from error


def _check_once(table: Table, rows: pl.DataFrame) -> None:
    """ConstraintException where rows share a key."""
    if rows.select(table.key).is_duplicated().any():
        raise duckdb.ConstraintException(f"{table.name}: rows share a key.")


def digest(value: Any) -> str:
    """Sixteen hex digits of the sha256 of a value's representation."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
