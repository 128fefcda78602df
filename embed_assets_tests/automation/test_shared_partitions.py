"""Documents that share partitions: what the sensor asks for, and what a person starts by hand."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import PARTITION_NAME_TAG

from embed_assets.definitions import build_definitions
from embed_assets.documents.folder import scan
from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.grouping import NAMED, Grouping
from embed_assets.resources.io_manager import documents_read
from embed_assets.resources.ledger import read_records
from embed_assets_tests.automation.watched import Project, assets_of
from embed_assets_tests.readers import read

pytestmark = pytest.mark.usefixtures("in_process")

ASSETS = ("raw_pdfs", "parsed_markdown")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setattr("embed_assets.documents.parsing.parse_pages", read)
    with dg.instance_for_test() as instance:
        project = Project(tmp_path, instance)
        share(project, 2)
        yield project


def share(project: Project, partitions: int) -> None:
    project.settings = project.settings.model_copy(update={"partitions": partitions})
    project.definitions = build_definitions(project.settings)


def materialize(project: Project, *assets: str, **tags: str) -> dg.ExecuteInProcessResult:
    return project.definitions.resolve_job_def("ingest").execute_in_process(
        instance=project.instance,
        asset_selection=[dg.AssetKey(asset) for asset in assets],
        tags=tags,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )


def read_in(project: Project) -> set[str]:
    return set(project.warehouse.paths())


def test_what_the_sensor_asks_for_is_made_and_no_more(project):
    project.put(*(f"{n}.pdf" for n in range(5)))
    assert project.tick() == []
    requests = project.tick()
    keys = [project.key(f"{n}.pdf") for n in range(5)]
    assert set(project.partitions) == set(project.settings.grouping.partitions_of(keys))
    assert all(NAMED in request.tags for request in requests)
    assert materialize(project, *ASSETS, **requests[0].tags).success
    assert read_in(project) == set(keys)
    project.put("later.pdf")
    project.tick()
    [request] = [asked for asked in project.tick() if assets_of(asked)[0] == "raw_pdfs"]
    assert materialize(project, *ASSETS, **request.tags).success
    by_run = project.warehouse.read("SELECT document_id, loaded_by FROM raw_pdfs ORDER BY path")
    assert by_run["document_id"].to_list() == [*sorted(keys), project.key("later.pdf")]
    assert by_run["loaded_by"][:-1].n_unique() == 1, "none was made again"


def test_a_partition_that_a_person_chose_is_made_whole(project):
    project.put(*(f"{n}.pdf" for n in range(5)))
    project.tick()
    project.tick()
    grouping, chosen = project.settings.grouping, project.partitions[0]
    assert materialize(project, *ASSETS, **{PARTITION_NAME_TAG: chosen}).success
    keys = [project.key(f"{n}.pdf") for n in range(5)]
    assert read_in(project) == {key for key in keys if grouping.partition_of(key) == chosen}
    [made] = project.instance.fetch_materializations(
        dg.AssetKey("parsed_markdown"), limit=9
    ).records
    assert made.partition_key == chosen


def test_a_document_that_another_run_stores_meanwhile_is_left_to_the_next(project, monkeypatch):
    share(project, 1)
    project.put("a.pdf")
    project.tick()
    project.tick()
    chosen = {PARTITION_NAME_TAG: project.partitions[0]}
    stored: list[bool] = []

    def after_another_run(context: dg.AssetExecutionContext) -> list[str]:
        project.put("b.pdf")
        stored.append(materialize(project, "raw_pdfs", **chosen).success)
        return documents_read(context)

    monkeypatch.setattr("embed_assets.documents.assets.documents_read", after_another_run)
    assert materialize(project, *ASSETS, **chosen).success
    assert stored == [True]
    made = read_records(project.warehouse).made
    assert ("raw_pdfs", project.key("b.pdf")) in made
    assert [key for name, key in made if name == "parsed_markdown"] == [project.key("a.pdf")]


def test_a_partition_of_which_nothing_is_there_to_be_made_fails_in_one_line(project):
    project.put("a.pdf")
    project.tick()
    project.tick()
    [chosen] = project.partitions
    result = materialize(project, "chunks", **{PARTITION_NAME_TAG: chosen})
    [failed] = [event for event in result.all_events if event.is_step_failure]
    told = failed.step_failure_data.user_failure_data
    assert told is not None
    assert (told.description or "").startswith(f"There is nothing to make {chosen} of: ")
    assert read_records(project.warehouse).tried == {}


def test_a_partition_goes_with_its_last_document(project):
    share(project, 1000)
    project.put("a.pdf", "b.pdf")
    project.ingest()
    (project.pdfs / "a.pdf").unlink()
    project.tick()
    assert project.partitions == [project.settings.grouping.partition_of(project.key("b.pdf"))]


def test_a_document_that_could_not_be_read_leaves_nothing_when_its_file_goes(project):
    project.put("a.pdf", "b.pdf")
    project.tick()
    [request] = project.tick()
    (project.pdfs / "a.pdf").write_bytes(b"\xff")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embed_assets.documents.entries._open", _refuse)
        assert materialize(project, *ASSETS, **request.tags).success
    key = project.key("a.pdf")
    assert {of for _, of in read_records(project.warehouse).tried} >= {key}
    (project.pdfs / "a.pdf").unlink()
    project.tick()
    assert {of for _, of in read_records(project.warehouse).tried} == {project.key("b.pdf")}


def _refuse(*_: object) -> int:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("number", [0, 5])
def test_with_another_number_ticks_bring_the_partitions_by_and_by_and_ask_for_nothing(
    project, number, monkeypatch
):
    monkeypatch.setattr("embed_assets.automation.plan.REMOVALS_AT_ONCE", 2)
    project.put(*(f"{n}.pdf" for n in range(8)))
    project.ingest()
    keys = list(scan(project.pdfs))
    left = len(keys)
    for grouping in (project.settings.grouping, Grouping(number)):
        share(project, grouping.partitions)
        while left > 0:
            assert project.tick() == []
            assert set(grouping.partitions_of(keys)) <= set(project.partitions)
            left -= 2
            assert len(project.partitions) == len(grouping.partitions_of(keys)) + max(left, 0)
        left = len(project.partitions)
    assert read_in(project) == set(keys)


def test_a_backfill_of_the_ui_has_a_run_for_each_shared_partition(project):
    graph = project.definitions.resolve_asset_graph()
    for asset in DOCUMENT_ASSETS:
        policy = graph.get(dg.AssetKey(asset)).backfill_policy
        assert policy is not None
        assert policy.max_partitions_per_run == 1
