"""The whole graph through the command line, on five small PDFs in a temporary home."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from embed_assets_tests.e2e.project import Call, Project

SPLITS = {"train", "validation", "test_seen_documents", "test_unseen_documents", "test_labelled"}


def test_one_command_turns_pdfs_into_a_model_and_a_proof(trained: tuple[Project, Call]) -> None:
    project, call = trained
    result = call.result
    assert result["documents"] == {"SUCCESS": 5, "EMPTY": 0, "ERROR": 0}
    assert result["failed"] == []
    assert result["pages"] == 10
    assert result["chunks"] == project.rows("SELECT count(*) FROM chunks")[0][0] > 5
    assert set(result["pairs"]) == SPLITS
    assert min(result["pairs"].values()) > 0
    assert result["pairs"]["test_labelled"] == 4
    assert set(result["seconds"]) >= {"documents", "questions", "training", "comparison"}
    metrics = {(row["metric"], row["k"]) for row in result["comparison"]}
    at_k = {(m, k) for m in ("accuracy", "precision", "recall", "f1", "hit_rate") for k in (1, 10)}
    assert metrics >= at_k | {("ndcg", 10), ("mrr", 10), ("map", 100)}
    assert {row["split"] for row in result["comparison"]} == SPLITS - {"train"}
    assert {(row["model"], row["split"]) for row in result["baselines"]} == {
        (model, split) for model in ("bm25", "base + bm25") for split in SPLITS - {"train"}
    }
    assert {(row["model"], row["split"]) for row in result["hybrid"]} == {
        (model, split) for model in ("base + bm25", "tuned") for split in SPLITS - {"train"}
    }
    assert result["baselines_failed"] == []
    model = Path(result["model"]["path"])
    assert (model / "model.safetensors").is_file()
    assert not [p for p in model.rglob("*") if p.suffix in {".bin", ".pt", ".pkl"}]


def test_the_report_is_one_page_that_needs_nothing_else(trained: tuple[Project, Call]) -> None:
    page = Path(trained[1].result["report"]).read_text(encoding="utf-8")
    assert "NDCG@10" in page
    assert 'src="http' not in page
    assert '<link rel="stylesheet" href=' not in page


def test_the_model_loads_from_its_folder_and_from_the_registry(
    trained: tuple[Project, Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import numpy as np
    from mlflow.sentence_transformers import load_model
    from sentence_transformers import SentenceTransformer

    project, call = trained
    uri = f"sqlite:///{project.home / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    model = call.result["model"]
    plain = SentenceTransformer(model["path"])
    registered = load_model(f"models:/embed-assets/{model['version']}")
    text = ["How do I close the lock?"]
    np.testing.assert_allclose(plain.encode(text), registered.encode(text), atol=1e-6)


def test_each_materialization_has_one_finished_mlflow_run_of_its_own(
    trained: tuple[Project, Call],
) -> None:
    import mlflow

    project, _ = trained
    client = mlflow.MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("embed-assets")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.data.tags["dagster/asset_key"] for run in runs} == {
        "base_eval",
        "finetuned_model",
        "comparison",
    }
    assert len(runs) == 3
    assert {run.info.status for run in runs} == {"FINISHED"}
    by_asset = {run.data.tags["dagster/asset_key"]: run for run in runs}
    training = by_asset["finetuned_model"]
    assert training.inputs is not None
    assert training.inputs.dataset_inputs[0].dataset.name == "training_pairs v1"
    names = {asset: str(run.info.run_name) for asset, run in by_asset.items()}
    assert names["finetuned_model"].startswith("finetuned_model v1 ")
    assert names["comparison"].startswith("comparison v1 ")
    assert len(client.get_metric_history(training.info.run_id, "progress/loss")) > 1
    files = {f.path for f in client.list_artifacts(by_asset["comparison"].info.run_id, "charts")}
    assert files == {
        f"charts/{n}.png" for n in ("models", "composition", "ranking", "quality_kept")
    }


def test_a_second_run_with_nothing_changed_trains_nothing(trained: tuple[Project, Call]) -> None:
    project, _ = trained
    call = project.call("run")
    assert call.status == 0
    assert "nothing was trained" in call.out
    assert project.rows("SELECT count(*) FROM models") == [(1,)]


def test_search_shows_chunks_with_file_and_page(trained: tuple[Project, Call]) -> None:
    project, _ = trained
    result = project.call("search", "the river gauge at the lock", "--json").result
    assert len(result["results"]) == 5
    best = result["results"][0]
    assert best["file_name"] == best["path"]
    assert best["page_start"] <= best["page_end"]
    assert best["chunk_text"]
    assert result["version"] == result["champion"], "prepared for whoever is champion now"
    assert result["prepared"]
    scores = [row["score"] for row in result["results"]]
    assert scores == sorted(scores, reverse=True)


def test_lineage_names_the_pdfs_that_made_the_model(trained: tuple[Project, Call]) -> None:
    project, call = trained
    lineage = project.call("lineage", "--json").result
    assert lineage["version"] == call.result["model"]["version"]
    assert lineage["questions"] == call.result["pairs"]["train"]
    held_out = project.rows(
        "SELECT id FROM split_assignments WHERE kind='document' AND split='test_unseen_documents'"
    )
    assert len(lineage["documents"]) + len(held_out) == 5


def test_a_version_is_handed_on_with_its_proof_and_a_change_of_it_is_an_error(
    trained: tuple[Project, Call], tmp_path: Path
) -> None:
    project, bundle = trained[0], tmp_path / "bundle"
    made = project.call("lineage", "1", "--bundle", str(bundle), "--json")
    assert (made.status, made.result["signed"]) == (0, False)
    assert (bundle / "report.html").is_file()
    verified = project.call("lineage", "--verify", str(bundle), "--json")
    assert (verified.status, verified.result["valid"]) == (0, True)
    assert str(project.home) not in (bundle / "lineage.json").read_text(encoding="utf-8")
    weights = bundle / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    altered = project.call("lineage", "--verify", str(bundle), "--json")
    assert (altered.status, altered.result["problems"]) == (1, ["model/model.safetensors: changed"])
    assert (
        "model/model.safetensors: changed" in project.call("lineage", "--verify", str(bundle)).out
    )
    assert project.call("lineage", "1", "--key", "k.pem").status == 2


def test_questions_are_exported_for_review(trained: tuple[Project, Call], tmp_path: Path) -> None:
    project, call = trained
    for name, file_format in (("review.jsonl", "jsonl"), ("review.json", "argilla")):
        result = project.call("export", str(tmp_path / name), "--json").result
        assert result == {
            "path": str(tmp_path / name),
            "format": file_format,
            "questions": call.result["questions"],
        }
    records = json.loads((tmp_path / "review.json").read_text(encoding="utf-8"))
    assert {record["metadata"]["status"] for record in records} == {"KEPT"}
    assert project.call("export", str(tmp_path / "review.docx")).status == 2


@pytest.mark.long
def test_an_adapter_is_fitted_without_encoding_a_chunk_again(
    trained: tuple[Project, Call], tmp_path: Path
) -> None:
    project = trained[0].copy(tmp_path)
    whole = "HAVING count(*) = (SELECT count(DISTINCT chunk_id) FROM chunks)"
    models = (
        "SELECT model FROM embeddings WHERE text_id IN (SELECT chunk_id FROM chunks) "
        f"GROUP BY model {whole} ORDER BY model"
    )
    read_all_chunks = set(project.rows(models))
    call = project.call("run", "--json", EMBED_ASSETS_METHOD="adapter")
    assert call.status == 0, call.err
    assert call.result["model"]["version"] == "2"
    assert (Path(call.result["model"]["path"]) / "router_config.json").is_file()
    left = set(project.rows(models))  # those of version 1 may be forgotten
    assert left
    assert left <= read_all_chunks
    found = project.call("search", "the river gauge at the lock", "--json")
    assert len(found.result["results"]) == 5


def test_new_and_broken_pdfs_are_ingested_and_no_question_moves(
    trained: tuple[Project, Call], tmp_path: Path
) -> None:
    project = trained[0].copy(tmp_path)
    before = dict(project.rows("SELECT question_id, split FROM training_pairs"))
    first = sorted(project.pdfs.glob("*.pdf"))[0]
    shutil.copy(first, project.pdfs / "A copy (Ünïcødé) 'quoted'.PDF")
    (project.pdfs / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    (project.pdfs / "page.pdf").write_text("<html><body>not a PDF</body></html>")
    call = project.call("ingest", "--json")
    assert call.status == 0, call.err
    result = call.result
    assert result["documents"] == {"SUCCESS": 6, "EMPTY": 0, "ERROR": 2}
    assert {row["path"] for row in result["failed"]} == {"broken.pdf", "page.pdf"}
    assert all(row["error"] and "\n" not in row["error"] for row in result["failed"])

    again = project.call("run", "--json")
    assert again.status == 0, again.err
    after = dict(project.rows("SELECT question_id, split FROM training_pairs"))
    held_out = {"test_unseen_documents"}
    moved = {q for q in before.keys() & after.keys() if before[q] != after[q]}
    assert not moved
    # Only what also stands in a document that is now held out may have left the training set.
    left = {before[q] for q in before.keys() - after.keys()}
    assert not left & held_out


def test_a_removed_pdf_leaves_no_trace_but_its_split(
    trained: tuple[Project, Call], tmp_path: Path
) -> None:
    project = trained[0].copy(tmp_path)
    gone = sorted(project.pdfs.glob("*.pdf"))[0]
    gone.unlink()
    call = project.call("ingest", "--json")
    assert call.status == 0, call.err
    assert sum(call.result["documents"].values()) == 4
    for table in ("raw_pdfs", "parsed_markdown", "chunks"):
        ids = {row[0] for row in project.rows(f"SELECT DISTINCT document_id FROM {table}")}
        assert len(ids) == 4
        assert not any(key.startswith(gone.stem) for key in ids)


def test_a_touched_pdf_is_read_but_not_parsed_again(
    trained: tuple[Project, Call], tmp_path: Path
) -> None:
    project = trained[0].copy(tmp_path)
    sorted(project.pdfs.glob("*.pdf"))[0].touch()
    result = project.call("ingest", "--json").result
    assert set(result["seconds_by_asset"]) == {"raw_pdfs"}


@pytest.mark.parametrize(
    ("arguments", "settings", "status", "said"),
    [
        (("run",), {}, 2, "there are no PDFs in"),
        (("search", "x"), {}, 1, "nothing to search"),
        (("lineage",), {}, 1, "no model yet"),
        (("lineage", "--document", "a.pdf"), {}, 1, "no document yet"),
        (("lineage", "1", "--document", "a.pdf"), {}, 2, "goes with no version"),
        (("run",), {"EMBED_ASSETS_MODEL": "nobody/no-such-model"}, 2, "EMBED_ASSETS_MODEL"),
        (("run",), {"EMBED_ASSETS_EPOCHS": "many"}, 2, "EMBED_ASSETS_EPOCHS"),
        (("run",), {"EMBED_ASSETS_QUESTIONS": "oracle"}, 2, "EMBED_ASSETS_QUESTIONS"),
        (("run",), {"EMBED_ASSETS_LABELLED": "/nowhere.jsonl"}, 2, "EMBED_ASSETS_LABELLED"),
        (("run",), {"EMBED_ASSETS_BASELINES": "./nowhere"}, 2, "EMBED_ASSETS_BASELINES"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    arguments: Sequence[str],
    settings: dict[str, str],
    status: int,
    said: str,
    environment: dict[str, str],
    command: str,
    tmp_path: Path,
) -> None:
    pdfs = tmp_path / "pdfs"
    pdfs.mkdir()
    if settings:
        (pdfs / "a.pdf").write_bytes(b"%PDF-1.4")
    call = Project(command, environment, pdfs, tmp_path / "home").call(*arguments, **settings)
    assert call.status == status
    assert said in call.err
    assert "Traceback" not in call.err
    assert len(call.err.strip().splitlines()) == 1
    assert call.out == ""


def test_a_wrong_folder_is_a_wrong_call(
    environment: dict[str, str], command: str, tmp_path: Path
) -> None:
    project = Project(command, environment, tmp_path / "nowhere", tmp_path / "home")
    call = project.call("run", "--json")
    assert call.status == 2
    assert "nowhere does not exist" in call.err
    assert call.result["error"]


def test_too_few_chunks_to_train_on_says_how_many_are_missing(
    five_pdfs: Callable[[Path], Path],
    environment: dict[str, str],
    command: str,
    tmp_path: Path,
) -> None:
    pdfs = five_pdfs(tmp_path / "pdfs")
    project = Project(command, environment, pdfs, tmp_path / "home")
    call = project.call("run", EMBED_ASSETS_QUESTIONS="none")
    assert call.status == 1
    assert "Too few questions to train on: 16 for train" in call.err
    assert "Traceback" not in call.err
