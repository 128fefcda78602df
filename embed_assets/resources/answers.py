"""Answers of language models: each is kept as it arrives, and never paid for again.

They stand in a SQLite file beside the warehouse, since an answer must be safe the moment it is
there and several runs write at once. DuckDB lets in one process at a time; opened for each answer
it takes 60 ms, and SQLite with a write-ahead log 0.05 ms (benchmarks/question_throughput.py).
"""

import math
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import dagster as dg
from filelock import FileLock, Timeout

from embed_assets.errors import BusyError
from embed_assets.resources.waiting import FIRST_SAID, Wait

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt_version TEXT NOT NULL, reply TEXT NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, session TEXT NOT NULL,
    created_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bills (
    session TEXT PRIMARY KEY, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uses (
    document_id TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (document_id, key)
) WITHOUT ROWID;
"""
_BLOCK = 500  # keys in one statement
PATIENCE = 60.0
"""Seconds to wait for others before there is anything to lose."""
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
class Reply:
    """What a model wrote, and what that took. Tokens are those of all calls that it needed."""

    text: str
    input_tokens: int
    output_tokens: int
    created_at: datetime


class AnswerStore(dg.ConfigurableResource):
    """Every answer under its key, whichever run asked for it."""

    path: str
    patience: float = PATIENCE

    @contextmanager
    def open(
        self,
        model: str,
        prompt_version: str,
        session: str,
        log: Callable[[str], object] | None = None,
    ) -> Iterator["OpenAnswers"]:
        """The answers of a model, for one run. BusyError where others hold the store for too long.

        Once it is open they are waited for as long as it takes: what is stored was paid for.
        session: whose spending limit the run's calls count to. log: is told who is waited for.
        """
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        file, owner = _File(path, self.patience, log), uuid.uuid4().hex
        # Held while this run lives, and let go by the system if it is killed.
        lock = FileLock(_lock_file(path, owner))
        try:
            with lock, _connect(file) as connection:
                patient = replace(file, limit=math.inf)
                answers = OpenAnswers(connection, patient, owner, model, prompt_version, session)
                try:
                    yield answers
                except BaseException:
                    # Whoever stops it waits for nobody; what is left, the next run frees.
                    with suppress(BusyError):
                        replace(answers, file=replace(file, limit=0.0)).release()
                    raise
                answers.release()
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)

    def documents(self) -> set[str]:
        """Ids of the documents that answers are known to be about."""
        path = Path(self.path)
        if not path.is_file():
            return set()
        with _connect(_File(path, self.patience)) as connection:
            return {row[0] for row in connection.execute("SELECT DISTINCT document_id FROM uses")}

    def forget(self, document_ids: Sequence[str], quotes: Callable[[str], bool]) -> int:
        """Delete the answers about documents, to the byte; gives how many there were.

        Those of before it was noted whom an answer is about are known by their words, and so are
        those that another document once had too. quotes: whether a text is about these documents
        alone.
        """
        path = Path(self.path)
        if not path.is_file():
            return 0
        file = _File(path, self.patience)
        with _connect(file) as connection:
            with _transaction(connection, file):
                deleted = _forget(connection, set(document_ids), quotes)
            file.once_free(lambda: connection.execute("VACUUM"))
        return deleted


@dataclass(frozen=True)
class OpenAnswers:
    """The store as one run sees it. owner: names the run to others."""

    connection: sqlite3.Connection
    file: _File
    owner: str
    model: str
    prompt_version: str
    session: str

    def use(self, keys: Iterable[tuple[str, str]]) -> None:
        """Note which documents answers are about. keys: document_id and key."""
        with self._transaction():
            self.connection.executemany("INSERT OR IGNORE INTO uses VALUES (?, ?)", keys)

    def known(self, keys: Sequence[str]) -> set[str]:
        """Which of these keys have an answer."""
        return {
            row[0] for block in _blocks(keys) for row in self._of_keys("key FROM answers", block)
        }

    def replies(self, keys: Sequence[str]) -> Iterator[tuple[str, Reply]]:
        """Answers under these keys, a block at a time, in no particular order."""
        columns = "key, reply, input_tokens, output_tokens, created_at FROM answers"
        for block in _blocks(keys):
            for key, text, read, written, created in self._of_keys(columns, block):
                yield key, Reply(text, read, written, datetime.fromisoformat(created))

    def put(self, key: str, reply: Reply) -> None:
        """Keep an answer; on return it survives the end of this process."""
        with self._transaction():
            self.connection.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(key, self.model, self.prompt_version),
                    *(reply.text, reply.input_tokens, reply.output_tokens),
                    *(self.session, reply.created_at.isoformat()),
                ),
            )
            self.connection.execute("DELETE FROM claims WHERE key = ?", (key,))

    def spend(self, input_tokens: int, output_tokens: int) -> None:
        """Put a call's tokens on this session's bill, whether or not its reply is of use."""
        with self._transaction():
            self.connection.execute(
                "INSERT INTO bills VALUES (?, ?, ?) ON CONFLICT (session) DO UPDATE SET "
                "input_tokens = input_tokens + excluded.input_tokens, "
                "output_tokens = output_tokens + excluded.output_tokens",
                (self.session, input_tokens, output_tokens),
            )

    def spent(self) -> tuple[int, int]:
        """Input and output tokens that this session's calls took, in every run of it."""
        rows = self._select(
            "SELECT input_tokens, output_tokens FROM bills WHERE session = ?", (self.session,)
        )
        return rows[0] if rows else (0, 0)

    def claim(self, key: str) -> bool:
        """Take a key to answer. False where it has an answer, or another run is at it."""
        with self._transaction():
            if self.connection.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone():
                return False
            taken = self.connection.execute(
                "INSERT OR IGNORE INTO claims VALUES (?, ?)", (key, self.owner)
            )
            return taken.rowcount == 1

    def give_back(self, key: str) -> None:
        """Let others take a key that has no answer."""
        with self._transaction():
            self.connection.execute(
                "DELETE FROM claims WHERE key = ? AND owner = ?", (key, self.owner)
            )

    def release(self) -> None:
        """Give back everything that was claimed and not answered."""
        self._release(self.owner)

    def release_dead(self) -> None:
        """Free what runs claimed that are no longer alive."""
        owners = self._select("SELECT DISTINCT owner FROM claims WHERE owner <> ?", (self.owner,))
        for (owner,) in owners:
            lock = FileLock(_lock_file(self.file.path, owner), timeout=0)
            try:
                with lock:
                    self._release(owner)
            except Timeout:
                continue
            Path(lock.lock_file).unlink(missing_ok=True)

    def _release(self, owner: str) -> None:
        with self._transaction():
            self.connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))

    def _of_keys(self, columns: str, keys: Sequence[str]) -> list[tuple]:
        marks = ", ".join("?" * len(keys))
        return self._select(f"SELECT {columns} WHERE key IN ({marks})", keys)

    def _select(self, sql: str, parameters: Sequence[str]) -> list[tuple]:
        return self.file.once_free(lambda: self.connection.execute(sql, parameters).fetchall())

    def _transaction(self) -> AbstractContextManager[None]:
        return _transaction(self.connection, self.file)


def _forget(
    connection: sqlite3.Connection, ids: Collection[str], quotes: Callable[[str], bool]
) -> int:
    quoting = {
        key for key, reply in connection.execute("SELECT key, reply FROM answers") if quotes(reply)
    }
    uses = connection.execute("SELECT document_id, key FROM uses").fetchall()
    of_others = {key for document_id, key in uses if document_id not in ids}
    used = {key for document_id, key in uses if document_id in ids}
    # What is noted to be about others alone may share a sentence with these.
    quoting -= of_others - used
    deleted = 0
    for block in _blocks([*quoting.union(used - of_others)]):
        marks = ", ".join("?" * len(block))
        for table in ("uses", "answers"):
            found = connection.execute(f"DELETE FROM {table} WHERE key IN ({marks})", block)
        deleted += found.rowcount
    connection.executemany("DELETE FROM uses WHERE document_id = ?", [(k,) for k in ids])
    return deleted


def reply_now(text: str, input_tokens: int, output_tokens: int) -> Reply:
    """A reply that has just arrived."""
    return Reply(text, input_tokens, output_tokens, datetime.now(UTC))


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
    connection.executescript(_TABLES)


def _blocks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + _BLOCK] for start in range(0, len(keys), _BLOCK))


def _lock_file(path: Path, owner: str) -> str:
    return f"{path}.{owner}.lock"
