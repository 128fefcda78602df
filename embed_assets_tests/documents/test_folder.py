"""What is in the PDF folder, and what that means for the partitions."""

import hashlib
import os
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import polars as pl
import pytest

from embed_assets.automation.sensors import batches
from embed_assets.documents.folder import (
    changed_documents,
    check_same_folder,
    fingerprint,
    load_documents,
    partitions_to_sync,
    scan,
    settled_documents,
)
from embed_assets.errors import SettingsError
from embed_assets.partitions import document_id
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import TABLES

NOBODY = 65534
LOADED = ("document_id", "size_bytes", "modified_at")


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
    put(tmp_path, "a.PDF", "b.Pdf", "c.txt", "d.pdf.part", "pdf", "questions.jsonl")
    assert paths(tmp_path) == ["a.PDF", "b.Pdf"]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    put(tmp_path, "a.pdf", ".b.pdf", "._a.pdf", ".pdf", ".git/c.pdf", "x/.y/d.pdf")
    assert paths(tmp_path) == ["a.pdf"]


def test_a_folder_named_like_a_pdf_is_no_document(tmp_path):
    put(tmp_path, "folder.pdf/inside.pdf")
    assert paths(tmp_path) == ["folder.pdf/inside.pdf"]


def test_a_dangling_link_is_no_document_and_stops_nothing(tmp_path):
    put(tmp_path, "a.pdf")
    (tmp_path / "gone.pdf").symlink_to(tmp_path / "nowhere.pdf")
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
    put(open_folder, "closed/a.pdf")
    with (
        closed(open_folder / "closed"),
        pytest.raises(SettingsError, match="closed: Permission denied"),
    ):
        scan(open_folder)


def test_a_document_is_known_by_its_path_in_the_folder_wherever_that_lies(tmp_path):
    put(tmp_path, "here/x/a.pdf", "there/x/a.pdf")
    assert list(scan(tmp_path / "here")) == list(scan(tmp_path / "there")) == [id_of("x/a.pdf")]


# What becomes of the partitions.


def test_a_new_document_gets_a_partition():
    assert partitions_to_sync(["a", "b"], ["a"], []) == (["b"], [])


def test_a_document_that_left_loses_its_partition():
    assert partitions_to_sync(["a"], ["a", "b"], []) == ([], ["b"])


def test_a_partition_with_a_run_in_flight_is_not_deleted():
    assert partitions_to_sync([], ["a", "b"], ["a"]) == ([], ["b"])


def test_when_nothing_changed_nothing_is_done():
    assert partitions_to_sync(["a", "b"], ["b", "a"], ["a"]) == ([], [])


def test_new_partitions_are_added_in_the_order_in_which_they_were_found():
    assert partitions_to_sync(["c", "a", "b"], [], []) == (["c", "a", "b"], [])


def test_a_folder_with_none_of_the_known_documents_is_another_folder(tmp_path):
    for found in ([], ["c"]):
        with pytest.raises(
            SettingsError, match=f"none of this home's 2 documents is in {tmp_path}"
        ):
            check_same_folder(found, ["a", "b"], tmp_path)


def test_a_folder_with_one_known_document_left_is_the_same_folder(tmp_path):
    check_same_folder(["b", "c"], ["a", "b"], tmp_path)


def test_a_home_without_documents_takes_any_folder(tmp_path):
    check_same_folder([], [], tmp_path)
    check_same_folder(["a"], [], tmp_path)


def test_a_run_covers_only_neighbours():
    assert batches(["a", "b", "c", "d", "e"], {"a", "b", "d"}) == [["a", "b"], ["d"]]


def test_a_run_covers_no_more_than_its_size():
    assert batches(list("abcde"), set("abcde"), size=2) == [["a", "b"], ["c", "d"], ["e"]]


def test_a_document_without_a_partition_is_in_no_run():
    assert batches(["a"], {"a", "unknown"}) == [["a"]]


# What changed.


def stored(folder: Path, warehouse: Warehouse) -> pl.DataFrame:
    """What the warehouse knows of a folder once it is loaded."""
    rows, gone = load_documents(folder, list(scan(folder)), "run")
    assert gone == []
    warehouse.replace("raw_pdfs", rows)
    return warehouse.read(f"SELECT {', '.join(LOADED)} FROM raw_pdfs")


@pytest.fixture
def warehouse(tmp_path_factory) -> Warehouse:
    return Warehouse(path=str(tmp_path_factory.mktemp("home") / "warehouse.duckdb"))


def test_documents_never_loaded_count_as_changed(tmp_path):
    put(tmp_path, "a.pdf", "b.pdf")
    nothing = pl.DataFrame(schema={name: TABLES["raw_pdfs"].schema[name] for name in LOADED})
    assert changed_documents(scan(tmp_path), nothing) == [id_of("a.pdf"), id_of("b.pdf")]


def test_a_document_loaded_and_left_alone_has_not_changed(tmp_path, warehouse):
    put(tmp_path, "a.pdf", "b.pdf")
    os.utime(tmp_path / "a.pdf", ns=(0, 1_700_000_000_123_456_789))  # finer than is stored
    os.utime(tmp_path / "b.pdf", (0, 4_000_000_000))
    assert changed_documents(scan(tmp_path), stored(tmp_path, warehouse)) == []


def test_a_changed_pdf_keeps_its_partition_and_is_noticed(tmp_path, warehouse):
    put(tmp_path, "a.pdf", "b.pdf")
    loaded = stored(tmp_path, warehouse)
    before = list(scan(tmp_path))
    put(tmp_path, "a.pdf", content=b"%PDF-1.7 and more")
    assert list(scan(tmp_path)) == before
    assert changed_documents(scan(tmp_path), loaded) == [id_of("a.pdf")]


def test_a_change_that_keeps_the_size_is_noticed_by_its_time(tmp_path, warehouse):
    put(tmp_path, "a.pdf", content=b"one")
    loaded = stored(tmp_path, warehouse)
    put(tmp_path, "a.pdf", content=b"two")
    os.utime(tmp_path / "a.pdf", (0, 1_000_000_000))  # older than what was loaded
    assert changed_documents(scan(tmp_path), loaded) == [id_of("a.pdf")]


def test_a_document_is_settled_once_it_looks_as_it_did_at_the_last_look(tmp_path):
    put(tmp_path, "a.pdf", "growing.pdf")
    seen = {key: fingerprint(document) for key, document in scan(tmp_path).items()}
    put(tmp_path, "growing.pdf", content=b"%PDF-1.7 and more")
    put(tmp_path, "new.pdf")
    assert settled_documents(scan(tmp_path), seen) == [id_of("a.pdf")]
    seen = {key: fingerprint(document) for key, document in scan(tmp_path).items()}
    assert set(settled_documents(scan(tmp_path), seen)) == set(scan(tmp_path))


# What is read.


def test_a_loaded_document_has_its_bytes_and_their_hash(tmp_path):
    content = bytes(range(256))
    put(tmp_path, "x/a b.pdf", content=content)
    os.utime(tmp_path / "x/a b.pdf", (0, 1_000_000_000))
    rows, gone = load_documents(tmp_path, [id_of("x/a b.pdf")], "run-1")
    assert gone == []
    row = TABLES["raw_pdfs"].conform(rows).row(0, named=True)
    assert row["content"] == content
    assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert (row["path"], row["file_name"]) == ("x/a b.pdf", "a b.pdf")
    assert (row["size_bytes"], row["loaded_by"]) == (256, "run-1")
    assert row["modified_at"] == datetime.fromtimestamp(1_000_000_000, UTC)


def test_only_the_documents_asked_for_are_loaded(tmp_path):
    put(tmp_path, "a.pdf", "b.pdf")
    rows, _ = load_documents(tmp_path, [id_of("b.pdf")], "run")
    assert rows["path"].to_list() == ["b.pdf"]


def test_a_document_that_vanished_is_named_and_the_others_are_loaded(tmp_path):
    put(tmp_path, "a.pdf", "b.pdf")
    keys = [*scan(tmp_path), id_of("never.pdf")]
    (tmp_path / "a.pdf").unlink()
    rows, gone = load_documents(tmp_path, keys, "run")
    assert rows["path"].to_list() == ["b.pdf"]
    assert gone == [id_of("a.pdf"), id_of("never.pdf")]


def test_a_document_that_is_there_but_cannot_be_read_has_no_content_and_is_not_gone(open_folder):
    put(open_folder, "a.pdf", "b.pdf")
    with closed(open_folder / "a.pdf"):
        rows, gone = load_documents(open_folder, list(scan(open_folder)), "run")
    assert gone == []
    assert rows.select("path", "content").rows() == [("a.pdf", b""), ("b.pdf", b"%PDF-1.7")]


def test_when_every_document_vanished_the_rows_still_fit_their_table(tmp_path):
    rows, gone = load_documents(tmp_path, [id_of("a.pdf")], "run")
    assert TABLES["raw_pdfs"].conform(rows).height == 0
    assert gone == [id_of("a.pdf")]
