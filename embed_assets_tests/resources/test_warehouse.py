"""Slices are replaced whole or not at all, whoever else reads, writes or dies meanwhile."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import psutil
import pytest

from embed_assets.resources.warehouse import Warehouse, WarehouseBusyError, WarehouseError
from embed_assets.tables import TABLES, TableMismatchError
from embed_assets_tests.rows import pages, question, raw_pdf


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "home" / "warehouse.duckdb"), lock_timeout=60)


def texts(warehouse: Warehouse) -> list[tuple[str, int, str]]:
    """Everything that parsed_markdown holds."""
    sql = "SELECT document_id, page, markdown FROM parsed_markdown ORDER BY ALL"
    return warehouse.read(sql).rows()


# What a warehouse reads and writes.


def test_a_warehouse_never_written_reads_as_empty(warehouse):
    for name, table in TABLES.items():
        rows = warehouse.read(f"SELECT * FROM {name}")
        assert rows.height == 0
        assert rows.columns == list(table.columns)
        assert warehouse.count(name) == 0


def test_a_file_whose_first_write_was_killed_reads_as_empty(warehouse):
    Path(warehouse.path).parent.mkdir()
    duckdb.connect(warehouse.path).close()
    assert texts(warehouse) == []


def test_a_query_that_names_no_table_fails_and_says_so(warehouse):
    with pytest.raises(duckdb.CatalogException, match="no_such_table"):
        warehouse.read("SELECT * FROM no_such_table")


def test_a_query_that_names_no_column_fails_and_says_so(warehouse):
    with pytest.raises(duckdb.BinderException, match="no_such_column"):
        warehouse.read("SELECT no_such_column FROM chunks")


def test_a_read_can_change_nothing(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    with pytest.raises(duckdb.InvalidInputException, match="read-only"):
        warehouse.read("DELETE FROM parsed_markdown")
    assert texts(warehouse) == [("a", 1, "one")]


def test_a_slice_alone_is_replaced(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one", "two"))
    warehouse.replace("parsed_markdown", pages("b", "uno"), where={"document_id": ["b"]})
    warehouse.replace("parsed_markdown", pages("a", "ONE"), where={"document_id": ["a"]})
    assert texts(warehouse) == [("a", 1, "ONE"), ("b", 1, "uno")]


def test_a_slice_of_no_documents_is_nothing_not_everything(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    nothing = TABLES["parsed_markdown"].empty()
    warehouse.replace("parsed_markdown", nothing, where={"document_id": []})
    assert texts(warehouse) == [("a", 1, "one")]


def test_without_a_slice_all_rows_are_replaced(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one", "two"))
    warehouse.replace("parsed_markdown", pages("b", "uno"))
    assert texts(warehouse) == [("b", 1, "uno")]


def test_an_empty_frame_empties_its_slice(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    warehouse.replace("parsed_markdown", pages("b", "uno"), where={"document_id": ["b"]})
    warehouse.replace("parsed_markdown", pages("a"), where={"document_id": ["a"]})
    assert texts(warehouse) == [("b", 1, "uno")]


def test_an_empty_frame_makes_the_table(warehouse):
    warehouse.replace("parsed_markdown", pages("a"))
    with duckdb.connect(warehouse.path, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM parsed_markdown").fetchone() == (0,)


def test_an_insert_that_fails_leaves_the_old_slice(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one", "two"))
    twice_the_same_page = pl.concat([pages("a", "new"), pages("a", "newer")])
    with pytest.raises(duckdb.ConstraintException):
        warehouse.replace("parsed_markdown", twice_the_same_page, {"document_id": ["a"]})
    assert texts(warehouse) == [("a", 1, "one"), ("a", 2, "two")]


def test_what_is_written_together_is_there_together_or_not_at_all(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))

    def write(key: str, second: pl.DataFrame) -> None:
        with warehouse.transaction() as transaction:
            transaction.replace("parsed_markdown", pages(key, "new"), {"document_id": [key]})
            transaction.replace("raw_pdfs", second, {"document_id": [key]})

    with pytest.raises(TableMismatchError):
        write("a", raw_pdf("a").drop("path"))
    assert texts(warehouse) == [("a", 1, "one")]
    write("b", raw_pdf("b"))
    assert texts(warehouse) == [("a", 1, "one"), ("b", 1, "new")]
    assert warehouse.paths() == {"b": "folder/b.pdf"}


def test_an_upsert_puts_each_row_in_place_of_the_one_with_its_key(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one", "two"))
    with warehouse.transaction() as transaction:
        transaction.upsert("parsed_markdown", pl.concat([pages("a", "ONE"), pages("b", "uno")]))
        transaction.upsert("parsed_markdown", pages("c"))
    assert texts(warehouse) == [("a", 1, "ONE"), ("a", 2, "two"), ("b", 1, "uno")]


def test_a_frame_that_does_not_fit_leaves_the_old_slice(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    with pytest.raises(TableMismatchError):
        warehouse.replace("parsed_markdown", pages("a", "new").drop("parser"))
    assert texts(warehouse) == [("a", 1, "one")]


def test_reordered_columns_land_by_name(warehouse):
    frame = pages("a", "one")
    warehouse.replace("parsed_markdown", frame.select(sorted(frame.columns, reverse=True)))
    row = warehouse.read("SELECT * FROM parsed_markdown").row(0, named=True)
    assert row == frame.row(0, named=True)


def test_types_and_the_zone_of_times_survive_a_round_trip(warehouse):
    rows = {
        "raw_pdfs": raw_pdf("a", bytes(range(256)) * 3),
        "parsed_markdown": pages("a", "naïve 日本 \U0001f40d \" ' ; \\ \n", ""),
        "query_results": pl.DataFrame(
            {
                "run_id": "r",
                "model": "base",
                "split": "validation",
                "dimension": [384, 64],
                "question_id": "q",
                "rank": [None, 3],
                "ndcg_at_10": [0.0, 1 / 3],
                "top_ids": [[], ["c1", "c2"]],
            },
            schema=TABLES["query_results"].schema,
        ),
        "embeddings": pl.DataFrame(
            {"model": ["m"], "text_id": ["c"], "embedding": [[0.1, -2.5e-8, 3.0]]},
            schema=TABLES["embeddings"].schema,
        ),
    }
    for name, frame in rows.items():
        warehouse.replace(name, frame)
        order = ", ".join(TABLES[name].key)
        back = warehouse.read(f"SELECT * FROM {name} ORDER BY {order}")
        assert back.schema == frame.schema
        assert back.equals(frame.sort(TABLES[name].key), null_equal=True)


def test_an_update_changes_the_columns_that_it_names_in_rows_that_are_there(warehouse):
    warehouse.replace("synthetic_questions", pl.concat([question("a"), question("b")]))
    changes = pl.DataFrame({"question_id": ["q-b", "gone"], "status": ["DUPLICATE", "DUPLICATE"]})
    with warehouse.transaction() as transaction:
        transaction.update("synthetic_questions", changes)
    rows = warehouse.read("SELECT question_id, status, question FROM synthetic_questions")
    before = question("a")["question"][0]
    assert sorted(rows.rows()) == [("q-a", "KEPT", before), ("q-b", "DUPLICATE", before)]


def make_older(warehouse: Warehouse) -> None:
    """A warehouse whose one table lacks a column of today's."""
    table = TABLES["synthetic_questions"]
    older = table.ddl.partition(";")[0].replace('"reason" VARCHAR, ', "")
    assert older != table.ddl.partition(";")[0]
    Path(warehouse.path).parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(warehouse.path) as connection:
        connection.execute(older)
        connection.execute(
            "INSERT INTO synthetic_questions BY NAME SELECT 'old' AS question_id, 'c' AS chunk_id, "
            "[] AS relevant_chunk_ids, 'd' AS document_id, 'q' AS question, 'k' AS kind, "
            "'train' AS purpose, 'g' AS generator, '1' AS prompt_version, 'KEPT' AS status, "
            "0 AS input_tokens, 0 AS output_tokens, now() AS created_at"
        )


def test_a_warehouse_of_an_older_version_gets_the_columns_that_it_lacks(warehouse):
    make_older(warehouse)
    assert warehouse.read("SELECT reason FROM synthetic_questions").rows() == [(None,)]
    warehouse.replace("synthetic_questions", question("new"), where={"document_id": ["other"]})
    rows = warehouse.read("SELECT question_id, reason FROM synthetic_questions ORDER BY ALL")
    assert rows.rows() == [("old", None), ("q-new", None)]


def test_reading_a_warehouse_that_is_not_there_makes_none(warehouse):
    assert warehouse.paths() == {}
    assert not Path(warehouse.path).parent.exists()


def test_reading_an_older_warehouse_changes_nothing_in_it(warehouse):
    make_older(warehouse)
    before = Path(warehouse.path).read_bytes()
    rows = warehouse.read("SELECT question_id, reason, status FROM synthetic_questions")
    assert rows.rows() == [("old", None, "KEPT")]
    assert warehouse.count("attempts") == 0  # a table that it lacks
    assert Path(warehouse.path).read_bytes() == before
    left = {file.name for file in Path(warehouse.path).parent.iterdir()}
    assert left <= {"warehouse.duckdb", "warehouse.duckdb.lock"}


# Several processes.


def write_slices(path: str, count: int) -> None:
    """Runs in a process of its own."""
    warehouse = Warehouse(path=path)
    for number in range(count):
        key = f"theirs-{number}"
        warehouse.replace("parsed_markdown", pages(key, "x", "y"), where={"document_id": [key]})


def die_between_deleting_and_inserting(path: str) -> None:
    """Runs in a process of its own."""
    with Warehouse(path=path).transaction() as transaction:
        transaction.execute("DELETE FROM parsed_markdown")
        os.kill(os.getpid(), signal.SIGKILL)


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=target, args=args)
    process.start()
    return process


def test_processes_that_write_at_once_all_succeed(warehouse):
    other = start(write_slices, warehouse.path, 4)
    written = 0
    while other.is_alive():
        key = f"mine-{written}"
        warehouse.replace("parsed_markdown", pages(key, "x", "y"), where={"document_id": [key]})
        written += 1
        counts = warehouse.read("SELECT count(*) FROM parsed_markdown GROUP BY document_id")
        assert set(counts.to_series()) == {2}  # a slice is there whole or not at all
        time.sleep(0.2)
    other.join()
    assert other.exitcode == 0
    assert warehouse.count("parsed_markdown") == 2 * (4 + written)


def test_a_writer_killed_half_way_leaves_the_old_slice_and_no_lock(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    process = start(die_between_deleting_and_inserting, warehouse.path)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert texts(warehouse) == [("a", 1, "one")]
    warehouse.replace("parsed_markdown", pages("a", "two"))
    assert texts(warehouse) == [("a", 1, "two")]


@contextmanager
def another_program(code: str, path: str) -> Iterator[subprocess.Popen]:
    """A program that has done `code` and goes on until its stdin closes."""
    script = f"import sys, time; path = sys.argv[1]\n{code}\nprint('ready', flush=True)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{script}\nsys.stdin.read()", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.stdin.close()
        process.wait()


HOLD_THE_LOCK = "from filelock import FileLock; lock = FileLock(path + '.lock'); lock.acquire()"
OPEN_THE_FILE = "import duckdb; connection = duckdb.connect(path)"
READ_THE_FILE = "import duckdb; connection = duckdb.connect(path, read_only=True)"


def name_of(program: "subprocess.Popen[str]") -> str:
    return f"{psutil.Process(program.pid).name()} (process {program.pid})"


def test_a_run_that_holds_the_lock_for_too_long_is_said_to_be_busy(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    impatient = Warehouse(path=warehouse.path, lock_timeout=1)
    with another_program(HOLD_THE_LOCK, warehouse.path) as program:
        with pytest.raises(WarehouseBusyError) as error:
            impatient.replace("parsed_markdown", pages("a", "two"))
        assert str(error.value) == (
            f"{warehouse.path}: other runs held the warehouse for 1 s ({name_of(program)}). "
            "Wait for them to end, or stop them, and try again."
        )
    assert texts(warehouse) == [("a", 1, "one")]


def test_a_shell_that_has_the_file_open_is_named(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    impatient = Warehouse(path=warehouse.path, lock_timeout=0.5)
    with another_program(OPEN_THE_FILE, warehouse.path) as program:
        for attempt in (
            lambda: impatient.replace("parsed_markdown", pages("a", "two")),
            lambda: texts(impatient),
        ):
            with pytest.raises(WarehouseBusyError) as error:
                attempt()
            message = str(error.value)
            said = "another program has the warehouse open. Close it and try again. DuckDB says: "
            assert message.startswith(f"{warehouse.path}: {said}")
            assert f"(PID {program.pid})" in message
            assert "\n" not in message
    assert texts(warehouse) == [("a", 1, "one")]


def test_a_program_that_closes_the_file_in_time_is_waited_for(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    closes_soon = (
        f"{OPEN_THE_FILE}\nimport threading; threading.Timer(0.5, connection.close).start()"
    )
    with another_program(closes_soon, warehouse.path):
        warehouse.replace("parsed_markdown", pages("a", "two"))
    assert texts(warehouse) == [("a", 1, "two")]


@pytest.mark.parametrize(("held", "by"), [("", OPEN_THE_FILE), (".lock", HOLD_THE_LOCK)])
def test_work_that_is_done_waits_as_long_as_it_must_and_says_for_whom(
    warehouse, monkeypatch, capfd, held, by
):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    monkeypatch.setattr("embed_assets.resources.waiting.FIRST_SAID", 0.0)
    monkeypatch.setattr("embed_assets.resources.waiting.SAID_AGAIN", 0.2)
    logged: list[str] = []

    def log(said: str) -> None:
        logged.append(said)
        if len(logged) == 3:  # it waits on though it said so before
            program.kill()

    patient = Warehouse(path=warehouse.path, lock_timeout=0.1).patient(log)
    with another_program(by, warehouse.path) as program:
        expected = (
            f"{warehouse.path} is in use by {name_of(program)}. Waiting until it is closed there."
        )
        patient.replace("parsed_markdown", pages("a", "two"))
    assert set(logged) == {expected}
    assert capfd.readouterr().err.count(expected) == len(logged)
    assert texts(warehouse) == [("a", 1, "two")]


def test_a_writer_that_waits_for_a_notebook_keeps_no_reader_away(warehouse, monkeypatch):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    monkeypatch.setattr("embed_assets.resources.waiting.FIRST_SAID", 0.0)
    waits = threading.Event()
    patient = warehouse.patient(lambda _: waits.set())
    writer = threading.Thread(
        target=patient.replace, args=["parsed_markdown", pages("a", "two")], daemon=True
    )
    with another_program(READ_THE_FILE, warehouse.path):
        writer.start()
        assert waits.wait(30)
        assert texts(Warehouse(path=warehouse.path, lock_timeout=5)) == [("a", 1, "one")]
        assert writer.is_alive()
    writer.join()
    assert texts(warehouse) == [("a", 1, "two")]


def test_who_waits_with_a_limit_is_told_it(warehouse, monkeypatch, capfd):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    monkeypatch.setattr("embed_assets.resources.waiting.FIRST_SAID", 0.0)
    impatient = Warehouse(path=warehouse.path, lock_timeout=1)
    with another_program(OPEN_THE_FILE, warehouse.path), pytest.raises(WarehouseBusyError):
        texts(impatient)
    assert capfd.readouterr().err.endswith("closed there, for 1 s at most.\n")


def test_a_wait_for_the_warehouse_can_be_ended(warehouse):
    """By Ctrl-C: what waits may wait for a shell that nobody remembers."""
    warehouse.replace("parsed_markdown", pages("a", "one"))

    def be_stopped(_: str) -> None:
        signal.raise_signal(signal.SIGINT)

    with another_program(OPEN_THE_FILE, warehouse.path), pytest.raises(KeyboardInterrupt):
        warehouse.patient(be_stopped).replace("parsed_markdown", pages("a", "two"))
    assert texts(warehouse) == [("a", 1, "one")]


def test_a_file_that_is_no_warehouse_is_an_error_at_once_wherever_it_lies(tmp_path):
    file = tmp_path / "clockwork.duckdb"  # its name must not pass for a lock
    file.write_text("hello" * 1000)
    with pytest.raises(WarehouseError, match="not a valid DuckDB"):
        texts(Warehouse(path=str(file), lock_timeout=0.5))


# What was deleted.


def test_a_compacted_warehouse_holds_its_rows_and_keys_and_no_byte_of_what_was_deleted(warehouse):
    secret = "the brass valve opens at four bar " * 400
    warehouse.replace("parsed_markdown", pl.concat([pages("a", secret), pages("b", "stays")]))
    warehouse.replace("parsed_markdown", pages("a").clear(), {"document_id": ["a"]})
    assert b"brass valve" in Path(warehouse.path).read_bytes()
    left_by_a_kill = Path(f"{warehouse.path}.compacting")
    left_by_a_kill.write_text("half a file")
    warehouse.compact()
    assert texts(warehouse) == [("b", 1, "stays")]
    assert b"brass valve" not in Path(warehouse.path).read_bytes()
    assert not left_by_a_kill.exists()
    with pytest.raises(duckdb.ConstraintException), warehouse.transaction() as transaction:
        transaction.execute("INSERT INTO parsed_markdown SELECT * FROM parsed_markdown")


def test_a_compaction_that_ends_half_way_leaves_the_file_as_it_was(warehouse, monkeypatch):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    monkeypatch.setattr("embed_assets.resources.warehouse.shutil.copymode", _end)
    with pytest.raises(KeyboardInterrupt):
        warehouse.compact()
    assert texts(warehouse) == [("a", 1, "one")]


def _end(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_warehouse_that_was_never_written_is_compact(warehouse):
    warehouse.compact()
    assert not Path(warehouse.path).exists()


def test_reads_at_once_open_the_warehouse_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))
    with warehouse.transaction():
        pass
    opened: list[str] = []
    connect = duckdb.connect

    def connecting(path: str, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
        opened.append(path)
        return connect(path, read_only=read_only)

    monkeypatch.setattr(duckdb, "connect", connecting)
    with warehouse.at_once() as at_once:
        assert [at_once.count("chunks"), at_once.count("raw_pdfs")] == [0, 0]
    assert len(opened) == 1
    with warehouse.transaction() as transaction:  # the lock is free again
        transaction.delete("chunks", {})


def test_reads_at_once_of_an_older_warehouse_are_as_of_today(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(TABLES["parsed_markdown"].ddl)
        for column in ("text_share", "text_source"):
            connection.execute(f"ALTER TABLE parsed_markdown DROP COLUMN {column}")
        connection.execute("INSERT INTO parsed_markdown VALUES ('d', 1, 'A', 'SUCCESS', NULL, 'p')")
    with Warehouse(path=str(path)).at_once() as at_once:
        shares = at_once.read("SELECT text_share FROM parsed_markdown")["text_share"]
        assert shares.to_list() == [None]
        assert at_once.read("SELECT markdown FROM parsed_markdown")["markdown"].to_list() == ["A"]
        assert at_once.count("raw_pdfs") == 0


def test_a_query_imports_no_pandas(tmp_path: Path) -> None:
    code = (
        "import sys; from embed_assets.resources.warehouse import Warehouse; "
        f"w = Warehouse(path={str(tmp_path / 'w.duckdb')!r}); "
        "rows = w.read('SELECT ? AS a, unnest(?) AS b', ['x', [1, 2]]); "
        "assert rows.rows() == [('x', 1), ('x', 2)]; assert 'pandas' not in sys.modules; "
        "import pandas"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
