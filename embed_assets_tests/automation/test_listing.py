"""What is listed when the UI opens, and what becomes of partitions that no file stands behind."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import PARTITION_NAME_TAG

from embed_assets.automation.plan import Wait
from embed_assets.automation.runs import RANGE_END, RANGE_START
from embed_assets.automation.state import list_documents
from embed_assets.command.summary import failures
from embed_assets.documents.checks import ASSET, NAME, evaluations
from embed_assets.documents.folder import load_documents, scan
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.ledger import Cause, Failure, read_records, write_tried
from embed_assets.resources.run_tags import BUDGET_TAG
from embed_assets_tests.automation.watched import Project
from embed_assets_tests.readers import read

pytestmark = pytest.mark.usefixtures("in_process")

WORDS = "The valve opens when the pressure of the brine reaches four bar at the sensor. "


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setattr("embed_assets.documents.parsing.parse_pages", read)
    with dg.instance_for_test() as instance:
        yield Project(tmp_path, instance)


def list_now(project: Project) -> list[str]:
    list_documents(project.instance, project.warehouse, project.settings)
    return project.partitions


def materialize(project: Project, *keys: str, **tags: str) -> dg.ExecuteInProcessResult:
    """What a person chose in the UI: raw_pdfs and parsed_markdown of these partitions."""
    if RANGE_START not in tags:
        one = {PARTITION_NAME_TAG: keys[0]}
        tags |= one if len(keys) == 1 else {RANGE_START: keys[0], RANGE_END: keys[-1]}
    return project.definitions.resolve_job_def("ingest").execute_in_process(
        instance=project.instance,
        asset_selection=[dg.AssetKey("raw_pdfs"), dg.AssetKey("parsed_markdown")],
        tags=tags,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What the UI says of the step that failed."""
    [failed] = [event for event in result.all_events if event.is_step_failure]
    told = failed.step_failure_data.user_failure_data
    assert told is not None
    assert told.label == "intentional-failure"
    return told.description or ""


def test_an_empty_home_lists_every_pdf_and_ingests_none(project):
    project.put("a.pdf", "b.pdf", "sub/c.pdf")
    assert list_now(project) == list(scan(project.pdfs))
    assert project.warehouse.count("raw_pdfs") == 0
    assert list_now(project) == list(scan(project.pdfs)), "twice is as once"


def test_more_pdfs_than_a_statement_may_name_are_listed_in_their_order(project, monkeypatch):
    monkeypatch.setattr("embed_assets.automation.state.ADDED_BY_A_STATEMENT", 2)
    project.put(*(f"{number}.pdf" for number in range(5)))
    assert list_now(project) == list(scan(project.pdfs))


def test_documents_that_left_are_removed_in_parts_before_the_pages_open(project, monkeypatch):
    monkeypatch.setattr("embed_assets.automation.plan.REMOVALS_AT_ONCE", 1)
    project.put(*(f"{number}.pdf" for number in range(7)))
    project.ingest()
    for name in ("0.pdf", "1.pdf"):
        (project.pdfs / name).unlink()
    assert len(list_now(project)) == project.warehouse.count("raw_pdfs") == 6
    assert len(list_now(project)) == project.warehouse.count("raw_pdfs") == 5


@pytest.mark.parametrize("emptied", [True, False], ids=["empty", "missing"])
def test_an_empty_or_missing_folder_removes_nothing(project, emptied):
    project.put("a.pdf")
    project.ingest()
    (project.pdfs / "a.pdf").unlink()
    if emptied:
        list_now(project)
    else:
        project.pdfs.rmdir()
        with pytest.raises(Exception, match="does not exist"):
            list_now(project)
    assert len(project.partitions) == project.warehouse.count("raw_pdfs") == 1


def test_a_stray_partition_goes_and_is_no_document_that_left(project):
    project.put("a.pdf")
    project.instance.add_dynamic_partitions(DOCUMENTS, ["foo"])
    assert list_now(project) == [project.key("a.pdf")]
    assert project.warehouse.count("removals") == 0


def test_a_partition_that_a_person_made_up_fails_in_one_line_and_locks_nothing(project):
    project.put("a.pdf")
    project.instance.add_dynamic_partitions(DOCUMENTS, ["foo"])
    result = materialize(project, "foo")
    assert not result.success
    assert failure(result).startswith(f"There is no PDF for the partition 'foo' in {project.pdfs}.")
    assert read_records(project.warehouse).tried == {}
    assert project.tick() == []
    [request] = project.tick()
    assert request.tags[RANGE_START] == project.key("a.pdf")
    assert project.partitions == [project.key("a.pdf")]


def test_what_a_person_chose_in_vain_leaves_the_others_of_the_run_unmade(project):
    project.put("a.pdf")
    keys = [project.key("a.pdf"), "foo"]
    project.instance.add_dynamic_partitions(DOCUMENTS, keys)
    assert "'foo'" in failure(materialize(project, *keys))
    assert project.warehouse.count("raw_pdfs") == 0


def test_a_file_that_leaves_before_a_planned_run_costs_the_others_nothing(project):
    project.put("a.pdf", content=WORDS.encode())
    keys = [project.key("a.pdf"), "left-12345678"]
    project.instance.add_dynamic_partitions(DOCUMENTS, keys)
    assert materialize(project, *keys, **{BUDGET_TAG: "wave"}).success
    assert project.warehouse.count("raw_pdfs") == 1


# What the check says of each document.


def statuses(project: Project) -> dict[str | None, str]:
    """Status of the check by partition as the UI shows it, where it is up to date; None: of all."""
    storage = project.instance.event_log_storage
    check = dg.AssetCheckKey(ASSET, NAME)
    found: dict[str | None, str] = {
        info.partition_key: info.latest_execution_status.value
        for info in storage.get_asset_check_partition_info([check])
        if info.is_current and info.partition_key is not None
    }
    latest = storage.get_latest_asset_check_execution_by_key([check])[check]
    assert latest.partition is None
    return {**found, None: latest.status.value}


def ingested(project: Project, names: Sequence[str]) -> list[str]:
    keys = [project.key(name) for name in names]
    list_now(project)
    for key in keys:
        assert materialize(project, key).success
    return keys


def test_an_unreadable_document_stays_unreadable_until_it_is_mended(project):
    project.put("bad.pdf", content=b"")
    project.put("good.pdf", "later.pdf", content=WORDS.encode())
    bad, good, later = (project.key(name) for name in ("bad.pdf", "good.pdf", "later.pdf"))
    project.instance.add_dynamic_partitions(DOCUMENTS, [bad, good, later])
    assert materialize(project, bad, good).success
    assert statuses(project) == {bad: "FAILED", good: "SUCCEEDED", None: "FAILED"}
    assert materialize(project, later).success
    as_before = {bad: "FAILED", good: "SUCCEEDED", later: "SUCCEEDED", None: "FAILED"}
    assert statuses(project) == as_before
    [made] = project.instance.fetch_materializations(
        dg.AssetRecordsFilter(ASSET, asset_partitions=[bad]), limit=1
    ).records
    assert made.asset_materialization is not None
    told = [m.value for m in made.asset_materialization.metadata.values() if m.value]
    assert told.count("no text on any page: blank, or small drawings alone") == 1
    assert "preview" not in made.asset_materialization.metadata
    project.put("bad.pdf", content=WORDS.encode())
    assert materialize(project, bad).success
    assert set(statuses(project).values()) == {"SUCCEEDED"}


@pytest.mark.parametrize(
    ("asset", "failure"),
    [
        ("raw_pdfs", Failure(Cause.UNREADABLE_FILE, "the file may not be read")),
        ("parsed_markdown", Failure(Cause.PROCESS_ENDED, "its process ended")),
    ],
)
def test_what_was_read_once_and_can_t_be_read_any_more_is_unreadable_everywhere(
    project, asset, failure
):
    project.put("a.pdf", content=WORDS.encode())
    [key] = ingested(project, ["a.pdf"])
    project.fail(asset, key, datetime.now(UTC), failure)
    one, overall = evaluations(project.instance, project.warehouse, [key])
    assert (one.passed, overall.passed) == (False, False)
    assert one.description == failures(project.settings, project.warehouse)[key]["error"]
    assert f"a.pdf: {failure.error}" in overall.description


def test_an_attempt_at_a_file_that_is_no_more_is_not_held_against_the_document(project):
    project.put("a.pdf", content=b"other")
    [key] = ingested(project, ["a.pdf"])
    project.fail("parsed_markdown", key, datetime.now(UTC))
    old = read_records(project.warehouse).tried
    project.put("a.pdf", content=WORDS.encode())
    assert materialize(project, key).success
    with project.warehouse.transaction() as transaction:  # as a killed run may have left it
        write_tried(transaction, "parsed_markdown", {key: old["parsed_markdown", key]}, "run")
    one, overall = evaluations(project.instance, project.warehouse, [key])
    assert (one.passed, overall.passed) == (True, True)


def test_a_run_over_a_range_of_one_document_judges_it_too(project):
    project.put("bad.pdf", content=b"")
    key = project.key("bad.pdf")
    project.instance.add_dynamic_partitions(DOCUMENTS, [key])
    assert materialize(project, key, **{RANGE_START: key, RANGE_END: key}).success
    assert statuses(project) == {key: "FAILED", None: "FAILED"}


def test_a_document_that_moves_takes_what_its_check_says_along(project):
    project.put("bad.pdf", content=b"")
    project.put("good.pdf", content=WORDS.encode())
    ingested(project, ["bad.pdf", "good.pdf"])
    (project.pdfs / "bad.pdf").rename(project.pdfs / "moved.pdf")
    list_now(project)
    moved, good = project.key("moved.pdf"), project.key("good.pdf")
    assert statuses(project)[moved] == statuses(project)[None] == "FAILED"
    assert statuses(project)[good] == "SUCCEEDED"


def test_the_check_is_green_once_the_unreadable_document_has_left(project):
    project.put("bad.pdf", content=b"")
    project.put("good.pdf", content=WORDS.encode())
    ingested(project, ["bad.pdf", "good.pdf"])
    (project.pdfs / "bad.pdf").unlink()
    list_now(project)
    assert statuses(project)[None] == "SUCCEEDED"


def test_a_stage_of_a_document_of_which_nothing_is_on_record_fails_and_says_what_comes_first(
    project,
):
    project.put("a.pdf")
    list_now(project)
    result = project.definitions.resolve_job_def("ingest").execute_in_process(
        instance=project.instance,
        asset_selection=[dg.AssetKey("chunks")],
        partition_key=project.key("a.pdf"),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    assert failure(result).startswith("parsed_markdown of a-")


def test_thousands_of_pdfs_are_listed_in_one_go(project):
    project.put(*(f"{n}.pdf" for n in range(2000)))
    assert len(list_now(project)) == 2000


def test_documents_in_a_folder_that_can_not_be_listed_stay_and_a_copy_of_one_is_no_move(
    project, monkeypatch
):
    project.put("a.pdf", "share/b.pdf")
    listed = load_documents(project.pdfs, list(scan(project.pdfs)), "run")
    project.warehouse.replace("raw_pdfs", listed.rows)
    shutil.copy2(project.pdfs / "share" / "b.pdf", project.pdfs / "copy.pdf")
    scandir = os.scandir

    def fail(place):
        if str(place).endswith("share"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", fail)
    plan = list_documents(project.instance, project.warehouse, project.settings)
    assert (plan.remove, plan.moved, plan.lost, plan.refused) == ((), {}, (), None)
    assert set(project.warehouse.paths().values()) == {"a.pdf", "share/b.pdf"}
    assert Wait("share", "the folder can't be listed: Input/output error") in plan.waiting
    failed = failures(project.settings, project.warehouse)
    assert [row["path"] for row in failed.values()] == ["share"]
