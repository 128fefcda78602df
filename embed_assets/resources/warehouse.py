"""The DuckDB warehouse: everything that touches storage goes through here.

DuckDB lets either one process write or several read. All take turns through a lock file, with
connections as short as the statement; a program outside (a shell that holds the file open) is
waited for until the same deadline. It is said for whom. Work that is done waits without a deadline.
What was made from what is in `ledger.py`.
"""

import hashlib
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
from filelock import FileLock, Timeout
from pydantic import PrivateAttr

from embed_assets.errors import BusyError, ProjectError, one_line
from embed_assets.interruptions import unwrapped
from embed_assets.resources.waiting import Wait
from embed_assets.storage import damaged, disk_of, trouble_with
from embed_assets.tables import TABLES, StoredColumn

LOCK_TIMEOUT = 120.0
DAMAGE = (
    duckdb.IOException,
    duckdb.SerializationException,
    duckdb.FatalException,
    duckdb.InternalException,
)
"""What DuckDB raises where it can't read or write its file."""


class WarehouseBusyError(BusyError):
    """Another program held the warehouse for longer than the deadline."""


class WarehouseError(ProjectError):
    """The warehouse can't be read or written: its file is damaged, or the disk is in trouble."""


class SchemaError(WarehouseError):
    """A table is not as this release has it. The message says which, how, and what to do."""

    def __init__(self, path: str, table: str, difference: str, *, is_newer: bool) -> None:
        how = (
            "A newer release of embed_assets made it: use that one, or another --home."
            if is_newer
            else "`embed-assets check` says what else is damaged, and `check --mend` mends it."
        )
        super().__init__(f"{path}: the table {table} has {difference}. {how}")


class Warehouse(dg.ConfigurableResource):
    """Reads with SQL, writes in transactions."""

    path: str
    lock_timeout: float = LOCK_TIMEOUT
    _log: Callable[[str], object] | None = PrivateAttr(default=None)
    _shared: duckdb.DuckDBPyConnection | None = PrivateAttr(default=None)

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
            return self._read_by(self._shared, sql, parameters)
        if not self.is_there:
            return self._read_as_today(None, sql, parameters)
        with self._connected(read_only=True) as connection:
            _check_schema_once(connection, self.path)
            return self._read_by(connection, sql, parameters)

    @contextmanager
    def at_once(self) -> Iterator["Warehouse"]:
        """The same for several reads by one connection: to open one costs more than most queries.

        Keep it short: others wait.
        """
        if self._shared is not None or not self.is_there:
            yield self
            return
        with self._connected(read_only=True) as connection:
            _check_schema_once(connection, self.path)
            shared = self.model_copy()
            shared._shared = connection
            yield shared

    def _read_by(
        self, connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any]
    ) -> pl.DataFrame:
        # A table is missing where the first write was killed half-way, a column where an older
        # version made the table. What is shared was closed by an earlier read that found that.
        with suppress(duckdb.CatalogException, duckdb.BinderException, duckdb.ConnectionException):
            return _query(connection, sql, parameters)
        connection.close()  # one process attaches a file once
        return self._read_as_today(self.path, sql, parameters)

    def _read_as_today(self, path: str | None, sql: str, parameters: Sequence[Any]) -> pl.DataFrame:
        """Result of a query on the tables of `tables.py`, whatever of them the file has."""
        with _until_stopped(duckdb.connect(":memory:")) as connection:
            stored: dict[str, list[str]] = {}
            if path is not None:
                connection.execute(f"ATTACH '{quoted(path)}' AS stored (READ_ONLY)")
                found = connection.execute(
                    "SELECT table_name, list(column_name) FROM duckdb_columns() "
                    "WHERE database_name = 'stored' GROUP BY table_name"
                )
                stored = dict(found.fetchall())
            for name, table in TABLES.items():
                if name in stored:
                    missing = [c for c in table.columns if c not in stored[name]]
                    nulls = [f'NULL::{table.columns[c].sql} AS "{c}"' for c in missing]
                    chosen = ", ".join(["*", *nulls])
                    connection.execute(f"CREATE VIEW {name} AS SELECT {chosen} FROM stored.{name}")
                else:
                    connection.execute(table.ddl)
            return _query(connection, sql, parameters)

    @property
    def is_there(self) -> bool:
        """Whether anything was ever written. WarehouseError where a disk has lost it.

        An empty file is none in a home without models: a first write was killed there.
        """
        file = Path(self.path)
        if not file.exists():
            return False
        if file.is_file() and file.stat().st_size == 0:
            if any(file.parent.glob("models/v*")):
                raise WarehouseError(damaged(file, "it is empty"))
            return False
        return True

    @property
    def is_writable(self) -> bool:
        """Whether its folder may be written to, or made."""
        return disk_of(Path(self.path).parent).is_writable

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
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        with self._connected(read_only=False) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.begin()
            _check_schema(connection, self.path)
            for table in TABLES.values():
                connection.execute(table.ddl)
            yield Transaction(connection)
            connection.commit()  # closed without it, the connection rolls back

    def stored_tables(self) -> dict[str, dict[str, StoredColumn]]:
        """Tables as they stand in the file, their columns by name; none where there is no file."""
        if not self.is_there:
            return {}
        with self._connected(read_only=True) as connection:
            return _stored_tables(connection)

    @contextmanager
    def mending(self) -> Iterator["Transaction"]:
        """A transaction on tables as they stand, right or wrong."""
        with self._connected(read_only=False) as connection:
            connection.begin()
            yield Transaction(connection)
            connection.commit()

    def compact(self) -> None:
        """Write the file anew without the room of deleted rows: their bytes still stand in it.

        A kill leaves the file as it was, whole.
        """
        if not Path(self.path).exists():
            return
        fresh = Path(f"{self.path}.compacting")
        with self._connected(read_only=False) as connection:
            connection.execute("CHECKPOINT")
            connection.close()
            # Nobody outside has the file open, and no log stands beside it: it may be replaced.
            for left in Path(self.path).parent.glob(f"{fresh.name}*"):  # by a kill
                left.unlink()
            with _until_stopped(duckdb.connect(":memory:")) as connection:
                connection.execute(f"ATTACH '{quoted(self.path)}' AS stored (READ_ONLY)")
                connection.execute(f"ATTACH '{quoted(str(fresh))}' AS fresh")
                connection.execute("COPY FROM DATABASE stored TO fresh")
                connection.execute("DETACH fresh")
            shutil.copymode(self.path, fresh)
            fresh.replace(self.path)
            # What a killed process had no memory for.
            shutil.rmtree(f"{self.path}.tmp", ignore_errors=True)

    @contextmanager
    def _connected(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection while it is our turn among the project's processes.

        While a program outside has the file open, it is nobody's turn: those that may use it
        beside that program go first.
        """
        _ = self.is_there  # a file that a disk has emptied is not begun anew
        wait, file = Wait(self.path, self.lock_timeout, self._log), Path(f"{self.path}.lock")
        lock = None if read_only and _is_unlockable(file) else FileLock(file, timeout=0)
        while True:
            try:
                connection = _take(lock, self.path, read_only)
                break
            except Timeout:
                if not wait.goes_on(str(file)):
                    raise WarehouseBusyError(
                        f"{self.path}: other runs held the warehouse for "
                        f"{self.lock_timeout:.0f} s ({wait.whom}). Wait for them to end, or stop "
                        "them, and try again."
                    ) from None
            except duckdb.IOException as error:
                # DuckDB has no class for it.
                if "Could not set lock on file" not in str(error):
                    raise self._trouble(error) from error
                if not wait.goes_on(self.path):
                    raise WarehouseBusyError(
                        f"{self.path}: another program has the warehouse open. Close it and try "
                        f"again. DuckDB says: {one_line(str(error))}"
                    ) from None
            except (*DAMAGE, OSError) as error:
                raise self._trouble(error) from error
        try:
            with _until_stopped(connection):
                yield connection
        except DAMAGE as error:
            raise self._trouble(error) from error
        finally:
            if lock:
                lock.release()

    def _trouble(self, error: Exception) -> WarehouseError:
        """Why the file can't be used: the disk is looked at first."""
        said = trouble_with(disk_of(Path(self.path).parent), error)
        return WarehouseError(said or damaged(Path(self.path), error))


def _is_unlockable(lock: Path) -> bool:
    """Whether no lock can be held here, for lack of the right to write.

    Who reads does without: DuckDB's own lock keeps readers and writers apart.
    """
    return not os.access(lock if lock.exists() else lock.parent, os.W_OK)


class _Absent(threading.local):
    """An importer that finds no pandas for a thread in which it is left out."""

    left_out = False

    def find_spec(self, name: str, *_: object) -> None:
        """Says of pandas alone that it isn't there."""
        if self.left_out and name == "pandas":
            raise ModuleNotFoundError(f"{name} is not needed", name=name)


_pandas = _Absent()
sys.meta_path.insert(0, _pandas)  # pyright: ignore[reportArgumentType]


@contextmanager
def _without_pandas() -> Iterator[None]:
    """Have DuckDB do without pandas, which it would import for the first parameter of a query.

    The import takes longer than all queries of a command.
    """
    _pandas.left_out = True
    try:
        yield
    finally:
        _pandas.left_out = False


def _take(lock: FileLock | None, path: str, read_only: bool) -> duckdb.DuckDBPyConnection:
    """Lock and connection together, or neither of them."""
    if lock:
        lock.acquire()
    try:
        if not read_only:
            _make(Path(path))
        return duckdb.connect(path, read_only=read_only)
    except BaseException:
        if lock:
            lock.release()
        raise


def _make(file: Path) -> None:
    """Make an empty database, if none is there: whole, whatever kills this process meanwhile."""
    if file.exists() and (file.is_dir() or file.stat().st_size):
        return
    unfinished = Path(f"{file}.unfinished")
    for left in file.parent.glob(f"{unfinished.name}*"):  # by a kill
        left.unlink()
    duckdb.connect(unfinished).close()
    unfinished.replace(file)


_checked: set[tuple[str, int]] = set()
"""Warehouses whose schema this process has found right: path and inode."""


def _check_schema_once(connection: duckdb.DuckDBPyConnection, path: str) -> None:
    known = path, Path(path).stat().st_ino
    if known not in _checked:
        _check_schema(connection, path)
        _checked.add(known)


def _check_schema(connection: duckdb.DuckDBPyConnection, path: str) -> None:
    """SchemaError where a table is not as this release has it."""
    for name, columns in _stored_tables(connection).items():
        if name in TABLES and (said := TABLES[name].differences(columns)):
            is_newer = any(c.required for n, c in columns.items() if n not in TABLES[name].columns)
            raise SchemaError(path, name, said[0], is_newer=is_newer)


def _stored_tables(
    connection: duckdb.DuckDBPyConnection,
) -> dict[str, dict[str, StoredColumn]]:
    """Tables of a warehouse, their columns by name."""
    here = "database_name = current_database() AND schema_name = 'main'"
    keys = connection.execute(
        "SELECT table_name, constraint_column_names FROM duckdb_constraints() "
        f"WHERE {here} AND constraint_type = 'PRIMARY KEY'"
    ).fetchall()
    in_key = {(table, column) for table, columns in keys for column in columns}
    tables: dict[str, dict[str, StoredColumn]] = {}
    for table, column, sql, required in connection.execute(
        "SELECT table_name, column_name, data_type, NOT is_nullable AND column_default IS NULL "
        "FROM duckdb_columns() JOIN duckdb_tables() "
        "USING (database_name, schema_name, table_name) "
        f"WHERE {here} ORDER BY table_name, column_index"
    ).fetchall():
        stored = StoredColumn(sql, required, (table, column) in in_key)
        tables.setdefault(table, {})[column] = stored
    return tables


@contextmanager
def _until_stopped(
    connection: duckdb.DuckDBPyConnection,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The connection, closed at the end of the block; a query that is stopped ends at once."""
    with unwrapped(), connection:
        try:
            yield connection
        except BaseException:
            with suppress(duckdb.ConnectionException):  # the block has closed it
                connection.interrupt()  # else closing it may wait for the query's end
            raise


def quoted(path: str) -> str:
    """A path as it stands between quotes in SQL."""
    return path.replace("'", "''")


def _query(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any]
) -> pl.DataFrame:
    connection.execute("SET TimeZone = 'UTC'")
    with _without_pandas():
        return connection.execute(sql, list(parameters)).pl()


class Transaction:
    """Writes that happen together."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def replace(
        self,
        table_name: str,
        frame: pl.DataFrame,
        where: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Replace the rows in which every `where` column has one of its values; all without it.

        Raises TableMismatchError before anything is touched if the frame doesn't fit its table.
        """
        rows = TABLES[table_name].conform(frame)
        self.delete(table_name, where or {})
        if not rows.is_empty():
            self._with_rows(f"INSERT INTO {table_name} BY NAME SELECT * FROM new_rows", rows)

    def upsert(self, table_name: str, frame: pl.DataFrame) -> None:
        """Insert rows, each in place of the one with its key."""
        rows = TABLES[table_name].conform(frame)
        if not rows.is_empty():
            sql = f"INSERT OR REPLACE INTO {table_name} BY NAME SELECT * FROM new_rows"
            self._with_rows(sql, rows)

    def update(self, table_name: str, frame: pl.DataFrame) -> None:
        """Change columns of rows that are there. frame: the table's key, and those columns."""
        key = TABLES[table_name].key
        changed = [name for name in frame.columns if name not in key]
        assignments = ", ".join(f'"{name}" = new_rows."{name}"' for name in changed)
        same = " AND ".join(f'old."{name}" = new_rows."{name}"' for name in key)
        sql = f"UPDATE {table_name} AS old SET {assignments} FROM new_rows WHERE {same}"
        self._with_rows(sql, frame)

    def delete(self, table_name: str, where: Mapping[str, Sequence[Any]]) -> int:
        """Delete the rows in which every `where` column has one of its values; all without it.

        Gives how many there were.
        """
        conditions = " AND ".join(f'"{column}" IN (SELECT unnest(?))' for column in where)
        sql = f"DELETE FROM {table_name}" + (f" WHERE {conditions}" if conditions else "")
        return self.execute(sql, [list(values) for values in where.values()])

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement that the other methods can't say; gives how many rows it changed."""
        with _without_pandas():
            changed = self._connection.execute(sql, list(parameters)).fetchone()
        return int(changed[0]) if changed else 0

    def register(self, name: str, frame: pl.DataFrame) -> None:
        """Let statements read a frame under this name."""
        with _without_pandas():
            self._connection.register(name, frame.to_arrow())

    def _with_rows(self, sql: str, rows: pl.DataFrame) -> None:
        self.register("new_rows", rows)
        self.execute(sql)
        self._connection.unregister("new_rows")


def digest(value: Any) -> str:
    """Sixteen hex digits of the sha256 of a value's representation."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
