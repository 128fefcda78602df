"""The tables in a DuckDB file, of which one process writes, or several read.

All take turns through a lock file, with connections as short as the statement; a program outside (a
shell that holds the file open) is waited for until the same deadline. It is said for whom. Work
that is done waits without a deadline.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from embed_assets.errors import one_line
from embed_assets.resources.duckdb_connection import (
    Result,
    Statements,
    WarehouseBusyError,
    WarehouseError,
    quoted,
    until_stopped,
)
from embed_assets.resources.waiting import Wait
from embed_assets.storage import damaged, disk_of, trouble_with

DAMAGE = (
    duckdb.IOException,
    duckdb.SerializationException,
    duckdb.FatalException,
    duckdb.InternalException,
)
"""What DuckDB raises where it can't read or write its file."""


@dataclass(frozen=True)
class FileStore:
    """Tables in a file. lock_timeout: seconds. log: is told who is waited for."""

    path: str
    lock_timeout: float
    log: Callable[[str], object] | None = None
    keeps_keys = True

    @property
    def identity(self) -> tuple[str, int]:
        """Its path and inode."""
        return self.path, Path(self.path).stat().st_ino

    @property
    def name(self) -> str:
        """Its path."""
        return self.path

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

    @property
    def size_bytes(self) -> int:
        """Size of the file, and of the log beside it."""
        files = Path(self.path).parent.glob(f"{Path(self.path).name}*")
        return sum(file.stat().st_size for file in files if file.is_file())

    def holds(self, file: Path) -> bool:
        """Whether a file is the database, or stands beside it for its sake."""
        own = Path(self.path)
        return file == own or file.name.startswith(f"{own.name}.")

    def read(self, use: Callable[[duckdb.DuckDBPyConnection], Result]) -> Result:
        """What `use` makes of a connection that can't write."""
        with self._connected(read_only=True) as connection:
            return use(connection)

    @contextmanager
    def kept_open(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One connection for several reads: to open one costs more than most queries."""
        with self._connected(read_only=True) as connection:
            yield connection

    @contextmanager
    def transaction(
        self, prepare: Callable[[Statements], None] | None = None
    ) -> Iterator[Statements]:
        """A transaction, committed at the end of the block."""
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        with self._connected(read_only=False) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.begin()
            if prepare:
                prepare(connection)
            yield connection
            connection.commit()  # closed without it, the connection rolls back

    def compact(self, keep: timedelta) -> None:
        """Write the file anew without the room of deleted rows: their bytes still stand in it.

        keep: a file holds nothing of before.

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
            with until_stopped(duckdb.connect(":memory:")) as connection:
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
        wait, file = Wait(self.path, self.lock_timeout, self.log), Path(f"{self.path}.lock")
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
            with until_stopped(connection):
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
