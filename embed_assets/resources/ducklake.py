"""The tables in a DuckLake: a catalogue in Postgres, Parquet files in a folder or a bucket.

Any number of machines read, and writers take turns by a lock of Postgres, which opens when the
connection of its holder ends. A DuckLake itself sees that two writers delete the same rows, and not
that both insert the same key. What a lost connection or another writer undid is done again.
"""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from embed_assets.errors import ProjectError
from embed_assets.lake_address import LakeAddress
from embed_assets.resources.duckdb_connection import (
    Result,
    Statements,
    WarehouseBusyError,
    WarehouseError,
    quoted,
    until_stopped,
)
from embed_assets.resources.postgres import EXTRA, connect, is_out_of_reach, own_name, persistently
from embed_assets.resources.waiting import Wait

if TYPE_CHECKING:
    from psycopg2.extensions import connection as PostgresConnection

LAKE = "lake"
TURN = 0x656D6265
"""Number of the lock that a writer holds in the catalogue's database."""
LOOK_AGAIN = 2000
"""Milliseconds that Postgres waits for the lock before it is said who has it."""
LOST = (
    duckdb.IOException,
    duckdb.HTTPException,
    duckdb.TransactionException,
    duckdb.ConnectionException,
)
"""What DuckDB raises where a file is out of reach, or another writer was first. Where the catalogue
is, it is also an Error of no class of its own."""
OURS = duckdb.ConstraintException, duckdb.ConversionException
"""What says of rows that they are wrong."""
DOUBTED = 5
"""Times in a row that any other error of DuckDB's is taken for a loss: a query of DuckLake's own
that broke off has been an InvalidInputException and a BinderException, as a wrong statement is."""


@dataclass(frozen=True)
class LakeStore:
    """Tables in a DuckLake. timeout: seconds that others are waited for, and what can't be reached.

    log: is told so, beside the terminal.
    """

    address: LakeAddress
    timeout: float
    log: Callable[[str], object] | None = None
    keeps_keys = False
    is_writable = True

    @property
    def name(self) -> str:
        """Its address."""
        return str(self.address)

    @property
    def identity(self) -> tuple[str, int]:
        """Its address."""
        return self.name, 0

    @property
    def is_there(self) -> bool:
        """Whether anything was ever written. WarehouseError where that can't be told."""
        if self.identity not in _found and self._persistently(self._has_catalogue):
            _found.add(self.identity)
        return self.identity in _found

    @property
    def size_bytes(self) -> int:
        """Size of all files that the catalogue names, those of before included."""
        sizes = "SELECT file_size_bytes FROM ducklake_data_file"
        sizes += " UNION ALL SELECT file_size_bytes FROM ducklake_delete_file"

        def ask() -> int:
            with closing(connect(self.address.catalog)) as session, session.cursor() as cursor:
                cursor.execute(f"SELECT coalesce(sum(file_size_bytes), 0) FROM ({sizes}) AS f")
                return int(cursor.fetchone()[0])  # pyright: ignore[reportOptionalSubscript]

        return self._persistently(ask)

    def holds(self, file: Path) -> bool:
        """Whether a file is in its folder."""
        folder = self.address.folder
        return folder is not None and folder in file.parents

    def _has_catalogue(self) -> bool:
        with closing(connect(self.address.catalog)) as session, session.cursor() as cursor:
            cursor.execute("SELECT to_regclass('ducklake_snapshot') IS NOT NULL")
            return bool(cursor.fetchone()[0])  # pyright: ignore[reportOptionalSubscript]

    def read(self, use: Callable[[duckdb.DuckDBPyConnection], Result]) -> Result:
        """What `use` makes of a connection that can't write, however often it is lost meanwhile."""

        def try_it() -> Result:
            with until_stopped(self._connect(read_only=True)) as connection:
                return use(connection)

        return self._persistently(try_it)

    def kept_open(self) -> nullcontext[None]:
        """None: what takes long to open stays open."""
        return nullcontext()

    @contextmanager
    def transaction(
        self, prepare: Callable[[Statements], None] | None = None
    ) -> Iterator[Statements]:
        """A transaction, committed at the end of the block."""
        if prepare and self.identity not in _prepared:  # it takes longer than most transactions
            with self.transaction() as statements:
                prepare(statements)
            _prepared.add(self.identity)
        with _Repeatable(self) as statements:
            yield statements
            statements.commit()

    def compact(self, keep: timedelta) -> None:
        """Put small files together, and delete what no snapshot younger than `keep` needs.

        Others may read and write meanwhile; what they read of before is read again as it is now.
        """
        expired = f"older_than => now() - INTERVAL {int(keep.total_seconds())} SECOND"
        for call in (
            "ducklake_flush_inlined_data($lake)",
            "ducklake_rewrite_data_files($lake, delete_threshold => 0)",
            "ducklake_merge_adjacent_files($lake)",
            f"ducklake_expire_snapshots($lake, {expired})",
            "ducklake_cleanup_old_files($lake, cleanup_all => true)",
            "ducklake_delete_orphaned_files($lake, cleanup_all => true)",
        ):
            self._persistently(lambda call=call: self._call(call.replace("$lake", f"'{LAKE}'")))
        self._persistently(lambda: self._vacuum(full=not keep))

    def _call(self, call: str) -> None:
        with self.turn(), until_stopped(self._connect(read_only=False)) as connection:
            connection.execute(f"CALL {call}").fetchall()

    def _vacuum(self, *, full: bool) -> None:
        """Take what was deleted out of Postgres too: rows too few for a file, columns' bounds.

        A table's bounds only ever widen; without any, its files' own are looked at. full: to the
        byte, while nobody else reads.
        """
        with self.turn() as session, session.cursor() as cursor:
            cursor.execute(
                "UPDATE ducklake_table_column_stats SET min_value = NULL, max_value = NULL"
            )
            cursor.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                "WHERE schemaname = 'public' AND tablename LIKE 'ducklake%'"
            )
            tables = ", ".join(name for (name,) in cursor.fetchall())
            cursor.execute(f"ANALYZE {tables}")  # the statistics quote values too
            cursor.execute(f"VACUUM {'FULL ' if full else ''}{tables}, pg_catalog.pg_statistic")

    @contextmanager
    def turn(self) -> Iterator["PostgresConnection"]:
        """Our turn among those that write, wherever they are. WarehouseBusyError after the limit.

        Gives the session of Postgres that has it: should it be lost, so is the turn.
        """
        from psycopg2.errors import LockNotAvailable

        wait = Wait(self.name, self.timeout, self.log, lambda _: self._writers())
        with closing(connect(self.address.catalog)) as session, session.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {LOOK_AGAIN}")
            while True:
                try:
                    cursor.execute("SELECT pg_advisory_lock(%s)", [TURN])
                    break
                except LockNotAvailable:
                    if not wait.goes_on(self.name):
                        raise WarehouseBusyError(
                            f"{self.name}: others wrote to the tables for {self.timeout:.0f} s "
                            f"({wait.whom}). Wait for them to end, or stop them, and try again."
                        ) from None
            cursor.execute("SET lock_timeout = 0")
            yield session

    def _writers(self) -> list[str]:
        """Who has the turn, by what it calls itself."""
        with closing(connect(self.address.catalog)) as session, session.cursor() as cursor:
            cursor.execute(
                "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
                "WHERE l.locktype = 'advisory' AND l.objid = %s AND l.granted "
                "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                [TURN],
            )
            return [row[0] for row in cursor.fetchall()]

    def _connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """A connection of this process's instance of DuckDB that has the tables attached."""
        with _opening:
            instance = _instances.get((self.name, read_only))
            if instance is None:
                instance = _Instance(self.address, read_only=read_only)
                _instances[self.name, read_only] = instance
            return instance.connection()

    def _persistently(self, use: Callable[[], Result]) -> Result:
        """What `use` gives, once it can be had. WarehouseError where it can't within the limit."""
        return persistently(
            use,
            self.name,
            self.timeout,
            log=self.log,
            is_lost=_loss_or_doubt(),
            lost=self._drop_instances,
            error=WarehouseError,
        )

    def _drop_instances(self) -> None:
        """Have the next connections made anew."""
        with _opening:
            for read_only in (True, False):
                _instances.pop((self.name, read_only), None)
        _found.discard(self.identity)
        _prepared.discard(self.identity)


_opening = threading.Lock()
_instances: dict[tuple[str, bool], "_Instance"] = {}
"""By address, and whether only to read: to make one takes half a second."""
_found: set[tuple[str, int]] = set()
"""Lakes that are known to be there."""
_prepared: set[tuple[str, int]] = set()
"""Lakes whose tables are known to be there."""


@dataclass(frozen=True)
class _Fetched:
    """What a statement gave."""

    rows: list[Any]

    def fetchall(self) -> list[Any]:
        return self.rows


class _Repeatable:
    """The statements of a transaction, which are run again from the first one where it is undone.

    Where a commit's answer was lost, the catalogue is asked whether it took place: it has the
    commit's message.
    """

    def __init__(self, store: LakeStore) -> None:
        self._store, self._statements = store, list[Callable[[duckdb.DuckDBPyConnection], Any]]()
        self._message = uuid.uuid4().hex
        self._may_be_committed = False
        self._open = ExitStack()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._session: PostgresConnection | None = None

    def __enter__(self) -> "_Repeatable":
        self._again()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def execute(self, query: str, parameters: Sequence[Any] = (), /) -> Any:
        """Run a statement, and fetch all that it gives: the connection may be lost in between."""
        return self._run(
            lambda connection: _Fetched(connection.execute(query, list(parameters)).fetchall())
        )

    def register(self, view_name: str, python_object: Any, /) -> Any:
        """Let statements read an Arrow table under a name."""
        return self._run(lambda connection: connection.register(view_name, python_object))

    def commit(self) -> None:
        """Have everything there. WarehouseError where that can't be had within the limit."""
        self._run(self._commit)

    def _commit(self, connection: duckdb.DuckDBPyConnection) -> None:
        with self._session.cursor() as cursor:  # pyright: ignore[reportOptionalMemberAccess]
            cursor.execute("SELECT 1")  # the turn is still ours
        message = f"'{self._message}'"
        connection.execute(f"CALL ducklake_set_commit_message('{LAKE}', '{own_name()}', {message})")
        self._may_be_committed = True
        connection.commit()

    def _run(self, statement: Callable[[duckdb.DuckDBPyConnection], Any]) -> Any:
        self._statements.append(statement)
        try:
            return statement(self._connection)  # pyright: ignore[reportArgumentType]
        except Exception as error:
            if not _loss_or_doubt()(error):
                raise
        return self._again()

    def _again(self) -> Any:
        """Run everything; gives what the last statement gave."""
        return self._store._persistently(self._all)

    def _all(self) -> Any:
        self._open.close()
        with ExitStack() as opened:
            self._session = opened.enter_context(self._store.turn())
            if self._may_be_committed and self._is_committed(self._session):
                return None
            self._may_be_committed = False
            connection = self._store._connect(read_only=False)
            self._connection = opened.enter_context(until_stopped(connection))
            opened.callback(_roll_back, connection)
            self._connection.execute("SET TimeZone = 'UTC'")
            self._connection.begin()
            results = [statement(self._connection) for statement in self._statements]
            self._open = opened.pop_all()
        return results[-1] if results else None

    def _is_committed(self, session: "PostgresConnection") -> bool:
        with session.cursor() as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT FROM ducklake_snapshot_changes WHERE commit_message = %s)",
                [self._message],
            )
            return cursor.fetchone() == (True,)


def _loss_or_doubt() -> Callable[[BaseException], bool]:
    """Says of one error after the other whether another try may succeed where it came."""
    doubted = 0

    def may_succeed(error: BaseException) -> bool:
        nonlocal doubted
        if isinstance(error, LOST) or type(error) is duckdb.Error or is_out_of_reach(error):
            doubted = 0
            return True
        doubted += 1
        in_doubt = isinstance(error, duckdb.Error) and not isinstance(error, OURS)
        return in_doubt and doubted <= DOUBTED

    return may_succeed


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    """End what is not committed: closing does so too, and where Postgres is lost, by an abort."""
    with suppress(duckdb.Error):
        connection.rollback()


class _Instance:
    """An instance of DuckDB with the tables attached."""

    def __init__(self, address: LakeAddress, *, read_only: bool) -> None:
        self._in_bucket, self._secret = address.folder is None, ""
        self._root = duckdb.connect(":memory:")
        _load(self._root, "ducklake", "postgres_scanner", *(["httpfs"] if self._in_bucket else []))
        self._tell_secret()
        options = f"DATA_PATH '{quoted(address.tables)}'" + (", READ_ONLY" if read_only else "")
        catalog = quoted(address.catalog)
        self._root.execute(f"ATTACH 'ducklake:postgres:{catalog}' AS {LAKE} ({options})")

    def connection(self) -> duckdb.DuckDBPyConnection:
        """A connection to it that may be used beside others."""
        self._tell_secret()
        connection = self._root.cursor()
        connection.execute(f"USE {LAKE}")
        return connection

    def _tell_secret(self) -> None:
        """How the bucket is reached now: keys may expire."""
        if self._in_bucket and (secret := _secret()) != self._secret:
            self._root.execute(secret)
            self._secret = secret


def _load(connection: duckdb.DuckDBPyConnection, *extensions: str) -> None:
    """Load extensions of DuckDB that are installed as packages: nothing is downloaded."""
    for name in extensions:
        try:
            package = files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}"
        except ModuleNotFoundError as error:
            raise ProjectError(f"A DuckLake needs more packages: {EXTRA}.") from error
        file = package / f"{name}.duckdb_extension"
        if not file.is_file():
            raise ProjectError(
                f"duckdb-extension-{name.replace('_', '-')} is of another version than duckdb "
                f"{duckdb.__version__}: {EXTRA}."
            )
        connection.execute(f"LOAD '{quoted(str(file))}'")


def _secret() -> str:
    """The statement that tells DuckDB how to reach a bucket.

    Keys, profiles, roles, endpoint and region are those of the AWS SDK: its environment variables
    and files. Keys that expire are asked for again.
    """
    credentials, endpoint, region = _bucket_access()
    options = {"REGION": region, "URL_STYLE": "vhost"}
    if "amazonaws.com" not in endpoint:
        scheme, _, host = endpoint.partition("://")
        options |= {"ENDPOINT": host, "URL_STYLE": "path", "USE_SSL": str(scheme == "https")}
    if credentials is not None:
        now = credentials.get_frozen_credentials()
        options |= {"KEY_ID": now.access_key, "SECRET": now.secret_key}
        options |= {"SESSION_TOKEN": now.token} if now.token else {}
    said = ", ".join(f"{name} '{quoted(str(value))}'" for name, value in options.items())
    return f"CREATE OR REPLACE SECRET bucket (TYPE s3, {said})"


@lru_cache(maxsize=1)
def _bucket_access() -> tuple[Any, str, str]:
    """Credentials that renew themselves, endpoint, and region."""
    try:
        from botocore.session import get_session
    except ImportError as error:
        raise ProjectError(
            "A DuckLake in a bucket needs more packages: pip install 'embed_assets[ducklake,s3]'."
        ) from error
    session = get_session()
    region = session.get_config_variable("region") or "us-east-1"
    client = session.create_client("s3", region_name=region)
    return session.get_credentials(), client.meta.endpoint_url, region
