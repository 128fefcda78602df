"""Answers of language models: each is kept as it arrives, and never paid for again.

They stand beside the warehouse, since an answer must be safe the moment it is there and several
runs write at once: in a SQLite file of the home (`answers_sqlite.py`), or, where several machines
share a DuckLake, in its Postgres (`answers_postgres.py`). DuckDB lets in one process at a time;
opened for each answer it takes 60 ms, and SQLite with a write-ahead log 0.05 ms
(benchmarks/question_throughput.py).
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import dagster as dg

from embed_assets.errors import BusyError
from embed_assets.lake_address import lake_address
from embed_assets.resources.answers_sqlite import SqliteAnswers
from embed_assets.settings import Settings

_BLOCK = 500  # keys in one statement
KEEP = (
    "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
    "model = excluded.model, prompt_version = excluded.prompt_version, reply = excluded.reply, "
    "input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens, "
    "session = excluded.session, created_at = excluded.created_at"
)
PATIENCE = 60.0
"""Seconds to wait for others before there is anything to lose."""

Result = TypeVar("Result")


class Cursor(Protocol):
    """What takes statements, their parameters marked by ?."""

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        ...

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any:
        """Run a statement; what comes back has `fetchone`, `fetchall` and `rowcount`."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any:
        """Run a statement for each row of parameters."""
        ...


class Answers(Protocol):
    """Where answers are kept, opened for one run."""

    def select(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        ...

    def write(self, do: Callable[[Cursor], Result]) -> Result:
        """What `do` gives, whose statements are there together, or none of them."""
        ...

    def if_dead(self, owner: str) -> AbstractContextManager[bool]:
        """Whether nobody is there any more who opened this under a name; nobody comes meanwhile."""
        ...

    def hasty(self) -> AbstractContextManager["Answers"]:
        """The same, which waits for nobody: BusyError at once."""
        ...

    def shrink(self) -> None:
        """Take the bytes of what was deleted out of it."""
        ...


class Place(Protocol):
    """Where answers are kept."""

    @property
    def is_there(self) -> bool:
        """Whether any answer was ever kept."""
        ...

    def open(self, owner: str = "") -> AbstractContextManager[Answers]:
        """Open it. owner: the name under which it is known until then who has it open.

        BusyError where others hold it for too long. Once it is open they are waited for as long as
        it takes: what is stored was paid for.
        """
        ...


@dataclass(frozen=True)
class Reply:
    """What a model wrote, and what that took. Tokens are those of all calls that it needed."""

    text: str
    input_tokens: int
    output_tokens: int
    created_at: datetime


class AnswerStore(dg.ConfigurableResource):
    """Every answer under its key, whichever run asked for it.

    path: of the SQLite file. lake: address of the DuckLake whose Postgres takes its place, if any.
    """

    path: str
    lake: str = ""
    patience: float = PATIENCE

    @classmethod
    def of(cls, settings: Settings) -> "AnswerStore":
        """The store that the settings name."""
        return cls(path=str(settings.answers), lake=settings.warehouse)

    def _place(self, log: Callable[[str], object] | None = None) -> Place:
        if not self.lake:
            return SqliteAnswers(Path(self.path), self.patience, log)
        from embed_assets.resources.answers_postgres import PostgresAnswers

        catalog = lake_address(self.lake, "EMBED_ASSETS_WAREHOUSE").catalog
        return PostgresAnswers(catalog, self.patience, log)

    @contextmanager
    def open(
        self,
        model: str,
        prompt_version: str,
        session: str,
        log: Callable[[str], object] | None = None,
    ) -> Iterator["OpenAnswers"]:
        """The answers of a model, for one run. BusyError where others hold the store for too long.

        session: whose spending limit the run's calls count to. log: is told who is waited for.
        """
        owner = uuid.uuid4().hex
        with self._place(log).open(owner) as opened:
            answers = OpenAnswers(opened, owner, model, prompt_version, session)
            try:
                yield answers
            except BaseException:
                # Whoever stops it waits for nobody; what is left, the next run frees.
                with suppress(BusyError), opened.hasty() as hasty:
                    replace(answers, kept=hasty).release()
                raise
            answers.release()

    def documents(self) -> set[str]:
        """Ids of the documents that answers are known to be about."""
        place = self._place()
        if not place.is_there:
            return set()
        with place.open() as opened:
            return {row[0] for row in opened.select("SELECT DISTINCT document_id FROM uses")}

    def forget(self, document_ids: Sequence[str], quotes: Callable[[str], bool]) -> int:
        """Delete the answers about documents, to the byte; gives how many there were.

        Those of before it was noted whom an answer is about are known by their words, and so are
        those that another document once had too. quotes: whether a text is about these documents
        alone.
        """
        place = self._place()
        if not place.is_there:
            return 0
        with place.open() as opened:
            deleted = opened.write(lambda cursor: _forget(cursor, set(document_ids), quotes))
            opened.shrink()
        return deleted


@dataclass(frozen=True)
class OpenAnswers:
    """The store as one run sees it. owner: names the run to others."""

    kept: Answers
    owner: str
    model: str
    prompt_version: str
    session: str

    def use(self, keys: Iterable[tuple[str, str]]) -> None:
        """Note which documents answers are about. keys: document_id and key."""
        rows = sorted(keys)  # in other orders two that write the same would wait for each other
        noted = "INSERT INTO uses VALUES (?, ?) ON CONFLICT DO NOTHING"
        self.kept.write(lambda cursor: cursor.executemany(noted, rows))

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
        row = (
            *(key, self.model, self.prompt_version),
            *(reply.text, reply.input_tokens, reply.output_tokens),
            *(self.session, reply.created_at.isoformat()),
        )

        def keep(cursor: Cursor) -> None:
            cursor.execute(KEEP, row)
            cursor.execute("DELETE FROM claims WHERE key = ?", (key,))

        self.kept.write(keep)

    def spend(self, input_tokens: int, output_tokens: int) -> None:
        """Put a call's tokens on this session's bill, whether or not its reply is of use."""
        self._run(
            "INSERT INTO bills VALUES (?, ?, ?) ON CONFLICT (session) DO UPDATE SET "
            "input_tokens = bills.input_tokens + excluded.input_tokens, "
            "output_tokens = bills.output_tokens + excluded.output_tokens",
            (self.session, input_tokens, output_tokens),
        )

    def spent(self) -> tuple[int, int]:
        """Input and output tokens that this session's calls took, in every run of it."""
        rows = self.kept.select(
            "SELECT input_tokens, output_tokens FROM bills WHERE session = ?", (self.session,)
        )
        return rows[0] if rows else (0, 0)

    def claim(self, key: str) -> bool:
        """Take a key to answer. False where it has an answer, or another run is at it."""

        def take(cursor: Cursor) -> bool:
            # The claim comes first: where transactions go on side by side, an answer that another
            # run gives just now is seen once that run's claim is gone.
            taken = "INSERT INTO claims VALUES (?, ?) ON CONFLICT DO NOTHING"
            cursor.execute(taken, (key, self.owner))
            if cursor.rowcount != 1:
                return False
            found = cursor.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone()
            if found:
                cursor.execute("DELETE FROM claims WHERE key = ?", (key,))
            return not found

        return self.kept.write(take)

    def give_back(self, key: str) -> None:
        """Let others take a key that has no answer."""
        self._run("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self.owner))

    def release(self) -> None:
        """Give back everything that was claimed and not answered."""
        self._release(self.owner)

    def release_dead(self) -> None:
        """Free what runs claimed that are no longer alive."""
        others = "SELECT DISTINCT owner FROM claims WHERE owner <> ?"
        for (owner,) in self.kept.select(others, (self.owner,)):
            with self.kept.if_dead(owner) as is_dead:
                if is_dead:
                    self._release(owner)

    def _release(self, owner: str) -> None:
        self._run("DELETE FROM claims WHERE owner = ?", (owner,))

    def _of_keys(self, columns: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        marks = ", ".join("?" * len(keys))
        return self.kept.select(f"SELECT {columns} WHERE key IN ({marks})", keys)

    def _run(self, sql: str, parameters: Sequence[Any]) -> None:
        self.kept.write(lambda cursor: cursor.execute(sql, parameters))


def _forget(cursor: Cursor, ids: Collection[str], quotes: Callable[[str], bool]) -> int:
    answers = cursor.execute("SELECT key, reply FROM answers").fetchall()
    quoting = {key for key, reply in answers if quotes(reply)}
    uses = cursor.execute("SELECT document_id, key FROM uses").fetchall()
    of_others = {key for document_id, key in uses if document_id not in ids}
    used = {key for document_id, key in uses if document_id in ids}
    # What is noted to be about others alone may share a sentence with these.
    quoting -= of_others - used
    deleted = 0
    for block in _blocks([*quoting.union(used - of_others)]):
        marks = ", ".join("?" * len(block))
        for table in ("uses", "answers"):
            cursor.execute(f"DELETE FROM {table} WHERE key IN ({marks})", block)
        deleted += cursor.rowcount
    cursor.executemany("DELETE FROM uses WHERE document_id = ?", [(k,) for k in ids])
    return deleted


def reply_now(text: str, input_tokens: int, output_tokens: int) -> Reply:
    """A reply that has just arrived."""
    return Reply(text, input_tokens, output_tokens, datetime.now(UTC))


def _blocks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + _BLOCK] for start in range(0, len(keys), _BLOCK))
