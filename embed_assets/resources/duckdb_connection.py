"""What holds for every connection to DuckDB, whatever its tables are kept in."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import duckdb
import polars as pl

from embed_assets.errors import BusyError, ProjectError
from embed_assets.interruptions import unwrapped

Result = TypeVar("Result")


class WarehouseBusyError(BusyError):
    """Another program held the warehouse for longer than the deadline."""


class WarehouseError(ProjectError):
    """The warehouse can't be read or written: it, or what it is kept in, is damaged."""


class Statements(Protocol):
    """What takes the statements of a transaction: a connection, or what stands for one."""

    def execute(self, query: str, parameters: Sequence[Any] = (), /) -> Any:
        """Run a statement; what comes back has `fetchall`."""
        ...

    def register(self, view_name: str, python_object: Any, /) -> Any:
        """Let statements read an Arrow table under a name."""
        ...


class Store(Protocol):
    """What a warehouse's tables are kept in. keeps_keys: whether it holds rows to their keys."""

    keeps_keys: bool

    @property
    def identity(self) -> tuple[str, int]:
        """Tells it from another that took its place."""
        ...

    @property
    def name(self) -> str:
        """What it is called where a person reads it."""
        ...

    @property
    def is_there(self) -> bool:
        """Whether anything was ever written."""
        ...

    @property
    def is_writable(self) -> bool:
        """Whether it may be written to, or made."""
        ...

    @property
    def size_bytes(self) -> int:
        """How much its files take, what was deleted included."""
        ...

    def holds(self, file: Path) -> bool:
        """Whether a file is its own."""
        ...

    def read(self, use: Callable[[duckdb.DuckDBPyConnection], Result]) -> Result:
        """What `use` makes of a connection that can't write. It may be called again."""
        ...

    def kept_open(self) -> AbstractContextManager[duckdb.DuckDBPyConnection | None]:
        """A connection for several reads that follow each other; None where each may have its own.

        Keep it short: others may wait.
        """
        ...

    def transaction(
        self, prepare: Callable[[Statements], None] | None = None
    ) -> AbstractContextManager[Statements]:
        """A transaction, committed at the end of the block; nothing of it is there without that.

        prepare: makes the tables, or finds that they are there.
        """
        ...

    def compact(self, keep: timedelta) -> None:
        """Free the room of deleted rows, to the byte. keep: how long what was there before stays,
        where anything stays.
        """
        ...


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
def without_pandas() -> Iterator[None]:
    """Have DuckDB do without pandas, which it would import for the first parameter of a query.

    The import takes longer than all queries of a command.
    """
    _pandas.left_out = True
    try:
        yield
    finally:
        _pandas.left_out = False


@contextmanager
def until_stopped(
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


def query(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any]
) -> pl.DataFrame:
    """Rows of a query, times in UTC. IOException where they break off while they are fetched."""
    connection.execute("SET TimeZone = 'UTC'")
    with without_pandas():
        result = connection.execute(sql, list(parameters))
        try:
            return result.pl()
        except duckdb.InvalidInputException as error:  # DuckDB's word for it, whatever the cause
            raise duckdb.IOException(str(error)) from error


def quoted(path: str) -> str:
    """A path as it stands between quotes in SQL."""
    return path.replace("'", "''")
