"""Answers in Postgres, for the runs of several machines.

A run is known to live by a lock of Postgres, which opens when its connection ends. What a lost
connection undid is done again, and what was committed before its answer was lost is not.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from embed_assets.errors import BusyError
from embed_assets.resources.answers_tables import TABLES
from embed_assets.resources.postgres import connect, persistently

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Session
    from psycopg2.extensions import cursor as PostgresCursor

SCHEMA = "embed_assets"
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_UNTIL_DEAD = 5.0
"""For which nobody holds the lock of a run that is taken for dead."""
LOCKS = 0x616E73
"""What the locks of this module begin with among those of Postgres, each of two numbers."""
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
        sessions = _Sessions(self.address)
        opened = _OpenDatabase(sessions, self.patience, self.log)
        try:
            opened.write(_make)
            with _living(self.address, owner) if owner else nullcontext():
                yield replace(opened, limit=math.inf)
        finally:
            sessions.close()


@contextmanager
def _living(address: str, owner: str) -> Iterator[None]:
    """In the block a run is known to live: a session of its own holds a lock of its name.

    Where Postgres is restarted the lock is taken again within moments, whatever the run is at.
    """
    from psycopg2 import Error as PostgresError

    ended, held = threading.Event(), threading.Event()

    def hold() -> None:
        while not ended.is_set():
            with (
                suppress(PostgresError),  # whoever uses the answers says so
                closing(connect(address)) as session,
                session.cursor() as cursor,
            ):
                cursor.execute(f"SELECT pg_advisory_lock({LOCKS}, hashtext(%s))", [owner])
                held.set()
                while not ended.wait(SECONDS_BETWEEN_LOOKS):
                    cursor.execute("SELECT 1")
            ended.wait(SECONDS_BETWEEN_LOOKS)

    thread = threading.Thread(target=hold, name=f"holds {owner}", daemon=True)
    thread.start()
    held.wait(SECONDS_UNTIL_DEAD)
    try:
        yield
    finally:
        ended.set()
        thread.join(SECONDS_UNTIL_DEAD)


class _Sessions:
    """The session of a run, and the next one where it is lost."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._session: Session | None = None

    def current(self) -> "Session":
        """The session."""
        if self._session is None:
            session = connect(self.address)
            try:
                with session.cursor() as cursor:
                    cursor.execute(f"SET search_path = {SCHEMA}")
            except BaseException:
                session.close()
                raise
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
        made: list[tuple[str, Result]] = []

        def once() -> Result:
            session = self.sessions.current()
            if made and _is_committed(session, made[-1][0]):  # its answer was lost
                return made[-1][1]
            made.clear()
            with session, session.cursor() as cursor:  # a transaction
                result = do(_Cursor(cursor))
                cursor.execute("SELECT pg_current_xact_id_if_assigned()::text")
                [written] = cursor.fetchone() or [None]
                if written:
                    made.append((written, result))
            return result

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
        # One whose session was lost takes its lock again within moments.
        if not self._take_lock_of(owner):
            yield False
            return
        self._give_lock_of(owner)
        time.sleep(SECONDS_UNTIL_DEAD)
        is_dead = self._take_lock_of(owner)
        try:
            yield is_dead
        finally:
            if is_dead:
                self._give_lock_of(owner)

    def _take_lock_of(self, owner: str) -> bool:
        [(taken,)] = self.select(f"SELECT pg_try_advisory_lock({LOCKS}, hashtext(?))", [owner])
        return taken

    def _give_lock_of(self, owner: str) -> None:
        self.select(f"SELECT pg_advisory_unlock({LOCKS}, hashtext(?))", [owner])

    @contextmanager
    def hasty(self) -> Iterator["_OpenDatabase"]:
        yield replace(self, limit=0.0)

    def shrink(self) -> None:
        def vacuum() -> None:
            with self.sessions.current().cursor() as cursor:
                cursor.execute("ANALYZE answers, uses")  # the statistics quote values too
                cursor.execute("VACUUM FULL answers, uses, pg_catalog.pg_statistic")

        persistently(vacuum, self.sessions.address, self.limit, log=self.log)


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


def _is_committed(session: "Session", transaction: str) -> bool:
    with session.cursor() as cursor:
        cursor.execute("SELECT pg_xact_status(%s::xid8)", [transaction])
        return cursor.fetchone() == ("committed",)


def _make(cursor: _Cursor) -> None:
    """Make the tables. Two that make the same at once would fail."""
    cursor.execute(f"SELECT pg_advisory_xact_lock({LOCKS}, 0)")
    cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    cursor.execute(TABLES)
