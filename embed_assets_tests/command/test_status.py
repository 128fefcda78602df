"""`status` says what is due, what waits and what failed, and leaves everything as it is."""

import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from embed_assets.automation.plan import OTHER_CODE, OTHER_QUESTIONS
from embed_assets.command.status import status_text
from embed_assets.errors import SettingsError
from embed_assets.graph import CORPUS_ASSETS, DOCUMENT_ASSETS
from embed_assets.resources.ledger import UNPARTITIONED, Materialization, write_made
from embed_assets.training.preparation import pairs_to_train, read_training_input
from embed_assets_tests.readers import ENOUGH, read_or_die, write_documents
from embed_assets_tests.rows import model
from embed_assets_tests.training.test_preparation import SPLIT_PAIRS, pdfs

KEYS = {
    "": {"folder", "due", "waiting", "failed", "models", "retraining"},
    "folder": {"documents", "new", "changed", "gone", "settling"},
    "due": {"asset", "documents", "reason"},
    "waiting": {"what", "reason"},
    "failed": {"path", "error", "attempts", "final"},
    "models": {"champion", "challenger", "previous"},
    "retraining": {"due", "reason", "new_pairs", "new_share"},
}


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


STATUS = """
import sys
from pathlib import Path
from embed_assets.command.status import status_summary
from embed_assets.settings import Settings
status_summary(Settings(pdfs=Path(sys.argv[1]), home=Path(sys.argv[2])))
print("torch" in sys.modules)
"""


def test_it_loads_no_model_and_looks_for_no_gpu(project):
    project.put("a.pdf")
    said = subprocess.run(
        [sys.executable, "-c", STATUS, str(project.pdfs), str(project.settings.home)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "False"


def test_a_bucket_that_is_not_there_is_a_wrong_call(tmp_path):
    command = [sys.executable, "-m", "embed_assets.command.cli", "status"]
    said = subprocess.run(
        [*command, "--pdfs", "memory://nowhere/pdfs", "--home", str(tmp_path / "home")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert said.stderr == (
        "embed-assets: EMBED_ASSETS_PDFS: memory://nowhere/pdfs does not exist. "
        "Set it, or give --pdfs.\n"
    )


def test_in_a_home_that_is_not_there_yet_everything_is_due_and_none_is_made(project):
    project.put("a.pdf", "b.pdf")
    summary = project.status()
    assert not project.settings.home.exists()
    assert (summary["folder"]["documents"], summary["folder"]["new"]) == (2, 2)
    assert summary["due"] == [
        {"asset": asset, "documents": 2, "reason": "new"} for asset in DOCUMENT_ASSETS
    ]
    assert summary["waiting"] == [{"what": "training_pairs", "reason": "documents come first"}]
    assert summary["models"] == {"champion": None, "challenger": None, "previous": None}


def test_an_empty_folder_is_no_error(project):
    assert project.status()["folder"]["documents"] == 0


def test_a_setting_that_a_run_would_refuse_is_what_everything_waits_for(
    project, tmp_path, monkeypatch, subtests
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people.jsonl").write_text("{")
    project.put("a.pdf")
    project.ingest()
    for name, value in (
        ("labelled", "people.jsonl"),
        ("model", "./nowhere"),
        ("questions", "oracle:delphi"),
        ("filters", "each"),
        ("dimensions", "9999"),
        ("baselines", "base"),
        ("pairs_together", 32),
    ):
        with subtests.test(name=name):
            with pytest.raises(SettingsError) as refused:
                project.ingest(**{name: value})
            summary = project.status(**{name: value})
            assert summary["folder"]["documents"] == 1
            assert summary["due"] == []
            assert summary["waiting"] == [{"what": "ingest", "reason": str(refused.value)}]
            assert summary["retraining"]["reason"] == str(refused.value)


def test_its_keys_are_these(project):
    project.read_with(read_or_die, in_processes=True)
    project.put("a.pdf")
    project.put("b.pdf", says="die")
    project.ingest()
    project.put("new.pdf")
    summary = project.status()
    assert set(summary) >= KEYS[""]
    for name in KEYS[""]:
        rows = summary[name] if isinstance(summary[name], list) else [summary[name]]
        assert rows, f"the test's home has no {name}"
        assert all(set(row) >= KEYS[name] for row in rows)


def test_it_changes_nothing_whatever_it_sees(project):
    names = ("a.pdf", "b.pdf", "c.pdf", "d.pdf")
    project.put(*names)
    project.ingest()
    (project.pdfs / "a.pdf").unlink()
    project.put("b.pdf", says="other")
    (project.pdfs / "c.pdf").rename(project.pdfs / "moved.pdf")
    project.put("new.pdf")
    before = files(project.settings.home)
    first = project.status()
    assert first["folder"] == {
        "documents": 4,
        "new": 1,
        "changed": 1,
        "moved": 1,
        "gone": 1,
        "settling": 0,
    }
    assert project.status() == first
    assert files(project.settings.home) == before


def test_what_failed_is_forgotten_when_the_file_is_as_it_was(project):
    project.read_with(read_or_die, in_processes=True)
    project.put("a.pdf")
    project.ingest()
    project.put("a.pdf", says="die")
    project.ingest()
    [failed] = project.status()["failed"]
    assert failed["path"] == "a.pdf"
    project.put("a.pdf")
    project.ingest()
    assert project.status()["failed"] == []


def test_after_an_ingest_the_training_is_due(project):
    write_documents(project.pdfs, *ENOUGH)
    project.ingest()
    summary = project.status()
    assert [row["asset"] for row in summary["due"]] == list(CORPUS_ASSETS), summary["waiting"]
    assert summary["retraining"]["due"] is True
    assert summary["retraining"]["reason"] == "not made yet"


def test_where_mlflow_does_not_answer_it_says_so_and_ingests_all_the_same(project, monkeypatch):
    for name in ("MAX_RETRIES", "TIMEOUT"):  # status sets them for its own process
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    write_documents(project.pdfs, *ENOUGH)
    assert project.ingest().changed
    project.warehouse.replace("models", model("1"))
    summary = project.status()
    assert summary["models"] == {"champion": None, "challenger": None, "previous": None}
    [said] = [row["reason"] for row in summary["waiting"] if row["what"] == "models"]
    assert said == (
        "MLflow can't say which models are this home's: the server http://127.0.0.1:9 doesn't "
        "answer. Start it, or set MLFLOW_TRACKING_URI to another one."
    )
    assert "Models: unknown." in status_text(summary).splitlines()
    assert [row["asset"] for row in summary["due"]] == list(CORPUS_ASSETS)


def test_a_file_that_is_being_written_is_settling(project):
    project.put("a.pdf", "b.pdf")
    os.utime(project.pdfs / "b.pdf", (time.time(), time.time()))
    summary = project.status()
    assert summary["folder"]["settling"] == 1
    assert {"what": "b.pdf", "reason": "still changing"} in summary["waiting"]


def test_pairs_that_the_settings_leave_out_are_not_new(project):
    """Three pairs and a limit of two: the version was trained on two, and a third one waits."""
    warehouse, home = project.warehouse, project.settings.home
    pairs = SPLIT_PAIRS.with_columns(split=pl.Series(["train", "train", "validation", "train"]))
    warehouse.replace("raw_pdfs", pdfs("one"))
    warehouse.replace("training_pairs", pairs)
    with warehouse.transaction() as transaction:
        made = Materialization("1", "1", "1")
        write_made(transaction, "training_pairs", {UNPARTITIONED: made}, "run")
    limited = project.settings.model_copy(update={"max_pairs": 2})
    chosen = pairs_to_train(read_training_input(warehouse).pairs, limited)
    home.mkdir(exist_ok=True)
    chosen.select("anchor", chunk_id="global_chunk_id").write_parquet(home / "pairs.parquet")
    warehouse.replace("models", model("1", pairs="pairs.parquet"))
    new = {n: project.status(max_pairs=n)["retraining"]["new_pairs"] for n in (2, 3)}
    assert new == {2: 0, 3: 1}


def test_it_says_that_it_is_people_s_questions_that_changed(project, tmp_path):
    project.put("a.pdf")
    file = tmp_path / "people.jsonl"
    question = '{"question": "When does the valve open?", "file_name": "a.pdf"}'
    file.write_text(question)
    project.ingest(labelled=str(file))
    file.write_text(question.replace("When", "Why"))
    both = {"labelled": str(file), "filters": "none"}
    for changed, reason in (({"labelled": str(file)}, OTHER_QUESTIONS), (both, OTHER_CODE)):
        due = {row["asset"]: row["reason"] for row in project.status(**changed)["due"]}
        assert due == {"synthetic_questions": reason}


def test_of_much_that_failed_the_first_are_listed_and_all_on_demand(project):
    failed = [
        {"path": f"{n}.pdf", "error": "no PDF", "attempts": 1, "final": True} for n in range(8)
    ]
    summary = {**project.status(), "failed": failed}
    assert "  … and 3 more: --details lists all" in status_text(summary).splitlines()
    assert "  7.pdf: no PDF" not in status_text(summary)
    assert "  7.pdf: no PDF" in status_text(summary, details=True)


def test_a_person_reads_the_same(project):
    project.put("a.pdf")
    lines = status_text(project.status()).splitlines()
    assert lines[0] == ("1 document in the folder: 1 new, 0 changed, 0 moved, 0 gone, 0 settling.")
    assert "  raw_pdfs (1 document): new" in lines
    assert "Models: none is trained yet. No champion: the base model serves." in lines
    assert lines[-1] == "Training: documents come first."
