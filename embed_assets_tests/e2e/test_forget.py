"""A marked PDF is ingested, asked about, trained on and reported; forgotten, nothing names it."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from embed_assets.partitions import DOCUMENTS
from embed_assets_tests.e2e.conftest import DOCUMENTS as TEXTS
from embed_assets_tests.e2e.conftest import QUESTIONS, write_pdf
from embed_assets_tests.e2e.project import Call, Project
from embed_assets_tests.marks import find_marks
from embed_assets_tests.questions.written.llm_server import LLMServer

NAME = "Ünter/Vantrupe & the secret file.pdf"
IN_NAME = ("vantrupe",)
IN_TEXTS = ("zorblatt", "quixmarl", "plimworx", "krendolf", "wexlington")
ASKED = {
    "question": "How many eggs a day does a healthy zorblatt lay, asks plimworx?",
    "file_name": NAME,
    "page": 1,
    "evidence_text": "wexlington holds that a healthy zorblatt lays about fifteen hundred eggs a "
    "day, so look for brood in at least four frames.",
    "answer": "fifteen hundred, says krendolf",
}


def write_marked(folder: Path) -> None:
    """A PDF with marked words in its text, all of its own, and a marked question about it."""
    text = TEXTS["apiary-handbook.pdf"].replace("colony", "zorblatt").replace("queen", "zorblatt")
    (folder / NAME).parent.mkdir()
    write_pdf(folder / NAME, text.replace("Apiary Handbook", "Quixmarl Handbook"))
    rows = "\n".join(json.dumps(row) for row in [*QUESTIONS, ASKED])
    (folder / "questions.jsonl").write_text(rows)


@pytest.fixture(scope="module")
def told(
    five_pdfs: Callable[[Path], Path],
    environment: dict[str, str],
    command: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Project:
    """A project whose first model was trained on the marked PDF and made champion."""
    folder = tmp_path_factory.mktemp("forget")
    pdfs = five_pdfs(folder / "pdfs")
    write_marked(pdfs)
    with LLMServer() as server:
        variables = {
            **environment,
            "EMBED_ASSETS_QUESTIONS": "openai:fake",
            "EMBED_ASSETS_JUDGE": "openai:judge",
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": "unused",
        }
        project = Project(command, variables, pdfs, folder / "home")
        call = project.call("run", "--json")
        assert call.status == 0, call.err
    return project


@pytest.fixture(scope="module")
def forgotten(told: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Call]:
    """A copy of it in which the marked PDF was forgotten, logs of its servers and all."""
    project = told.copy(tmp_path_factory.mktemp("copy"))
    make_champion(project, "1")
    log = project.home / "dagster-server.log"
    log.write_text(f"GET /assets\n{NAME}: the file may not be read\nGET /runs\n")
    call = project.call("forget", NAME, "--json")
    assert call.status == 0, call.err
    return project, call


def make_champion(project: Project, version: str) -> None:
    with closing(sqlite3.connect(project.home / "mlflow.db")) as connection, connection:
        name = connection.execute("SELECT name FROM registered_models").fetchone()[0]
        row = ("champion", version, name)
        connection.execute(
            "INSERT OR REPLACE INTO registered_model_aliases (alias, version, name) "
            "VALUES (?, ?, ?)",
            row,
        )


def test_marks_stand_everywhere_before(told):
    found = find_marks(told.home, (*IN_NAME, *IN_TEXTS))
    places = " ".join(place for place, _ in found)
    for expected in (
        *("answers.sqlite", "mlartifacts", "reports", "pairs.parquet", "history/runs/index.db"),
        *("event_logs.event", "dynamic_partitions", "raw_pdfs", "synthetic_questions.answer"),
        *("artifacts/lineage/pairs.parquet", "model_versions.description"),
    ):
        assert expected in places
    assert {mark for _, mark in found} == {*IN_NAME, *IN_TEXTS}


def test_nothing_is_left_but_the_name_on_record(forgotten):
    project, _ = forgotten
    left = find_marks(project.home, (*IN_NAME, *IN_TEXTS))
    columns = {f"warehouse.duckdb forgotten.{name}" for name in ("path", "document_id", "command")}
    assert left == {(place, mark) for place in {"warehouse.duckdb", *columns} for mark in IN_NAME}


def test_the_summary_says_what_went_and_what_follows(forgotten):
    project, call = forgotten
    said = call.result
    assert [row["path"] for row in said["documents"]] == [NAME]
    assert said["rows"]["raw_pdfs"] == 1
    for table in ("answers", "chunks", "synthetic_questions", "training_pairs", "embeddings"):
        assert said["rows"][table] > 0
    assert (said["versions"], said["withdrawn"]) == (["1"], ["1"])
    assert said["retraining"]["due"]
    assert said["in_folder"] == [NAME]
    record = project.rows("SELECT path, versions, command FROM forgotten")
    assert [(path, versions) for path, versions, _ in record] == [(NAME, ["1"])]
    assert "embed-assets forget" in record[0][2]


def test_what_others_have_stays(forgotten, told):
    project, _ = forgotten
    chunks = "SELECT file_name, count(*) FROM chunks GROUP BY ALL ORDER BY ALL"
    others = [row for row in told.rows(chunks) if "Vantrupe" not in row[0]]
    assert project.rows(chunks) == others
    assert len(others) == len(TEXTS)


def test_dagster_and_mlflow_still_read_their_records(forgotten, monkeypatch):
    project, _ = forgotten
    monkeypatch.setenv("DAGSTER_HOME", str(project.home / "dagster"))
    with dg.DagsterInstance.get() as instance:
        assert len(instance.get_dynamic_partitions(DOCUMENTS)) == len(TEXTS)
        for run in instance.get_runs():
            assert run.status is dg.DagsterRunStatus.SUCCESS
            assert instance.all_logs(run.run_id)
        event = instance.get_latest_materialization_event(dg.AssetKey("training_pairs"))
        assert event is not None
        assert event.asset_materialization is not None
        assert records(event.asset_materialization.metadata["preview"]) == []
        assert records(event.asset_materialization.metadata["realism"])
        for key in instance.get_dynamic_partitions(DOCUMENTS):  # the others'
            of_chunks = instance.fetch_materializations(
                dg.AssetRecordsFilter(dg.AssetKey("chunks"), asset_partitions=[key]), limit=1
            ).records[0]
            assert of_chunks.asset_materialization is not None
            assert records(of_chunks.asset_materialization.metadata["preview"])
    status = project.call("status", "--json").result
    assert status["models"]["champion"] is None
    lineage = project.call("lineage", "1", "--json").result
    kept = project.rows("SELECT document_id FROM model_documents WHERE version = '1'")
    assert len(lineage["documents"]) == len(kept)


def records(preview: dg.MetadataValue) -> list[dg.TableRecord]:
    assert isinstance(preview, dg.TableMetadataValue)
    return list(preview.records)


def test_a_version_says_that_it_can_not_be_trained_again(told, forgotten):
    before = told.call("retrain", "1", "--check", "--json")
    assert (before.status, before.result["possible"]) == (0, True)
    after = forgotten[0].call("retrain", "1", "--check", "--json")
    assert (after.status, after.result["possible"]) == (1, False)
    assert after.result["pairs"]["redacted"] > 0
    assert after.result["pairs"]["rows"] == before.result["pairs"]["rows"]
    assert forgotten[0].call("retrain", "1").status == 2


def test_what_is_remembered_does_not_come_back_to_the_pairs_of_a_version(forgotten, tmp_path):
    project = forgotten[0].copy(tmp_path)
    redacted = project.call("retrain", "1", "--check", "--json").result["pairs"]["redacted"]
    assert project.call("forget", "--remember", NAME).status == 0
    after = project.call("retrain", "1", "--check", "--json")
    assert (after.status, after.result["pairs"]["redacted"]) == (1, redacted)


def test_neither_its_name_nor_its_bytes_come_in_again(forgotten, tmp_path):
    project = forgotten[0].copy(tmp_path)
    (project.pdfs / "renamed.pdf").write_bytes((project.pdfs / NAME).read_bytes())
    offline = {"EMBED_ASSETS_QUESTIONS": "extractive", "EMBED_ASSETS_JUDGE": ""}
    call = project.call("ingest", "--json", **offline)
    assert call.status == 0, call.err
    assert call.result["documents"]["SUCCESS"] == len(TEXTS)
    assert [row["path"] for row in call.result["failed"]] == ["renamed.pdf"]
    assert call.result["unmatched_labelled"] == []
    waiting = project.call("status", "--json").result["waiting"]
    assert [row["what"] for row in waiting if "--remember" in row["reason"]] == [
        NAME,
        "renamed.pdf",
    ]
    assert not find_marks(project.home, IN_TEXTS)
