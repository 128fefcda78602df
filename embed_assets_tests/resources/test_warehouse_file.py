"""Slices are replaced whole or not at all, whoever else reads, writes or dies meanwhile."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import polars as pl
import psutil
import pytest

from embed_assets.resources.warehouse import Warehouse, WarehouseBusyError, WarehouseError
from embed_assets.tables import TABLES
from embed_assets_tests.rows import pages, question


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "home" / "warehouse.duckdb"), lock_timeout=60)


def texts(warehouse: Warehouse) -> list[tuple[str, int, str]]:
    """Everything that parsed_markdown holds."""
    sql = "SELECT document_id, page, markdown FROM parsed_markdown ORDER BY ALL"
    return warehouse.read(sql).rows()


# What a warehouse reads and writes.


def test_a_file_whose_first_write_was_killed_reads_as_empty(warehouse):
    Path(warehouse.path).parent.mkdir()
    duckdb.connect(warehouse.path).close()
    assert texts(warehouse) == []


def test_an_empty_frame_makes_the_table(warehouse):
    warehouse.replace("parsed_markdown", pages("a"))
    with duckdb.connect(warehouse.path, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM parsed_markdown").fetchone() == (0,)


def make_older(warehouse: Warehouse) -> None:
    """A warehouse whose one table lacks a column of today's."""
    table = TABLES["synthetic_questions"]
    older = table.ddl().partition(";")[0].replace('"reason" VARCHAR, ', "")
    assert older != table.ddl().partition(";")[0]
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
    monkeypatch.setattr("embed_assets.resources.warehouse_file.shutil.copymode", _end)
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
        connection.execute(TABLES["parsed_markdown"].ddl())
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
