"""The champion: better than its base, not worse than the one before, and never its own rival."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from embed_assets.comparison.assets import comparison
from embed_assets.comparison.verdict import stored_comparison
from embed_assets.definitions import build_resources
from embed_assets.evaluation.retrieval import evaluate_rankings
from embed_assets.evaluation.scoring import retrieval_task, store
from embed_assets.models.card import model_card
from embed_assets.models.embeddings import CachedEncoder, cached_embeddings
from embed_assets.models.registry import champion_version, make_champion
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets_tests.tiny_model import WORDS, make_tiny_model

SIZE = 32
DOCUMENTS = 12
TEXTS = [" ".join(WORDS.split()[5 * n : 5 * n + 5]) for n in range(DOCUMENTS)]


@dataclass(frozen=True)
class Project:
    """A home with two versions, of which the second has just been trained."""

    settings: Settings

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(path=str(self.settings.warehouse))

    @property
    def tracking(self) -> Tracking:
        return build_resources(self.settings)["tracking"]

    def measure(self, model: str, run_id: str, rank: int) -> None:
        """Figures of a model that finds every answer at this rank."""
        task = retrieval_task(self.warehouse)
        rankings = [
            [*[other for other in task.texts if other != answer][: rank - 1], answer]
            for [answer] in task.relevant.values()
        ]
        found = evaluate_rankings(rankings, list(task.queries), task.relevant, SIZE, task.splits)
        store(self.warehouse, found, model, run_id)

    def compare(self, **settings: Any) -> tuple[Mapping[str, Any], dict[str, str]]:
        """Metadata of `comparison`, and the verdict on each model of the headline split."""
        resources = build_resources(self.settings.model_copy(update=settings))
        used = {name: resources[name] for name in ("settings", "warehouse", "tracking")}
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize([comparison], instance=instance, resources=used)
            [made] = result.asset_materializations_for_node("comparison")
        metadata = {name: entry.value for name, entry in made.metadata.items()}
        rows = stored_comparison(self.warehouse, metadata["mlflow_run_id"])
        return metadata, dict(rows.select("model", "verdict").iter_rows())


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with two versions and no champion."""
    folder = tmp_path_factory.mktemp("registry")
    made = Tracking(home=str(folder))
    client, name = made.client(), made.connect()
    client.create_registered_model(name)
    for _ in range(2):
        client.create_model_version(name, str(folder))
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, registry: Path) -> Project:
    """Twelve documents of one chunk, each asked for in its own words: version 1 finds them all."""
    settings = Settings(
        pdfs=tmp_path, home=tmp_path / "home", model=str(tiny_model), precision="fp32"
    )
    settings.home.mkdir()
    shutil.copy(registry, settings.home / "mlflow.db")
    project = Project(settings)
    warehouse = project.warehouse
    chunks = [{"chunk_id": f"c{n}", "document_id": f"d{n}", "chunk_text": t} for n, t in texts()]
    pairs = [
        {
            "question_id": f"q{n}",
            "document_id": f"d{n}",
            "anchor": text,
            "relevant_chunk_ids": [f"c{n}"],
            "split": "test_labelled",
        }
        for n, text in texts()
    ]
    write(warehouse, "chunks", chunks)
    write(warehouse, "training_pairs", pairs)
    for asset in ("chunks", "training_pairs"):
        record(warehouse, asset, asset)
    made_from = warehouse.version_of("training_pairs", "chunks")
    models = [
        {
            "version": version,
            "base": settings.model,
            "path": str(tiny_model),
            "input_version": made_from,
            "mlflow_run_id": run,
            "trained_at": datetime.now(UTC),
        }
        for version, run in (("1", "run-1"), ("2", "run-2"))
    ]
    write(warehouse, "models", models)
    record(warehouse, "base_eval", "run-base")
    record(warehouse, "finetuned_model", "run-2")
    project.measure("base", "run-base", rank=10)
    project.measure("bm25", "run-base", rank=2)
    return project


def texts() -> list[tuple[int, str]]:
    return list(enumerate(TEXTS))


def write(warehouse: Warehouse, table: str, values: list[dict[str, Any]]) -> None:
    schema = TABLES[table].schema
    blank = {name: 0 if dtype == pl.Int64 else "" for name, dtype in schema.items()}
    warehouse.replace(table, pl.DataFrame([blank | value for value in values], schema=schema))


def record(warehouse: Warehouse, asset: str, holds: str) -> None:
    warehouse.record(asset, code_version="1", input_version="1", data_version=holds, run_id="run")


def ones(block: Sequence[str], _: str | None) -> np.ndarray:
    return np.ones((len(block), 2))


def champion(project: Project) -> str | None:
    return champion_version(project.tracking)


def test_the_first_model_that_is_better_than_its_base_is_champion(project):
    project.measure("tuned", "run-2", rank=1)
    metadata, verdicts = project.compare()
    assert champion(project) == "2"
    assert verdicts == {"base": "better", "bm25": "better"}
    assert metadata["promotion"].endswith("it is clearly better than the base model.")
    assert "| bm25 |" in metadata["baselines"]


def test_a_model_as_good_as_the_champion_replaces_it_and_is_never_compared_with_itself(project):
    make_champion(project.tracking, "1")
    project.measure("tuned", "run-2", rank=1)
    expected = {"base": "better", "bm25": "better", "champion v1": "no clear difference"}

    metadata, verdicts = project.compare()
    assert (champion(project), verdicts) == ("2", expected)
    assert "not clearly worse than version 1" in metadata["promotion"]
    assert "does not clearly beat champion v1" in metadata["reservations"]

    again, verdicts = project.compare()
    assert (champion(project), verdicts) == ("2", expected)
    assert again["promotion"] == metadata["promotion"]


def test_embeddings_stay_of_what_is_compared_or_named_and_of_no_other_version(project):
    make_champion(project.tracking, "1")
    project.measure("tuned", "run-2", rank=1)
    card = model_card(project.settings)
    base = CachedEncoder(project.warehouse, card, "fp32").fingerprint("document")
    models = project.warehouse.read("SELECT * FROM models")
    former = models.with_columns(version=pl.concat_str(pl.lit("0"), "version"))
    own = pl.concat_str(pl.lit("of "), "version")
    every = pl.concat([models, former]).with_columns(
        fingerprints=pl.when(version="02")
        .then(pl.concat_list(own, pl.lit(base)))  # an adapter's
        .otherwise(pl.concat_list(own))
    )
    project.warehouse.replace("models", every)
    for fingerprint in every["fingerprints"].explode():
        cached_embeddings(project.warehouse, fingerprint, ["a text"], ones)
    project.compare(baselines="champion,v01")
    kept = project.warehouse.read("SELECT DISTINCT model FROM embeddings")["model"].to_list()
    assert {base, "of 1", "of 2", "of 01"} <= set(kept)
    assert "of 02" not in kept


def test_a_model_clearly_worse_than_the_champion_is_not_promoted_though_it_beats_its_base(project):
    import mlflow

    make_champion(project.tracking, "1")
    project.measure("tuned", "run-2", rank=4)
    metadata, verdicts = project.compare()
    assert champion(project) == "1"
    assert verdicts == {"base": "better", "bm25": "worse", "champion v1": "worse"}
    assert "clearly worse than version 1 (NDCG@10 0.431 against 1.000)" in metadata["promotion"]
    for name in ("bm25", "champion v1"):
        beaten = f"{name} beats the fine-tuned model on questions that people wrote"
        assert beaten in metadata["reservations"]
        assert beaten in Path(metadata["report"]).read_text(encoding="utf-8")
    run = mlflow.MlflowClient(project.settings.tracking_uri).get_run(metadata["mlflow_run_id"])
    assert run.data.metrics["test_labelled/champion_v1_ndcg_at_10_difference"] == pytest.approx(
        0.4307 - 1, abs=1e-3
    )
    assert run.data.metrics["test_labelled/bm25_ndcg_at_10_high"] < 0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: shutil.rmtree(p.settings.models / "v1"), "The folder of version 1 is gone"),
        (lambda p: record(p.warehouse, "chunks", "others"), "chunks have changed"),
    ],
)
def test_a_champion_that_can_t_be_scored_is_left_out_and_it_is_said(
    project, tiny_model, spoil: Callable[[Project], None], said
):
    make_champion(project.tracking, "1")
    folder = project.settings.models / "v1"
    shutil.copytree(tiny_model, folder)
    old = pl.DataFrame({"version": ["1"], "path": [str(folder)]})
    project.warehouse.update("models", old)
    project.measure("tuned", "run-2", rank=1)
    spoil(project)
    metadata, verdicts = project.compare()
    assert champion(project) == "2"
    assert "champion v1" not in verdicts
    assert "version 1, the champion before it, was not compared" in metadata["promotion"]
    assert said in metadata["baselines"]
    assert said in Path(metadata["report"]).read_text(encoding="utf-8")


def test_without_champion_among_the_baselines_none_is_scored(project):
    make_champion(project.tracking, "1")
    project.measure("tuned", "run-2", rank=4)
    _, verdicts = project.compare(baselines="bm25")
    assert set(verdicts) == {"base", "bm25"}
    assert champion(project) == "2"


def test_a_champion_that_would_not_be_made_so_now_stays_until_a_person_decides(project):
    make_champion(project.tracking, "2")
    project.measure("tuned", "run-2", rank=10)
    metadata, _ = project.compare()
    assert champion(project) == "2"
    assert metadata["promotion"] == (
        "Version 2 stays champion, but would not be made so now: "
        "it is not clearly better than the base model."
    )
