"""Documents that share partitions: what is made of them is what it would be otherwise."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from embed_assets.automation.state import list_documents
from embed_assets.command.forget import forget_documents
from embed_assets.command.instance import point_dagster_at
from embed_assets.documents.checks import ASSET, NAME, evaluations
from embed_assets.grouping import NAMED, Grouping
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.ledger import read_records
from embed_assets.resources.warehouse import Warehouse
from embed_assets_tests.command.conftest import Project
from embed_assets_tests.marks import find_marks

pytestmark = pytest.mark.usefixtures("in_process")

NAMES = ("a.pdf", "b.pdf", "locked.pdf", "vantrupe.pdf")
MARKS = ("zorblatt", "vantrupe")
"""In the text of a document, and in its name."""


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test keeps what it ingested, for the others."""
    return tmp_path_factory.mktemp("ingested") / "kept"


@pytest.fixture
def shared(project: Project, ingested: Path) -> Project:
    """Four documents that share a partition, of which one is marked and one can't be read."""
    share(project, 1)
    if ingested.exists():
        shutil.copytree(ingested, project.pdfs.parent, dirs_exist_ok=True)
        point_dagster_at(project.settings)
        return project
    project.put(*NAMES[:-1])
    project.put(NAMES[-1], says="zorblatt")
    project.ingest()
    shutil.copytree(project.pdfs.parent, ingested)
    return project


def share(project: Project, partitions: int) -> Grouping:
    project.settings = project.settings.model_copy(update={"partitions": partitions})
    return project.settings.grouping


def partitions(project: Project) -> set[str]:
    with project.instance() as instance:
        return set(instance.get_dynamic_partitions(DOCUMENTS))


def on_record(project: Project) -> tuple:
    """What the tables hold of documents, but for when and by which run."""
    records = read_records(project.warehouse)
    tried = {of: (row.failure, row.input_version) for of, row in records.tried.items()}
    made = {of: row for of, row in records.made.items() if of[1]}
    return project.warehouse.paths(), project.contents, made, tried


def test_the_tables_hold_what_they_hold_where_each_document_is_a_partition(shared):
    held = on_record(shared)
    share(shared, 0)
    home = shared.settings.home.with_name("alone")
    shared.settings = shared.settings.model_copy(update={"home": home})
    shared.warehouse = Warehouse.of(shared.settings)
    shared.ingest()
    assert on_record(shared) == held
    assert partitions(shared) == held[0].keys()


def test_another_number_changes_the_partitions_and_nothing_else(shared):
    held = on_record(shared)
    due = shared.status()["due"]
    for number in (3, 0, 2):
        grouping = share(shared, number)
        assert shared.status()["due"] == due
        with shared.instance() as instance:
            list_documents(instance, shared.warehouse, shared.settings)
        assert partitions(shared) == set(grouping.partitions_of(held[0]))
        assert on_record(shared) == held


def test_removing_many_partitions_shows_how_far_it_is(shared, monkeypatch, capfd):
    monkeypatch.setattr("embed_assets.automation.state.DELETED_IN_SILENCE", 0)
    share(shared, 2)
    with shared.instance() as instance:
        list_documents(instance, shared.warehouse, shared.settings)
    assert "Removing partitions" in capfd.readouterr().err


def test_of_a_partition_only_the_documents_that_are_due_are_made(shared):
    before, count = partitions(shared), len(shared.times_read)
    shared.put("b.pdf", says="changed")
    shared.put("new.pdf")
    (shared.pdfs / "a.pdf").rename(shared.pdfs / "moved.pdf")
    (shared.pdfs / "vantrupe.pdf").unlink()
    assert shared.ingest().moved == 2
    assert sorted(shared.times_read[count:]) == ["changed", "new"]
    left = {"b.pdf", "locked.pdf", "moved.pdf", "new.pdf"}
    assert set(shared.warehouse.paths().values()) == left
    assert partitions(shared) == before


def test_a_failure_is_that_of_its_document_and_is_said_of_its_partition(shared):
    [failed] = shared.status()["failed"]
    assert failed["path"] == "locked.pdf"
    assert all(shared.chunks_of(name) for name in NAMES if name != "locked.pdf")
    [partition] = partitions(shared)
    with shared.instance() as instance:
        infos = instance.event_log_storage.get_asset_check_partition_info(
            [dg.AssetCheckKey(ASSET, NAME)]
        )
        grouping = shared.settings.grouping
        of_it, of_all = evaluations(instance, shared.warehouse, [partition], grouping)
    statuses = {i.partition_key: i.latest_execution_status.value for i in infos if i.is_current}
    assert statuses[partition] == "FAILED"
    assert of_it.description == of_all.description
    assert of_all.description.startswith("1 of 4 documents can't be read. locked.pdf: ")


def test_nothing_readable_is_left_of_a_document_that_shared_its_partition(shared):
    with shared.instance() as instance:
        told = instance.get_latest_materialization_event(dg.AssetKey("chunks"))
        assert told is not None
        assert told.asset_materialization is not None
        assert told.asset_materialization.metadata["documents"].value == len(NAMES)
        assert instance.get_run_tags([NAMED])
    assert {mark for _, mark in find_marks(shared.settings.home, MARKS)} == {*MARKS}
    forget_documents(shared.settings, ["vantrupe.pdf"])
    left = find_marks(shared.settings.home, MARKS)
    record = {f"forgotten.{name}" for name in ("path", "document_id", "command")}
    places = {place.partition(" ")[2] for place, _ in left}
    assert places <= {"", *record}
    assert {mark for _, mark in left} <= {"vantrupe"}
    assert set(shared.warehouse.paths().values()) == set(NAMES) - {"vantrupe.pdf"}
