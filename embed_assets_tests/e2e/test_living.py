"""A project that lives: PDFs move, questions are added, settings and base models change."""

import json
import shutil
import sqlite3
from pathlib import Path

from embed_assets_tests.e2e.conftest import QUESTIONS, write_pdf
from embed_assets_tests.e2e.project import Call, Project

WARM = """
# Bee Cellar

## Cellar temperature

Colonies winter in a cellar at four degrees and in the dark. Light from a cracked door wakes the
bees and empties the stores long before the willow blooms.

## Airing the cellar

Air the cellar through the chimney on frosty nights. Damp boards show that the air stands still,
and mould on the outer combs shows that the damp has stood for weeks.
"""


def due(project: Project) -> dict[str, str]:
    """Reason of each asset that is due."""
    return {row["asset"]: row["reason"] for row in project.call("status", "--json").result["due"]}


def pairs(project: Project) -> list[tuple[str, ...]]:
    """Every pair with its split."""
    return project.rows("SELECT anchor, global_chunk_id, split FROM training_pairs ORDER BY ALL")


def test_after_a_run_nothing_is_due_and_status_says_so(
    trained: tuple[Project, Call], tmp_path: Path
) -> None:
    project = trained[0].copy(tmp_path)
    assert project.call("run", "--json").status == 0  # a copy has other times
    status = project.call("status", "--json").result
    assert status["due"] == []
    assert status["waiting"] == []
    assert status["failed"] == []
    assert status["folder"]["documents"] == 5
    assert status["retraining"]["due"] is False
    assert "Nothing is due" in project.call("status").out


def test_a_folder_that_moved_as_a_whole_is_the_same_documents(
    trained: tuple[Project, Call], tmp_path: Path
) -> None:
    project = trained[0].copy(tmp_path)
    before = pairs(project)
    below = project.pdfs / "archive" / "2026"
    below.mkdir(parents=True)
    for pdf in project.pdfs.glob("*.pdf"):
        pdf.rename(below / f"old {pdf.name}")
    call = project.call("run", "--json")
    assert call.status == 0, call.err
    assert call.result["trained"] is False
    assert call.result["documents"] == {"SUCCESS": 5, "EMPTY": 0, "ERROR": 0}
    assert call.result["unmatched_labelled"] == []
    assert set(call.result["seconds_by_asset"]) == {"search_index"}
    assert pairs(project) == before
    paths = project.rows("SELECT path FROM raw_pdfs")
    assert all(path.startswith("archive/2026/old ") for (path,) in paths)
    splits = "SELECT count(*) FROM split_assignments WHERE kind = 'document'"
    assert project.rows(splits)[0][0] == 5


def test_two_pdfs_that_swap_names_stay_the_documents_that_they_were(
    trained: tuple[Project, Call], tmp_path: Path
) -> None:
    project = trained[0].copy(tmp_path)
    before = pairs(project)
    first, second = sorted(project.pdfs.glob("*.pdf"))[:2]
    first.rename(project.pdfs / "aside")
    second.rename(first)
    (project.pdfs / "aside").rename(second)
    call = project.call("run", "--json")
    assert call.status == 0, call.err
    assert call.result["trained"] is False
    assert pairs(project) == before
    assert due(project) == {}


def test_a_home_that_moved_finds_its_models(trained: tuple[Project, Call], tmp_path: Path) -> None:
    project = trained[0].copy(tmp_path)
    model = Path(project.call("run", "--json").result["model"]["path"])
    assert model.is_relative_to(project.home)
    assert (model / "pairs.parquet").is_file()
    assert project.call("lineage", "--json").result["identity"]


def test_one_more_test_question_is_scored_and_trains_nothing(
    trained: tuple[Project, Call], tmp_path: Path
) -> None:
    project = trained[0].copy(tmp_path)
    more = QUESTIONS[0] | {"question": "What does a hive eat between September and May?"}
    rows = [json.dumps(question) for question in [*QUESTIONS, more]]
    (project.pdfs / "questions.jsonl").write_text("\n".join(rows))
    call = project.call("run", "--json")
    assert call.status == 0, call.err
    assert call.result["trained"] is False
    assert call.result["pairs"]["test_labelled"] == len(rows)
    assert {"base_eval", "comparison"} <= set(call.result["seconds_by_asset"])
    assert call.result["model"]["version"] == "1"
    assert due(project) == {}


def test_a_folder_with_nothing_in_common_asks_for_agreement(
    trained: tuple[Project, Call], tmp_path: Path
) -> None:
    project = trained[0].copy(tmp_path)
    for pdf in project.pdfs.glob("*.pdf"):
        pdf.unlink()
    write_pdf(project.pdfs / "cellar.pdf", WARM)
    refused = project.call("ingest", "--json")
    assert refused.status == 2
    assert "--yes" in refused.err
    assert project.rows("SELECT count(*) FROM raw_pdfs")[0][0] == 5
    agreed = project.call("ingest", "--yes", "--json")
    assert agreed.status == 0, agreed.err
    assert project.rows("SELECT path FROM raw_pdfs") == [("cellar.pdf",)]


def test_other_weights_in_the_base_folder_make_what_they_made_stale(
    trained: tuple[Project, Call], tmp_path: Path
) -> None:
    project = trained[0].copy(tmp_path)
    base = tmp_path / "base"
    shutil.copytree(project.environment["EMBED_ASSETS_MODEL"], base)
    moved = Project(
        project.command,
        project.environment | {"EMBED_ASSETS_MODEL": str(base)},
        project.pdfs,
        project.home,
    )
    assert moved.call("run", "--json").status == 0
    assert due(moved) == {}
    weights = base / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0x40
    weights.write_bytes(content)
    assert "finetuned_model" in due(moved) or "training_pairs" in due(moved)


def test_a_run_that_a_kill_left_running_in_mlflow_is_ended_by_the_next_command(
    trained: tuple[Project, Call], tmp_path: Path
) -> None:
    project = trained[0].copy(tmp_path)
    with sqlite3.connect(project.home / "mlflow.db") as database:
        database.execute("UPDATE runs SET status = 'RUNNING', end_time = NULL")
    assert project.call("run", "--json").status == 0
    with sqlite3.connect(project.home / "mlflow.db") as database:
        statuses = {status for (status,) in database.execute("SELECT status FROM runs")}
    assert "RUNNING" not in statuses
