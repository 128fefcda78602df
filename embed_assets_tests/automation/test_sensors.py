"""The sensor on a real folder and a real Dagster instance."""

import os
from pathlib import Path

import dagster as dg
import polars as pl

from embed_assets.automation.sensors import RANGE_END, RANGE_START, batches, pdf_folder
from embed_assets.definitions import build_definitions
from embed_assets.documents.folder import FoundDocument, scan
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES


def test_only_neighbours_share_a_run() -> None:
    assert batches(list("abcdef"), {"a", "b", "d", "e", "f"}) == [["a", "b"], ["d", "e", "f"]]


def test_a_run_holds_at_most_so_many_documents() -> None:
    assert batches(list("abcde"), set("abcde"), size=2) == [["a", "b"], ["c", "d"], ["e"]]


def make_project(tmp_path: Path) -> tuple[Settings, Warehouse]:
    pdfs = tmp_path / "pdfs"
    pdfs.mkdir()
    settings = Settings(pdfs=pdfs, home=tmp_path / "home")
    return settings, Warehouse(path=str(settings.warehouse))


def tick(
    settings: Settings, warehouse: Warehouse, instance: dg.DagsterInstance, cursor: str | None
) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        resources={"settings": settings, "warehouse": warehouse},
        definitions=build_definitions(settings),
    )
    result = pdf_folder(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def load(warehouse: Warehouse, documents: dict[str, FoundDocument]) -> None:
    """Say that these documents have been read."""
    rows = [
        {
            "document_id": key,
            "path": document.path,
            "file_name": document.path,
            "content": b"",
            "sha256": "",
            "size_bytes": document.size_bytes,
            "modified_at": document.modified_at,
            "loaded_at": document.modified_at,
            "loaded_by": "test",
        }
        for key, document in documents.items()
    ]
    warehouse.replace("raw_pdfs", pl.DataFrame(rows, schema=TABLES["raw_pdfs"].schema))


def test_a_pdf_is_ingested_once_it_has_stopped_changing(tmp_path: Path) -> None:
    settings, warehouse = make_project(tmp_path)
    (settings.pdfs / "a.pdf").write_bytes(b"one")
    with dg.instance_for_test() as instance:
        first = tick(settings, warehouse, instance, None)
        assert isinstance(first, dg.SensorResult)
        assert not first.run_requests
        (settings.pdfs / "a.pdf").write_bytes(b"one and two")
        second = tick(settings, warehouse, instance, first.cursor)
        assert isinstance(second, dg.SensorResult)
        assert not second.run_requests
        third = tick(settings, warehouse, instance, second.cursor)
        assert isinstance(third, dg.SensorResult)
        (request,) = third.run_requests or []
        (key,) = scan(settings.pdfs)
        assert request.tags[RANGE_START] == request.tags[RANGE_END] == key
        assert [r.partition_keys for r in third.dynamic_partitions_requests or []] == [[key]]


def test_a_removed_pdf_loses_its_rows_and_its_partition(tmp_path: Path) -> None:
    settings, warehouse = make_project(tmp_path)
    for name in ("a.pdf", "b.pdf"):
        (settings.pdfs / name).write_bytes(name.encode())
    found = scan(settings.pdfs)
    load(warehouse, found)
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(DOCUMENTS, list(found))
        (settings.pdfs / "a.pdf").unlink()
        result = tick(settings, warehouse, instance, None)
        assert isinstance(result, dg.SensorResult)
        (request,) = result.dynamic_partitions_requests or []
        gone = next(key for key, document in found.items() if document.path == "a.pdf")
        assert request.partition_keys == [gone]
        assert warehouse.paths() == {key: "b.pdf" for key in found if key != gone}


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    settings, warehouse = make_project(tmp_path)
    os.rmdir(settings.pdfs)
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(DOCUMENTS, ["a-12345678"])
        result = tick(settings, warehouse, instance, None)
        assert isinstance(result, dg.SkipReason)
        assert "does not exist" in str(result.skip_message)
