"""The champion: better than its base, not worse than the one before, and never its own rival."""

import base64
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from mlflow.exceptions import MlflowException

from embed_assets import lexical
from embed_assets.charts import INLINE
from embed_assets.comparison import assets, measuring
from embed_assets.comparison.assets import comparison
from embed_assets.comparison.checks import became_champion
from embed_assets.comparison.described import describe_judged
from embed_assets.comparison.general import BASE, TUNED, GeneralFigures
from embed_assets.comparison.promotion import Evidence, ServedWays, conditions, losses
from embed_assets.comparison.tracked import stored_promotion
from embed_assets.comparison.verdict import Comparison, stored_comparison, stored_hybrid
from embed_assets.definitions import build_resources
from embed_assets.evaluation.baselines import find_baseline
from embed_assets.evaluation.bm25 import BM25
from embed_assets.evaluation.hybrid import hybrid_identity
from embed_assets.evaluation.retrieval import NO_DIMENSION, Evaluation, evaluate_rankings
from embed_assets.evaluation.scoring import measured_by, retrieval_task
from embed_assets.evaluation.significance import compare_models
from embed_assets.models.card import model_card
from embed_assets.models.embeddings import CachedEncoder, cached_embeddings
from embed_assets.models.encoder import LocalEncoder
from embed_assets.models.identity import model_identity
from embed_assets.models.registry import (
    Decision,
    aliases,
    champion_version,
    make_champion,
    newest_model,
    roll_back,
)
from embed_assets.resources.headline import FIGURES
from embed_assets.resources.ledger import UNPARTITIONED, read_records
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.training.record import PAIRS
from embed_assets.training.tracked import LINEAGE, pairs_version
from embed_assets_tests.decisions import BY_TEST
from embed_assets_tests.rows import filled
from embed_assets_tests.tiny_model import WORDS, make_tiny_model

SIZE = 32
WITH_BM25 = f" + {BM25}"
GENERAL = Settings.model_fields["general"].default
"""General questions, scored only where a test asks for them: a quarter of a comparison's time."""
DOCUMENTS = 12
TEXTS = [" ".join(WORDS.split()[5 * n : 5 * n + 5]) for n in range(DOCUMENTS)]


@dataclass(frozen=True)
class Project:
    """A home with two versions, of which the second has just been trained."""

    settings: Settings
    served: ServedWays = field(default_factory=lambda: ServedWays({"its folder": 1e-7}))

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse.of(self.settings)

    @property
    def tracking(self) -> Tracking:
        return build_resources(self.settings)["tracking"]

    def measure(self, model: str, rank: int) -> None:
        """Have measured, before any comparison, that a model finds every answer at this rank."""
        task = retrieval_task(self.warehouse)
        rankings = [
            [*[other for other in task.texts if other != answer][: rank - 1], answer]
            for [answer] in task.relevant.values()
        ]
        if model == BM25:
            identity, size = lexical.IDENTITY, NO_DIMENSION
        else:
            name = model.removesuffix(WITH_BM25)
            name = self.settings.model if name == "base" else name
            encoder = find_baseline(self.warehouse, self.settings, name)
            fused = model.endswith(WITH_BM25)
            identity = hybrid_identity(encoder, 0.5) if fused else encoder.identity
            size = SIZE
        measured_by(
            lambda: evaluate_rankings(
                rankings, list(task.queries), task.relevant, size, task.splits
            ),
            identity,
            self.warehouse,
            task,
            run_id="before",
            model=model,
        )

    def report(self, metadata: Mapping[str, Any]) -> str:
        """The report that a comparison wrote."""
        return (self.settings.home / metadata["report_file"]).read_text(encoding="utf-8")

    def trained_in(self, version: str) -> str:
        """MLflow run that trained a version."""
        return newest_model(self.warehouse, version)["mlflow_run_id"]

    def compare(self, **settings: Any) -> tuple[Mapping[str, Any], dict[str, str]]:
        """Metadata of `comparison`, and the verdict on each model of the headline split."""
        resources = build_resources(self.settings.model_copy(update=settings))
        used = {name: resources[name] for name in ("settings", "warehouse", "tracking")}
        used["ask_ways"] = lambda *_: self.served
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize([comparison], instance=instance, resources=used)
            [made] = result.asset_materializations_for_node("comparison")
        metadata: dict[str, Any] = {name: entry.value for name, entry in made.metadata.items()}
        rows = stored_comparison(self.warehouse, metadata["mlflow_run_id"])
        return metadata, dict(rows.select("model", "verdict").iter_rows())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Folders of the base model and of two versions, each with weights of its own."""
    base, first, second = (
        make_tiny_model(tmp_path_factory.mktemp("model"), layers=layers) for layers in (1, 2, 3)
    )
    return base, first, second


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
def project(
    tmp_path: Path,
    folders: tuple[Path, Path, Path],
    registry: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    """Twelve documents of one chunk, each asked for in its own words: version 1 finds them all."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # mlflow sets it where it was last
    base, *versions = folders
    settings = Settings(
        pdfs=tmp_path,
        home=tmp_path / "home",
        model=str(base),
        precision="fp32",
        general="none",
        baselines="bm25,champion",
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
    client = project.tracking.client()
    experiment = client.get_experiment_by_name(project.tracking.name)
    assert experiment is not None
    models = [
        {
            "version": version,
            "base": settings.model,
            "path": str(folder),
            "mlflow_run_id": client.create_run(experiment.experiment_id).info.run_id,
            "trained_at": datetime.now(UTC),
        }
        for version, folder in zip(("1", "2"), versions, strict=True)
    ]
    write(warehouse, "models", models)
    project.measure("base", rank=10)
    project.measure(BM25, rank=2)
    return project


def texts() -> list[tuple[int, str]]:
    return list(enumerate(TEXTS))


def write(warehouse: Warehouse, table: str, values: list[dict[str, Any]]) -> None:
    warehouse.replace(table, filled(table, values))


def ones(texts: Sequence[str], _: str | None) -> Iterator[tuple[Sequence[int], np.ndarray]]:
    yield range(len(texts)), np.ones((len(texts), 2))


def champion(project: Project) -> str | None:
    return champion_version(project.tracking)


def test_the_first_model_that_is_better_than_its_base_is_champion(project):
    project.measure("v2", rank=1)
    metadata, verdicts = project.compare()
    assert champion(project) == "2"
    assert verdicts == {"base": "better", "bm25": "better"}
    assert metadata["promotion"].endswith("it is clearly better than the base model.")
    assert "| bm25 |" in metadata["beside_other_models"]


def test_a_model_as_good_as_the_champion_replaces_it_and_is_never_compared_with_itself(project):
    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=1)
    expected = {"base": "better", "bm25": "better", "champion v1": "no clear difference"}

    metadata, verdicts = project.compare()
    assert (champion(project), verdicts) == ("2", expected)
    assert "not clearly worse than version 1" in metadata["promotion"]
    assert "does not clearly beat champion v1" in metadata["reservations"]

    again, verdicts = project.compare()
    assert (champion(project), verdicts) == ("2", expected)
    assert again["promotion"] == metadata["promotion"]


def test_the_page_opens_with_what_came_out_and_a_chart_that_is_seen_without_a_click(project):
    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=1)
    metadata, _ = project.compare()
    assert metadata["result"] == "v2 +245.9 %, promoted"
    assert list(metadata)[:2] == ["result", "chart"]
    for seen in ("chart", "by_dimension", "beside_other_models", "conditions"):
        assert len(metadata[seen]) < INLINE
    drawn = base64.b64decode(metadata["chart"].partition("base64,")[2].removesuffix(")")).decode()
    for bar in (">base<", ">v2<", ">bm25<", ">champion v1<", ">1.000<"):
        assert bar in drawn
    assert len(json.dumps(metadata)) < 20_000, "each page of the asset loads all events"
    page = f"/runs/{metadata['mlflow_run_id']}/artifacts/comparison-v2.html?"
    assert page in metadata["report"]


def test_figures_are_numbers_that_dagster_draws_over_the_versions(project):
    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=4)
    metadata, _ = project.compare()
    figures = {name: metadata[name] for name in metadata if name.startswith("ndcg_at_10_")}
    assert figures == {
        "ndcg_at_10_base": 0.2891,
        "ndcg_at_10_tuned": 0.4307,
        "ndcg_at_10_champion": 1.0,
    }
    assert metadata["change_percent"] == pytest.approx(49.0, abs=0.1)
    rows = project.warehouse.read(
        "SELECT count(*) FROM evaluation_results WHERE run_id = ?", [metadata["mlflow_run_id"]]
    )
    assert metadata["dagster/row_count"] == rows.item() > 0


def check_promotion(project: Project) -> dg.AssetCheckResult:
    check: Any = became_champion
    return check(project.warehouse, project.tracking, project.settings)


def test_the_check_says_whether_the_newest_is_champion_today_and_why(project):
    assert check_promotion(project).description == "No model has been compared yet."
    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=4)
    metadata, _ = project.compare()
    assert metadata["result"].startswith(
        "v2 +49.0 %, kept v1, because it is clearly worse than version 1"
    )
    kept = check_promotion(project)
    assert (kept.passed, kept.severity.value) == (False, "WARN")
    assert str(kept.description).startswith("Version 1 is the champion. At the comparison: ")
    assert "clearly worse than version 1" in str(kept.description)
    make_champion(project.tracking, "2", BY_TEST)
    assert check_promotion(project).passed


def test_embeddings_stay_of_what_is_compared_or_named_and_of_no_other_version(project):
    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=1)
    card = model_card(project.settings)
    base = CachedEncoder(project.warehouse, card, project.settings).fingerprint("document")
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

    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=4)
    metadata, verdicts = project.compare()
    assert champion(project) == "1"
    assert verdicts == {"base": "better", "bm25": "worse", "champion v1": "worse"}
    assert "clearly worse than version 1 (NDCG@10 0.431 against 1.000)" in metadata["promotion"]
    page = project.report(metadata)
    assert metadata["promotion"] in page
    assert f"/runs/{metadata['mlflow_run_id']}" in page
    assert [file.name for file in project.settings.reports.iterdir()] == ["comparison-v2.html"]
    for name in ("bm25", "champion v1"):
        beaten = f"{name} beats the fine-tuned model on questions that people wrote"
        assert beaten in metadata["reservations"]
        assert beaten in page
    run = mlflow.MlflowClient(project.tracking.uri).get_run(metadata["mlflow_run_id"])
    assert run.data.metrics["test_labelled/champion_v1_ndcg_at_10_difference"] == pytest.approx(
        0.4307 - 1, abs=1e-3
    )
    assert run.data.metrics["test_labelled/bm25_ndcg_at_10_high"] < 0


def test_hybrid_search_is_compared_for_both_models_and_decides_no_promotion(project):
    import mlflow

    project.measure("v2", rank=4)
    project.measure("base + bm25", rank=1)
    project.measure("v2 + bm25", rank=2)
    metadata, verdicts = project.compare(baselines="hybrid")
    assert champion(project) == "2"
    assert verdicts == {"base": "better", "base + bm25": "worse"}
    hybrid = stored_hybrid(project.warehouse, metadata["mlflow_run_id"])
    rows = hybrid.select("model", "score", "tuned", "verdict").rows()
    ranked = [pytest.approx(of, abs=1e-3) for of in (1, 0.6309, 0.4307)]
    assert rows == [
        ("base + bm25", ranked[0], ranked[1], "worse"),
        ("tuned", ranked[2], ranked[1], "better"),
    ]
    said = "Hybrid search, base + bm25 → tuned + bm25: NDCG@10 1.000 → 0.631 (−36.9 %)"
    assert metadata["hybrid"].startswith(said)
    for told in (
        "base + bm25 beats the fine-tuned model on questions that people wrote",
        "In hybrid search the fine-tuned model is clearly worse than the base model",
    ):
        assert told in metadata["reservations"]
        assert told in project.report(metadata)
    assert "tuned + bm25 beats" not in metadata["reservations"]
    assert "| tuned | 0.4307 | +0.2003 | better |" in metadata["beside_other_models"]
    drawn = base64.b64decode(metadata["chart"].partition("base64,")[2].removesuffix(")")).decode()
    for bar in (">base + bm25<", ">v2 + bm25<", ">0.631<"):
        assert bar in drawn
    run = mlflow.MlflowClient(project.tracking.uri).get_run(metadata["mlflow_run_id"])
    assert run.data.metrics["test_labelled/tuned_bm25_ndcg_at_10"] == ranked[1]
    assert run.data.metrics["test_labelled/hybrid_ndcg_at_10_high"] < 0
    assert run.data.tags["hybrid"] == metadata["hybrid"]


def test_what_hybrid_search_could_not_be_scored_with_is_said_and_the_rest_compared(
    project, monkeypatch
):
    project.measure("v2", rank=1)
    project.measure("base + bm25", rank=10)

    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(LocalEncoder, "encode", broken)
    metadata, verdicts = project.compare(baselines="hybrid")
    assert (champion(project), verdicts) == ("2", {"base": "better", "base + bm25": "better"})
    assert "hybrid" not in metadata
    assert "tuned + bm25 could not be measured: out of memory" in metadata["beside_other_models"]


def test_weights_that_can_t_be_measured_are_left_out_and_it_is_said_why(project, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(measuring, "measure_weights", broken)
    metadata, verdicts = project.compare(baselines="hybrid")
    assert verdicts["base + bm25"]
    assert "hybrid" in metadata
    assert "hybrid weights could not be measured: out of memory" in metadata["beside_other_models"]


def test_a_champion_that_can_t_be_scored_is_not_beaten_and_it_is_said_why(project):
    make_champion(project.tracking, "1", BY_TEST)
    gone = pl.DataFrame({"version": ["1"], "path": ["/nowhere"]})
    with project.warehouse.transaction() as transaction:
        transaction.update("models", gone)
    project.measure("v2", rank=1)
    metadata, verdicts = project.compare()
    assert champion(project) == "1"
    assert "champion v1" not in verdicts
    said = "The folder of version 1 is gone"
    assert (
        f"version 1, the champion before it, could not be scored ({said}" in (metadata["promotion"])
    )
    assert metadata["promotion"].endswith("Version 1 stays champion.")
    assert said in metadata["beside_other_models"]
    assert said in project.report(metadata)


def test_a_model_that_wins_on_few_documents_alone_is_not_promoted(project):
    pairs = project.warehouse.read("SELECT * FROM training_pairs ORDER BY document_id").head(6)
    project.warehouse.replace("training_pairs", pairs)
    project.measure("base", rank=10)
    project.measure("v2", rank=1)
    metadata, verdicts = project.compare(baselines="none")
    assert verdicts == {"base": "too few to tell"}
    assert champion(project) is None
    assert metadata["verdict"].startswith(
        "6 documents are too few to tell which model is better on 6 questions that people wrote:"
    )
    assert metadata["promotion"] == (
        "Version 2 was not made champion: 6 documents are too few to tell whether it is better "
        "than the base model."
    )


# What is compared was measured on the same questions and corpus.


def ingest(warehouse: Warehouse, *texts: str) -> None:
    """One more document, of these chunks."""
    rows = [
        {"document_id": "new", "chunk_index": n, "chunk_id": f"new{n}", "chunk_text": text}
        for n, text in enumerate(texts)
    ]
    warehouse.replace("chunks", filled("chunks", rows), where={"document_id": ["new"]})


def test_models_alike_are_no_better_though_an_ingest_changes_the_corpus_in_between(project):
    alike = pl.DataFrame({"version": ["2"], "path": [project.settings.model]})
    with project.warehouse.transaction() as transaction:
        transaction.update("models", alike)
    ingest(project.warehouse, *(f"{text} value" for text in TEXTS))
    metadata, verdicts = project.compare()
    assert verdicts["base"] == "no clear difference"
    assert champion(project) is None
    scores = project.warehouse.read(
        "SELECT DISTINCT model, score FROM evaluation_results WHERE metric = 'ndcg' "
        "AND (run_id, model) IN ((?, 'base'), (?, 'tuned'))",
        [metadata["mlflow_run_id"], project.trained_in("2")],
    )
    assert scores["model"].n_unique() == 2
    assert scores["score"].n_unique() == 1


def test_every_model_of_a_comparison_is_measured_on_the_same_questions_and_corpus(project):
    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=1)
    ingest(project.warehouse, "a chunk more")
    metadata, _ = project.compare()
    kept = project.warehouse.read(
        "SELECT model, questions_version, corpus_version FROM evaluations WHERE run_id IN (?, ?)",
        [metadata["mlflow_run_id"], project.trained_in("2")],
    )
    kept = kept.filter(~pl.col("model").is_in([BASE, TUNED]))  # on general questions
    assert set(kept["model"]) == {"base", "tuned", "bm25", "champion v1"}
    task = retrieval_task(project.warehouse)
    assert set(kept.drop("model").rows()) == {(task.questions_version, task.corpus_version)}


def test_the_figures_of_the_model_are_found_at_the_run_that_trained_it(project):
    project.measure("v2", rank=1)
    project.compare()
    run = project.tracking.client().get_run(project.trained_in("2"))
    assert run.data.metrics["test_labelled/dim_32_cosine_ndcg_at_10"] == 1


def test_the_first_charts_of_a_comparison_are_a_dozen_headline_figures(project):
    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=1)
    metadata, _ = project.compare(general=GENERAL)
    client = project.tracking.client()
    for run_id in (metadata["mlflow_run_id"], project.trained_in("2")):
        metrics = client.get_run(run_id).data.metrics
        sections = {name.rpartition("/")[0] for name in metrics}
        assert min(sections) == "headline", "MLflow sorts its charts by this"
        figures = {k.removeprefix("headline/"): v for k, v in metrics.items() if "headline" in k}
        assert figures.keys() == FIGURES.keys() - {"training_seconds"}, "it was never trained"
        assert min(figures) == "ndcg_at_10"
        assert (figures["ndcg_at_10"], figures["ndcg_at_10_champion"]) == (1, 1)
        assert figures["ndcg_at_10_base"] == pytest.approx(0.2891, abs=1e-4)
        assert figures["ndcg_at_10_difference"] == pytest.approx(0.7109, abs=1e-4)
        assert figures["ndcg_at_10_difference_low"] <= figures["ndcg_at_10_difference"]
        assert (figures["test_questions"], figures["test_documents"]) == (DOCUMENTS, DOCUMENTS)


def test_mlflow_says_of_a_version_how_it_was_judged_and_of_what_it_was_made(project):
    trained_on = {"version": "2", "document_id": "d", "path": "valves/a b.pdf", "sha256": "ab" * 32}
    write(project.warehouse, "model_documents", [{**trained_on, "questions": 7}])
    project.measure("v2", rank=1)
    metadata, _ = project.compare()
    client, name = project.tracking.client(), project.tracking.name
    run_id = metadata["mlflow_run_id"]
    run, version = client.get_run(run_id), client.get_model_version(name, "2")
    assert run.info.run_name == "comparison v2 +245.9 %, promoted"
    assert version.description is not None
    said, promotion, *_ = version.description.split("\n\n")
    assert (said, promotion) == (metadata["verdict"], metadata["promotion"])
    assert f"UTC, comparison: {promotion}" in version.description
    report = f"(#/experiments/1/runs/{run_id}/artifacts/comparison-v2.html?"
    for text in (version.description, run.data.tags["mlflow.note.content"]):
        assert report in text
    assert "- 12 questions that people wrote: 0.289 → 1.000, 95 % interval" in version.description
    assert "- [`valves/a b.pdf`](http://" in version.description
    assert "&partition=d) (sha256 abababab, 7 pairs)" in version.description
    assert "`embed-assets lineage 2`" in version.description
    assert version.tags["documents"] == "1"
    assert "valves" not in client.get_run(project.trained_in("2")).data.tags["mlflow.note.content"]
    registered = client.get_registered_model(name)
    assert f"models:/{name}@champion" in registered.description


def test_what_was_judged_is_found_in_the_warehouse_that_is_given_whatever_the_registry_knows(
    project,
):
    """A version of an older home bears no tag of its comparison; work that is done waits for a
    warehouse that is open elsewhere, which one of its own would not do.
    """
    project.measure("v2", rank=1)
    metadata, _ = project.compare()
    client, name = project.tracking.client(), project.tracking.name
    for tag in client.get_model_version(name, "2").tags:
        client.delete_model_version_tag(name, "2", tag)
    given = project.settings.warehouse_file.rename(project.settings.home / "given.duckdb")
    describe_judged(Warehouse(path=str(given)), project.settings, project.tracking, "2")
    description = client.get_model_version(name, "2").description
    assert description is not None
    assert description.startswith(metadata["verdict"])


def test_the_pairs_that_a_training_could_not_log_are_logged_with_its_comparison(project, tmp_path):
    folder = shutil.copytree(newest_model(project.warehouse)["path"], tmp_path / "home/models/v2")
    pairs = pl.DataFrame({"question_id": ["q"], "anchor": ["a"], "positive": ["p"]})
    others = ("chunk_id", "document_id", "path", "sha256", "generator", "inherited_from")
    kept = pairs.with_columns(pl.lit(name).alias(name) for name in others)
    kept = kept.with_columns(relevant_chunk_ids=pl.concat_list("chunk_id"))
    kept.write_parquet(folder / PAIRS)
    row = {"version": ["2"], "path": ["models/v2"], "pairs": [f"models/v2/{PAIRS}"]}
    with project.warehouse.transaction() as transaction:
        transaction.update("models", pl.DataFrame(row))
    project.measure("v2", rank=1)
    client, run_id = project.tracking.client(), project.trained_in("2")
    for _ in range(2):  # it is logged once
        project.compare()
        [artifact] = client.list_artifacts(run_id, LINEAGE)
        assert artifact.path == f"{LINEAGE}/{PAIRS}"
        run = client.get_run(run_id)
        assert run.info.run_name.startswith("finetuned_model v2 ")
        assert run.inputs is not None
        [known] = run.inputs.dataset_inputs
        assert known.dataset.digest == pairs_version(pairs)
        assert run.data.tags["pairs_version"] == known.dataset.digest
        assert client.get_model_version(project.tracking.name, "2").tags["pairs_version"] == (
            known.dataset.digest
        )


def test_a_comparison_names_the_questions_and_the_corpus_by_their_versions(project):
    project.measure("v2", rank=1)
    metadata, _ = project.compare()
    task = retrieval_task(project.warehouse)
    run = project.tracking.client().get_run(metadata["mlflow_run_id"])
    assert run.inputs is not None
    found = {i.dataset.name: (i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs}
    assert found == {
        "evaluation_questions": (task.questions_version, "evaluation"),
        "corpus": (task.corpus_version, "evaluation"),
    }


def test_a_description_that_mlflow_does_not_take_costs_no_comparison(project, monkeypatch):
    project.measure("v2", rank=1)

    def refuse(*_: Any) -> None:
        raise MlflowException("no room")

    monkeypatch.setattr("embed_assets.training.described.write_description", refuse)
    project.compare()
    assert champion(project) == "2"


@pytest.mark.parametrize("step", ["write_report", "charts", "log_comparison", "log_sentences"])
def test_a_comparison_that_fails_leaves_the_champion_that_there_was(project, monkeypatch, step):
    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=1)

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(f"embed_assets.comparison.assets.{step}", fail)
    before = aliases(project.warehouse, project.settings)
    with pytest.raises(OSError, match="no space left"):
        project.compare()
    assert aliases(project.warehouse, project.settings) == before
    monkeypatch.undo()
    project.compare()
    assert champion(project) == "2"


def test_a_champion_that_changes_while_the_report_is_written_stays(project, monkeypatch):
    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=4)
    written = assets.write_report

    def write_late(*given: Any) -> Path:
        roll_back(project.tracking, BY_TEST)
        return written(*given)

    monkeypatch.setattr(assets, "write_report", write_late)
    with pytest.raises(dg.Failure, match="the champion was changed while its report was written"):
        project.compare()
    judged = aliases(project.warehouse, project.settings)
    assert (judged["champion"], judged["challenger"]) == (None, None)


def test_a_training_whose_mlflow_run_was_deleted_is_compared_all_the_same(project):
    project.measure("v2", rank=1)
    project.tracking.client().delete_run(project.trained_in("2"))
    project.compare()
    assert champion(project) == "2"


def test_people_s_questions_that_are_too_few_leave_the_headline_to_those_that_can_tell(project):
    few = [f"q{n}" for n in range(3)]
    seen = pl.when(pl.col("question_id").is_in(few)).then(pl.lit("test_labelled"))
    pairs = project.warehouse.read("SELECT * FROM training_pairs")
    project.warehouse.replace(
        "training_pairs", pairs.with_columns(split=seen.otherwise(pl.lit("test_seen_documents")))
    )
    project.measure("base", rank=10)
    project.measure("v2", rank=1)
    metadata, _ = project.compare(baselines="none")
    assert "better than the base model on 9 questions on other chunks" in metadata["verdict"]
    assert "Too few questions written by people" in project.report(metadata)
    assert champion(project) == "2"


def test_without_champion_among_the_baselines_none_is_scored(project):
    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=4)
    _, verdicts = project.compare(baselines="bm25")
    assert set(verdicts) == {"base", "bm25"}
    assert champion(project) == "2"


def test_a_champion_that_would_not_be_made_so_now_stays_until_a_person_decides(project):
    make_champion(project.tracking, "2", BY_TEST)
    project.measure("v2", rank=10)
    metadata, _ = project.compare()
    assert champion(project) == "2"
    assert metadata["promotion"] == (
        "Version 2 stays champion, but would not be made so now: "
        "it is not clearly better than the base model."
    )
    assert metadata["result"] == (
        "v2 +0.0 %, stays champion, though it is not clearly better than the base model"
    )


def note_base(project: Project, base: str, identity: str) -> None:
    """Say which model the versions were fine-tuned from."""
    noted = project.warehouse.read("SELECT version FROM models").with_columns(
        base=pl.lit(base), base_identity=pl.lit(identity)
    )
    with project.warehouse.transaction() as transaction:
        transaction.update("models", noted)


def test_a_base_model_that_lies_elsewhere_now_is_the_same_base(project, tmp_path):
    identity = model_identity(model_card(project.settings))
    copy = shutil.copytree(project.settings.model, tmp_path / "copy")
    note_base(project, str(tmp_path / "gone"), identity)
    metadata, verdicts = project.compare(model=str(copy))
    assert "NDCG@10" in metadata["verdict"]
    assert "base" in verdicts


def test_a_base_with_other_prompts_than_then_is_not_scored_in_its_place(project, tmp_path):
    asked_then = project.settings.model_copy(update={"query_prompt": "q: "})
    note_base(project, project.settings.model, model_identity(model_card(asked_then)))
    other = shutil.copytree(project.settings.model, tmp_path / "other")
    with pytest.raises(dg.Failure, match="with the prompts and limits of today, is no longer"):
        project.compare(model=str(other), query_prompt="q: ", document_prompt="d: ")


def test_a_base_that_cant_be_looked_at_is_not_called_another(project, tmp_path):
    note_base(project, str(tmp_path / "gone"), "of then")
    with pytest.raises(dg.Failure, match="gone"):
        project.compare(model=str(tmp_path / "gone"))


def test_another_model_in_the_place_of_the_base_is_not_taken_for_it(project):
    note_base(project, project.settings.model, "of other weights")
    with pytest.raises(dg.Failure, match="no longer the model that version 2 was fine-tuned"):
        project.compare()


# Each condition by itself.


def test_a_version_that_a_person_rolled_back_is_not_promoted_again_by_itself(project):
    make_champion(project.tracking, "1", BY_TEST)
    make_champion(project.tracking, "2", BY_TEST)
    roll_back(project.tracking, Decision("ann@desk", "it finds too little"))
    project.measure("v2", rank=1)
    metadata, _ = project.compare()
    assert champion(project) == "1"
    assert "ann@desk: it finds too little" in metadata["promotion"]
    assert "✗ not withdrawn" in metadata["conditions"]


def test_the_version_that_was_judged_is_challenger_whether_it_is_promoted_or_not(project):
    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=4)
    project.compare()
    judged = {"champion": "1", "challenger": "2", "previous": None}
    assert aliases(project.warehouse, project.settings) == judged
    measured_before = {"run_id": ["before", project.trained_in("2")], "model": ["v2", "tuned"]}
    with project.warehouse.transaction() as transaction:
        transaction.delete("evaluations", measured_before)
    project.measure("v2", rank=1)
    project.compare()
    promoted = {"champion": "2", "challenger": "2", "previous": "1"}
    assert aliases(project.warehouse, project.settings) == promoted


def test_a_leak_between_the_splits_keeps_a_model_from_promotion(project):
    leak = {
        "question_id": "leak",
        "document_id": "d1",
        "anchor": TEXTS[1].upper(),
        "relevant_chunk_ids": ["c1"],
        "split": "train",
    }
    pairs = project.warehouse.read("SELECT * FROM training_pairs")
    blank = {n: 0 if t == pl.Int64 else "" for n, t in pairs.schema.items()}
    rows = pl.concat([pairs, pl.DataFrame([blank | leak], schema=pairs.schema)])
    project.warehouse.replace("training_pairs", rows)
    project.measure("v2", rank=1)
    metadata, _ = project.compare()
    assert champion(project) is None
    assert "1 of what tests it leak into what trains it" in metadata["promotion"]


@pytest.mark.parametrize(
    ("served", "said"),
    [
        (
            ServedWays({"its folder": 1e-7, "MLflow, query": 0.002}),
            "MLflow, query gives other vectors, 2.0e-03 apart",
        ),
        (
            ServedWays({"its folder": 1e-7}, {"/v1/embeddings": "no port is free."}),
            "/v1/embeddings gives no vectors of it (no port is free)",
        ),
    ],
)
def test_a_model_that_is_not_served_as_it_was_judged_is_not_promoted(project, served, said):
    project.measure("v2", rank=1)
    metadata, _ = replace(project, served=served).compare()
    assert champion(project) is None
    assert metadata["promotion"] == f"Version 2 was not made champion: {said}."
    assert "- **✗ the same vectors from its folder, MLflow" in metadata["conditions"]
    tried = read_records(project.warehouse).tried.get(("comparison", UNPARTITIONED))
    assert (tried is not None) == bool(served.failed), "a way that failed may not fail again"


def test_promotions_and_refusals_are_in_mlflow_with_their_numbers(project):
    make_champion(project.tracking, "1", BY_TEST)
    project.measure("v2", rank=4)
    metadata, _ = project.compare(general=GENERAL)
    client = project.tracking.client()
    file = client.download_artifacts(metadata["mlflow_run_id"], "promotion.json")
    stored = json.loads(Path(file).read_text(encoding="utf-8"))
    assert (stored["version"], stored["promoted"]) == ("2", False)
    assert stored["said"] == metadata["promotion"]
    assert stored_promotion(project.settings, metadata["mlflow_run_id"]) == metadata["promotion"]
    held = {row["name"]: row["holds"] for row in stored["conditions"]}
    assert held == {
        "better_than_base": True,
        "champion_scored": True,
        "not_worse_than_champion": False,
        "no_clear_loss": False,
        "general_kept": True,
        "no_leakage": True,
        "served_alike": True,
        "not_withdrawn": True,
    }
    [loss] = [row for row in stored["conditions"] if row["name"] == "no_clear_loss"]
    assert loss["numbers"]["difference"] == pytest.approx(0.4307 - 1, abs=1e-3)


def test_of_a_run_that_is_gone_nothing_is_said(project):
    assert stored_promotion(project.settings, "0" * 32) is None


def test_the_champion_is_measured_at_the_dimensions_of_the_model(project):
    make_champion(project.tracking, "1", BY_TEST)
    metadata, _ = project.compare(dimensions="32,16", baselines="champion")
    run_id = metadata["mlflow_run_id"]
    kept = project.warehouse.read("SELECT model, dimensions FROM evaluations")
    assert [32, 16] in kept.filter(model="champion v1")["dimensions"].to_list()
    beside = stored_comparison(project.warehouse, run_id).filter(model="champion v1")
    assert beside["dimension"].to_list() == [SIZE]  # beside the model at its full size alone


def test_a_champion_that_is_smaller_is_measured_at_what_it_has(project, tmp_path):
    make_champion(project.tracking, "1", BY_TEST)
    small = make_tiny_model(tmp_path / "small", size=24)
    with project.warehouse.transaction() as transaction:
        transaction.update("models", pl.DataFrame({"version": ["1"], "path": [str(small)]}))
    project.compare(dimensions="32,16", baselines="champion")
    kept = project.warehouse.read("SELECT dimensions FROM evaluations WHERE model = 'champion v1'")
    assert kept["dimensions"].to_list() == [[24, 16]]


def evidence(**other: Any) -> Evidence:
    """Of a model that nothing speaks against: twelve documents, two dimensions, two splits."""
    rows = [
        {
            "split": split,
            "dimension": dimension,
            "question_id": f"{split} {n}",
            "document_id": f"d{n}",
            "base_ndcg_at_10": 0.4,
            "tuned_ndcg_at_10": 0.5 + n / 1000,
        }
        for split in ("test_labelled", "test_seen_documents")
        for dimension in (32, 16)
        for n in range(12)
    ]
    queries = pl.DataFrame(rows)
    nothing = pl.DataFrame()
    baselines = pl.DataFrame(
        schema={k: v for k, v in TABLES["model_comparisons"].schema.items() if k != "run_id"}
    )
    result = Comparison(nothing, nothing, compare_models(queries), queries, baselines)
    return replace(
        Evidence(
            result,
            champion=None,
            champion_now=None,
            failed={},
            losses=losses(result, None, 0.01),
            general=None,
            leaks=0,
            withdrawn=None,
            is_champion=False,
            registered_as="models",
            served=ServedWays({"its folder": 1e-7}),
        ),
        **other,
    )


def failing(found: Evidence, **settings: Any) -> list[str]:
    chosen = Settings().model_copy(update=settings)
    return [condition.name for condition in conditions(found, chosen) if not condition.holds]


def test_nothing_speaks_against_a_model_that_is_better_everywhere():
    assert failing(evidence()) == []


def test_what_is_forgotten_of_general_questions_is_held_against_the_set_amount():
    assert failing(evidence(general=GeneralFigures(0.80, 0.78, 249)), general_loss=0.03) == []
    assert failing(evidence(general=GeneralFigures(0.80, 0.75, 249)), general_loss=0.03) == [
        "general_kept"
    ]
    assert failing(evidence(general=GeneralFigures(0.80, 0.85, 249)), general_loss=0.0) == []


def test_a_champion_that_changed_while_it_was_compared_is_not_replaced():
    assert failing(evidence(champion_now="7")) == ["champion_scored"]


def held_against(tuned: Mapping[int, float], champion: Mapping[int, float]) -> pl.DataFrame:
    """Losses of a model with these NDCG@10 by dimension, against a champion with those."""
    result = evidence().result
    given = pl.col("dimension").replace_strict(dict(tuned), return_dtype=pl.Float64)
    queries = result.queries.with_columns(tuned_ndcg_at_10=given)
    of_champion = [
        {"split": split, "dimension": d, "question_id": question, "ndcg_at_10": score}
        for split, question in queries.select("split", "question_id").unique().iter_rows()
        for d, score in champion.items()
    ]
    found = Evaluation(pl.DataFrame(), pl.DataFrame(of_champion))
    return losses(replace(result, queries=queries), found, 0.01)


def test_a_loss_at_one_small_dimension_is_a_loss():
    found = held_against({32: 0.9, 16: 0.5}, {32: 0.8, 16: 0.6})
    assert set(found.filter("clear")["dimension"]) == {16}
    assert failing(evidence(losses=found)) == ["no_clear_loss"]


def test_at_a_dimension_that_the_champion_lacks_its_next_smaller_one_counts():
    found = held_against({32: 0.7, 16: 0.7}, {64: 0.9, 24: 0.8, 16: 0.7})
    base = dict(found.select("dimension", "base").iter_rows())
    assert base == pytest.approx({32: 0.8, 16: 0.7})


def test_validation_is_no_test_on_which_a_model_can_lose():
    result = evidence().result
    split = pl.when(split="test_labelled").then(pl.lit("validation")).otherwise("split")
    lost = result.queries.with_columns(split=split, tuned_ndcg_at_10=pl.lit(0.1))
    found = losses(replace(result, queries=lost), None, 0.01)
    assert set(found["split"]) == {"test_seen_documents"}
