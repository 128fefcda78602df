"""Baselines: chosen by a setting, checked before any work, scored beside the base model."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from embed_assets.definitions import build_resources
from embed_assets.errors import SettingsError
from embed_assets.evaluation import fusion
from embed_assets.evaluation.assets import base_eval
from embed_assets.evaluation.baselines import (
    check_baselines,
    chosen_baselines,
    failed_baselines,
    find_baseline,
    lasting_baselines,
    measure_baselines,
)
from embed_assets.evaluation.hybrid import BASE_HYBRID, score_hybrid
from embed_assets.evaluation.retrieval import top_k
from embed_assets.evaluation.scoring import measured, retrieval_task
from embed_assets.models.encoder import LocalEncoder
from embed_assets.models.files import Task
from embed_assets.resources import openai_server
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets_tests.evaluation.embeddings_server import EmbeddingsServer
from embed_assets_tests.questions.written.llm_server import error
from embed_assets_tests.rows import filled
from embed_assets_tests.tiny_model import make_tiny_model

CHUNKS = {
    "c1": "the valve opens when the pressure of the brine falls",
    "c2": "calibration of the salt sensor is on page two",
    "c3": "the warranty ends when notice is not in the contract",
    "c4": "torque for each bolt of the winch",
}
QUESTIONS = {"c1": "when is the valve open", "c2": "salt sensor calibration", "c4": "bolt torque"}


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return Settings(home=tmp_path / "home", model=str(tiny_model), precision="fp32")


@pytest.fixture
def warehouse(settings: Settings) -> Warehouse:
    """Four chunks and a test question about three of them."""
    made = Warehouse.of(settings)
    made.replace(
        "chunks", rows("chunks", [{"chunk_id": k, "chunk_text": CHUNKS[k]} for k in CHUNKS])
    )
    questions = [
        {
            "question_id": f"q-{chunk}",
            "anchor": text,
            "relevant_chunk_ids": [chunk],
            "split": "test_labelled",
        }
        for chunk, text in QUESTIONS.items()
    ]
    made.replace("training_pairs", rows("training_pairs", questions))
    return made


def rows(table: str, values: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows of a table; what isn't given is empty or its place."""
    places = {"chunk_index"} & set(TABLES[table].columns)
    placed = [dict.fromkeys(places, place) | value for place, value in enumerate(values)]
    return filled(table, placed)


def add_version(warehouse: Warehouse, base: str, folder: Path, version: str = "3") -> None:
    row = {"version": version, "base": base, "path": str(folder), "trained_at": datetime.now(UTC)}
    warehouse.replace("models", rows("models", [row]), where={"version": [version]})


def with_baselines(settings: Settings, names: str, **others: object) -> Settings:
    return settings.model_copy(update={"baselines": names, **others})


def texts_embedded(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Prompts by the text that was encoded with each from now on."""
    encode, seen = LocalEncoder.encode, {}

    def note(self: LocalEncoder, texts: list[str], task: Task, *rest: Any) -> Any:
        for text in texts:
            seen.setdefault(text, []).append(self._card.prompt(task))
        return encode(self, texts, task, *rest)

    monkeypatch.setattr(LocalEncoder, "encode", note)
    return seen


# The setting.


def test_bm25_hybrid_search_and_the_champion_are_compared_unless_something_else_is_said():
    assert chosen_baselines(Settings()) == ("bm25", "hybrid", "champion")


@pytest.mark.parametrize("nothing", ["", " ", "none", ",", " none "])
def test_no_baselines_may_be_wanted(nothing):
    assert chosen_baselines(Settings(baselines=nothing)) == ()


def test_names_are_separated_by_commas_and_each_counts_once():
    settings = Settings(baselines="bm25, openai:m ,champion,./folder, bm25")
    assert chosen_baselines(settings) == ("bm25", "openai:m", "champion", "./folder")
    assert lasting_baselines(settings) == ("bm25", "openai:m", "./folder")


@pytest.mark.parametrize("wrong", ["none,bm25", "base", "bm25,tuned", "base + bm25", "openai:"])
def test_a_name_that_can_t_be_a_baseline_s_is_refused(wrong):
    with pytest.raises(SettingsError, match=r"^EMBED_ASSETS_BASELINES: "):
        chosen_baselines(Settings(baselines=wrong))


@pytest.mark.parametrize("wrong", ["./nowhere", "v9", "openai:m"])
def test_a_baseline_that_is_not_there_is_said_before_any_work(
    wrong, warehouse, settings, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(SettingsError, match=r"^EMBED_ASSETS_BASELINES: .+") as said:
        check_baselines(warehouse, with_baselines(settings, wrong))
    assert "\n" not in str(said.value)


def test_baselines_that_are_there_pass_and_no_model_is_loaded(
    warehouse, settings, tiny_model, monkeypatch
):
    monkeypatch.setattr(LocalEncoder, "__init__", None)
    add_version(warehouse, settings.model, tiny_model)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    names = f"bm25,hybrid,champion,v3,openai:m,{tiny_model}"
    check_baselines(warehouse, with_baselines(settings, names))


# Scoring.


def test_each_baseline_is_scored_once_per_question_at_its_own_full_size(
    warehouse, settings, tmp_path
):
    other = make_tiny_model(tmp_path / "other", size=16)
    task = retrieval_task(warehouse)
    named = {"bm25": "bm25", "other": str(other)}
    evaluations, _ = measure_baselines(warehouse, settings, task, named, "run")
    found = warehouse.read(
        "SELECT model, dimension, count(*) AS n FROM query_results GROUP BY ALL ORDER BY model"
    )
    assert found.rows() == [("bm25", 0, 3), ("other", 16, 3)]
    ndcg = evaluations["bm25"].scores.filter(metric="ndcg")["score"].item()
    assert ndcg == 1


def test_the_prompts_that_are_set_are_the_base_model_s_and_a_version_has_its_own(
    warehouse, settings, tmp_path, tiny_model, monkeypatch
):
    prompted = with_baselines(settings, "", query_prompt="mine: ")
    other = tmp_path / "e5-other"
    make_tiny_model(tmp_path / "made", size=16).rename(other)
    version = shutil.copytree(tiny_model, tmp_path / "v3")
    prompts = {"prompts": {"query": "its own: ", "document": ""}}
    (version / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    add_version(warehouse, settings.model, version)
    seen = texts_embedded(monkeypatch)
    for name in ("v3", settings.model, str(other)):
        find_baseline(warehouse, prompted, name).encode_queries(["salt"])
    assert seen == {"salt": ["its own: ", "mine: ", "query: "]}


def test_a_baseline_that_fails_costs_itself_alone_and_says_why(warehouse, settings, tmp_path):
    add_version(warehouse, settings.model, tmp_path / "gone")
    task = retrieval_task(warehouse)
    named = {"champion v3": "v3", "bm25": "bm25"}
    evaluations, failed = measure_baselines(warehouse, settings, task, named, "run")
    assert set(evaluations) == {"bm25"}
    assert failed["champion v3"].startswith("The folder of version 3 is gone")
    assert failed_baselines(warehouse, "run") == failed


def test_hybrid_search_is_scored_at_the_model_s_size_and_encodes_nothing_again(
    warehouse, settings, monkeypatch
):
    task = retrieval_task(warehouse)
    encoder = find_baseline(warehouse, settings, settings.model)
    seen = texts_embedded(monkeypatch)
    measured(warehouse, task, encoder, run_id="run", model="base")
    for run_id, model in (("run", BASE_HYBRID), ("later", BASE_HYBRID)):
        hybrid = {model: (encoder, run_id)}
        evaluations, failed = measure_baselines(warehouse, settings, task, {}, run_id, None, hybrid)
        assert failed == {}
        assert evaluations[model].scores["dimension"].unique().to_list() == [32]
        monkeypatch.delattr(fusion, "fuse", raising=False)  # the second time it is read back
    assert {len(prompts) for prompts in seen.values()} == {1}
    assert set(seen) == {*CHUNKS.values(), *QUESTIONS.values()}


@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_hybrid_search_fuses_what_the_model_and_what_the_words_find(warehouse, settings, weight):
    whole = retrieval_task(warehouse)
    task = replace(whole, own={"q-c1": "c1"})
    encoder = find_baseline(warehouse, settings, settings.model)
    ids, by_words = task.found_by_words
    rows, cosines = top_k(
        encoder.encode_queries(list(task.queries.values())),
        encoder.encode_documents([task.texts[key] for key in ids]),
        k=fusion.CANDIDATES,
    )
    queries = score_hybrid(task, encoder, weight).queries
    found = dict(queries.select("question_id", "top_ids").iter_rows())
    for place, question in enumerate(task.queries):
        both = (rows[place], cosines[place]), by_words[place]
        fused, _ = fusion.fuse(*both, fusion.CANDIDATES, weight)
        expected = [ids[row] for row in fused if (question, ids[row]) != ("q-c1", "c1")]
        assert found[question] == expected
    unasked = replace(task, questions=task.questions.clear())
    assert score_hybrid(unasked, encoder, weight).scores.is_empty()


def test_hybrid_search_that_can_t_be_scored_is_left_out_and_it_is_said_why(
    warehouse, settings, monkeypatch
):
    encoder = find_baseline(warehouse, settings, settings.model)

    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(LocalEncoder, "encode", broken)
    hybrid = {BASE_HYBRID: (encoder, "run")}
    evaluations, failed = measure_baselines(
        warehouse, settings, retrieval_task(warehouse), {"bm25": "bm25"}, "run", None, hybrid
    )
    assert (set(evaluations), failed) == ({"bm25"}, {BASE_HYBRID: "out of memory"})


# base_eval, with a real MLflow.


def materialize(settings: Settings) -> Mapping[str, Any]:
    """Metadata of base_eval."""
    resources = build_resources(settings)
    used = {name: resources[name] for name in ("settings", "warehouse", "tracking")}
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([base_eval], instance=instance, resources=used)
        [made] = result.asset_materializations_for_node("base_eval")
    return {name: entry.value for name, entry in made.metadata.items()}


def test_a_server_that_fails_does_not_lose_base_eval_and_is_not_forgotten(
    warehouse, settings, monkeypatch
):
    import mlflow

    monkeypatch.setattr(openai_server, "LONGEST_BACKOFF", 0.02)
    wanted = with_baselines(settings, "bm25,openai:broken,hybrid,champion")
    with EmbeddingsServer() as server:
        server.reply = lambda _: error(500, "out of memory")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        metadata = materialize(wanted)
        run_id = metadata["mlflow_run_id"]
        assert "out of memory" in metadata["failed_baselines"]
        assert "out of memory" in failed_baselines(warehouse, run_id)["openai:broken"]
        assert "| questions | base | bm25 | base + bm25 |" in metadata["by_model"]
        assert metadata["by_model"].endswith(" 1.0000 |")
        run = mlflow.MlflowClient(f"sqlite:///{settings.home / 'mlflow.db'}").get_run(run_id)
        assert run.info.status == "FINISHED"
        assert run.data.metrics["test_labelled/bm25_ndcg_at_10"] == 1
        assert 0 < run.data.metrics["test_labelled/base_bm25_ndcg_at_10"] <= 1
        assert run.data.metrics["headline/test_questions"] == len(QUESTIONS)
        full = run.data.metrics["test_labelled/dim_32_cosine_ndcg_at_10"]
        assert run.data.metrics["headline/ndcg_at_10"] == pytest.approx(full, abs=1e-4)
        asked = f"{len(QUESTIONS)} questions, {len(CHUNKS)} chunks"
        assert run.info.run_name == f"base_eval {Path(settings.model).name}, {asked}"
        assert run.data.params["model"] == Path(settings.model).name
        assert "openai:broken" in run.data.tags["failed_baselines"]

        server.reply = EmbeddingsServer().reply
        metadata = materialize(wanted)
        assert "failed_baselines" not in metadata
        assert failed_baselines(warehouse, metadata["mlflow_run_id"]) == {}
        assert "openai:broken" in metadata["by_model"]
    models = warehouse.read(
        "SELECT DISTINCT model FROM evaluation_results WHERE run_id = ? ORDER BY model",
        [metadata["mlflow_run_id"]],
    )
    assert models["model"].to_list() == ["base", "base + bm25", "bm25", "openai:broken"]
