"""The sensor on a real folder, a real warehouse and a real Dagster instance."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test

from embed_assets.automation.runs import (
    BY_COMMAND,
    INGEST,
    RANGE_END,
    RANGE_START,
    TRAIN,
    pause_until,
)
from embed_assets.automation.sensors import AGREED, DOCUMENTS_PER_TICK
from embed_assets.automation.state import State, read_state
from embed_assets.definitions import build_resources
from embed_assets.documents.folder import load_documents, scan
from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.grouping import DOCUMENTS_PER_RUN
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.ledger import Cause, Failure, read_records
from embed_assets.resources.run_tags import BUDGET_TAG
from embed_assets.resources.tracking import DAGSTER_RUN
from embed_assets_tests.automation.watched import Project, assets_of
from embed_assets_tests.documents.folders import folder_in_memory


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with dg.instance_for_test() as instance:
        yield Project(tmp_path, instance)


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
        assert project.tick() == []
        assert "the only document on record isn't in the folder" in project.said
    assert project.tick() == []
    assert "EMBED_ASSETS_PDFS: memory://bucket/pdfs does not exist" in project.said
    assert len(project.partitions) == project.warehouse.count("raw_pdfs") == 1


def test_while_a_run_ingests_nothing_is_asked_for(project):
    project.put("a.pdf")
    assert project.tick() == []
    project.run(INGEST, dg.DagsterRunStatus.STARTED)
    assert project.tick() == []
    assert "a run ingests" in project.said


def test_many_new_pdfs_are_asked_for_in_runs_of_neighbours(project):
    project.put(*(f"{n:03}.pdf" for n in range(70)))
    assert project.tick() == []
    requests = project.tick()
    keys = list(scan(project.pdfs))
    assert project.partitions == keys
    ranges = [(r.tags[RANGE_START], r.tags[RANGE_END]) for r in requests]
    size = DOCUMENTS_PER_RUN
    assert ranges == [(keys[i], keys[min(i + size, 70) - 1]) for i in range(0, 70, size)]


def test_a_tick_asks_for_no_more_documents_in_longer_runs(project, monkeypatch):
    project.settings = project.settings.changed({"documents_per_run": 6})
    monkeypatch.setattr("embed_assets.automation.sensors.DOCUMENTS_PER_TICK", 20)
    project.put(*(f"{n:03}.pdf" for n in range(30)))
    project.tick()
    keys = project.partitions or list(scan(project.pdfs))
    found = [(r.tags[RANGE_START], r.tags[RANGE_END]) for r in project.tick()]
    assert found == [(keys[i], keys[i + 5]) for i in (0, 6, 12)]


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
    assert project.tick() == []
    assert project.said == "a run ingests: documents are looked at when it has ended"
    project.instance.report_run_canceled(chosen)
    assert len(project.tick()) == 1


def test_a_model_that_nobody_knows_now_makes_nothing_stale(project):
    project.put("a.pdf")
    project.ingest()
    project.settings = project.settings.model_copy(update={"model": str(project.pdfs / "nowhere")})
    assert project.tick() == []
    said = project.said
    assert said.startswith("EMBED_ASSETS_MODEL")


def test_after_a_failed_run_it_asks_again_after_a_pause(project, monkeypatch):
    project.put("a.pdf")
    project.tick()
    assert len(project.tick()) == 1
    project.run(INGEST, dg.DagsterRunStatus.FAILURE)
    assert project.tick() == []
    said = project.said
    assert said.startswith("the last ingest failed or was stopped; 1 document due: tried again")
    assert project.tick() == []
    assert project.said == said, "it waits for its time"
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
    monkeypatch.setattr("embed_assets.automation.plan.MOVES_AT_ONCE", 2)
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


def test_partitions_that_were_lost_with_dagsters_history_come_back_over_several_ticks(
    project, monkeypatch
):
    monkeypatch.setattr("embed_assets.automation.plan.ADDITIONS_AT_ONCE", 2)
    project.put("a.pdf", "b.pdf", "c.pdf")
    project.ingest()
    for key in project.partitions:
        project.instance.delete_dynamic_partition(DOCUMENTS, key)
    keys = list(scan(project.pdfs))
    assert project.tick() == []
    assert project.partitions == keys[:2]
    assert project.tick() == []
    assert project.partitions == keys


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(project):
    os.rmdir(project.pdfs)
    project.instance.add_dynamic_partitions(DOCUMENTS, ["a-12345678"])
    assert project.tick() == []
    assert "does not exist" in project.said
    assert project.partitions == ["a-12345678"]


def test_another_folder_is_not_taken_for_one_from_which_all_documents_left(project):
    project.put("a.pdf")
    project.ingest()
    (project.pdfs / "a.pdf").unlink()
    project.put("other.pdf")
    project.tick()
    said = project.said
    assert "the only document on record isn't in the folder" in said
    assert "`embed-assets ingest --yes`" in said
    assert project.warehouse.count("raw_pdfs") == 1


def test_the_cursor_holds_only_what_is_waited_for(project):
    project.put(*(f"{n}.pdf" for n in range(1000)))
    project.ingest()
    project.put("new.pdf")
    project.tick()
    assert len(project.cursors["pdf_folder"] or "") < 200


def test_the_cursor_is_bounded_however_many_pdfs_are_new(project):
    project.put(*(f"{n}.pdf" for n in range(DOCUMENTS_PER_TICK + 100)))
    project.tick()
    assert len(json.loads(project.cursors["pdf_folder"] or "")["files"]) == DOCUMENTS_PER_TICK


def lose_two_of_three(project: Project) -> None:
    project.put("a.pdf", "b.pdf", "c.pdf")
    project.ingest()
    (project.pdfs / "a.pdf").unlink()
    (project.pdfs / "b.pdf").unlink()


def test_losing_many_pdfs_at_once_waits_and_the_rest_goes_on(project):
    lose_two_of_three(project)
    project.put("new.pdf")
    assert project.tick() == []
    assert "2 of the 3 documents on record are gone (a.pdf, b.pdf)" in project.said
    [request] = project.tick()
    assert request.tags[RANGE_START] == project.key("new.pdf")
    assert project.warehouse.count("raw_pdfs") == 3


def test_a_tag_on_any_run_agrees_to_the_loss_of_these_documents_and_of_no_others(project):
    project.put("a.pdf", "b.pdf", "c.pdf", "d.pdf")
    project.ingest()
    (project.pdfs / "a.pdf").unlink()
    (project.pdfs / "b.pdf").unlink()
    project.tick()
    code = project.said.rpartition(f"{AGREED}: ")[2]
    (project.pdfs / "d.pdf").unlink()
    project.run(INGEST, dg.DagsterRunStatus.SUCCESS, **{AGREED: code})
    project.tick()
    assert project.warehouse.count("raw_pdfs") == 4, "one more is gone than was agreed to"
    code = project.said.rpartition(f"{AGREED}: ")[2]
    project.run(INGEST, dg.DagsterRunStatus.SUCCESS, **{AGREED: code})
    project.tick()
    assert project.warehouse.paths() == {project.key("c.pdf"): "c.pdf"}
    project.put("a.pdf", "b.pdf", "d.pdf")
    project.ingest()
    for name in ("a.pdf", "b.pdf", "d.pdf"):
        (project.pdfs / name).unlink()
    project.tick()
    assert project.warehouse.count("raw_pdfs") == 4, "they came back since: that is another loss"


def test_the_runs_of_a_wave_share_a_budget_and_the_next_wave_has_another(project):
    project.put(*(f"{n:03}.pdf" for n in range(2 * DOCUMENTS_PER_RUN)))
    project.tick()
    first, second = project.tick()
    assert first.tags[BUDGET_TAG] == second.tags[BUDGET_TAG] != ""
    [again] = {request.tags[BUDGET_TAG] for request in project.tick()}
    assert again == first.tags[BUDGET_TAG], "what is still due is of the same wave"
    project.ingest()
    assert project.tick() == []
    project.put("new.pdf")
    project.tick()
    [request] = project.tick()
    assert request.tags[BUDGET_TAG] != first.tags[BUDGET_TAG]


def test_what_a_spent_budget_left_unasked_is_asked_in_the_next_wave(project):
    project.put("a.pdf", "b.pdf")
    project.ingest()
    key = project.key("a.pdf")
    spent = Failure(Cause.NOT_ASKED, "3 chunks without questions: the budget was spent")
    project.fail("synthetic_questions", key, datetime.now(UTC) - timedelta(hours=1), spent)
    assert project.tick() == []
    project.put("new.pdf")
    project.tick()
    new, asked = project.tick()
    assert new.tags[RANGE_START] == project.key("new.pdf"), "new documents come first"
    assert (assets_of(asked), asked.tags[RANGE_START]) == (("synthetic_questions",), key)


def test_what_is_tried_once_more_has_no_budget_of_its_own(project):
    project.put("a.pdf")
    project.tick()
    [first] = project.tick()
    project.ingest()
    project.tick()
    project.fail(
        "synthetic_questions", project.key("a.pdf"), datetime.now(UTC) - timedelta(hours=1)
    )
    [again] = project.tick()
    assert again.tags[BUDGET_TAG] == first.tags[BUDGET_TAG]


def test_a_command_that_comes_while_a_tick_looks_has_the_home(project, monkeypatch):
    project.put("a.pdf")
    project.tick()

    def slow(*given: Any, **options: Any) -> State:
        stack.enter_context(locked_by_a_command(project.settings.home))
        return read_state(*given, **options)

    with ExitStack() as stack:
        monkeypatch.setattr("embed_assets.automation.sensors.read_state", slow)
        assert project.tick() == []
        assert project.said.startswith("A command is at work")
        assert project.partitions == []


@contextmanager
def locked_by_a_command(home: Path) -> Iterator[None]:
    """Another process holds the lock of a home's commands."""
    program = f"""
import sys
from pathlib import Path
from embed_assets.automation.runs import command_lock
with command_lock(Path({str(home)!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate()


def test_a_back_off_lasts_however_often_the_pairs_alone_were_made(project):
    for _ in range(2):
        project.run(TRAIN, dg.DagsterRunStatus.FAILURE)
    for _ in range(40):
        create_run_for_test(
            project.instance,
            job_name=TRAIN,
            status=dg.DagsterRunStatus.SUCCESS,
            asset_selection=frozenset({dg.AssetKey("training_pairs")}),
        )
    until = pause_until(project.instance, TRAIN)
    assert until is not None
    assert until > datetime.now(UTC) + timedelta(minutes=20)


# The sensor that retrains.


def test_where_there_is_too_little_to_train_on_it_says_so(project):
    project.put("a.pdf")
    project.ingest()
    assert project.tick("retraining") == []
    assert "Too few questions to train on" in project.said


def test_documents_come_first_while_the_other_sensor_is_on_and_it_says_how_many(project):
    project.put("a.pdf", "b.pdf")
    assert project.tick("retraining") == []
    assert "Too few questions" in project.said
    project.settings = project.settings.model_copy(update={"watch": True})
    assert project.tick("retraining") == []
    assert project.said == "training_pairs: documents come first; 2 to ingest"


def test_a_folder_that_cannot_be_read_is_said_by_both(project):
    os.rmdir(project.pdfs)
    for sensor in ("pdf_folder", "retraining"):
        assert project.tick(sensor) == []
        assert "does not exist" in project.said


def test_what_a_run_that_was_ended_left_in_mlflow_is_ended(project):
    tracking = build_resources(project.settings)["tracking"]
    tracking.connect()
    client = tracking.client()
    experiment = client.get_experiment_by_name(tracking.name).experiment_id
    run = project.run(TRAIN, dg.DagsterRunStatus.STARTED)
    in_mlflow = client.create_run(experiment, tags={DAGSTER_RUN: run.run_id}).info.run_id
    project.put("a.pdf")
    project.tick("retraining")
    assert client.get_run(in_mlflow).info.status == "RUNNING"
    project.instance.report_run_canceled(run)
    project.tick("retraining")
    assert client.get_run(in_mlflow).info.status == "KILLED"
