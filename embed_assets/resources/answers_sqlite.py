"""Answers in a SQLite file, for the runs of one machine."""

import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from embed_assets.errors import BusyError
from embed_assets.resources.answers_tables import TABLES
from embed_assets.resources.waiting import FIRST_SAID, Wait

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

Result = TypeVar("Result")


@dataclass(frozen=True)
class _File:
    """The file of answers, and how others that use it are waited for: who says for whom."""

    path: Path
    limit: float
    log: Callable[[str], object] | None = None

    def once_free(self, use: Callable[[], Result]) -> Result:
        """What `use` gives, once no other program holds the file. BusyError after the limit."""
        wait = Wait(str(self.path), self.limit, self.log)
        while True:
            try:
                return use()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in BUSY:  # the rest tells kinds of it apart
                    raise
                self._go_on(wait, str(self.path))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Our turn to open or close. BusyError after the limit."""
        wait = Wait(str(self.path), self.limit, self.log)
        turn = FileLock(f"{self.path}.lock", timeout=0)
        while True:
            try:
                turn.acquire()
                break
            except Timeout:
                self._go_on(wait, turn.lock_file)
        try:
            yield
        finally:
            turn.release()

    def _go_on(self, wait: Wait, file: str) -> None:
        if not wait.goes_on(file):
            raise BusyError(
                f"{self.path}: {wait.whom} held it for {self.limit:.0f} s. Wait for that to end, "
                "and try again."
            ) from None


@dataclass(frozen=True)
class SqliteAnswers:
    """The file. patience: seconds that others are waited for, of whom `log` is told."""

    path: Path
    patience: float
    log: Callable[[str], object] | None = None

    @property
    def is_there(self) -> bool:
        """Whether any answer was ever kept."""
        return self.path.is_file()

    @contextmanager
    def open(self, owner: str = "") -> Iterator["_OpenFile"]:
        """Open it, as `Place.open` says."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = _File(self.path, self.patience, self.log)
        # Held while this run lives, and let go by the system if it is killed.
        lock = FileLock(_lock_file(self.path, owner))
        try:
            with lock, _connect(file) as connection:
                yield _OpenFile(connection, replace(file, limit=math.inf))
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)


@dataclass(frozen=True)
class _OpenFile:
    """The file, opened."""

    connection: sqlite3.Connection
    file: _File

    def select(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.file.once_free(lambda: self.connection.execute(sql, parameters).fetchall())

    def write(self, do: Callable[[sqlite3.Cursor], Result]) -> Result:
        with _transaction(self.connection, self.file):
            return do(self.connection.cursor())

    @contextmanager
    def if_dead(self, owner: str) -> Iterator[bool]:
        lock = FileLock(_lock_file(self.file.path, owner), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)

    @contextmanager
    def hasty(self) -> Iterator["_OpenFile"]:
        yield replace(self, file=replace(self.file, limit=0.0))

    def shrink(self) -> None:
        self.file.once_free(lambda: self.connection.execute("VACUUM"))


@contextmanager
def _transaction(connection: sqlite3.Connection, file: _File) -> Iterator[None]:
    file.once_free(lambda: connection.execute("BEGIN IMMEDIATE"))
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _connect(file: _File) -> Iterator[sqlite3.Connection]:
    """A connection with a write-ahead log.

    Those that open and close take turns: while the log is begun or ended, SQLite refuses others at
    once, however long they would wait.
    """
    with file.turn():
        connection = sqlite3.connect(file.path, timeout=FIRST_SAID, isolation_level=None)
        file.once_free(lambda: _set_up(connection))
    try:
        yield connection
    except BaseException:
        connection.close()
        raise
    with replace(file, limit=math.inf).turn():  # the work is done
        connection.close()


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # Safe when the process is killed; moments may be lost when the power fails.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")  # whether or not Python's SQLite has it on
    connection.executescript(TABLES)


def _lock_file(path: Path, owner: str) -> str:
    return f"{path}.{owner}.lock"
