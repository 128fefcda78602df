import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage

from embed_assets.resources.event_log import BATCH_SIZE, kept_open
from embed_assets_tests.postgres import sql

KEYS = dg.DynamicPartitionsDefinition(name="keys")


@dg.asset(partitions_def=KEYS, backfill_policy=dg.BackfillPolicy.single_run())
def numbers(context: dg.AssetExecutionContext) -> None:
    for key in context.partition_keys:
        context.add_asset_metadata({"number": int(key)}, partition_key=key)


@dg.asset_check(asset=numbers)
def are_there() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def local(folder: Path) -> dg.DagsterInstance:
    folder.mkdir(exist_ok=True)
    return dg.DagsterInstance.local_temp(str(folder))


def make(instance: dg.DagsterInstance, count: int) -> dg.ExecuteInProcessResult:
    keys = [str(number) for number in range(count)]
    instance.add_dynamic_partitions("keys", keys)
    job = dg.define_asset_job("make", [numbers])
    definitions = dg.Definitions(assets=[numbers], asset_checks=[are_there], jobs=[job])
    tags = {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[-1],
    }
    return definitions.resolve_job_def("make").execute_in_process(instance=instance, tags=tags)


def stored(folder: Path, run_id: str) -> list[list[tuple[object, ...]]]:
    """What the databases of an instance hold, but for times and ids of events."""
    said = []
    for name, query in (
        (run_id, "SELECT dagster_event_type, asset_key, partition FROM event_logs ORDER BY id"),
        ("index", "SELECT dagster_event_type, asset_key, partition FROM event_logs ORDER BY id"),
        ("index", "SELECT asset_key, last_run_id = ? FROM asset_keys"),
        ("index", "SELECT check_name, execution_status FROM asset_check_executions"),
        (
            "index",
            "SELECT e.partition, t.key FROM asset_event_tags t JOIN event_logs e "
            "ON e.id = t.event_id ORDER BY e.partition, t.key",
        ),
    ):
        with closing(sqlite3.connect(folder / "history" / "runs" / f"{name}.db")) as connection:
            said.append(connection.execute(query, [run_id] * query.count("?")).fetchall())
    return said


def test_what_is_stored_is_what_dagster_stores(tmp_path: Path) -> None:
    with local(tmp_path / "plain") as instance:
        plain = [*stored(tmp_path / "plain", make(instance, 5).run_id), last_of(instance)]
    with local(tmp_path / "open") as instance:
        with kept_open(instance):
            run_id = make(instance, 5).run_id
        kept = [*stored(tmp_path / "open", run_id), last_of(instance)]
        records = instance.fetch_materializations(numbers.key, limit=10).records
    assert kept == plain
    shown = {r.partition_key: r.asset_materialization for r in records}
    numbers_shown = {key: said and said.metadata["number"].value for key, said in shown.items()}
    assert numbers_shown == {str(number): number for number in range(5)}


def last_of(instance: dg.DagsterInstance) -> str | None:
    """The partition that Dagster knows as the last one made."""
    event = instance.get_latest_materialization_event(numbers.key)
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization.partition


def test_files_are_opened_as_often_for_many_documents_as_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    count_opened(monkeypatch, opened.append)
    counts = []
    for count in (2, 20):
        with (
            local(tmp_path / str(count)) as instance,
            kept_open(instance),
        ):
            opened.clear()
            make(instance, count)
            counts.append(len(opened))
    assert counts[0] == counts[1]


def count_opened(monkeypatch: pytest.MonkeyPatch, tell: Callable[[object], object]) -> None:
    """Tell of each file of the event log that a connection opens."""
    import dagster._core.storage.sql as made_by

    create = made_by.create_engine

    def creating(url: str, **options: object) -> object:
        tell(url)
        return create(url, **options)

    monkeypatch.setattr(made_by, "create_engine", creating)
    monkeypatch.setattr(
        "dagster._core.storage.event_log.sqlite.sqlite_event_log.create_engine", creating
    )


def test_after_the_block_the_log_is_dagsters_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.delenv(BATCH_SIZE, raising=False)
    with local(tmp_path) as instance:
        with kept_open(instance), kept_open(instance):
            make(instance, 2)
        assert type(instance.event_log_storage) is SqliteEventLogStorage
        assert BATCH_SIZE not in os.environ
        assert make(instance, 2).success


def test_another_storage_is_left_as_it_is() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        before = type(instance.event_log_storage)
        with kept_open(instance):
            assert type(instance.event_log_storage) is before


def test_partitions_that_another_process_adds_or_deletes_are_seen(tmp_path: Path) -> None:
    with local(tmp_path) as instance, kept_open(instance):
        instance.add_dynamic_partitions("keys", ["a", "b"])
        assert instance.get_dynamic_partitions("keys") == ["a", "b"]
        with local(tmp_path) as other:
            other.add_dynamic_partitions("keys", ["c"])
            other.delete_dynamic_partition("keys", "a")
        assert instance.get_dynamic_partitions("keys") == ["b", "c"]
        instance.delete_dynamic_partition("keys", "b")
        assert instance.get_dynamic_partitions("keys") == ["c"]


# In Postgres.


def in_postgres(folder: Path, database: str) -> dg.DagsterInstance:
    parts = dict(part.split("=", 1) for part in database.split())
    url = f"postgresql+psycopg2://{parts['user']}@/{parts['dbname']}?host={parts['host']}"
    folder.mkdir()
    storage = f"telemetry: {{enabled: false}}\nstorage:\n  postgres:\n    postgres_url: {url}\n"
    (folder / "dagster.yaml").write_text(storage, encoding="utf-8")
    return dg.DagsterInstance.from_config(str(folder))


def test_in_postgres_one_connection_serves_many_documents(tmp_path: Path, database: str) -> None:
    """Dagster's own storage opens one for each statement."""
    with in_postgres(tmp_path / "home", database) as instance:
        with kept_open(instance):
            for count in (2, 20):
                make(instance, count)
            engine = instance.event_log_storage._engine  # pyright: ignore[reportAttributeAccessIssue]
            assert engine.pool.checkedin() == 1
        made = sql(
            database,
            "SELECT partition FROM event_logs "
            "WHERE dagster_event_type = 'ASSET_MATERIALIZATION' ORDER BY id",
        )
        assert sorted(made) == sorted((str(number),) for number in (*range(2), *range(20)))
        assert last_of(instance) == made[-1][0]
        make(instance, 1)  # as Dagster has it again


def test_a_run_goes_on_where_postgres_was_restarted(tmp_path: Path, database: str) -> None:
    with in_postgres(tmp_path / "home", database) as instance, kept_open(instance):
        make(instance, 2)
        sql(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        assert make(instance, 2).success
