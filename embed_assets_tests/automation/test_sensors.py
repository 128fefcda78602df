"""The sensor on a real folder, a real warehouse and a real Dagster instance."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test

from embed_assets.automation.runs import BY_COMMAND, INGEST, RANGE_END, RANGE_START, TRAIN
from embed_assets.automation.sensors import DOCUMENTS_PER_TICK, pdf_folder
from embed_assets.automation.state import code_versions
from embed_assets.definitions import build_definitions
from embed_assets.documents.folder import load_documents, scan
from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.partitions import DOCUMENTS, DOCUMENTS_PER_RUN
from embed_assets.resources.ledger import (
    Cause,
    Failure,
    Materialization,
    Records,
    next_attempt,
    read_records,
    write_made,
    write_tried,
)
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets_tests.documents.folders import folder_in_memory


class Project:
    """A PDF folder, its home and its Dagster instance."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.pdfs = folder / "pdfs"
        self.pdfs.mkdir()
        self.settings = Settings(pdfs=self.pdfs, home=folder / "home")
        self.warehouse = Warehouse(path=str(self.settings.warehouse))
        self.instance = instance
        self.definitions = build_definitions(self.settings)
        self.cursor: str | None = None

    def put(self, *names: str, content: bytes | None = None) -> None:
        for name in names:
            file = self.pdfs / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(name.encode() if content is None else content)

    def key(self, name: str) -> str:
        return next(key for key, file in scan(self.pdfs).items() if file.path == name)

    @property
    def partitions(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions(DOCUMENTS))

    def ingest(self) -> None:
        """Say of every document in the folder that all has been made of it."""
        found = scan(self.pdfs)
        slices = load_documents(self.pdfs, list(found), "run")
        versions = dict(slices.rows.select("document_id", "sha256").iter_rows())
        with self.warehouse.transaction() as transaction:
            transaction.replace("raw_pdfs", slices.rows)
            for asset, code in code_versions(self.settings).items():
                if asset in DOCUMENT_ASSETS:
                    inputs = Records().input_version("raw_pdfs") if asset == "raw_pdfs" else None
                    made = {k: Materialization(code, inputs or v, v) for k, v in versions.items()}
                    write_made(transaction, asset, made, "run")
        self.instance.add_dynamic_partitions(DOCUMENTS, list(found))

    def lose_one_of_two(self) -> None:
        """a.pdf and b.pdf are ingested, and a.pdf leaves."""
        self.put("a.pdf", "b.pdf")
        self.ingest()
        (self.pdfs / "a.pdf").unlink()

    def fail(self, asset: str, key: str, at: datetime) -> None:
        """Say that an asset of a document was tried in vain, on what there is."""
        failure = Failure(Cause.PROCESS_ENDED, "its process ended with exit code -9")
        made_from = read_records(self.warehouse).input_version(asset, key)
        code = code_versions(self.settings)[asset]
        attempt = next_attempt(None, failure, code, made_from, at)
        with self.warehouse.transaction() as transaction:
            write_tried(transaction, asset, {key: attempt}, "run")

    def run(self, job: str, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
        """A run of a job that is on record."""
        return create_run_for_test(self.instance, job_name=job, status=status, tags=tags)

    def tick(self) -> list[dg.RunRequest] | str:
        """What the sensor asks for, or why it asks for nothing."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"settings": self.settings, "warehouse": self.warehouse},
            definitions=self.definitions,
        )
        result = pdf_folder(context)
        if isinstance(result, dg.SkipReason):
            return str(result.skip_message)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        if result.skip_reason:
            assert isinstance(result.skip_reason, dg.SkipReason)
            return str(result.skip_reason.skip_message)
        return list(result.run_requests or [])


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with dg.instance_for_test() as instance:
        yield Project(tmp_path, instance)


def assets_of(request: dg.RunRequest) -> tuple[str, ...]:
    return tuple(key.to_user_string() for key in request.asset_selection or [])


def test_a_pdf_is_ingested_once_it_has_stopped_changing(project):
    project.put("a.pdf", content=b"one")
    assert project.tick() == []
    project.put("a.pdf", content=b"one and two")
    assert project.tick() == []
    assert project.partitions == []
    [request] = project.tick()
    key = project.key("a.pdf")
    assert request.tags[RANGE_START] == request.tags[RANGE_END] == key
    assert assets_of(request) == DOCUMENT_ASSETS
    assert project.partitions == [key]


def test_a_pdf_in_a_bucket_is_ingested_once_it_has_stopped_changing(project):
    with folder_in_memory() as folder:
        project.settings = project.settings.model_copy(update={"pdfs": folder.place})
        assert project.tick() == []
        folder.put("sub/a.pdf", content=b"one")
        assert project.tick() == []
        folder.put("sub/a.pdf", content=b"two")
        assert project.tick() == []
        [request] = project.tick()
        [key] = project.partitions
        assert request.tags[RANGE_START] == request.tags[RANGE_END] == key
        rows = load_documents(folder.place, [key], "run").rows
        assert rows.select("path", "content").rows() == [("sub/a.pdf", b"two")]


def test_a_bucket_that_is_not_there_any_more_removes_nothing_and_is_said(project):
    with folder_in_memory() as folder:
        project.settings = project.settings.model_copy(update={"pdfs": folder.place})
        folder.put("a.pdf")
        project.pdfs = folder.place
        project.ingest()
        folder.delete("a.pdf")
        assert "none of the 1 documents on record is in the folder" in project.tick()
    assert "EMBED_ASSETS_PDFS: memory://bucket/pdfs does not exist" in project.tick()
    assert len(project.partitions) == project.warehouse.count("raw_pdfs") == 1


def test_while_a_run_ingests_nothing_is_asked_for(project):
    project.put("a.pdf")
    assert project.tick() == []
    project.run(INGEST, dg.DagsterRunStatus.STARTED)
    assert "a run ingests" in str(project.tick())


def test_many_new_pdfs_are_asked_for_in_runs_of_neighbours(project):
    project.put(*(f"{n:03}.pdf" for n in range(70)))
    assert project.tick() == []
    requests = project.tick()
    keys = list(scan(project.pdfs))
    assert project.partitions == keys
    ranges = [(r.tags[RANGE_START], r.tags[RANGE_END]) for r in requests]
    size = DOCUMENTS_PER_RUN
    assert ranges == [(keys[i], keys[min(i + size, 70) - 1]) for i in range(0, 70, size)]


def test_a_removed_pdf_loses_its_rows_and_its_partition(project):
    project.lose_one_of_two()
    assert project.tick() == []
    assert project.partitions == [project.key("b.pdf")]
    assert project.warehouse.paths() == {project.key("b.pdf"): "b.pdf"}


@pytest.mark.parametrize(
    ("job", "status"),
    [(TRAIN, dg.DagsterRunStatus.STARTED), (INGEST, dg.DagsterRunStatus.NOT_STARTED)],
    ids=["a training at work", "an ingest that waits, with it in its range"],
)
def test_a_removed_pdf_stays_while_a_run_may_use_it(project, job, status):
    project.lose_one_of_two()
    run = project.run(job, status)
    project.tick()
    assert len(project.partitions) == 2
    project.instance.report_run_canceled(run)
    project.tick()
    assert project.partitions == [project.key("b.pdf")]


def test_after_a_killed_command_a_removed_pdf_goes(project):
    project.lose_one_of_two()
    killed = project.run(INGEST, dg.DagsterRunStatus.STARTED, **{BY_COMMAND: "true"})
    project.tick()
    ended = project.instance.get_run_by_id(killed.run_id)
    assert ended.status is dg.DagsterRunStatus.FAILURE
    assert project.warehouse.paths() == {project.key("b.pdf"): "b.pdf"}
    assert project.partitions == [project.key("b.pdf")]


@contextmanager
def served(by_socket: bool, folder: Path) -> Iterator[str]:
    """A code server that listens, as Dagster notes it on the runs that it starts there."""
    kind = socket.AF_UNIX if by_socket else socket.AF_INET
    with socket.socket(kind) as server:
        server.bind(str(folder / "socket") if by_socket else ("127.0.0.1", 0))
        server.listen()
        where = {"socket": str(folder / "socket")}
        if not by_socket:
            where = {"host": "127.0.0.1", "port": server.getsockname()[1]}
        yield json.dumps(where)
    (folder / "socket").unlink(missing_ok=True)


@pytest.mark.parametrize("by_socket", [True, False])
def test_a_run_whose_code_server_is_gone_is_ended_and_one_whose_server_is_there_is_not(
    project, tmp_path, by_socket
):
    """After a power cut nobody else would end it, and it would hold up everything for ever."""
    project.lose_one_of_two()
    with served(by_socket, tmp_path) as server:
        started = project.run(TRAIN, dg.DagsterRunStatus.STARTED, **{GRPC_INFO_TAG: server})
        project.tick()
        assert len(project.partitions) == 2
    project.tick()
    ended = project.instance.get_run_by_id(started.run_id)
    assert ended.status is dg.DagsterRunStatus.FAILURE
    assert project.partitions == [project.key("b.pdf")]


def test_a_run_whose_code_server_nobody_can_ask_about_is_not_ended(project):
    project.put("a.pdf")
    unusable = json.dumps({"socket": "/" + "x" * 200})
    started = project.run(TRAIN, dg.DagsterRunStatus.STARTED, **{GRPC_INFO_TAG: unusable})
    project.tick()
    assert not project.instance.get_run_by_id(started.run_id).is_finished


def test_a_run_that_still_waits_uses_no_document_and_is_not_ended(project):
    project.lose_one_of_two()
    queued = project.run(TRAIN, dg.DagsterRunStatus.NOT_STARTED)
    project.tick()
    assert project.partitions == [project.key("b.pdf")]
    assert not project.instance.get_run_by_id(queued.run_id).is_finished


def test_documents_that_a_person_materializes_in_the_ui_are_not_asked_for_again(project):
    project.put("a.pdf")
    project.tick()
    chosen = create_run_for_test(
        project.instance,
        job_name="__ASSET_JOB",
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset({dg.AssetKey("raw_pdfs")}),
    )
    assert project.tick() == "a run ingests: documents are looked at when it has ended"
    project.instance.report_run_canceled(chosen)
    assert len(project.tick()) == 1


def test_a_model_that_nobody_knows_now_makes_nothing_stale(project):
    project.put("a.pdf")
    project.ingest()
    project.settings = project.settings.model_copy(update={"model": str(project.pdfs / "nowhere")})
    said = project.tick()
    assert isinstance(said, str)
    assert said.startswith("EMBED_ASSETS_MODEL")


def test_after_a_failed_run_it_asks_again_after_a_pause(project, monkeypatch):
    project.put("a.pdf")
    project.tick()
    assert len(project.tick()) == 1
    project.run(INGEST, dg.DagsterRunStatus.FAILURE)
    said = project.tick()
    assert isinstance(said, str)
    assert said.startswith("the last ingest failed; it is tried again from ")
    assert project.tick() == said, "it waits for its time"
    monkeypatch.setattr("embed_assets.automation.runs.PAUSES", (timedelta(0),))
    [request] = project.tick()
    assert request.tags[RANGE_START] == project.key("a.pdf")


def test_a_run_that_went_well_ends_the_pause(project):
    project.put("a.pdf")
    project.tick()
    project.run(INGEST, dg.DagsterRunStatus.FAILURE)
    project.run(INGEST, dg.DagsterRunStatus.SUCCESS)
    assert len(project.tick()) == 1


def test_what_failed_for_a_passing_reason_is_asked_for_when_its_time_has_come(project):
    project.put("a.pdf", "b.pdf")
    project.ingest()
    key, now = project.key("a.pdf"), datetime.now(UTC)
    project.fail("synthetic_questions", key, now)
    assert project.tick() == []
    project.fail("synthetic_questions", key, now - timedelta(minutes=6))
    [request] = project.tick()
    assert assets_of(request) == ("synthetic_questions",)
    assert request.tags[RANGE_START] == key


def test_a_pdf_that_moved_keeps_its_rows_and_shows_as_made_under_its_new_name(project):
    project.put("a.pdf", "b.pdf")
    project.ingest()
    before = project.key("a.pdf")
    (project.pdfs / "sub").mkdir()
    (project.pdfs / "a.pdf").rename(project.pdfs / "sub" / "a.pdf")
    assert project.tick() == []
    now = project.key("sub/a.pdf")
    assert set(project.partitions) == {now, project.key("b.pdf")}
    assert project.warehouse.paths()[now] == "sub/a.pdf"
    for asset in DOCUMENT_ASSETS:
        made = project.instance.get_materialized_partitions(dg.AssetKey(asset))
        assert now in made
    assert project.tick() == []
    made = read_records(project.warehouse, "chunks").made
    assert set(made) == {("chunks", now), ("chunks", project.key("b.pdf"))}
    assert before not in project.partitions


def test_so_many_moved_pdfs_that_a_tick_would_not_end_in_time_take_several(project, monkeypatch):
    monkeypatch.setattr("embed_assets.automation.sensors.MOVES_PER_TICK", 2)
    names = ("a.pdf", "b.pdf", "c.pdf")
    project.put(*names)
    project.ingest()
    (project.pdfs / "sub").mkdir()
    for name in names:
        (project.pdfs / name).rename(project.pdfs / "sub" / name)
    assert project.tick() == []
    in_sub = [path for path in project.warehouse.paths().values() if path.startswith("sub/")]
    assert len(in_sub) == 2
    assert project.tick() == []
    assert set(project.warehouse.paths()) == set(project.partitions) == set(scan(project.pdfs))


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(project):
    os.rmdir(project.pdfs)
    project.instance.add_dynamic_partitions(DOCUMENTS, ["a-12345678"])
    assert "does not exist" in str(project.tick())
    assert project.partitions == ["a-12345678"]


def test_another_folder_is_not_taken_for_one_from_which_all_documents_left(project):
    project.put("a.pdf")
    project.ingest()
    (project.pdfs / "a.pdf").unlink()
    project.put("other.pdf")
    said = str(project.tick())
    assert "none of the 1 documents on record is in the folder" in said
    assert said.endswith("embed-assets ingest --yes")
    assert project.warehouse.count("raw_pdfs") == 1


def test_the_cursor_holds_only_what_is_waited_for(project):
    project.put(*(f"{n}.pdf" for n in range(1000)))
    project.ingest()
    project.put("new.pdf")
    project.tick()
    assert project.cursor is not None
    assert len(project.cursor) < 100


def test_the_cursor_is_bounded_however_many_pdfs_are_new(project):
    project.put(*(f"{n}.pdf" for n in range(DOCUMENTS_PER_TICK + 100)))
    project.tick()
    assert project.cursor is not None
    assert len(json.loads(project.cursor)) == DOCUMENTS_PER_TICK
