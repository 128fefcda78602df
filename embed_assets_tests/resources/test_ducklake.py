"""Several machines write to a DuckLake, and what it is kept in may be lost for a moment."""

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import duckdb
import polars as pl
import psycopg2
import pytest

from embed_assets.errors import ProjectError
from embed_assets.lake_address import lake_address
from embed_assets.resources import ducklake
from embed_assets.resources.warehouse import Warehouse, WarehouseBusyError, WarehouseError
from embed_assets.tables import TABLES
from embed_assets_tests.postgres import sql
from embed_assets_tests.rows import pages, question

SECRET = "the brass valve opens at four bar"


def texts(warehouse: Warehouse) -> list[tuple[str, int, str]]:
    """Everything that parsed_markdown holds."""
    query = "SELECT document_id, page, markdown FROM parsed_markdown ORDER BY ALL"
    return warehouse.read(query).rows()


def catalog(warehouse: Warehouse) -> str:
    return lake_address(warehouse.lake, "TEST").catalog


def end_sessions(warehouse: Warehouse) -> None:
    """End every connection to the catalogue, as a restart of Postgres does."""
    sql(
        catalog(warehouse),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


# What is lost is done again.


def test_a_transaction_whose_connections_are_lost_is_written_once(lake):
    lake.replace("parsed_markdown", pages("a", "one", "two"))
    with lake.transaction() as transaction:
        transaction.replace("parsed_markdown", pages("a", "new"), {"document_id": ["a"]})
        end_sessions(lake)
        transaction.upsert("parsed_markdown", pages("b", "uno"))
        end_sessions(lake)
    assert texts(lake) == [("a", 1, "new"), ("b", 1, "uno")]


def test_who_lost_the_turn_takes_it_again_before_anything_is_there(lake):
    lake.replace("parsed_markdown", pages("a", "one"))
    with lake.transaction() as transaction:
        transaction.upsert("parsed_markdown", pages("b", "mine"))
        end_sessions(lake)
        Warehouse(path=lake.path, lake=lake.lake).replace("parsed_markdown", pages("b", "theirs"))
    assert texts(lake) == [("b", 1, "mine")]


def test_a_read_after_a_restart_of_the_catalogue_is_as_before(lake):
    lake.replace("parsed_markdown", pages("a", "one"))
    assert texts(lake) == [("a", 1, "one")]
    end_sessions(lake)
    assert texts(lake) == [("a", 1, "one")]


class BreaksOff:
    """A connection whose first results can't be had, or fetched, as where Postgres ends.

    raised: one error after the other, until there is none.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, raised: list[Any], at: str) -> None:
        self._connection, self._raised, self._at = connection, raised, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __enter__(self) -> "BreaksOff":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def execute(self, sql: str, *parameters: object) -> Any:
        result = self._connection.execute(sql, *parameters)
        if "parsed_markdown" not in sql or not self._raised:
            return result
        return self._break_off() if self._at == "execute" else self

    def _break_off(self) -> Any:
        raise self._raised.pop(0)

    pl = fetchall = _break_off


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Has connections to a lake break off by these errors; gives those that are left."""

    def broken(*errors: Exception, at: str = "fetch") -> list[Any]:
        connect, left = ducklake.LakeStore._connect, list(errors)

        def connect_worse(self: Any, *, read_only: bool) -> Any:
            return BreaksOff(connect(self, read_only=read_only), left, at)

        monkeypatch.setattr(ducklake.LakeStore, "_connect", connect_worse)
        return left

    return broken


def test_a_result_that_breaks_off_while_it_is_fetched_is_read_again(lake, broken):
    lake.replace("parsed_markdown", pages("a", "one"))
    left = broken(duckdb.InvalidInputException("fetch from an unsuccessful query result"))
    assert texts(lake) == [("a", 1, "one")]
    assert left == []


@pytest.mark.parametrize("at", ["fetch", "execute"])
def test_a_statement_of_a_transaction_breaks_off_and_all_is_done_again(lake, broken, at):
    lake.replace("parsed_markdown", pages("a", "one"))
    errors = duckdb.InvalidInputException("fetch"), duckdb.BinderException("list of files")
    left = broken(*errors, at=at)
    with lake.transaction() as transaction:
        transaction.upsert("parsed_markdown", pages("b", "uno"))
        assert transaction.delete("parsed_markdown", {"document_id": ["a"]}) == 1
    assert texts(lake) == [("b", 1, "uno")]
    assert left == []


def test_what_may_be_wrong_itself_is_tried_a_few_times_in_a_row(lake, broken, monkeypatch):
    monkeypatch.setattr(ducklake, "DOUBTED", 2)
    lake.replace("parsed_markdown", pages("a", "one"))
    doubt, loss = duckdb.BinderException("no such column"), duckdb.IOException("closed")
    broken(doubt, doubt, loss, doubt, doubt)
    lake.replace("parsed_markdown", pages("a", "two"))
    assert texts(lake) == [("a", 1, "two")]
    broken(*[doubt] * 9, at="execute")
    with pytest.raises(duckdb.BinderException, match="no such column"):
        lake.replace("parsed_markdown", pages("a", "three"))


def test_an_error_in_a_transaction_leaves_nothing_of_it(lake):
    lake.replace("parsed_markdown", pages("a", "one"))
    with suppress(ZeroDivisionError), lake.transaction() as transaction:
        transaction.delete("parsed_markdown", {})
        _ = 1 / 0
    assert texts(lake) == [("a", 1, "one")]
    lake.replace("parsed_markdown", pages("a", "two"))  # the turn was given back


def test_a_catalogue_out_of_reach_is_one_line_that_says_which(tmp_path):
    address = f"ducklake:postgres:host=127.0.0.1 port=1 dbname=x?data={tmp_path}"
    warehouse = Warehouse(path=str(tmp_path / "w"), lake=address, lock_timeout=0.3)
    for use in (lambda: texts(warehouse), lambda: warehouse.replace("chunks", empty("chunks"))):
        with pytest.raises(
            WarehouseError, match=r"port=1 .*can't be used.*nothing is lost"
        ) as said:
            use()
        assert "\n" not in str(said.value)


def empty(table: str) -> pl.DataFrame:
    return TABLES[table].empty()


def test_a_commit_whose_answer_was_lost_is_made_once(lake, monkeypatch):
    lake.replace("parsed_markdown", pages("a", "one"))
    commit = ducklake._Repeatable._commit
    lost: list[int] = []

    def commit_and_lose(self, connection) -> None:
        commit(self, connection)
        if not lost:
            lost.append(1)
            raise duckdb.IOException("the connection was closed")

    monkeypatch.setattr(ducklake._Repeatable, "_commit", commit_and_lose)
    with lake.transaction() as transaction:
        transaction.execute("UPDATE parsed_markdown SET markdown = markdown || '!'")
    assert lost
    assert texts(lake) == [("a", 1, "one!")]


def test_a_commit_that_never_took_place_is_made_again(lake, monkeypatch):
    lake.replace("parsed_markdown", pages("a", "one"))
    commit = ducklake._Repeatable._commit
    lost: list[int] = []

    def lose_and_commit(self, connection) -> None:
        self._may_be_committed = True
        if not lost:
            lost.append(1)
            raise duckdb.IOException("the connection was closed")
        commit(self, connection)

    monkeypatch.setattr(ducklake._Repeatable, "_commit", lose_and_commit)
    with lake.transaction() as transaction:
        transaction.execute("UPDATE parsed_markdown SET markdown = markdown || '!'")
    assert texts(lake) == [("a", 1, "one!")]


def test_a_key_that_another_took_meanwhile_is_refused_when_all_is_done_again(lake):
    lake.replace("synthetic_questions", question("z"))
    with pytest.raises(duckdb.Error), lake.transaction() as transaction:  # noqa: PT012
        transaction.replace("synthetic_questions", question("a"), {"document_id": ["a"]})
        end_sessions(lake)
        other = Warehouse(path=lake.path, lake=lake.lake)
        theirs = question("a").with_columns(document_id=pl.lit("b"))
        other.replace("synthetic_questions", theirs, {"document_id": ["b"]})
    found = lake.read("SELECT question_id FROM synthetic_questions ORDER BY 1")
    assert found.rows() == [("q-a",), ("q-z",)]


# Several writers.


def write_the_same(path: str, lake: str, name: str) -> None:
    """Runs in a process of its own."""
    warehouse = Warehouse(path=path, lake=lake)
    for number in range(6):
        with warehouse.transaction() as transaction:
            transaction.upsert("synthetic_questions", question(f"shared-{number}"))
            transaction.upsert("synthetic_questions", question(f"{name}-{number}"))


def test_hosts_that_write_the_same_at_once_leave_each_key_once(lake):
    spawn = multiprocessing.get_context("spawn")
    writers = [
        spawn.Process(target=write_the_same, args=(lake.path, lake.lake, name)) for name in "ab"
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    keys = lake.read("SELECT question_id FROM synthetic_questions")["question_id"].to_list()
    assert len(keys) == len(set(keys)) == 18


@contextmanager
def somebody_writes(warehouse: Warehouse) -> Iterator[None]:
    address = catalog(warehouse)
    with closing(psycopg2.connect(address, application_name="embed-assets on b")) as session:
        with session.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [ducklake.TURN])
        yield


def test_who_writes_for_too_long_is_named(lake, monkeypatch):
    monkeypatch.setattr(ducklake, "LOOK_AGAIN", 50)
    lake.replace("parsed_markdown", pages("a", "one"))
    hasty = Warehouse(path=lake.path, lake=lake.lake, lock_timeout=0.3)
    with somebody_writes(lake):
        with pytest.raises(WarehouseBusyError, match="embed-assets on b"):
            hasty.replace("parsed_markdown", pages("a", "two"))
        assert texts(lake) == [("a", 1, "one")]  # who reads waits for nobody


def test_readers_in_threads_see_whole_slices_while_others_write(lake):
    lake.replace("parsed_markdown", pages("a", "x", "y"))
    found: list[int] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            found.append(lake.count("parsed_markdown"))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(5):
        lake.replace("parsed_markdown", pages("a", "x", "y"), {"document_id": ["a"]})
    ended.set()
    for reader in readers:
        reader.join()
    assert set(found) == {2}


# What was deleted.


def holding(folder: Path, text: str) -> list[Path]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if text.encode() in file.read_bytes()]


def test_no_byte_of_what_was_deleted_stays_in_files_or_in_postgres(lake, tmp_path, postgres):
    many = pl.concat([pages(f"d{n:02}", f"{SECRET} {n}") for n in range(30)])
    lake.replace("parsed_markdown", pl.concat([many, pages("e", "stays")]))
    lake.replace("former_paths", pl.DataFrame({"path": [SECRET], "document_id": ["d"]}))
    sql(catalog(lake), "ANALYZE")
    with lake.transaction() as transaction:
        transaction.execute("DELETE FROM parsed_markdown WHERE document_id <> 'e'")
        transaction.delete("former_paths", {})
    [(heap,)] = sql(catalog(lake), "SHOW data_directory")
    assert traces(lake) > 0
    lake.compact()
    assert texts(lake) == [("e", 1, "stays")]
    assert not holding(tmp_path / "lake", SECRET)
    assert traces(lake) == 0
    sql(catalog(lake), "CHECKPOINT")
    assert not holding(Path(heap) / "base", SECRET)
    lake.replace("parsed_markdown", pages("e", "goes on"), {"document_id": ["e"]})
    assert texts(lake) == [("e", 1, "goes on")]


def traces(warehouse: Warehouse) -> int:
    """Rows of the catalogue, of whatever table, in which the secret stands."""
    address = catalog(warehouse)
    names = sql(address, "SELECT tablename FROM pg_tables WHERE tablename LIKE 'ducklake%'")
    said = f"'%{SECRET.replace(' ', '%')}%'"
    counts = [
        sql(address, f"SELECT count(*) FROM {t} t WHERE t::text LIKE {said}") for (t,) in names
    ]
    return sum(count for [(count,)] in counts)


def test_what_stood_there_before_can_be_read_for_as_long_as_it_is_kept(lake):
    lake.replace("parsed_markdown", pages("a", "one"))
    lake.replace("parsed_markdown", pages("a", "two"))
    snapshots = "SELECT count(*) FROM ducklake_snapshot"
    before = sql(catalog(lake), snapshots)[0][0]
    lake.compact(keep=timedelta(days=1))
    assert sql(catalog(lake), snapshots)[0][0] >= before
    lake.compact()
    assert sql(catalog(lake), snapshots)[0][0] == 1
    assert texts(lake) == [("a", 1, "two")]


def test_many_small_files_become_few(lake, tmp_path):
    for number in range(6):
        rows = pl.concat([pages(f"{number}-{n}", "x") for n in range(20)])
        lake.replace("parsed_markdown", rows, {"document_id": [f"{number}"]})
    assert len([*(tmp_path / "lake").rglob("*.parquet")]) >= 6
    lake.compact()
    assert len([*(tmp_path / "lake").rglob("*.parquet")]) == 1
    assert lake.count("parsed_markdown") == 120


def test_a_lake_that_was_never_written_is_compact(lake, tmp_path):
    assert not lake.is_there
    lake.compact()
    assert not lake.is_there
    assert not (tmp_path / "lake").exists()


# What it needs.


def test_extensions_of_another_version_are_named(monkeypatch, tmp_path, database):
    monkeypatch.setattr(duckdb, "__version__", "0.0.0")
    address = f"ducklake:postgres:{database}?data={tmp_path}"
    with pytest.raises(ProjectError, match=r"duckdb-extension-ducklake .*embed_assets\[ducklake"):
        Warehouse(path="w", lake=address).replace("chunks", empty("chunks"))


def test_a_warehouse_in_a_file_imports_nothing_of_a_lake(tmp_path):
    code = (
        "import sys; from embed_assets.resources.warehouse import Warehouse; "
        f"w = Warehouse(path={str(tmp_path / 'w.duckdb')!r}); w.count('chunks'); "
        "assert not {'psycopg2', 'embed_assets.resources.ducklake', 'botocore'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tables_in_a_bucket_are_read_written_and_compacted(database, bucket, tmp_path):
    address = f"ducklake:postgres:{database}?data={bucket}/home"
    warehouse = Warehouse(path=str(tmp_path / "w"), lake=address, lock_timeout=20)
    rows = pl.concat([pages(f"d{n:02}", f"{SECRET} {n}") for n in range(30)])
    warehouse.replace("parsed_markdown", rows)
    warehouse.replace("parsed_markdown", rows.head(3), {"document_id": ["d00", "d01", "d02"]})
    assert texts(warehouse) == [(f"d{n:02}", 1, f"{SECRET} {n}") for n in range(30)]
    warehouse.replace("parsed_markdown", pages("e", "stays"))
    warehouse.compact()
    assert texts(warehouse) == [("e", 1, "stays")]
    objects = (
        boto3.client("s3").list_objects_v2(Bucket=bucket.removeprefix("s3://")).get("Contents", [])
    )
    assert [part["Key"].startswith("home/tables/") for part in objects] == [True]
