"""`embed-assets evaluate`: any model, any BEIR folder, and nothing encoded twice."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from embed_assets.command.scores import score_on_beir, scores_text
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.models.encoder import LocalEncoder
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets_tests.evaluation.embeddings_server import EmbeddingsServer
from embed_assets_tests.rows import model
from embed_assets_tests.tiny_model import make_tiny_model

TEXTS = {
    "d1": "the valve opens when the pressure of the brine falls",
    "d2": "calibration of the salt sensor is on page two",
    "d3": "the warranty ends when notice is not in the contract",
    "d4": "torque for each bolt of the winch",
    "d5": "the valve opens when the pressure of the brine falls",
}
QUERIES = {"q1": "when is the valve open", "q2": "how is the sensor calibration", "q3": "torque"}
QRELS = {("q1", "d1"): 2, ("q1", "d5"): 1, ("q2", "d2"): 1, ("q3", "d4"): 1}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "beir", QRELS)


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> Settings:
    home = tmp_path / "home"
    return Settings(home=home, model=str(tiny_model), dimensions="16,8", precision="fp32")


def test_the_scores_are_those_of_sentence_transformers(settings, beir):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    summary = score_on_beir(settings, beir)
    model = SentenceTransformer(settings.model, device="cpu")
    relevant = {query: {d for q, d in QRELS if q == query} for query in QUERIES}
    for dimension in (32, 16, 8):
        expected = InformationRetrievalEvaluator(
            QUERIES, TEXTS, relevant, truncate_dim=dimension, name=f"dim_{dimension}"
        )(model)
        found = {name: summary["metrics"][name] for name in expected}
        assert found == pytest.approx(expected, abs=1e-6)
    assert (summary["model"], summary["queries"], summary["corpus"]) == (settings.model, 3, 5)


def test_graded_figures_are_there_where_the_judgements_are_graded(settings, beir, tmp_path):
    graded = score_on_beir(settings, beir)["metrics"]
    assert [name for name in graded if "graded" in name] == [
        f"dim_{dimension}_cosine_graded_ndcg@10" for dimension in (32, 16, 8)
    ]
    binary = write_folder(tmp_path / "binary", dict.fromkeys(QRELS, 1))
    assert not any("graded" in name for name in score_on_beir(settings, binary)["metrics"])


def test_a_second_evaluation_encodes_nothing(settings, beir, monkeypatch):
    first = score_on_beir(settings, beir)

    def refuse(*_: object) -> None:
        raise AssertionError("the model was loaded again")

    monkeypatch.setattr(LocalEncoder, "__init__", refuse)
    assert score_on_beir(settings, beir)["metrics"] == first["metrics"]


def test_prompts_are_put_before_queries_and_documents(settings, beir):
    plain = score_on_beir(settings, beir)["metrics"]
    prompted = settings.model_copy(update={"query_prompt": "question: "})
    assert score_on_beir(prompted, beir)["metrics"] != plain


def test_a_version_of_the_home_is_scored_by_its_number(settings, beir, tmp_path):
    tuned = make_tiny_model(tmp_path / "tuned", size=64)
    add_version(settings, "3", tuned)
    summary = score_on_beir(settings, beir, "v3")
    assert summary["model"] == "v3"
    assert "dim_64_cosine_ndcg@10" in summary["metrics"]
    assert score_on_beir(settings, beir, "3")["metrics"] == summary["metrics"]


def test_words_alone_are_scored_under_their_own_name(settings, beir):
    summary = score_on_beir(settings, beir, "bm25")
    assert summary["model"] == "bm25"
    assert summary["metrics"]["bm25_ndcg@10"] > 0.8
    assert "bm25_graded_ndcg@10" in summary["metrics"]
    assert scores_text(summary).splitlines()[2].split() == ["dimension", "bm25"]


def test_a_hosted_model_is_scored_at_every_dimension_and_asked_once(settings, beir, monkeypatch):
    with EmbeddingsServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        summary = score_on_beir(settings, beir, "openai:fake")
        assert summary["model"] == "openai:fake"
        assert {name.split("_")[1] for name in summary["metrics"]} == {"32", "16", "8"}
        assert summary["metrics"]["dim_32_cosine_ndcg@10"] > 0.8
        calls = len(server.requests)
        assert score_on_beir(settings, beir, "openai:fake")["metrics"] == summary["metrics"]
        assert len(server.requests) == calls


def test_a_version_or_champion_that_is_not_there_is_said(settings, beir):
    with pytest.raises(ProjectError, match="no model version v4"):
        score_on_beir(settings, beir, "v4")
    with pytest.raises(ProjectError, match="no champion"):
        score_on_beir(settings, beir, "champion")


def test_a_model_that_is_not_there_is_said_before_anything_is_encoded(settings, beir):
    with pytest.raises(SettingsError, match=r"^--model: no folder and no hub model '\./nowhere'"):
        score_on_beir(settings, beir, "./nowhere")
    wrong = settings.model_copy(update={"model": "./nowhere"})
    with pytest.raises(SettingsError, match=r"^EMBED_ASSETS_MODEL: no folder"):
        score_on_beir(wrong, beir)


def test_a_version_whose_folder_is_gone_is_said(settings, beir, tmp_path):
    add_version(settings, "3", tmp_path / "gone")
    with pytest.raises(ProjectError, match=r"folder of version 3 is gone: .*gone"):
        score_on_beir(settings, beir, "v3")


def test_a_hosted_model_without_a_name_is_a_wrong_call(settings, beir):
    with pytest.raises(SettingsError, match="lacks the model's name"):
        score_on_beir(settings, beir, "openai:")


def test_dimensions_that_the_model_lacks_are_refused(settings, beir):
    with pytest.raises(SettingsError, match="the model has 1 to 32"):
        score_on_beir(settings.model_copy(update={"dimensions": "99"}), beir)


@pytest.mark.parametrize("model", ["bm25", None])
def test_a_query_that_stands_in_the_corpus_does_not_find_itself(settings, beir, model):
    with (beir / "corpus.jsonl").open("a") as corpus:
        corpus.writelines("\n" + json.dumps({"_id": q, "text": t}) for q, t in QUERIES.items())
    summary = score_on_beir(settings, beir, model)
    assert summary["own_documents_left_out"] == 3
    figure = "bm25_accuracy@1" if model else "dim_32_cosine_accuracy@1"
    assert summary["metrics"][figure] > 0.6
    assert "own document, that of the same id, is left out" in scores_text(summary)


def test_bad_rows_are_counted_and_the_first_are_shown(settings, beir):
    with (beir / "corpus.jsonl").open("a") as corpus:
        corpus.write("\n{" * 7)
    summary = score_on_beir(settings, beir, "bm25")
    assert len(summary["bad_rows"]) == 7
    assert summary["bad_rows"][0]["file"] == str(beir / "corpus.jsonl")
    said = scores_text(summary)
    assert "\n7 rows of the files can't be used:\n" in said
    assert "and 2 more (--json lists all)." in said


def test_a_person_sees_ndcg_first_and_what_was_left_out(settings, tmp_path):
    folder = write_folder(tmp_path / "beir", {("q1", "d1"): 1, ("q1", "d9"): 1, ("q9", "d1"): 1})
    lines = scores_text(score_on_beir(settings, folder)).splitlines()
    assert "1 query and 5 documents" in lines[0]
    assert [line.split()[-1] for line in lines[1:4]] == ["2.", "1.", "1."]
    assert lines[5].split() == ["dimension", "32", "16", "8"]
    assert lines[6].startswith("ndcg@10 ")


def test_the_command_prints_one_object_and_exits_with_0(settings, beir):
    done = command(settings, "--beir", str(beir), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert {"model", "queries", "corpus", "seconds", "metrics"} <= summary.keys()
    assert 0 <= summary["metrics"]["dim_32_cosine_ndcg@10"] <= 1
    assert "Encoding documents" in done.stderr


def test_a_wrong_call_exits_with_2(settings, tmp_path):
    done = command(settings, "--beir", str(tmp_path), "--json")
    assert done.returncode == 2
    assert "corpus.jsonl" in json.loads(done.stdout)["error"]
    assert command(settings).returncode == 2


def command(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EMBED_ASSETS_MODEL": settings.model, "HF_HUB_OFFLINE": "1"}
    call = [
        sys.executable,
        "-m",
        "embed_assets.command.cli",
        "evaluate",
        "--home",
        str(settings.home),
    ]
    return subprocess.run(
        [*call, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def add_version(settings: Settings, version: str, folder: Path) -> None:
    """A row of the table of models, as a training leaves it."""
    row = model(version, base=settings.model, path=str(folder))
    Warehouse.of(settings).replace("models", row)


def write_folder(folder: Path, qrels: Mapping[tuple[str, str], int]) -> Path:
    folder.mkdir()
    for name, texts in (("corpus", TEXTS), ("queries", QUERIES)):
        rows = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    rows = [f"{query}\t{document}\t{score}" for (query, document), score in qrels.items()]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    return folder
