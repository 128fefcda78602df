"""The bytes of PDFs beside a DuckLake's tables: once for equal files, whole, gone in the end."""

import hashlib
import os
import time
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from embed_assets.resources.contents import YOUNG, Contents
from embed_assets.resources.duckdb_connection import WarehouseError
from embed_assets.resources.ledger import Materialization, Records
from embed_assets.resources.soundness import damaged_slices
from embed_assets.resources.warehouse import Warehouse
from embed_assets_tests.rows import raw_pdf

ONE, OTHER = b"%PDF one", b"%PDF another"


def name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def row(key: str, content: bytes) -> pl.DataFrame:
    return raw_pdf(key, content).with_columns(sha256=pl.lit(name(content)))


@pytest.fixture(params=["folder", "bucket"])
def contents(request: pytest.FixtureRequest, tmp_path: Path) -> Contents:
    """In a folder, and in a bucket."""
    if request.param == "folder":
        return Contents(str(tmp_path / "lake" / "pdfs"))
    return Contents(f"{request.getfixturevalue('bucket')}/lake/pdfs")


def test_bytes_are_read_as_they_were_kept_and_equal_ones_are_kept_once(contents):
    assert contents.all() == {}
    contents.keep({name(ONE): ONE, name(OTHER): OTHER})
    contents.keep({name(ONE): ONE})
    assert contents.read([name(OTHER), name(ONE)]) == {name(ONE): ONE, name(OTHER): OTHER}
    assert {key: kept.size_bytes for key, kept in contents.all().items()} == {
        name(ONE): len(ONE),
        name(OTHER): len(OTHER),
    }
    assert contents.read([]) == {}


def test_bytes_that_are_dropped_are_gone_and_said_to_be(contents):
    contents.keep({name(ONE): ONE, name(OTHER): OTHER})
    contents.drop([name(ONE), "0" * 64])
    assert set(contents.all()) == {name(OTHER)}
    with pytest.raises(WarehouseError, match="PDFs' bytes can't be had") as said:
        contents.read([name(ONE)])
    assert "\n" not in str(said.value)


def test_a_file_that_was_cut_off_is_written_anew(tmp_path):
    contents = Contents(str(tmp_path))
    contents.keep({name(ONE): ONE})
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    file.write_bytes(ONE[:3])
    contents.keep({name(ONE): ONE})
    assert contents.read([name(ONE)]) == {name(ONE): ONE}


def test_what_no_row_names_goes_once_it_is_old(tmp_path):
    contents = Contents(str(tmp_path))
    contents.keep({name(ONE): ONE, name(OTHER): OTHER})
    assert contents.drop_unused([name(OTHER)], timedelta()) == 0  # its row may be yet to come
    old = time.time() - YOUNG.total_seconds() - 60
    for file in [path for path in tmp_path.rglob("*") if path.is_file()]:
        os.utime(file, (old, old))
    assert contents.drop_unused([name(OTHER)], timedelta(days=7)) == 0
    assert contents.drop_unused([name(OTHER)], timedelta()) == 1
    assert set(contents.all()) == {name(OTHER)}


def test_what_is_kept_again_is_young_again(tmp_path):
    """Else it might be dropped before its row is written."""
    contents = Contents(str(tmp_path))
    contents.keep({name(ONE): ONE})
    old = time.time() - YOUNG.total_seconds() - 60
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    os.utime(file, (old, old))
    contents.keep({name(ONE): ONE})
    assert contents.drop_unused([], timedelta()) == 0


def test_what_a_kill_left_half_written_goes_with_it(tmp_path):
    contents = Contents(str(tmp_path))
    contents.keep({name(ONE): ONE})
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    file.with_name(f"{file.name}.120000.unfinished").write_bytes(ONE[:4])
    contents.drop([name(ONE)])
    assert contents.all() == {}


# As the warehouse has them.


def test_a_lakes_table_holds_no_bytes_and_its_rows_are_read_with_them(lake: Warehouse):
    stored = lake.keep_contents(row("a", ONE))
    lake.replace("raw_pdfs", stored)
    found = lake.read("SELECT * FROM raw_pdfs")
    assert found["content"].to_list() == [None]
    assert lake.with_contents(found)["content"].to_list() == [ONE]


def test_a_file_holds_the_bytes_itself(tmp_path):
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))
    rows = row("a", ONE)
    assert warehouse.contents is None
    assert warehouse.keep_contents(rows) is rows
    assert warehouse.with_contents(rows) is rows


@pytest.mark.parametrize("deep", [False, True])
def test_bytes_that_are_gone_or_cut_off_are_found(lake, deep):
    for key, content in (("a", ONE), ("b", OTHER), ("c", b"%PDF third")):
        lake.replace("raw_pdfs", lake.keep_contents(row(key, content)), {"document_id": [key]})
    records = Records(
        {
            ("raw_pdfs", key): Materialization("1", "", sha256)
            for key, sha256 in lake.read("SELECT document_id, sha256 FROM raw_pdfs").iter_rows()
        }
    )
    assert damaged_slices(lake, records, {}, deep=deep) == []
    lake.contents.drop([name(ONE)])
    [file] = Path(lake.contents.folder).rglob(name(OTHER))
    file.write_bytes(OTHER[:-1] if not deep else OTHER[:-1] + b"?")
    damage = damaged_slices(lake, records, {}, deep=deep)
    assert [key for row in damage for _, key in row.slices] == ["a", "b"]
