"""A folder of PDFs is the same wherever it lies; what goes wrong elsewhere is said in one line."""

from pathlib import Path

import pytest
from fsspec.registry import known_implementations

from embed_assets.documents.folder import (
    find_moved,
    load_documents,
    move_documents,
    read_loaded,
    scan,
    survey,
)
from embed_assets.errors import SettingsError
from embed_assets.places import RemotePath, absolute, to_place
from embed_assets.resources.ledger import Cause
from embed_assets.resources.warehouse import Warehouse
from embed_assets_tests.documents.folders import (
    Folder,
    Store,
    folder_by_fsspec,
    folder_by_url,
    folder_in_memory,
    folder_in_store,
)
from embed_assets_tests.documents.test_folder import closed, id_of, open_folder, warehouse

__all__ = ["open_folder", "warehouse"]


@pytest.fixture(params=[folder_by_url, folder_by_fsspec, folder_in_memory, folder_in_store])
def folder(request, tmp_path):
    pdfs = tmp_path / "PDFs of 100%"
    pdfs.mkdir()
    with request.param(pdfs) as folder:
        yield folder


def paths(folder: Folder) -> list[str]:
    return [document.path for document in scan(folder.place).values()]


def load(folder: Folder, warehouse: Warehouse) -> None:
    slices = load_documents(folder.place, list(scan(folder.place)), "run")
    assert slices.not_made == {}
    warehouse.replace("raw_pdfs", slices.rows)


def changed(folder: Folder, warehouse: Warehouse) -> list[str]:
    loaded = read_loaded(warehouse)
    return [file.path for key, file in scan(folder.place).items() if not loaded[key].is_as(file)]


def moved(folder: Folder, warehouse: Warehouse) -> dict[str, str]:
    return find_moved(folder.place, scan(folder.place), read_loaded(warehouse))


# What holds in every place.


def test_documents_are_found_below_in_the_order_of_their_paths_and_known_by_them(folder):
    folder.put("b.pdf", "a/z.pdf", "a/b/c.PDF", "a.pdf")
    assert paths(folder) == ["a.pdf", "a/b/c.PDF", "a/z.pdf", "b.pdf"]
    assert list(scan(folder.place))[1] == id_of("a/b/c.PDF")


def test_hidden_names_and_other_files_are_left_out(folder):
    folder.put("a.pdf", ".b.pdf", ".pdf", ".git/c.pdf", "x/.y/d.pdf", "c.txt", "questions.jsonl")
    assert paths(folder) == ["a.pdf"]


def test_names_with_odd_characters_are_found_and_read(folder):
    names = ["Ünïcødé (v2) — 报告.pdf", "a::b.pdf", "it's 100%20.pdf", "q?u#1 [x].pdf"]
    folder.put(*names)
    assert paths(folder) == sorted(names)
    assert load_documents(folder.place, list(scan(folder.place)), "run").rows.height == 4


def test_a_folder_without_pdfs_has_no_documents(folder):
    folder.put("readme.txt")
    assert scan(folder.place) == {}


def test_a_file_in_place_of_the_folder_is_an_error(folder):
    folder.put("a.pdf")
    with pytest.raises(SettingsError, match=r"EMBED_ASSETS_PDFS: .*/a\.pdf is not a folder"):
        scan(to_place(f"{folder.place}/a.pdf"))


def test_a_document_that_is_left_alone_has_not_changed_and_another_is_seen(folder, warehouse):
    folder.put("a.pdf", "b.pdf")
    load(folder, warehouse)
    assert changed(folder, warehouse) == []
    before = scan(folder.place)[id_of("a.pdf")].version
    folder.put("a.pdf", content=b"%PDF-1.7 and more")
    assert scan(folder.place)[id_of("a.pdf")].version != before
    assert changed(folder, warehouse) == ["a.pdf"]


def test_what_comes_and_what_leaves_is_seen_at_the_next_look(folder):
    folder.put("a.pdf", "b.pdf")
    assert paths(folder) == ["a.pdf", "b.pdf"]
    folder.put("c.pdf")
    folder.delete("a.pdf")
    assert paths(folder) == ["b.pdf", "c.pdf"]


def test_a_document_that_moved_is_known_by_its_bytes_and_is_as_it_was(folder, warehouse):
    folder.put("a.pdf", content=b"one")
    folder.put("b.pdf", content=b"two")
    load(folder, warehouse)
    folder.move("a.pdf", "sub/other.pdf")
    found = moved(folder, warehouse)
    assert found == {id_of("sub/other.pdf"): id_of("a.pdf")}
    move_documents(warehouse, found, scan(folder.place))
    assert changed(folder, warehouse) == []


def test_a_file_that_only_looks_changed_has_not_moved(folder, warehouse):
    folder.put("a.pdf", "b.pdf")
    load(folder, warehouse)
    folder.put("a.pdf")
    assert moved(folder, warehouse) == {}


def test_a_loaded_document_has_its_bytes(folder):
    folder.put("x/a b.pdf", content=bytes(range(256)))
    rows = load_documents(folder.place, [id_of("x/a b.pdf")], "run").rows
    assert rows.select("path", "file_name", "content", "size_bytes").rows() == [
        ("x/a b.pdf", "a b.pdf", bytes(range(256)), 256)
    ]


def test_a_document_that_vanished_is_tried_again_and_the_others_are_loaded(folder):
    folder.put("a.pdf", "b.pdf")
    keys = list(scan(folder.place))
    folder.delete("a.pdf")
    slices = load_documents(folder.place, keys, "run")
    assert slices.rows["path"].to_list() == ["b.pdf"]
    assert slices.not_made[id_of("a.pdf")].cause is Cause.UNREADABLE_FILE


# What holds elsewhere alone.


@pytest.mark.parametrize("url", ["memory://nowhere", "store://nowhere", "store://nowhere/pdfs"])
def test_a_bucket_that_is_not_there_is_an_error_and_not_an_empty_one(url):
    with pytest.raises(SettingsError, match=rf"PDFS: {url} does not exist\. Set it"):
        scan(to_place(url))


def test_a_folder_that_is_not_there_is_an_error_and_not_an_empty_one(tmp_path):
    with pytest.raises(SettingsError, match=r"PDFS: file://.*/gone does not exist\. Set it"):
        scan(RemotePath(f"file://{tmp_path}/gone"))


def test_a_bucket_knows_no_folders_so_that_one_without_objects_is_empty():
    with folder_in_store():
        assert scan(to_place("store://bucket/nothing")) == {}


def test_a_key_that_is_no_path_is_left_out():
    with folder_in_store() as folder:
        folder.put("a/b.pdf", "a//b.pdf", "/c.pdf", "a/../d.pdf", "e/")
        assert paths(folder) == ["a/b.pdf"]


def test_a_file_is_another_by_its_etag_alone(warehouse):
    with folder_in_store() as folder:
        folder.put("a.pdf", content=b"one")
        load(folder, warehouse)
        _, written = Store.buckets["bucket"]["pdfs/a.pdf"]
        Store.buckets["bucket"]["pdfs/a.pdf"] = (b"two", written)
        assert changed(folder, warehouse) == ["a.pdf"]


def test_a_subfolder_that_can_not_be_listed_is_said_and_hides_what_is_below(open_folder):
    with folder_by_fsspec(open_folder) as folder:
        folder.put("a.pdf", "closed/b.pdf", "closed/deep/c.pdf")
        with closed(open_folder / "closed"):
            found = survey(folder.place)
    assert [document.path for document in found.pdfs] == ["a.pdf"]
    assert found.odd == {"closed": "the folder can't be listed: Permission denied"}
    assert found.hide("closed/deep/c.pdf")
    assert not found.hide("a.pdf")


def test_a_listing_that_fails_is_one_line_without_the_password(monkeypatch):
    def fail(*_args, **_options):
        raise RuntimeError("no answer\nfrom me:s3cr3t@host.")

    monkeypatch.setattr(Store, "find", fail)
    with pytest.raises(SettingsError) as error:
        scan(to_place("store://me:s3cr3t@host/pdfs"))
    assert str(error.value) == (
        "EMBED_ASSETS_PDFS: store://me:…@host/pdfs can't be listed: no answer from me:…@host. "
        "docs/settings.md says what a bucket needs."
    )
    assert error.value.__cause__ is None
    assert "s3cr3t" not in repr(to_place("store://me:s3cr3t@host/pdfs"))


def test_a_document_that_can_not_be_read_just_now_is_to_be_tried_again(monkeypatch):
    with folder_in_store() as folder:
        folder.put("a.pdf")

        def fail(*_args, **_options):
            raise TimeoutError

        monkeypatch.setattr(Store, "cat_file", fail)
        found = scan(folder.place)
        slices = load_documents(folder.place, list(found), "run")
    [failure] = slices.not_made.values()
    assert failure.cause is Cause.UNREADABLE_FILE
    assert failure.error == "the file may not be read: TimeoutError"
    assert slices.looked_at == {id_of("a.pdf"): found[id_of("a.pdf")].version}


def test_a_package_that_is_missing_is_named_with_what_installs_it(monkeypatch):
    unknown = {"class": "nowherefs.core.NowhereFileSystem", "err": "Please install it"}
    monkeypatch.setitem(known_implementations, "nowhere", unknown)
    said = r"PDFS: nowhere://bucket/x can't be listed: .*nowherefs .*\(pip install nowherefs\)"
    with pytest.raises(SettingsError, match=said):
        scan(to_place("nowhere://bucket/x"))


def test_a_kind_of_url_that_nobody_knows_is_an_error():
    with pytest.raises(SettingsError, match=r"PDFS: what://x can't be listed: .*not known"):
        scan(to_place("what://x"))


def test_an_address_that_can_not_be_taken_apart_shows_nothing_of_itself():
    with pytest.raises(SettingsError, match="PDFS: … can't be listed") as error:
        scan(to_place("what://me:s3cr3t@[host/x"))
    assert "s3cr3t" not in str(error.value)


# Addresses.


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("papers", Path.cwd() / "papers"),
        ("/data/../papers", Path("/papers")),
        ("file:///my%20papers/", Path("/my papers")),
        ("s3://bucket/a/", RemotePath("s3://bucket/a")),
        ("GS://Bucket", RemotePath("gs://Bucket")),
    ],
)
def test_an_address_is_a_path_or_a_url(address, place):
    assert to_place(address) == place
    assert to_place(place) == place
    assert to_place(absolute(address)) == place


def test_a_place_is_called_by_the_last_part_of_its_path():
    assert to_place("s3://bucket/contracts/").name == "contracts"
    assert to_place("s3://bucket").name == "bucket"
