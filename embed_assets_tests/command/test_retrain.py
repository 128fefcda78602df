"""A version is really trained again from its record, and compared with what it was."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from embed_assets.command import retrain
from embed_assets.command.forget import forget_documents
from embed_assets.command.retrain import check_retraining, retrain_and_compare, retrain_text
from embed_assets.definitions import build_definitions
from embed_assets.errors import BusyError, ProjectError
from embed_assets.resources.ray_processes import RayProcessClient
from embed_assets.resources.redaction import FORGOTTEN
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Engine, Settings
from embed_assets.training.again import PREFIX, folders_again
from embed_assets.training.claims import clear_trainings, training_in
from embed_assets.training.config import TrainingConfig
from embed_assets.training.kept import kept_result, kept_training, redact_training
from embed_assets_tests.machines import H100, with_gpus
from embed_assets_tests.tiny_model import make_tiny_model
from embed_assets_tests.training.trainings import fill

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with version 1."""
    folder = tmp_path_factory.mktemp("trained")
    base = make_tiny_model(folder)
    settings = Settings(model=str(base), home=folder / "home", pdfs=folder, hard_negatives=1)
    fill(Warehouse.of(settings))
    definitions = build_definitions(settings, {"io_manager": dg.mem_io_manager})
    with dg.DagsterInstance.ephemeral() as instance:
        done = definitions.resolve_job_def("train").execute_in_process(
            run_config={"ops": {"finetuned_model": {"config": {"epochs": 2, "batch_size": 4}}}},
            asset_selection=[dg.AssetKey("finetuned_model")],
            instance=instance,
        )
    assert done.success
    return settings


@pytest.fixture
def settings(trained: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DAGSTER_HOME", "")  # the command sets it: it must not outlive the test
    shutil.copytree(trained.home, tmp_path / "home")
    return trained.model_copy(update={"home": tmp_path / "home"})


def files_of(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def change_weights(folder: Path, by: float) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "word_embeddings" in name)
    weights[name] = weights[name].flip(0) if by == 1 else weights[name] + by
    save_file(weights, file)


def test_a_version_trained_again_has_the_same_weights_and_is_left_as_it_is(
    settings: Settings,
) -> None:
    before = files_of(settings.models)
    runs = settings.home / "mlflow.db"
    tracked = runs.read_bytes()
    said = retrain_and_compare(settings, "v1")
    assert (said["version"], said["possible"], said["reasons"]) == ("1", True, [])
    assert (said["same"], said["largest_difference"]) == ("weights", 0)
    assert said["figures"]["then"] == said["figures"]["now"] != {}
    assert said["seconds"] > 0
    assert "the same weights" in retrain_text(said)
    assert files_of(settings.models) == before, "nothing is left of the training"
    assert runs.read_bytes() == tracked, "the MLflow run of the first training is told nothing"


@pytest.mark.parametrize(
    ("by", "same"), [(1e-8, "figures"), pytest.param(1, None, marks=pytest.mark.long)]
)
def test_where_the_weights_differ_the_figures_decide(
    settings: Settings, by: float, same: str | None
) -> None:
    change_weights(settings.models / "v1", by)
    said = retrain_and_compare(settings, "1")
    assert said["same"] == same
    assert said["largest_difference"] > 0
    assert {name.partition("/")[0] for name in said["figures"]["now"]} == {
        *("validation_in_training", "validation")
    }
    assert ("NOT the same model" in retrain_text(said)) == (same is None)
    assert not folders_again(settings.models)


def test_what_was_interrupted_is_taken_up_by_the_same_call(settings: Settings) -> None:
    command = [sys.executable, "-m", "embed_assets.command.cli", "retrain", "1", "--check"]
    environment = {**os.environ, "EMBED_ASSETS_MODEL": settings.model}
    process = subprocess.Popen(
        [*command, "--home", str(settings.home)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    # Locked before it is made: only then is there something to take up.
    while not (
        folders_again(settings.models) and [*settings.models.glob(f"{PREFIX}*.process.lock")]
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Traceback" not in said
    (folder,) = folders_again(settings.models)
    with training_in(folder):  # nobody trains there any more
        pass
    clear_trainings(settings.models)
    (folder / "mark").touch()
    clear_trainings(settings.models)
    assert (folder / "mark").is_file(), "it is no training that a run takes up or clears away"
    done = subprocess.run(
        [*command, "--home", str(settings.home), "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"same": "weights"' in done.stdout
    assert not folders_again(settings.models)


def test_a_version_whose_record_is_redacted_is_not_trained(settings: Settings) -> None:
    redact_training(settings.models / "v1", {}, ["sha256 of one"], FORGOTTEN)
    said = retrain_and_compare(settings, "1")
    assert (said["possible"], said["same"], said["seconds"]) == (False, None, None)
    (reason,) = said["reasons"]
    assert "of the questions and chunks that its training read are redacted" in reason
    assert "can't be trained again" in retrain_text(said)


def test_a_version_of_before_this_was_kept_says_what_is_missing(settings: Settings) -> None:
    shutil.rmtree(settings.models / "v1" / "training")
    said = check_retraining(settings, "1")
    assert not said["possible"]
    assert said["reasons"] == [
        "what its training read was not kept, or as another release keeps it"
    ]


def test_a_base_that_is_another_model_today_is_said_and_nothing_is_trained(
    settings: Settings, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(settings.model, tmp_path / "base"))
    warehouse = Warehouse.of(settings)
    row = warehouse.read("SELECT * FROM models").with_columns(base=pl.lit(str(base)))
    warehouse.replace("models", row, {"version": ["1"]})
    assert check_retraining(settings, "1")["possible"]
    change_weights(base, 0.1)
    said = check_retraining(settings, "1")
    assert said["reasons"] == [f"its base {base} is another model today, or gone"]


def test_what_is_otherwise_today_is_a_doubt_and_no_obstacle(settings: Settings) -> None:
    warehouse = Warehouse.of(settings)
    row = warehouse.read("SELECT * FROM models").with_columns(
        code=pl.lit("embed-assets 0.0.1"), machine=pl.lit("another")
    )
    warehouse.replace("models", row, {"version": ["1"]})
    warehouse.replace("raw_pdfs", warehouse.read("SELECT * FROM raw_pdfs LIMIT 1"))
    said = check_retraining(settings, "1")
    assert said["possible"]
    assert len(said["reasons"]) == 2
    assert said["reasons"][0].startswith("it was trained by embed-assets 0.0.1, and this is ")
    assert said["reasons"][1].startswith("it was trained on another, and this is ")
    assert len(said["documents"]["missing"]) == 1, "a note: the record holds the texts"


def test_of_a_cluster_the_machine_is_told_that_has_trained(settings, monkeypatch) -> None:
    version = settings.models / "v1"
    kept = kept_training(version)
    assert kept
    trained_on = kept_result(kept)["machine"]

    def train_on_a_node(training: TrainingConfig, threads: int, engine: Engine) -> dict[str, Any]:
        assert engine == "ray"
        shutil.copytree(version, training.model)
        return kept_result(kept) | {"machine": "a node"}

    monkeypatch.setattr(retrain, "train_again", train_on_a_node)
    monkeypatch.setattr(RayProcessClient, "machine", lambda _: with_gpus(H100))
    on_ray = settings.model_copy(update={"engine": "ray"})
    of_gpus = "a GPU adds up in an order that changes"
    assert check_retraining(on_ray, "1")["reasons"] == [of_gpus], "it isn't known which node trains"
    said = retrain_and_compare(on_ray, "1")
    assert said["same"] == "weights"
    assert said["machine"] == {"then": trained_on, "now": "a node"}
    assert said["reasons"] == [f"it was trained on {trained_on}, and this is a node", of_gpus]


def test_documents_are_forgotten_once_no_version_is_trained_again_and_go_from_its_record(
    settings: Settings,
) -> None:
    folder = settings.models / f"{PREFIX}v1"
    folder.mkdir()
    warehouse = Warehouse.of(settings)
    with training_in(folder), pytest.raises(BusyError, match="still trains"):
        forget_documents(settings, ["one.pdf"])
    assert warehouse.count("forgotten") == 0, "nothing was done"
    forget_documents(settings, ["one.pdf"])
    assert not folders_again(settings.models)
    kept = settings.models / "v1" / "training"
    frames = {file.name: str(pl.read_parquet(file).rows()) for file in kept.glob("*.parquet")}
    assert len(frames) == 4
    assert "of two read" in frames["pairs.parquet"]
    for name, rows in frames.items():
        assert "of one read" not in rows, name
        assert "one says how" not in rows, name
    said = check_retraining(settings, "1")
    assert not said["possible"]
    assert "7 of its pairs are redacted: what they quoted is forgotten" in said["reasons"]


def test_an_unknown_version_is_an_error(settings: Settings) -> None:
    with pytest.raises(ProjectError, match="no model version 7"):
        retrain_and_compare(settings, "7")
