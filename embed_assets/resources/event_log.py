"""Dagster's event log, written with connections that stay open.

Dagster opens a file of SQLite, or a connection to Postgres, for each statement: most of what a
document costs beside its work. Here they are kept while a process works through runs, and what
belongs to the same batch (the materializations of a run's documents) is written in one transaction.
What is written, and when it is there for others, is as Dagster has it.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

import dagster as dg

BATCH = 128
"""Events that are written together, at most."""
BATCH_SIZE = "DAGSTER_EVENT_BATCH_SIZE"
"""The variable by which Dagster hands over events in batches."""
KEPT_OPEN = 4
"""Files at a time: the index of all runs, and those of the runs that were written to last."""


@contextmanager
def kept_open(instance: dg.DagsterInstance) -> Iterator[None]:
    """Until the block ends the instance's event log keeps its connections open."""
    from dagster._core.storage.event_log import SqliteEventLogStorage  # Dagster doesn't export it

    log = instance.event_log_storage
    with _in_batches(), ExitStack() as kept:
        if type(log) is SqliteEventLogStorage:
            kept.enter_context(_files_kept_open(log))
        else:
            for storage in (log, instance.run_storage):
                kept.enter_context(_pooled(storage))
        yield


@contextmanager
def _in_batches() -> Iterator[None]:
    """Dagster hands over events that belong together as one batch."""
    before = os.environ.get(BATCH_SIZE)
    os.environ[BATCH_SIZE] = str(BATCH)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(BATCH_SIZE, None)
        else:
            os.environ[BATCH_SIZE] = before


@contextmanager
def _pooled(storage: Any) -> Iterator[None]:
    """A storage in Postgres keeps a connection, which is tried before it is used again.

    Dagster keeps one for its webserver, and would fail where Postgres has been restarted since.
    """
    from sqlalchemy import Engine, create_engine

    before = vars(storage).get("_engine")
    if not isinstance(before, Engine) or before.dialect.name != "postgresql":
        yield
        return
    options = {"isolation_level": "AUTOCOMMIT", "pool_size": 1, "pool_pre_ping": True}
    vars(storage)["_engine"] = pooled = create_engine(before.url, **options)
    try:
        yield
    finally:
        vars(storage)["_engine"] = before
        pooled.dispose()


@contextmanager
def _files_kept_open(log: Any) -> Iterator[None]:
    """A log in SQLite keeps its files open."""
    from dagster._core.storage.event_log import SqliteEventLogStorage

    vars(log)["_engines"] = {}
    log.__class__ = _kept_open_log()
    try:
        yield
    finally:
        log.__class__ = SqliteEventLogStorage
        for engine in vars(log).pop("_engines").values():
            engine.dispose()
        for known in ("_tables", "_columns", "_partitions"):
            vars(log).pop(known, None)


@functools.cache
def _kept_open_log() -> Any:
    """The class of an event log that is kept open. It is made when it is needed.

    With it come sqlalchemy and alembic, which Dagster imports no earlier.
    """
    import sqlalchemy as db
    from dagster._core.events import ASSET_EVENTS
    from dagster._core.storage.event_log import SqliteEventLogStorage
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
    from dagster._core.storage.sql import create_engine
    from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
    from sqlalchemy.pool import QueuePool

    def _kind(event: dg.EventLogEntry) -> tuple[str, bool]:
        return event.run_id, event.dagster_event_type in ASSET_EVENTS

    class KeptOpenLog(SqliteEventLogStorage):
        """See above."""

        _engines: dict[str, Any]

        @contextmanager
        def _connect(self, shard: str) -> Iterator[Any]:
            with self._db_lock:
                engine = self._engine(shard)
                if shard not in self._initialized_dbs:
                    self._initdb(engine)
                    self._initialized_dbs.add(shard)
                with engine.begin() as connection:
                    yield connection

        def _engine(self, shard: str) -> Any:
            engine = self._engines.pop(shard, None) or create_engine(
                self.conn_string_for_shard(shard),
                poolclass=QueuePool,
                pool_size=1,
                # The lock lets one thread at a time have it.
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            )
            self._engines[shard] = engine
            if len(self._engines) > KEPT_OPEN:
                oldest = next(name for name in self._engines if name != INDEX_SHARD_NAME)
                self._engines.pop(oldest).dispose()
            return engine

        def has_table(self, table_name: str) -> bool:
            return table_name in self._tables

        @functools.cached_property
        def _tables(self) -> frozenset[str]:
            """Tables of the index. They stay what they are: a migration takes place at rest."""
            engine = create_engine(self.conn_string_for_shard(INDEX_SHARD_NAME))
            try:
                return frozenset(db.inspect(engine).get_table_names())
            finally:
                engine.dispose()

        def get_dynamic_partitions(self, partitions_def_name: str) -> Sequence[str]:
            """Read anew once another connection has written; Dagster asks dozens of times a run."""
            with self.index_connection() as connection:
                version = connection.exec_driver_sql("PRAGMA data_version").scalar()
                seen = (connection.connection.dbapi_connection, version)
            known = vars(self).setdefault("_partitions", {})
            if partitions_def_name not in known or known[partitions_def_name][0] != seen:
                keys = super().get_dynamic_partitions(partitions_def_name)
                known[partitions_def_name] = (seen, keys)
            return list(known[partitions_def_name][1])

        def add_dynamic_partitions(
            self, partitions_def_name: str, partition_keys: Sequence[str]
        ) -> None:
            super().add_dynamic_partitions(partitions_def_name, partition_keys)
            vars(self).pop("_partitions", None)

        def delete_dynamic_partition(self, partitions_def_name: str, partition_key: str) -> None:
            super().delete_dynamic_partition(partitions_def_name, partition_key)
            vars(self).pop("_partitions", None)

        def _has_asset_key_col_on_connection(self, conn: Any, column_name: str) -> bool:
            known = vars(self).setdefault("_columns", {})
            if column_name not in known:
                known[column_name] = super()._has_asset_key_col_on_connection(conn, column_name)
            return known[column_name]

        def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
            """Events of assets, in their run's file and in the index at once; others singly."""
            for (run_id, of_assets), some in groupby(events, _kind):
                if of_assets:
                    self._store_asset_events(run_id, list(some))
                else:
                    super().store_event_batch(list(some))

        def _store_asset_events(self, run_id: str, events: Sequence[dg.EventLogEntry]) -> None:
            rows = [self._event_to_row(event) for event in events]
            with self.run_connection(run_id) as connection:
                connection.execute(SqlEventLogStorageTable.insert(), rows)
            with self.index_transaction() as connection:
                stored = [connection.execute(SqlEventLogStorageTable.insert(), row) for row in rows]
                ids = [one.lastrowid for one in stored]
                self._store_asset_event_tags(connection, events, ids)
                for event, event_id in _last_of_each(events, ids):
                    self._store_asset_event(connection, event, event_id)

    return KeptOpenLog


def _last_of_each(
    events: Sequence[dg.EventLogEntry], ids: Sequence[int]
) -> Iterable[tuple[dg.EventLogEntry, int]]:
    """The last event of each asset and type, with its id: what an asset is known by."""
    last = {}
    for event, event_id in zip(events, ids, strict=True):
        said = event.get_dagster_event()
        last[said.asset_key, said.event_type] = (event, event_id)
    return last.values()
