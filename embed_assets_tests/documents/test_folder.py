"""What is in the PDF folder, what of it is on record, and what has moved."""

import hashlib
import os
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import duckdb
import polars as pl
import pytest

from embed_assets.documents.folder import (
    find_moved,
    load_documents,
    move_documents,
    read_loaded,
    remove_documents,
    scan,
)
from embed_assets.errors import SettingsError
from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.pairs.splits import UNSEEN
from embed_assets.partitions import document_id
from embed_assets.resources.ledger import (
    Cause,
    Failure,
    Materialization,
    document_tables,
    next_attempt,
    write_made,
    write_tried,
)
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import TABLES
from embed_assets_tests.rows import chunk, filled, pages, question

NOBODY = 65534


def put(folder: Path, *paths: str, content: bytes = b"%PDF-1.7") -> None:
    for path in paths:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def paths(folder: Path) -> list[str]:
    return [document.path for document in scan(folder).values()]


def id_of(path: str) -> str:
    return document_id(PurePosixPath(path))


# Which documents there are.


def test_documents_are_found_in_subfolders_and_in_the_order_of_their_paths(tmp_path):
    put(tmp_path, "b.pdf", "a/z.pdf", "a/b/c.pdf", "a.pdf")
    assert paths(tmp_path) == ["a.pdf", "a/b/c.pdf", "a/z.pdf", "b.pdf"]


def test_the_suffix_may_be_in_any_case_and_other_files_are_left_out(tmp_path):
    put(tmp_path, "a.PDF", "b.Pdf", "c.txt", "d.pdf.part", "pdf", "questions.jsonl", "e.pdf ")
    assert paths(tmp_path) == ["a.PDF", "b.Pdf", "e.pdf "]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    put(tmp_path, "a.pdf", ".b.pdf", "._a.pdf", ".pdf", ".git/c.pdf", "x/.y/d.pdf")
    assert paths(tmp_path) == ["a.pdf"]


def test_names_with_odd_characters_are_found(tmp_path):
    names = ["Ünïcødé (v2) — 报告.pdf", "it's 100%.pdf", "new\nline.pdf"]
    put(tmp_path, *names)
    assert set(paths(tmp_path)) == set(names)


def test_an_empty_folder_has_no_documents(tmp_path):
    assert scan(tmp_path) == {}


def test_a_missing_folder_is_an_error_and_not_an_empty_folder(tmp_path):
    with pytest.raises(SettingsError, match=r"EMBED_ASSETS_PDFS: .*/gone does not exist\. Set it"):
        scan(tmp_path / "gone")


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    put(tmp_path, "a.pdf")
    with pytest.raises(SettingsError, match=r"a\.pdf is not a folder"):
        scan(tmp_path / "a.pdf")


@contextmanager
def closed(path):
    """What may not be read, by a user whom that stops: root is another one meanwhile."""
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(0o755)


@pytest.fixture
def open_folder():
    """A folder that every user may enter, unlike pytest's own."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_folder_that_may_not_be_read_is_an_error_and_not_an_empty_folder(open_folder):
    put(open_folder, "pdfs/a.pdf")
    with (
        closed(open_folder / "pdfs"),
        pytest.raises(SettingsError, match="pdfs can't be listed: Permission denied"),
    ):
        scan(open_folder / "pdfs")


def test_a_document_is_known_by_its_path_in_the_folder_wherever_that_lies(tmp_path):
    put(tmp_path, "here/x/a.pdf", "there/x/a.pdf")
    assert list(scan(tmp_path / "here")) == list(scan(tmp_path / "there")) == [id_of("x/a.pdf")]


# What is on record.


def load(folder: Path, warehouse: Warehouse) -> None:
    """Read every document of a folder into the warehouse."""
    slices = load_documents(folder, list(scan(folder)), "run")
    assert slices.not_made == {}
    warehouse.replace("raw_pdfs", slices.rows)


def changed(folder: Path, warehouse: Warehouse) -> list[str]:
    """Paths of documents that are on record otherwise than they are in the folder."""
    loaded = read_loaded(warehouse)
    return [file.path for key, file in scan(folder).items() if not loaded[key].is_as(file)]


@pytest.fixture
def warehouse(tmp_path_factory) -> Warehouse:
    return Warehouse(path=str(tmp_path_factory.mktemp("home") / "warehouse.duckdb"))


def test_a_home_without_documents_has_none_on_record(warehouse):
    assert read_loaded(warehouse) == {}


def test_a_document_loaded_and_left_alone_has_not_changed(tmp_path, warehouse):
    put(tmp_path, "a.pdf", "b.pdf")
    os.utime(tmp_path / "a.pdf", ns=(0, 1_700_000_000_123_456_789))  # finer than is stored
    os.utime(tmp_path / "b.pdf", (0, 4_000_000_000))
    load(tmp_path, warehouse)
    assert changed(tmp_path, warehouse) == []


def test_a_document_that_an_older_version_read_has_not_changed(tmp_path, warehouse):
    put(tmp_path, "a.pdf")
    load(tmp_path, warehouse)
    with duckdb.connect(warehouse.path) as connection:
        connection.execute("ALTER TABLE raw_pdfs DROP COLUMN etag")
    assert changed(tmp_path, warehouse) == []
    (tmp_path / "a.pdf").rename(tmp_path / "b.pdf")
    assert move(tmp_path, warehouse) == {id_of("b.pdf"): id_of("a.pdf")}
    assert changed(tmp_path, warehouse) == []


def test_a_changed_pdf_keeps_its_partition_and_is_noticed(tmp_path, warehouse):
    put(tmp_path, "a.pdf", "b.pdf")
    load(tmp_path, warehouse)
    before = list(scan(tmp_path))
    put(tmp_path, "a.pdf", content=b"%PDF-1.7 and more")
    assert list(scan(tmp_path)) == before
    assert changed(tmp_path, warehouse) == ["a.pdf"]


def test_a_change_that_keeps_the_size_is_noticed_by_its_time(tmp_path, warehouse):
    put(tmp_path, "a.pdf", content=b"one")
    load(tmp_path, warehouse)
    put(tmp_path, "a.pdf", content=b"two")
    os.utime(tmp_path / "a.pdf", (0, 1_000_000_000))  # older than what was loaded
    assert changed(tmp_path, warehouse) == ["a.pdf"]


def test_a_file_that_is_written_to_looks_different_from_one_look_to_the_next(tmp_path):
    put(tmp_path, "a.pdf", "growing.pdf")
    seen = {key: document.version for key, document in scan(tmp_path).items()}
    put(tmp_path, "growing.pdf", content=b"%PDF-1.7 and more")
    now = {key: document.version for key, document in scan(tmp_path).items()}
    assert [key for key in now if seen[key] == now[key]] == [id_of("a.pdf")]


# What has moved.


def moved(folder: Path, warehouse: Warehouse) -> dict[str, str]:
    return find_moved(folder, scan(folder), read_loaded(warehouse))


def test_a_document_that_lies_elsewhere_is_known_by_its_bytes(tmp_path, warehouse):
    put(tmp_path, "a.pdf", content=b"one")
    put(tmp_path, "b.pdf", content=b"two")
    load(tmp_path, warehouse)
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.pdf").rename(tmp_path / "sub" / "other.pdf")
    assert moved(tmp_path, warehouse) == {id_of("sub/other.pdf"): id_of("a.pdf")}


def test_a_copy_has_not_moved(tmp_path, warehouse):
    put(tmp_path, "a.pdf")
    load(tmp_path, warehouse)
    put(tmp_path, "copy.pdf")
    assert moved(tmp_path, warehouse) == {}


def test_other_bytes_of_the_same_size_are_another_document(tmp_path, warehouse):
    put(tmp_path, "a.pdf", content=b"one")
    load(tmp_path, warehouse)
    (tmp_path / "a.pdf").unlink()
    put(tmp_path, "b.pdf", content=b"two")
    assert moved(tmp_path, warehouse) == {}


def test_of_two_copies_of_one_document_one_has_moved_there(tmp_path, warehouse):
    put(tmp_path, "a.pdf")
    load(tmp_path, warehouse)
    (tmp_path / "a.pdf").unlink()
    put(tmp_path, "b.pdf", "c.pdf")
    assert list(moved(tmp_path, warehouse).values()) == [id_of("a.pdf")]


def test_of_two_equal_documents_that_moved_each_is_taken_once(tmp_path, warehouse):
    put(tmp_path, "a.pdf", "b.pdf")
    load(tmp_path, warehouse)
    (tmp_path / "sub").mkdir()
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / name).rename(tmp_path / "sub" / name)
    found = moved(tmp_path, warehouse)
    assert set(found) == {id_of("sub/a.pdf"), id_of("sub/b.pdf")}
    assert set(found.values()) == {id_of("a.pdf"), id_of("b.pdf")}


def fill(warehouse: Warehouse, *keys: str) -> None:
    """What follows from each document: a page, a chunk, a question and its pair, all in train."""
    with warehouse.transaction() as transaction:
        for key in keys:
            where = {"document_id": [key]}
            transaction.replace("parsed_markdown", pages(key, f"page of {key}"), where)
            transaction.replace("chunks", chunk(key, f"text of {key}"), where)
            transaction.replace("synthetic_questions", question(key), where)
            embedded = filled("chunk_embeddings", [{"document_id": key}])
            transaction.replace("chunk_embeddings", embedded, where)
            transaction.replace("training_pairs", pair(key), where)
            made = {key: Materialization("1", "i", f"version of {key}")}
            for asset in DOCUMENT_ASSETS:
                write_made(transaction, asset, made, "run")
            splits = pl.DataFrame({"kind": ["document"], "id": [key], "split": [UNSEEN]})
            transaction.upsert("split_assignments", splits)
            failure = Failure(Cause.CALL_FAILED, f"no answer for {key}")
            attempt = next_attempt(None, failure, "1", "i", datetime.now(UTC))
            write_tried(transaction, "synthetic_questions", {key: attempt}, "run")


def pair(document_id: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "question_id": [f"q-{document_id}"],
            "anchor": ["Why?"],
            "positive": [f"text of {document_id}"],
            "global_chunk_id": [f"md5 of text of {document_id}"],
            "relevant_chunk_ids": [[f"md5 of text of {document_id}"]],
            "document_id": [document_id],
            "generator": ["extractive"],
            "split": ["train"],
        }
    )


def contents(warehouse: Warehouse) -> dict[str, list[tuple]]:
    """All that hangs on documents, without their ids, names and times."""
    left_out = ("document_id", "path", "file_name", "modified_at", "materialized_at")
    found = {}
    for table in (*document_tables(), "training_pairs"):
        columns = ", ".join(name for name in TABLES[table].columns if name not in left_out)
        found[table] = warehouse.read(f"SELECT {columns} FROM {table} ORDER BY ALL").rows()
    return found


def move(folder: Path, warehouse: Warehouse) -> dict[str, str]:
    """Carry out what moved in a folder."""
    found = moved(folder, warehouse)
    move_documents(warehouse, found, scan(folder))
    return found


def ids_in(warehouse: Warehouse) -> set[str]:
    """Ids under which documents stand in any table."""
    tables = (*document_tables(), "training_pairs")
    sql = " UNION ".join(f"SELECT document_id FROM {table}" for table in tables)
    return set(warehouse.read(sql)["document_id"])


def test_a_folder_that_moved_whole_into_a_subfolder_keeps_all_that_hangs_on_its_documents(
    tmp_path, warehouse
):
    for name in ("a.pdf", "b.pdf", "c.pdf"):
        put(tmp_path, name, content=name.encode())
    load(tmp_path, warehouse)
    fill(warehouse, *scan(tmp_path))
    before = contents(warehouse)
    (tmp_path / "new" / "home").mkdir(parents=True)
    for name in ("a.pdf", "b.pdf", "c.pdf"):
        (tmp_path / name).rename(tmp_path / "new" / "home" / name)
    assert len(move(tmp_path, warehouse)) == 3
    assert contents(warehouse) == before
    assert ids_in(warehouse) == set(scan(tmp_path))
    assert warehouse.paths() == {key: file.path for key, file in scan(tmp_path).items()}
    assert moved(tmp_path, warehouse) == {}
    assert changed(tmp_path, warehouse) == []


def test_the_one_pdf_renamed_is_the_same_document_under_its_new_name(tmp_path, warehouse):
    put(tmp_path, "old.pdf")
    load(tmp_path, warehouse)
    fill(warehouse, id_of("old.pdf"))
    before = contents(warehouse)
    (tmp_path / "old.pdf").rename(tmp_path / "new.pdf")
    move(tmp_path, warehouse)
    assert contents(warehouse) == before
    assert ids_in(warehouse) == {id_of("new.pdf")}
    assert warehouse.read("SELECT DISTINCT file_name FROM chunks").item() == "new.pdf"
    assert warehouse.read("SELECT * FROM former_paths").rows() == [("old.pdf", id_of("new.pdf"))]


def test_the_split_of_a_document_goes_with_it_and_another_file_there_does_not_inherit_it(
    tmp_path, warehouse
):
    put(tmp_path, "old.pdf")
    load(tmp_path, warehouse)
    fill(warehouse, id_of("old.pdf"))
    (tmp_path / "old.pdf").rename(tmp_path / "new.pdf")
    move(tmp_path, warehouse)
    splits = warehouse.read("SELECT id, split FROM split_assignments ORDER BY id").rows()
    assert splits == [(id_of("new.pdf"), UNSEEN)]


def test_documents_that_swapped_their_names_have_both_moved(tmp_path, warehouse):
    put(tmp_path, "a.pdf", content=b"one")
    put(tmp_path, "b.pdf", content=b"two!")
    load(tmp_path, warehouse)
    (tmp_path / "a.pdf").rename(tmp_path / "c")
    (tmp_path / "b.pdf").rename(tmp_path / "a.pdf")
    (tmp_path / "c").rename(tmp_path / "b.pdf")
    a, b = id_of("a.pdf"), id_of("b.pdf")
    assert moved(tmp_path, warehouse) == {a: b, b: a}
    move(tmp_path, warehouse)
    held = dict(warehouse.read("SELECT path, content FROM raw_pdfs").iter_rows())
    assert held == {"a.pdf": b"two!", "b.pdf": b"one"}
    assert moved(tmp_path, warehouse) == {}


def test_a_document_that_moved_twice_is_known_under_each_path_that_it_had(tmp_path, warehouse):
    put(tmp_path, "a.pdf")
    load(tmp_path, warehouse)
    for old, new in (("a.pdf", "b.pdf"), ("b.pdf", "c.pdf"), ("c.pdf", "a.pdf")):
        (tmp_path / old).rename(tmp_path / new)
        move(tmp_path, warehouse)
    former = dict(warehouse.read("SELECT path, document_id FROM former_paths").iter_rows())
    assert former == dict.fromkeys(["a.pdf", "b.pdf", "c.pdf"], id_of("a.pdf"))


def test_removing_documents_removes_every_trace_of_them_alone(tmp_path, warehouse):
    for name in ("a.pdf", "b.pdf", "c.pdf"):
        put(tmp_path, name, content=name.encode())
    load(tmp_path, warehouse)
    fill(warehouse, *scan(tmp_path))
    remove_documents(warehouse, [id_of("a.pdf"), id_of("c.pdf")])
    for table in document_tables():
        left = warehouse.read(f"SELECT DISTINCT document_id FROM {table}")["document_id"]
        assert left.to_list() == [id_of("b.pdf")], table
    assert warehouse.count("split_assignments") == 3  # should one come back, it is still held out


# What is read.


def test_a_loaded_document_has_its_bytes_and_their_hash(tmp_path):
    content = bytes(range(256))
    put(tmp_path, "x/a b.pdf", content=content)
    os.utime(tmp_path / "x/a b.pdf", (0, 1_000_000_000))
    slices = load_documents(tmp_path, [id_of("x/a b.pdf")], "run-1")
    assert slices.not_made == {}
    row = TABLES["raw_pdfs"].conform(slices.rows).row(0, named=True)
    assert row["content"] == content
    assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert (row["path"], row["file_name"]) == ("x/a b.pdf", "a b.pdf")
    assert (row["size_bytes"], row["loaded_by"]) == (256, "run-1")
    assert row["modified_at"] == datetime.fromtimestamp(1_000_000_000, UTC)


def test_only_the_documents_asked_for_are_loaded(tmp_path):
    put(tmp_path, "a.pdf", "b.pdf")
    slices = load_documents(tmp_path, [id_of("b.pdf")], "run")
    assert slices.rows["path"].to_list() == ["b.pdf"]


def test_a_document_that_vanished_is_named_and_the_others_are_loaded(tmp_path):
    put(tmp_path, "a.pdf", "b.pdf")
    keys = [*scan(tmp_path), id_of("never.pdf")]
    (tmp_path / "a.pdf").unlink()
    slices = load_documents(tmp_path, keys, "run")
    assert slices.rows["path"].to_list() == ["b.pdf"]
    assert set(slices.not_made) == {id_of("a.pdf"), id_of("never.pdf")}


def test_a_document_that_may_not_be_read_just_now_is_to_be_tried_again(open_folder):
    put(open_folder, "a.pdf", "b.pdf")
    with closed(open_folder / "a.pdf"):
        slices = load_documents(open_folder, list(scan(open_folder)), "run")
    assert slices.rows.select("path", "content").rows() == [("b.pdf", b"%PDF-1.7")]
    said = "the file may not be read: Permission denied"
    assert slices.not_made == {id_of("a.pdf"): Failure(Cause.UNREADABLE_FILE, said)}


def test_when_every_document_vanished_the_rows_still_fit_their_table(tmp_path):
    slices = load_documents(tmp_path, [id_of("a.pdf")], "run")
    assert TABLES["raw_pdfs"].conform(slices.rows).height == 0
    assert set(slices.not_made) == {id_of("a.pdf")}
