"""Answers in Postgres, for the runs of several machines.

A run is known to live by a lock of Postgres, which opens when its connection ends. What a lost
connection undid is done again.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from embed_assets.errors import BusyError
from embed_assets.resources.postgres import connect, persistently

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Session
    from psycopg2.extensions import cursor as PostgresCursor

SCHEMA = "embed_assets"
LOCKS = 0x616E73
"""What the locks of this module begin with among those of Postgres, each of two numbers."""
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt_version TEXT NOT NULL, reply TEXT NOT NULL,
    input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL, session TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS bills (
    session TEXT PRIMARY KEY, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS uses (
    document_id TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (document_id, key)
);
"""

Result = TypeVar("Result")


@dataclass(frozen=True)
class PostgresAnswers:
    """The database. patience: seconds that it is waited for, of which `log` is told."""

    address: str
    patience: float
    log: Callable[[str], object] | None = None

    @property
    def is_there(self) -> bool:
        """Whether any answer was ever kept."""

        def look() -> bool:
            with closing(connect(self.address)) as session, session.cursor() as cursor:
                cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [f"{SCHEMA}.answers"])
                return cursor.fetchone() == (True,)

        return persistently(look, self.address, self.patience, log=self.log)

    @contextmanager
    def open(self, owner: str = "") -> Iterator["_OpenDatabase"]:
        """Open it, as `Place.open` says."""
        sessions = _Sessions(self.address, owner)
        opened = _OpenDatabase(sessions, self.patience, self.log)
        opened.write(_make)
        try:
            yield replace(opened, limit=math.inf)
        finally:
            sessions.close()


class _Sessions:
    """The session of a run, and the next one where it is lost."""

    def __init__(self, address: str, owner: str) -> None:
        self.address, self._owner = address, owner
        self._session: Session | None = None

    def current(self) -> "Session":
        """A session in which the run is known to live."""
        if self._session is None:
            session = connect(self.address)
            with session.cursor() as cursor:
                cursor.execute(f"SET search_path = {SCHEMA}")
                if self._owner:
                    # The session that was lost may have it for a moment.
                    cursor.execute(f"SELECT pg_advisory_lock({LOCKS}, hashtext(%s))", [self._owner])
            self._session = session
        return self._session

    def close(self) -> None:
        """End the session, if there is one."""
        if self._session is not None:
            self._session.close()
            self._session = None


@dataclass(frozen=True)
class _OpenDatabase:
    """The database, opened by a run. limit: seconds that it is waited for."""

    sessions: _Sessions
    limit: float
    log: Callable[[str], object] | None

    def select(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.write(lambda cursor: cursor.execute(sql, parameters).fetchall())

    def write(self, do: Callable[["_Cursor"], Result]) -> Result:
        def once() -> Result:
            session = self.sessions.current()
            with session, session.cursor() as cursor:  # a transaction
                return do(_Cursor(cursor))

        return persistently(
            once,
            self.sessions.address,
            self.limit,
            log=self.log,
            lost=self.sessions.close,
            error=BusyError,
        )

    @contextmanager
    def if_dead(self, owner: str) -> Iterator[bool]:
        lock = f"({LOCKS}, hashtext(?))"
        [(is_dead,)] = self.select(f"SELECT pg_try_advisory_lock{lock}", [owner])
        yield is_dead
        if is_dead:
            self.select(f"SELECT pg_advisory_unlock{lock}", [owner])

    @contextmanager
    def hasty(self) -> Iterator["_OpenDatabase"]:
        yield replace(self, limit=0.0)

    def shrink(self) -> None:
        session = self.sessions.current()
        with session.cursor() as cursor:
            cursor.execute("VACUUM FULL answers, uses")


class _Cursor:
    """A cursor that takes parameters marked by ?, as SQLite has them."""

    def __init__(self, cursor: "PostgresCursor") -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> "PostgresCursor":
        self._cursor.execute(sql.replace("?", "%s"), tuple(parameters))
        return self._cursor

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> None:
        from psycopg2.extras import execute_batch

        execute_batch(self._cursor, sql.replace("?", "%s"), list(parameters))


def _make(cursor: _Cursor) -> None:
    """Make the tables. Two that make the same at once would fail."""
    cursor.execute(f"SELECT pg_advisory_xact_lock({LOCKS}, 0)")
    cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    cursor.execute(_TABLES)
