"""Slices are replaced whole or not at all, whoever else reads, writes or dies meanwhile."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pytest

from embed_assets.partitions import BATCHES, DOCUMENTS, documents
from embed_assets.resources.warehouse import (
    DocumentsIOManager,
    Warehouse,
    WarehouseBusyError,
    data_version,
)
from embed_assets.tables import TABLES, TableMismatchError

# Dagster's own code calls its deprecated property when a resource is nested in another.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

NOW = datetime(2026, 11, 22, 9, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "home" / "warehouse.duckdb"), lock_timeout=60)


def pages(document_id: str, *texts: str) -> pl.DataFrame:
    """Rows of parsed_markdown of one document, a page per text."""
    return pl.DataFrame(
        {
            "document_id": document_id,
            "page": list(range(1, len(texts) + 1)),
            "markdown": list(texts),
            "parser_status": "SUCCESS",
            "error": None,
            "parser": "p",
        },
        schema=TABLES["parsed_markdown"].schema,
    )


def chunk(document_id: str, text: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "document_id": [document_id],
            "chunk_index": [0],
            "chunk_id": [f"md5 of {text}"],
            "chunk_text": [text],
            "heading_path": [""],
            "page_start": [1],
            "page_end": [1],
            "token_count": [2],
            "file_name": ["a.pdf"],
        }
    )


def raw_pdf(document_id: str, content: bytes = b"%PDF") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "document_id": [document_id],
            "path": [f"folder/{document_id}.pdf"],
            "file_name": [f"{document_id}.pdf"],
            "content": [content],
            "sha256": ["00"],
            "size_bytes": [len(content)],
            "modified_at": [NOW],
            "loaded_at": [NOW],
            "loaded_by": ["run"],
        },
        schema=TABLES["raw_pdfs"].schema,
    )


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
    made = warehouse_row("parsed_markdown", "a", "new")
    twice_the_same_page = pl.concat([pages("a", "new"), pages("a", "newer")])
    with pytest.raises(duckdb.ConstraintException):
        warehouse.replace(
            "parsed_markdown", twice_the_same_page, {"document_id": ["a"]}, materialized=made
        )
    assert texts(warehouse) == [("a", 1, "one"), ("a", 2, "two")]
    assert warehouse.data_versions("parsed_markdown") == {}


def test_a_record_that_fails_leaves_the_old_slice_too(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    made = warehouse_row("parsed_markdown", "a", "new").drop("code_version")
    with pytest.raises(TableMismatchError):
        warehouse.replace("parsed_markdown", pages("a", "new"), {"document_id": ["a"]}, made)
    assert texts(warehouse) == [("a", 1, "one")]


def test_a_frame_that_does_not_fit_leaves_the_old_slice(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    with pytest.raises(TableMismatchError):
        warehouse.replace("parsed_markdown", pages("a", "new").drop("parser"))
    assert texts(warehouse) == [("a", 1, "one")]


def test_a_slice_and_the_record_of_what_made_it_are_written_together(warehouse):
    made = warehouse_row("parsed_markdown", "a", "v1")
    warehouse.replace("parsed_markdown", pages("a", "one"), {"document_id": ["a"]}, made)
    assert warehouse.data_versions("parsed_markdown") == {"a": "v1"}
    made = warehouse_row("parsed_markdown", "a", "v2")
    warehouse.replace("parsed_markdown", pages("a", "two"), {"document_id": ["a"]}, made)
    assert warehouse.data_versions("parsed_markdown") == {"a": "v2"}


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
    warehouse.update("synthetic_questions", changes)
    rows = warehouse.read("SELECT question_id, status, question FROM synthetic_questions")
    before = question("a")["question"][0]
    assert sorted(rows.rows()) == [("q-a", "KEPT", before), ("q-b", "DUPLICATE", before)]


def test_deleting_documents_removes_every_trace_of_them_alone(warehouse):
    for key in ("a", "b", "c"):
        where = {"document_id": [key]}
        warehouse.replace("raw_pdfs", raw_pdf(key), where)
        made = warehouse_row("parsed_markdown", key, "v")
        warehouse.replace("parsed_markdown", pages(key, f"page of {key}"), where, made)
        warehouse.replace("chunks", chunk(key, f"text of {key}"), where)
        warehouse.replace("synthetic_questions", question(key), where)
    splits = pl.DataFrame({"kind": ["document"], "id": ["a"], "split": ["test_unseen_documents"]})
    warehouse.replace("split_assignments", splits)
    warehouse.delete_documents(["a", "c"])
    for name in (
        "raw_pdfs",
        "parsed_markdown",
        "chunks",
        "synthetic_questions",
        "materializations",
    ):
        assert warehouse.read(f"SELECT document_id FROM {name}")["document_id"].to_list() == ["b"]
    assert warehouse.count("split_assignments") == 1  # should it come back, it is still held out


def test_what_an_unpartitioned_asset_was_made_from_is_remembered(warehouse):
    warehouse.record("base_eval", code_version="1", input_version="i", data_version="d", run_id="r")
    assert warehouse.data_versions("base_eval") == {"": "d"}
    known = warehouse.version_of("base_eval")
    warehouse.record("base_eval", code_version="1", input_version="i", data_version="e", run_id="r")
    assert warehouse.version_of("base_eval") != known


def test_the_version_of_rows_is_what_they_say_not_when_they_were_made():
    early, late = (
        question("a"),
        question("a").with_columns(created_at=pl.lit(NOW.replace(year=2030))),
    )
    assert data_version("synthetic_questions", early) == data_version("synthetic_questions", late)
    other = early.with_columns(question=pl.lit("Another?"))
    assert data_version("synthetic_questions", early) != data_version("synthetic_questions", other)
    two = pages("a", "one", "two")
    assert data_version("parsed_markdown", two) == data_version("parsed_markdown", two.reverse())


def question(document_id: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "question_id": [f"q-{document_id}"],
            "chunk_id": ["c"],
            "relevant_chunk_ids": [["c"]],
            "document_id": [document_id],
            "question": ["Why?"],
            "answer": [None],
            "kind": ["labelled"],
            "purpose": ["test"],
            "generator": ["labelled:f"],
            "prompt_version": ["1"],
            "status": ["KEPT"],
            "reason": None,
            "score": [None],
            "input_tokens": [0],
            "output_tokens": [0],
            "created_at": [NOW],
        },
        schema=TABLES["synthetic_questions"].schema,
    )


def warehouse_row(asset: str, document_id: str, version: str) -> pl.DataFrame:
    """A row of the table of materializations."""
    return pl.DataFrame(
        {
            "asset": [asset],
            "document_id": [document_id],
            "code_version": ["1"],
            "input_version": ["i"],
            "data_version": [version],
            "dagster_run_id": ["r"],
            "materialized_at": [NOW],
        },
        schema=TABLES["materializations"].schema,
    )


# Several processes.


def write_slices(path: str, count: int) -> None:
    """Runs in a process of its own."""
    warehouse = Warehouse(path=path)
    for number in range(count):
        key = f"theirs-{number}"
        warehouse.replace("parsed_markdown", pages(key, "x", "y"), where={"document_id": [key]})


def die_between_deleting_and_inserting(path: str) -> None:
    """Runs in a process of its own."""
    with Warehouse(path=path)._transaction() as connection:
        connection.execute("DELETE FROM parsed_markdown")
        os.kill(os.getpid(), signal.SIGKILL)


def start(target: Callable[..., None], *args: Any) -> multiprocessing.process.BaseProcess:
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


def test_a_run_that_holds_the_lock_for_too_long_is_said_to_be_busy(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    impatient = Warehouse(path=warehouse.path, lock_timeout=1)
    with another_program(HOLD_THE_LOCK, warehouse.path):
        with pytest.raises(WarehouseBusyError) as error:
            impatient.replace("parsed_markdown", pages("a", "two"))
        assert str(error.value) == (
            f"{warehouse.path}: other runs held the warehouse for 1 s. "
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
            assert message.startswith(f"{warehouse.path}: another program has the warehouse open (")
            assert message.endswith(f"(PID {program.pid})). Close it and try again.")
    assert texts(warehouse) == [("a", 1, "one")]


def test_a_program_that_closes_the_file_in_time_is_waited_for(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    closes_soon = (
        f"{OPEN_THE_FILE}\nimport threading; threading.Timer(0.5, connection.close).start()"
    )
    with another_program(closes_soon, warehouse.path):
        warehouse.replace("parsed_markdown", pages("a", "two"))
    assert texts(warehouse) == [("a", 1, "two")]


def test_a_file_that_is_no_warehouse_is_an_error_at_once_wherever_it_lies(tmp_path):
    file = tmp_path / "clockwork.duckdb"  # its name must not pass for a lock
    file.write_text("hello" * 1000)
    with pytest.raises(duckdb.IOException, match="not a valid DuckDB"):
        texts(Warehouse(path=str(file), lock_timeout=0.5))


# The IO manager, in real Dagster runs.


class House:
    """Two assets, partitioned by document, whose rows a test decides; and where they land."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.instance = dg.DagsterInstance.ephemeral()
        self.read: pl.DataFrame | None = None

    def run(
        self,
        rows: pl.DataFrame,
        keys: Sequence[str],
        made_of_them: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialize parsed_markdown from these rows, and chunks from what is read back."""
        self.instance.add_dynamic_partitions(DOCUMENTS, list(keys))

        @dg.asset(**_spec("parsed_markdown"))
        def parsed_markdown() -> pl.DataFrame:
            return rows

        @dg.asset(**_spec("chunks"))
        def chunks(parsed_markdown: pl.DataFrame) -> pl.DataFrame:
            self.read = parsed_markdown
            assert made_of_them is not None
            return made_of_them(parsed_markdown)

        io_manager = DocumentsIOManager(database=self.warehouse.path, warehouse=self.warehouse)
        return dg.materialize(
            [parsed_markdown, chunks],
            selection=[parsed_markdown] if made_of_them is None else [parsed_markdown, chunks],
            instance=self.instance,
            resources={"io_manager": io_manager, "warehouse": self.warehouse},
            tags={
                "dagster/asset_partition_range_start": keys[0],
                "dagster/asset_partition_range_end": keys[-1],
            },
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )


def _spec(name: str) -> Mapping[str, Any]:
    return {
        "name": name,
        "partitions_def": documents,
        "backfill_policy": BATCHES,
        "code_version": "7",
        "metadata": {"partition_expr": "document_id"},
    }


@pytest.fixture
def house(warehouse) -> House:
    return House(warehouse)


def test_a_rerun_does_not_duplicate(house):
    for _ in range(2):
        assert house.run(pages("a", "one", "two"), ["a"]).success
    assert texts(house.warehouse) == [("a", 1, "one"), ("a", 2, "two")]


def test_a_partitions_slice_alone_is_replaced(house):
    house.run(pages("a", "one", "two"), ["a"])
    house.run(pages("b", "uno"), ["b"])
    house.run(pages("a", "ONE"), ["a"])
    assert texts(house.warehouse) == [("a", 1, "ONE"), ("b", 1, "uno")]


def test_a_run_over_a_range_materializes_each_of_its_partitions(house):
    result = house.run(pl.concat([pages("a", "one"), pages("b", "uno", "dos")]), ["a", "b"])
    assert texts(house.warehouse) == [("a", 1, "one"), ("b", 1, "uno"), ("b", 2, "dos")]
    assert set(house.warehouse.data_versions("parsed_markdown")) == {"a", "b"}
    made = house.instance.get_materialized_partitions(dg.AssetKey("parsed_markdown"))
    assert made == {"a", "b"}
    counts = {
        event.partition: event.step_materialization_data.materialization.metadata[
            "dagster/partition_row_count"
        ].value
        for event in result.get_asset_materialization_events()
    }
    assert counts == {"a": 1, "b": 2}


def test_a_document_of_the_run_without_rows_is_materialized_and_empty(house):
    house.run(pl.concat([pages("a", "one"), pages("b", "uno")]), ["a", "b"])
    house.run(pages("a", "one"), ["a", "b"])
    assert texts(house.warehouse) == [("a", 1, "one")]
    assert set(house.warehouse.data_versions("parsed_markdown")) == {"a", "b"}


def test_an_empty_frame_is_stored_and_read(house):
    result = house.run(pages("a"), ["a"], lambda rows: TABLES["chunks"].empty())
    assert result.success
    assert house.read is not None
    assert house.read.equals(TABLES["parsed_markdown"].empty())
    assert house.warehouse.count("chunks") == 0
    assert house.warehouse.data_versions("chunks") == {"a": ""}  # made, and holds nothing


def test_a_downstream_asset_reads_the_documents_of_its_run_alone_in_the_order_of_the_key(house):
    house.run(pages("z", "other"), ["z"])
    rows = pl.concat([pages("b", "uno", "dos").reverse(), pages("a", "one")])
    house.run(rows, ["a", "b"], lambda rows: pl.concat([chunk("a", "one"), chunk("b", "uno")]))
    assert house.read is not None
    assert house.read["markdown"].to_list() == ["one", "uno", "dos"]
    assert house.read.schema == TABLES["parsed_markdown"].schema


def test_a_slice_remembers_the_version_of_what_it_was_made_from_and_of_its_code(house):
    house.run(pages("a", "one"), ["a"], lambda rows: chunk("a", "one"))
    first = house.warehouse.data_versions("parsed_markdown")["a"]
    row = made_of(house, "chunks", "a")
    assert (row["input_version"], row["code_version"]) == (first, "7")
    house.run(pages("a", "changed"), ["a"])
    assert house.warehouse.data_versions("parsed_markdown")["a"] != first
    assert made_of(house, "chunks", "a")["input_version"] == first  # so that it shows as stale


def made_of(house: House, asset: str, document_id: str) -> dict[str, Any]:
    sql = "SELECT * FROM materializations WHERE asset = ? AND document_id = ?"
    return house.warehouse.read(sql, [asset, document_id]).row(0, named=True)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (pages("a", "new").drop("markdown"), "missing column markdown"),
        (pages("a", "new").with_columns(extra=1), "unknown column extra"),
        (pages("a", "new").with_columns(page=pl.lit("1")), "page: String where Int64 belongs"),
    ],
    ids=["missing", "extra", "mistyped"],
)
def test_a_frame_that_does_not_fit_fails_the_run_and_keeps_the_old_slice(house, rows, complaint):
    house.run(pages("a", "one"), ["a"])
    with pytest.raises(TableMismatchError, match=complaint):
        house.run(rows, ["a"])
    assert texts(house.warehouse) == [("a", 1, "one")]


def test_rows_of_documents_outside_the_run_are_refused(house):
    house.run(pages("b", "uno"), ["b"])
    with pytest.raises(ValueError, match="rows of documents outside this run: b"):
        house.run(pl.concat([pages("a", "one"), pages("b", "stray")]), ["a"])
    assert texts(house.warehouse) == [("b", 1, "uno")]


def test_a_warehouse_of_an_older_version_gets_the_columns_that_it_lacks(warehouse):
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
    assert warehouse.read("SELECT reason FROM synthetic_questions").rows() == [(None,)]
    warehouse.replace("synthetic_questions", question("new"), where={"document_id": ["other"]})
    rows = warehouse.read("SELECT question_id, reason FROM synthetic_questions ORDER BY ALL")
    assert rows.rows() == [("old", None), ("q-new", None)]
