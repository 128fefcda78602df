"""What a training leaves, and what the next run takes up of one that was cut off."""

import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from embed_assets.errors import SettingsError
from embed_assets.models.card import model_card
from embed_assets.settings import Settings
from embed_assets.training import assets as training
from embed_assets.training.assets import TrainingError, _keep, _train
from embed_assets.training.config import TrainingConfig, training_config
from embed_assets.training.trainer import training_lock
from embed_assets_tests.tiny_model import make_static_model, make_tiny_model


class Log:
    def __init__(self) -> None:
        self.log = self
        self.said: list[str] = []
        self.op_execution_context = None

    def info(self, message: str) -> None:
        self.said.append(message)


class Pipes:
    """Starts no process; remembers what it was asked to start."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def run(self, *, command: list[str], **_: Any) -> None:
        self.commands.append(command)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(model=str(make_tiny_model(tmp_path)), home=tmp_path / "home")


def config_of(settings: Settings, folder: Path, run_id: str) -> TrainingConfig:
    folder.mkdir(exist_ok=True)
    tracking = f"sqlite:///{folder / 'mlflow.db'}"
    return training_config(folder, settings, model_card(settings), tracking, run_id)


def test_a_model_whose_recording_was_cut_off_is_that_of_the_run_that_trained_it(tmp_path, settings):
    log, pipes = Log(), Pipes()
    first = config_of(settings, tmp_path / "training", "first")
    assert _train(log, pipes, first) == "first"  # pyright: ignore[reportArgumentType]
    assert len(pipes.commands) == 1
    (first.folder / "model").mkdir()
    first.result.write_text("{}")
    second = config_of(settings, tmp_path / "training", "second")
    assert _train(log, pipes, second) == "first"  # pyright: ignore[reportArgumentType]
    assert len(pipes.commands) == 1
    assert "taken up" in log.said[-1]


def test_a_training_that_was_cut_off_is_that_of_the_run_that_ends_it(tmp_path, settings):
    log, pipes = Log(), Pipes()
    _train(log, pipes, config_of(settings, tmp_path / "training", "first"))  # pyright: ignore[reportArgumentType]
    second = config_of(settings, tmp_path / "training", "second")
    assert _train(log, pipes, second) == "second"  # pyright: ignore[reportArgumentType]
    assert TrainingConfig.model_validate_json(second.path.read_text()).mlflow_run_id == "second"
    assert len(pipes.commands) == 2


def failure_of(config: TrainingConfig) -> str:
    """What is said of a training that Dagster starts, and that fails."""

    @dg.asset
    def finetuned_model(
        context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult:
        with pytest.raises(TrainingError) as raised:
            _train(context, pipes, config)
        said.append(str(raised.value))
        return dg.MaterializeResult()

    said: list[str] = []
    config.failure.write_text("what was wrong the last time")
    dg.materialize([finetuned_model], resources={"pipes": dg.PipesSubprocessClient()})
    assert "\n" not in said[0]
    return said[0]


def test_a_training_that_fails_says_why_in_one_line(tmp_path, settings):
    config = config_of(settings, tmp_path / "training", "first")
    said = failure_of(config)  # nothing was prepared
    assert said.startswith("The training failed: ")
    assert "pairs.parquet" in said


def test_a_training_of_several_processes_says_what_the_first_to_fail_said(tmp_path, settings):
    config = config_of(settings, tmp_path / "training", "first")
    config = config.model_copy(update={"processes": 2})
    assert "pairs.parquet" in failure_of(config)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_folder_of_the_working_directory_never_passes_for_this_package(
    tmp_path, settings, monkeypatch, processes
):
    another = tmp_path / "work" / "embed_assets"
    another.mkdir(parents=True)
    (another / "__init__.py").write_text("raise SystemExit('another embed_assets')")
    (tmp_path / "work" / "polars.py").write_text("raise SystemExit('another polars')")
    monkeypatch.chdir(another.parent)
    config = config_of(settings, tmp_path / "training", "first")
    config = config.model_copy(update={"processes": processes})
    assert "pairs.parquet" in failure_of(config), "ours began, and found that nothing was prepared"


def test_a_training_in_a_folder_where_another_trains_says_so(tmp_path, settings):
    config = config_of(settings, tmp_path / "training", "first")
    with training_lock(config.folder):
        assert f"still trains in {config.folder}" in failure_of(config)


def test_a_training_that_is_killed_says_that_memory_may_have_lacked(
    tmp_path, settings, monkeypatch
):
    monkeypatch.setattr(training, "training_command", lambda config: ["sh", "-c", "kill -9 $$"])
    said = failure_of(config_of(settings, tmp_path / "training", "first"))
    assert re.search("code -9.*lack of memory.*EMBED_ASSETS_BATCH_SIZE", said)


@pytest.mark.parametrize(("name", "value"), [("method", "lora"), ("loss", "gist")])
def test_what_needs_a_transformer_says_so_of_static_embeddings(tmp_path, name, value):
    settings = Settings.model_validate({"model": str(make_static_model(tmp_path)), name: value})
    with pytest.raises(SettingsError, match=f"{name.upper()}={value} needs a transformer"):
        config_of(settings, tmp_path / "training", "first")


def test_a_version_is_kept_whole_whatever_was_there(tmp_path):
    model, kept = tmp_path / "training" / "model", tmp_path / "v1"
    for folder in (model, kept, tmp_path / "training" / "copy"):
        folder.mkdir(parents=True)
    (model / "weights").write_text("new")
    (kept / "old").write_text("of another registry")
    (tmp_path / "training" / "copy" / "half").write_text("cut off")
    assert _keep(model, kept) == kept
    assert [path.name for path in kept.iterdir()] == ["weights"]
    assert [path.name for path in model.parent.iterdir()] == ["model"]
