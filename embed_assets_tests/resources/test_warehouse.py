"""Slices are replaced whole or not at all, whoever else reads, writes or dies meanwhile."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from embed_assets.resources.soundness import damaged_tables, mend_tables
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import TABLES, TableMismatchError
from embed_assets_tests.rows import pages, question, raw_pdf


@pytest.fixture(params=["file", "lake"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    """One in a file, and one in a DuckLake."""
    if request.param == "lake":
        return request.getfixturevalue("lake")
    return Warehouse(path=str(tmp_path / "home" / "warehouse.duckdb"), lock_timeout=60)


def texts(warehouse: Warehouse) -> list[tuple[str, int, str]]:
    """Everything that parsed_markdown holds."""
    sql = "SELECT document_id, page, markdown FROM parsed_markdown ORDER BY ALL"
    return warehouse.read(sql).rows()


def test_a_warehouse_never_written_reads_as_empty(warehouse):
    for name, table in TABLES.items():
        rows = warehouse.read(f"SELECT * FROM {name}")
        assert rows.height == 0
        assert rows.columns == list(table.columns)
        assert warehouse.count(name) == 0


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


def write_slices(path: str, lake: str, count: int) -> None:
    """Runs in a process of its own."""
    warehouse = Warehouse(path=path, lake=lake)
    for number in range(count):
        key = f"theirs-{number}"
        warehouse.replace("parsed_markdown", pages(key, "x", "y"), where={"document_id": [key]})


def die_between_deleting_and_inserting(path: str, lake: str) -> None:
    """Runs in a process of its own."""
    with Warehouse(path=path, lake=lake).transaction() as transaction:
        transaction.execute("DELETE FROM parsed_markdown")
        os.kill(os.getpid(), signal.SIGKILL)


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=target, args=args)
    process.start()
    return process


def test_processes_that_write_at_once_all_succeed(warehouse):
    other = start(write_slices, warehouse.path, warehouse.lake, 4)
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
    process = start(die_between_deleting_and_inserting, warehouse.path, warehouse.lake)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert texts(warehouse) == [("a", 1, "one")]
    warehouse.replace("parsed_markdown", pages("a", "two"))
    assert texts(warehouse) == [("a", 1, "two")]


def test_a_key_that_would_come_twice_is_refused_whatever_slice_it_is_in(warehouse):
    warehouse.replace("synthetic_questions", question("a"))
    same = question("a").with_columns(document_id=pl.lit("b"))
    with pytest.raises(duckdb.ConstraintException):
        warehouse.replace("synthetic_questions", same, {"document_id": ["b"]})
    with pytest.raises(duckdb.ConstraintException), warehouse.transaction() as transaction:
        transaction.upsert("synthetic_questions", pl.concat([same, same]))
    assert warehouse.read("SELECT document_id FROM synthetic_questions").rows() == [("a",)]
    warehouse.replace("synthetic_questions", same)  # in place of all
    assert warehouse.read("SELECT document_id FROM synthetic_questions").rows() == [("b",)]


def test_rows_of_a_query_take_the_place_of_those_with_their_keys(warehouse):
    warehouse.replace("former_paths", pl.DataFrame({"path": ["x"], "document_id": ["old"]}))
    with warehouse.transaction() as transaction:
        transaction.register("moved", pl.DataFrame({"before": ["x", "y"], "key": ["new", "other"]}))
        transaction.upsert_selected(
            "former_paths",
            "SELECT before AS path, key AS document_id FROM moved WHERE before <= $1",
            ["y"],
        )
    rows = warehouse.read("SELECT path, document_id FROM former_paths ORDER BY path").rows()
    assert rows == [("x", "new"), ("y", "other")]


def test_damaged_tables_are_told_and_built_anew_with_their_rows(warehouse):
    warehouse.replace("parsed_markdown", pages("a", "one"))
    with warehouse.mending() as transaction:
        transaction.execute(
            "CREATE TEMP TABLE kept AS SELECT * REPLACE (page::VARCHAR AS page) "
            "FROM parsed_markdown"
        )
        transaction.execute("DROP TABLE parsed_markdown")
        transaction.execute("CREATE TABLE parsed_markdown AS FROM kept")
    damage = damaged_tables(warehouse)
    assert {row.what for row in damage} == {"parsed_markdown"}
    assert mend_tables(warehouse, damage, Path(warehouse.path).parent) == []
    assert warehouse.differences() == []
    assert texts(warehouse) == [("a", 1, "one")]
