"""The learning curve: a version's training done again on parts of its pairs, and what it says."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import polars as pl
import pytest

from embed_assets.comparison import learning_curve
from embed_assets.comparison.assets import comparison
from embed_assets.comparison.hybrid_weights import stored_weights, weight_sentence
from embed_assets.comparison.learning_curve import (
    ALL,
    ALONE,
    CURVE,
    FEWER_DOCUMENTS,
    HALF,
    HYBRID,
    NO_PAIRS,
    QUARTER,
    NoCurveError,
    curve_points,
    measure_curve,
    no_curve,
    parts_of,
    stored_curve,
    would_help_most,
)
from embed_assets.comparison.plots import learning_chart
from embed_assets.comparison.promotion import ServedWays
from embed_assets.comparison.tables import curve_table
from embed_assets.comparison.verdict import stored_hybrid
from embed_assets.definitions import build_definitions, build_resources
from embed_assets.errors import ProjectError
from embed_assets.evaluation.baselines import failed_baselines
from embed_assets.models.registry import newest_model
from embed_assets.resources.ledger import read_records
from embed_assets.resources.redaction import FORGOTTEN
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Engine, Settings
from embed_assets.tables import TABLES
from embed_assets.training.again import train_again
from embed_assets.training.claims import claimed, held_lock, training_folders
from embed_assets.training.config import TrainingConfig
from embed_assets.training.kept import redact_training
from embed_assets.training.progress import Silent
from embed_assets.training.trainer import train
from embed_assets_tests.rows import filled
from embed_assets_tests.tiny_model import make_tiny_model
from embed_assets_tests.training.trainings import fill

NAMES = tuple(f"document-{n}" for n in range(8))
IN_ALL = 48
"""Pairs: of each document eight questions, of which one validates and one tests."""
BATCH = 4
SCHEMA = {k: v for k, v in TABLES["learning_curves"].schema.items() if k != "run_id"}


def pairs_of(**documents: int) -> pl.DataFrame:
    """So many pairs of each document, in an order that has nothing to do with it."""
    rows = [(f"{n:03}-{name}", name) for name, count in documents.items() for n in range(count)]
    return pl.DataFrame(rows, schema=["question_id", "document_id"], orient="row")


def test_each_part_is_of_the_larger_one_and_both_halves_are_as_large():
    pairs = pairs_of(a=10, b=10, c=10, d=10)
    parts = parts_of(pairs.sample(fraction=1, shuffle=True, seed=1), least=2)
    assert {name: part.height for name, part in parts.items()} == {
        QUARTER: 10,
        HALF: 20,
        FEWER_DOCUMENTS: 20,
    }
    assert set(parts[QUARTER]["question_id"]) < set(parts[HALF]["question_id"])
    assert parts[HALF]["document_id"].n_unique() == 4
    assert parts[FEWER_DOCUMENTS]["document_id"].n_unique() == 2
    for name, part in parts_of(pairs, least=2).items():
        assert part.equals(parts[name]), "whatever the order of the pairs"


@pytest.mark.parametrize(
    ("documents", "least", "names"),
    [
        ({"a": 40}, 2, {QUARTER, HALF}),  # there are no fewer
        ({"a": 20, "b": 20}, 11, {HALF, FEWER_DOCUMENTS}),  # a quarter makes no batch
        ({"a": 2, "b": 2}, 4, set()),
        ({"a": 1}, 1, set()),
        ({"a": 97, "b": 1, "c": 1, "d": 1}, 10, {QUARTER, HALF, FEWER_DOCUMENTS}),
    ],
)
def test_a_part_that_says_nothing_is_left_out(documents, least, names):
    assert parts_of(pairs_of(**documents), least).keys() == names


def row(part: str, against: str = ALL, *, by: float = 0.0, clear: bool = False, **other: Any):
    """A row of learning_curves."""
    known = {
        "search": ALONE,
        "split": "test_labelled",
        "part": part,
        "against": against,
        "pairs": {NO_PAIRS: 0, QUARTER: 100}.get(part, 200),
        "learned_documents": 6 if part == FEWER_DOCUMENTS else 12,
        "dimension": 384,
        "score": 0.5 - by,
        "against_score": 0.5,
        "difference": by,
        "low": by - 0.01,
        "high": by + 0.01,
        "p_value": 0.01 if clear else 0.3,
        "verdict": ("better" if by > 0 else "worse") if clear else "no clear difference",
        "questions": 90,
        "documents": 11,
        "resampled": "documents",
        "trained_pairs": 400,
        "trained_documents": 12,
        "known_pairs": 400,
        "extractive_share": 1.0,
    }
    return known | other


def curve_of(*rows: Mapping[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SCHEMA)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [row(HALF, by=0.003, high=0.009)],
            "More extractive questions would hardly help: from half of the pairs to all of them "
            "NDCG@10 changes by +0.003 (95 %: -0.007 to +0.009). What may help, untried: "
            "questions of people, or of a language model.",
        ),
        (
            [row(HALF, high=0.009, extractive_share=0.4)],
            "What may help, untried: a larger base model.",
        ),
        (
            [row(HALF, by=0.003, high=0.02)],
            "It can't be told whether more extractive questions would help: from half of the pairs "
            "to all of them NDCG@10 changes by +0.003 (95 %: -0.007 to +0.020). More questions of "
            "people to test by would tell.",
        ),
        (
            [row(HALF, high=0.02, extractive_share=0.4)],
            "It can't be told whether more questions of this kind would help",
        ),
        (
            [row(HALF, by=0.004, high=0.006, clear=True)],
            "More extractive questions would hardly help",
        ),
        ([row(HALF, by=-0.02, clear=True)], "Fewer pairs would do better: from half of the pairs"),
        ([row(HALF, by=0.02, clear=True)], "More questions, or more passes over them"),
        ([row(HALF, by=0.02, clear=True, known_pairs=401)], "More questions, or more passes"),
        (
            [row(HALF, by=0.02, clear=True, known_pairs=1400, split="test_seen_documents")],
            "More questions, or more passes",
        ),
        (
            [row(HALF, by=0.02, clear=True, known_pairs=1400)],
            "More of the pairs that are there would help most, 400 of 1,400 were trained on "
            "(EMBED_ASSETS_EPOCHS, EMBED_ASSETS_MAX_PAIRS)",
        ),
        (
            [
                row(HALF, by=0.02, clear=True, known_pairs=1400),
                row(FEWER_DOCUMENTS, HALF, by=0.03, clear=True),
            ],
            "Pairs of more documents would help most: as many from all documents in place of 6 "
            "change NDCG@10 by +0.030 (95 %: +0.020 to +0.040); from half of the pairs to all",
        ),
        (
            [row(HALF, by=0.02, clear=True), row(FEWER_DOCUMENTS, HALF, by=-0.03, clear=True)],
            "More questions, or more passes",
        ),
        (
            [row(HALF, by=0.2, verdict="too few to tell", documents=3)],
            "What would help most can't be told by questions on 3 documents",
        ),
        (
            [row(HALF, search=HYBRID, by=0.2, clear=True), row(HALF, high=0.0)],
            "More extractive questions would hardly help",
        ),
        (
            [row(HALF, split="test_seen_documents", by=0.2, clear=True), row(HALF, high=0.0)],
            "More extractive questions would hardly help",
        ),
        ([], ""),
    ],
)
def test_what_would_help_most_follows_from_the_headline_alone(rows, said):
    sentence = would_help_most(curve_of(*rows))
    assert sentence.startswith(said) or (said and sentence.endswith(said)), sentence
    assert bool(sentence) == bool(said)


def test_the_points_begin_with_the_base_model_and_end_with_all_pairs():
    alone = [
        row(HALF, by=0.01),
        row(NO_PAIRS, by=0.05, learned_documents=0),
        row(FEWER_DOCUMENTS, by=0.02),
        row(QUARTER, by=0.03),
        row(FEWER_DOCUMENTS, HALF, by=0.3),
    ]
    curve = curve_of(*alone, *(of | {"search": HYBRID} for of in alone[:4]))
    points = curve_points(curve)
    assert points["part"].to_list() == [NO_PAIRS, QUARTER, HALF, FEWER_DOCUMENTS, ALL]
    assert points["pairs"].to_list() == [0, 100, 200, 200, 400]
    assert points["documents"].to_list() == [0, 12, 12, 6, 12]
    assert points["alone"].to_list() == pytest.approx([0.45, 0.47, 0.49, 0.48, 0.5])
    assert points["hybrid"].to_list() == pytest.approx([0.45, 0.47, 0.49, 0.48, 0.5])
    assert points["difference"].to_list() == pytest.approx([0.05, 0.03, 0.01, 0.02, None])
    without = curve_points(curve_of(*alone))
    assert without["hybrid"].to_list() == [None] * 5
    assert "| – |" not in curve_table(curve)
    assert curve_table(curve_of(*alone)).count("| – |") == 5
    for drawn in (points, without):
        chart = learning_chart(drawn, "test_labelled", 90).to_dict()
        shown = {point["search"] for data in chart["datasets"].values() for point in data}
        assert shown == {"the model alone", "with bm25"} - (
            set() if drawn is points else {"with bm25"}
        )
    assert curve_points(no_curve()).is_empty()


@pytest.mark.parametrize(("parts", "layers"), [((FEWER_DOCUMENTS, HALF), 2), ((HALF,), 1)])
def test_without_a_part_of_fewer_documents_there_are_no_diamonds(parts, layers):
    chart = learning_chart(curve_points(curve_of(*map(row, parts))), "test_labelled", 90).to_dict()
    assert len(chart["layer"]) == layers
    assert ("diamonds" in chart["title"]["text"]) == (layers == 2)


@dataclass
class Home:
    """A home with a version that a training of a second made, and comparisons of it."""

    settings: Settings
    trained: list[pl.DataFrame] = field(default_factory=list)
    engines: set[Engine] = field(default_factory=set)

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse.of(self.settings)

    @property
    def tracking(self) -> Tracking:
        return build_resources(self.settings)["tracking"]

    def compare(self, **settings: Any) -> dict[str, Any]:
        """Metadata of a comparison, with its learning curve."""
        given = {"learning_curve": True, **settings}
        resources = build_resources(self.settings.model_copy(update=given))
        used = {name: resources[name] for name in ("settings", "warehouse", "tracking")}
        used["ask_ways"] = lambda *_: ServedWays({"its folder": 1e-7})
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize([comparison], instance=instance, resources=used)
            [made] = result.asset_materializations_for_node("comparison")
        return {name: entry.value for name, entry in made.metadata.items()}

    def curve(self, metadata: Mapping[str, Any]) -> pl.DataFrame:
        return stored_curve(self.warehouse, metadata["mlflow_run_id"])

    def change_model(self, **values: Any) -> None:
        rows = self.warehouse.read("SELECT * FROM models")
        rows = rows.with_columns(pl.lit(value).alias(name) for name, value in values.items())
        self.warehouse.replace("models", filled("models", rows.to_dicts()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("curve")
    base = make_tiny_model(folder)
    settings = Settings(
        model=str(base), home=folder / "home", pdfs=folder, general="none", precision="fp32"
    )
    warehouse = Warehouse.of(settings)
    fill(warehouse, NAMES)
    tests = pl.col("question_id").str.ends_with("-6")
    pairs = warehouse.read("SELECT * FROM training_pairs").with_columns(
        split=pl.when(tests).then(pl.lit("test_labelled")).otherwise("split"),
        question_id=pl.col("question_id").map_elements(digest, return_dtype=pl.String),
    )
    warehouse.replace("training_pairs", pairs)
    definitions = build_definitions(settings, {"io_manager": dg.mem_io_manager})
    options = {"epochs": 2, "batch_size": BATCH, "learning_rate": 1e-3}
    with dg.DagsterInstance.ephemeral() as instance:
        done = definitions.resolve_job_def("train").execute_in_process(
            run_config={"ops": {"finetuned_model": {"config": options}}},
            asset_selection=[dg.AssetKey("finetuned_model")],
            instance=instance,
        )
    assert done.success
    return settings


@pytest.fixture
def home(trained: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Its trainings are made in this process, and noted."""
    shutil.copytree(trained.home, tmp_path / "home")
    home = Home(trained.model_copy(update={"home": tmp_path / "home"}))

    def train_here(training: TrainingConfig, threads: int, engine: Engine) -> dict[str, Any]:
        assert threads > 0
        home.engines.add(engine)
        home.trained.append(pl.read_parquet(training.pairs))
        result = train(training, Silent())
        training.result.write_text(json.dumps(result), encoding="utf-8")
        return result

    monkeypatch.setattr(learning_curve, "train_again", train_here)
    return home


def test_a_comparison_says_what_parts_of_the_pairs_teach(home: Home) -> None:
    metadata = home.compare(engine="ray")
    assert home.engines == {"ray"}
    assert [pairs.height for pairs in home.trained] == [IN_ALL // 4, IN_ALL // 2, IN_ALL // 2]
    assert home.trained[2].join(home.trained[1], on="question_id", how="anti").height
    points = curve_points(home.curve(metadata))
    assert points["pairs"].to_list() == [0, 12, 24, 24, 48]
    assert points["documents"].to_list()[-3:] == [8, 4, 8]
    run = home.tracking.client().get_run(metadata["mlflow_run_id"])
    figures = home.warehouse.read(
        "SELECT model, dimension, score FROM evaluation_results "
        "WHERE metric = 'ndcg' AND split = 'test_labelled' AND dimension = 32"
    )
    scores = dict(figures.select("model", "score").iter_rows())
    for point in points.iter_rows(named=True):
        called = {NO_PAIRS: "base", ALL: "tuned"}.get(point["part"], point["part"])
        assert point["alone"] == pytest.approx(scores[called])
        assert point["hybrid"] == pytest.approx(scores[f"{called} + bm25"])
    history = home.tracking.client().get_metric_history(
        metadata["mlflow_run_id"], "test_labelled/learning_curve_ndcg_at_10"
    )
    shown = {metric.step: metric.value for metric in history}
    of_all = points.filter(pl.col("part") != FEWER_DOCUMENTS)
    assert shown == pytest.approx(dict(of_all.select("pairs", "alone").iter_rows()))
    sentence = would_help_most(home.curve(metadata))
    assert sentence
    assert metadata["would_help_most"] == run.data.tags["would_help_most"] == sentence
    assert "half of the pairs, of fewer documents" in metadata["learning_curve"]
    report = (home.settings.home / metadata["report_file"]).read_text(encoding="utf-8")
    assert "What would help most" in report
    assert not training_folders(home.settings.models), "nothing is left of the trainings"
    assert not list(home.settings.models.glob("*.lock"))


def test_what_is_known_of_a_part_is_not_trained_again(home: Home) -> None:
    first = home.curve(home.compare())
    home.trained.clear()
    again = home.curve(home.compare(promotion_margin=0.5))
    assert home.trained == []
    assert again.sort(pl.all()).equals(first.sort(pl.all()))


def test_unset_nothing_is_trained_and_nothing_said(home: Home) -> None:
    metadata = home.compare(learning_curve=False)
    assert home.trained == []
    assert home.curve(metadata).is_empty()
    assert not {"would_help_most", "learning_curve"} & metadata.keys()
    weights = stored_weights(home.warehouse, metadata["mlflow_run_id"])
    assert metadata["hybrid_weight"] == weight_sentence(weights)
    hybrid = stored_hybrid(home.warehouse, metadata["mlflow_run_id"])
    scores = hybrid.filter(split="test_labelled")["tuned"]
    assert weights.filter(weight="0.5")["score"].item() == pytest.approx(scores.first())
    assert "| 0.9 |" in metadata["hybrid_by_weight"]
    report = (home.settings.home / metadata["report_file"]).read_text(encoding="utf-8")
    assert "What would help most" not in report
    assert "EMBED_ASSETS_DENSE_WEIGHT" in report
    without = home.compare(learning_curve=False, baselines="bm25")
    assert not {"hybrid_weight", "hybrid_by_weight"} & without.keys()


def test_what_was_interrupted_is_taken_up_and_without_hybrid_search_none_is_scored(
    home: Home, monkeypatch
) -> None:
    train_here = learning_curve.train_again

    def interrupted(training: TrainingConfig, threads: int, engine: Engine) -> Any:
        if len(home.trained) == 1:
            raise dg.DagsterExecutionInterruptedError
        return train_here(training, threads, engine)

    monkeypatch.setattr(learning_curve, "train_again", interrupted)
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        home.compare(baselines="none")
    [folder] = training_folders(home.settings.models)
    prepared = {file: file.stat().st_mtime_ns for file in folder.glob("*.parquet")}
    seen: list[Path] = []

    def watched(training: TrainingConfig, threads: int, engine: Engine) -> Any:
        seen.append(training.folder)
        if training.folder == folder:
            assert prepared == {f: f.stat().st_mtime_ns for f in folder.glob("*.parquet")}
        return train_here(training, threads, engine)

    monkeypatch.setattr(learning_curve, "train_again", watched)
    assert set(home.curve(home.compare(baselines="none"))["search"]) == {ALONE}
    assert seen[0] == folder, "the first part is known by then"
    assert len(seen) == 2
    assert not training_folders(home.settings.models)


@pytest.mark.parametrize(
    ("error", "is_tried_again"),
    [
        (ProjectError("The training failed: no room."), True),
        (RuntimeError("The training failed: no room."), True),
        (NoCurveError("The training failed: no room."), False),
    ],
)
def test_a_training_that_fails_costs_the_curve_and_not_the_comparison(
    home: Home, monkeypatch, error: Exception, is_tried_again: bool
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(learning_curve, "train_again", fail)
    metadata = home.compare()
    assert "verdict" in metadata
    assert "would_help_most" not in metadata
    assert home.curve(metadata).is_empty()
    said = "The training failed: no room."
    report = (home.settings.home / metadata["report_file"]).read_text(encoding="utf-8")
    assert f"{CURVE} could not be measured: {said}" in report
    assert f"{CURVE} could not be measured: {said}" in metadata["beside_other_models"]
    assert failed_baselines(home.warehouse, metadata["mlflow_run_id"]) == {CURVE: said}
    tried = read_records(home.warehouse, "comparison").tried
    assert [attempt.failure.error for attempt in tried.values()] == (
        [f"{CURVE}: {said}"] * is_tried_again
    )


def test_a_part_that_another_process_trains_on_is_left_to_it(home: Home, monkeypatch) -> None:
    where = learning_curve.folder_made_from

    def held(models: Path, made_from: str) -> Path:
        folder = where(models, made_from)
        lock.enter(folder)
        return folder

    class Lock:
        def enter(self, folder: Path) -> None:
            self.held = claimed(folder)
            self.held.__enter__()

    lock = Lock()
    monkeypatch.setattr(learning_curve, "folder_made_from", held)
    with pytest.raises(dg.Failure, match="still trains"):
        home.compare()
    assert held_lock(home.settings.models), "who plans knows of it"
    lock.held.__exit__(None, None, None)


def test_a_part_is_trained_on_by_the_process_that_trains_versions(home: Home, monkeypatch) -> None:
    monkeypatch.setattr(learning_curve, "train_again", train_again)
    monkeypatch.setattr(
        learning_curve, "parts_of", lambda pairs, least: {HALF: pairs.head(pairs.height // 2)}
    )
    metadata = home.compare()
    assert metadata["would_help_most"]
    assert curve_points(home.curve(metadata))["pairs"].to_list() == [0, 24, 48]
    assert not training_folders(home.settings.models)


def why_none(home: Home) -> str:
    """Why the version has no learning curve."""
    found: Any = SimpleNamespace(base=home.settings.model)
    model = newest_model(home.warehouse, "1")
    with pytest.raises(NoCurveError) as raised:
        measure_curve(home.warehouse, home.settings, model, found, "run", print)
    assert home.trained == []
    return str(raised.value)


def test_what_can_t_be_done_again_has_no_curve(home, monkeypatch):
    folder = Path(newest_model(home.warehouse, "1")["path"])
    (folder / "training").rename(folder / "elsewhere")
    assert why_none(home) == "what the training of version 1 read was not kept"
    (folder / "elsewhere").rename(folder / "training")
    home.change_model(trained_from="7")
    assert why_none(home) == "version 1 goes on from version 7, and knows its pairs too"
    home.change_model(trained_from=None)
    monkeypatch.setattr(learning_curve, "parts_of", lambda *_: {})
    assert why_none(home) == "half of 48 pairs make no batch of 4"
    redact_training(folder, {NAMES[0]: "document"}, [], FORGOTTEN)
    assert why_none(home) == "version 1 has learned from a document that was forgotten"
