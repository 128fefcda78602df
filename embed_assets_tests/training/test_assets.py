"""What a training leaves, and what the next run takes up of one that was cut off."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import dagster as dg
import polars as pl
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from embed_assets.definitions import build_definitions
from embed_assets.errors import BusyError, SettingsError
from embed_assets.machine import this_machine
from embed_assets.models.card import model_card, version_card
from embed_assets.models.identity import model_identity
from embed_assets.resources.ledger import read_records
from embed_assets.resources.processes import ProcessClient
from embed_assets.resources.ray_processes import BeforeAgain
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings, Training
from embed_assets.training import assets as training
from embed_assets.training import process
from embed_assets.training.assets import TrainingOptions, _kept, _train
from embed_assets.training.claims import FolderClaimedError, training_in
from embed_assets.training.config import TrainingConfig, training_config
from embed_assets.training.launch import training_environment
from embed_assets.training.process import TrainingError, train_in_process
from embed_assets.training.record import PAIR_COLUMNS, keep_version
from embed_assets.training.tracked import pairs_version
from embed_assets_tests.tiny_model import make_static_model, make_tiny_model
from embed_assets_tests.training.trainings import fill, tracking_of


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
    return training_config(folder, settings, model_card(settings), run_id)


def test_a_model_whose_recording_was_cut_off_is_that_of_the_run_that_trained_it(tmp_path, settings):
    log, pipes = Log(), Pipes()
    first = config_of(settings, tmp_path / "training", "first")
    assert _train(log, pipes, first, "") == first  # pyright: ignore[reportArgumentType]
    assert len(pipes.commands) == 1
    (first.folder / "model").mkdir()
    first.result.write_text("{}")
    second = config_of(settings, tmp_path / "training", "second")
    assert _train(log, pipes, second, "") == first  # pyright: ignore[reportArgumentType]
    assert len(pipes.commands) == 1
    assert "taken up" in log.said[-1]


def test_a_training_that_was_cut_off_is_that_of_the_run_that_ends_it(tmp_path, settings):
    log, pipes = Log(), Pipes()
    _train(log, pipes, config_of(settings, tmp_path / "training", "first"), "")  # pyright: ignore[reportArgumentType]
    second = config_of(settings, tmp_path / "training", "second")
    assert _train(log, pipes, second, "") == second  # pyright: ignore[reportArgumentType]
    assert TrainingConfig.model_validate_json(second.path.read_text()).mlflow_run_id == "second"
    assert len(pipes.commands) == 2


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (ConnectionError("http://me:secret@mlflow is down"), "mlflow is down"),
        (MlflowException("no\nroom"), ": MLflow took no record of it: no room"),
    ],
)
def test_what_fails_after_a_training_says_that_the_model_is_kept(tmp_path, error, why):
    with pytest.raises(TrainingError) as raised, _kept(tmp_path, Tracking(home=str(tmp_path))):
        raise error
    said = str(raised.value)
    assert said.startswith(f"The model is trained, and kept in {tmp_path}: the next run takes it")
    assert why in said
    assert "secret" not in said


def test_a_home_that_is_busy_after_a_training_is_no_failure(tmp_path):
    with pytest.raises(BusyError), _kept(tmp_path, Tracking(home=str(tmp_path))):
        raise BusyError("others are at work")


def failure_of(config: TrainingConfig) -> str:
    """What is said of a training that Dagster starts, and that fails."""

    @dg.asset
    def finetuned_model(
        context: dg.AssetExecutionContext, pipes: ProcessClient
    ) -> dg.MaterializeResult:
        with pytest.raises(TrainingError) as raised:
            _train(context, pipes, config, tracking_of(config.folder))
        said.append(str(raised.value))
        return dg.MaterializeResult()

    said: list[str] = []
    config.failure.write_text("what was wrong the last time")
    dg.materialize([finetuned_model], resources={"pipes": ProcessClient()})
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
    with training_in(config.folder):
        assert f"still trains in {config.folder}" in failure_of(config)


@pytest.mark.parametrize(
    ("death", "said"),
    [
        ("kill -9 $$", "code -9.*lack of memory.*EMBED_ASSETS_BATCH_SIZE"),
        ("exit 137", "code 137.*lack of memory"),
        ("kill -11 $$", r"without saying why \(.*code -11\)"),
        ("exit 3", r"without saying why \(.*code 3\)"),
    ],
)
def test_memory_is_blamed_only_where_the_process_was_killed(
    tmp_path, settings, monkeypatch, death, said
):
    monkeypatch.setattr(process, "training_command", lambda config: ["sh", "-c", death])
    message = failure_of(config_of(settings, tmp_path / "training", "first"))
    assert re.search(said, message)
    assert ("memory" in message) == ("memory" in said)


def test_a_training_on_another_node_begins_once_the_lost_one_trains_no_more(tmp_path, settings):
    config = config_of(settings, tmp_path / "training", "first")

    def lose_node(*, before_again: BeforeAgain, **_: Any) -> None:
        config.failure.write_text("what a lost process said")
        stopped = Event()
        stopped.set()
        with training_in(config.folder), pytest.raises(FolderClaimedError):
            before_again(stopped)
        before_again(Event())
        assert not config.failure.exists()
        (tmp_path / "begun again").touch()

    train_in_process(config, lose_node, "")
    assert (tmp_path / "begun again").exists()


@pytest.mark.parametrize(("name", "value"), [("method", "lora"), ("loss", "gist")])
def test_what_needs_a_transformer_says_so_of_static_embeddings(tmp_path, name, value):
    settings = Settings.model_validate({"model": str(make_static_model(tmp_path)), name: value})
    with pytest.raises(SettingsError, match=f"{name.upper()}={value} needs a transformer"):
        config_of(settings, tmp_path / "training", "first")


def test_a_version_is_kept_whole_whatever_was_there(tmp_path, settings):
    config, kept = config_of(settings, tmp_path / "training", "first"), tmp_path / "v1"
    read = (config.pairs, config.validation, config.corpus, config.sources)
    for folder in (config.model, kept, tmp_path / "training" / "copy"):
        folder.mkdir(parents=True)
    for file in (config.path, *read, config.result):
        file.write_text(f"{file.name} of the training")
    (config.model / "weights").write_text("new")
    (kept / "old").write_text("of another registry")
    (tmp_path / "training" / "copy" / "half").write_text("cut off")
    pairs = pl.DataFrame({name: ["x"] for name in PAIR_COLUMNS})
    pairs = pairs.rename({"chunk_id": "global_chunk_id"})
    assert keep_version(config, pairs, kept) == kept
    assert {path.name for path in kept.iterdir()} == {"pairs.parquet", "training", "weights"}
    assert pl.read_parquet(kept / "pairs.parquet").columns == list(PAIR_COLUMNS)
    assert (kept / "training" / "corpus.parquet").read_text() == "corpus.parquet of the training"
    assert len(list((kept / "training").iterdir())) == len(read) + 2
    assert config.model.is_dir()
    assert not (tmp_path / "training" / "copy").exists()


# The asset itself, with a real training of a tiny model.

PASSWORD = "s3cret-word"


class Listening(ProcessClient):
    """Starts processes, and remembers what they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.told = ""

    def run(self, *, command: Any, **options: Any) -> Any:
        self.told += f"{command} {Path(command[-1]).read_text(encoding='utf-8')}"
        return super().run(command=command, **options)


@dataclass(frozen=True)
class Trained:
    """A home in which a version was trained. told: what its process was, but in its environment."""

    settings: Settings
    warehouse: Warehouse
    told: str

    @property
    def model(self) -> dict[str, Any]:
        return self.warehouse.read("SELECT * FROM models").row(0, named=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """With other settings than the environment's, as from Dagster's Launchpad."""
    home, pipes = tmp_path_factory.mktemp("home"), Listening()
    base = make_tiny_model(tmp_path_factory.mktemp("model"))
    settings = Settings(model=str(base), home=home, seed=5)
    warehouse = Warehouse.of(settings)
    fill(warehouse)
    uri = f"sqlite:///{home / 'mlflow.db'}?password={PASSWORD}"
    options = {"epochs": 1, "batch_size": 4, "merge": "0.75"}
    others = {"pipes": pipes, "io_manager": dg.mem_io_manager}
    definitions = build_definitions(settings, others)
    with dg.DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        done = definitions.resolve_job_def("train").execute_in_process(
            run_config={"ops": {"finetuned_model": {"config": options}}},
            asset_selection=[dg.AssetKey("finetuned_model")],
            instance=instance,
        )
    assert done.success
    return Trained(settings, warehouse, pipes.told)


def test_a_version_says_what_it_was_trained_with(trained: Trained) -> None:
    shaping = json.loads(trained.model["settings"])
    used = shaping["used"]
    assert (used["epochs"], used["batch_size"], used["merge"], used["seed"]) == (1, 4, 0.75, 5)
    assert used["learning_rate"] == 6e-5, "what it was, where none was set"
    assert "learning_rate" not in shaping["set"]
    assert shaping["set"]["epochs"] == 1
    assert trained.model["code"].startswith("embed-assets ")
    assert trained.model["machine"] == str(this_machine())
    assert {"questions", "filters", "model"} <= set(used), "what shaped the questions too"
    folder = trained.settings.home / trained.model["path"]
    assert trained.model["identity"] == model_identity(version_card("v1", folder))
    assert trained.model["base_identity"] == model_identity(model_card(trained.settings))


def test_a_version_keeps_the_very_pairs_that_it_was_trained_on(trained: Trained) -> None:
    assert trained.model["pairs"] == "models/v1/pairs.parquet"
    pairs = pl.read_parquet(trained.settings.home / trained.model["pairs"])
    asked = [f"q-{name}-{index}" for name in ("one", "two") for index in range(7)]
    assert pairs["question_id"].to_list() == asked
    first = pairs.row(0, named=True)
    assert first["positive"] == "one says how the valve is read"
    assert [first[name] for name in ("chunk_id", "path", "sha256", "generator")] == [
        *("one-0", "one.pdf", "sha256 of one", "openai:any")
    ]


def test_a_version_has_a_card_before_it_is_compared_and_loads_beside_it(trained: Trained) -> None:
    from sentence_transformers import SentenceTransformer

    folder = trained.settings.home / trained.model["path"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "# embed-assets v1" in card
    assert "Not yet compared" in card
    assert "Pairs of questions by `openai:any`: 14" in card
    assert SentenceTransformer(str(folder)).get_embedding_dimension() == 32


def test_mlflow_names_the_version_and_has_its_very_pairs(trained: Trained, tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{trained.settings.home / 'mlflow.db'}")
    run = client.get_run(trained.model["mlflow_run_id"])
    base = Path(trained.settings.model).name
    assert run.info.run_name == f"finetuned_model v1 {base}"
    kept = trained.settings.home / trained.model["pairs"]
    copy = client.download_artifacts(run.info.run_id, "lineage/pairs.parquet", str(tmp_path))
    assert Path(copy).read_bytes() == kept.read_bytes()
    assert run.inputs is not None
    [data] = [given.dataset for given in run.inputs.dataset_inputs]
    assert (data.name, data.source_type) == ("training_pairs v1", "file")
    assert json.loads(data.source) == {"file": "models/v1/pairs.parquet"}
    assert data.digest == pairs_version(pl.read_parquet(kept).reverse()), "in whatever order"
    [version] = client.search_model_versions("name = 'embed-assets'")
    for tags in (version.tags, run.data.tags):
        assert (tags["base"], tags["pairs"], tags["documents"]) == (base, "14", "2")
        assert tags["code"] == trained.model["code"]
    assert version.description is not None
    assert version.description.startswith("Not judged yet")
    for told in (
        "- [`one.pdf`](http://127.0.0.1:3000/assets/raw_pdfs?view=partitions&partition=one)"
        " (sha256 sha256 o, 7 pairs)",
        f"/runs/{trained.model['dagster_run_id']}",
    ):
        assert told in version.description


def test_no_parameter_tag_or_dataset_in_mlflow_is_a_path_of_this_machine(trained: Trained) -> None:
    client = MlflowClient(f"sqlite:///{trained.settings.home / 'mlflow.db'}")
    run = client.get_run(trained.model["mlflow_run_id"])
    [version] = client.search_model_versions("name = 'embed-assets'")
    assert run.inputs is not None
    told = {**run.data.params, **run.data.tags, **version.tags, "text": version.description}
    told |= {given.dataset.name: str(given.dataset) for given in run.inputs.dataset_inputs}
    places = [str(trained.settings.home), str(Path(trained.settings.model).parent), sys.prefix]
    assert [(k, v) for k, v in told.items() if any(place in str(v) for place in places)] == []


def test_settings_of_one_run_leave_a_model_that_is_not_stale(trained: Trained) -> None:
    """The ledger holds the version of the environment's settings: those that a plan goes by."""
    made = read_records(trained.warehouse).made["finetuned_model", ""]
    assert made.code_version == training.code_versions(trained.settings)["finetuned_model"]
    changed = trained.settings.changed({"epochs": 1})
    assert made.code_version != training.code_versions(changed)["finetuned_model"]


def test_a_password_is_told_to_the_process_in_its_environment_alone(trained: Trained) -> None:
    assert '"mlflow_run_id"' in trained.told, "its command line, and the config that it reads"
    assert PASSWORD not in trained.told
    assert PASSWORD in training_environment(1, this_machine(), PASSWORD).values()


def test_nothing_of_the_training_is_left_beside_the_version(trained: Trained) -> None:
    assert [path.name for path in trained.settings.models.iterdir()] == ["v1"]


def test_the_trained_model_is_scored_on_no_test_question(trained: Trained) -> None:
    assert trained.warehouse.count("evaluation_results") == 0


def test_a_wrong_setting_of_a_run_is_told_as_one_of_the_environment_is() -> None:
    options = TrainingOptions.model_validate({"method": "guess"})
    with pytest.raises(SettingsError, match=r"EMBED_ASSETS_METHOD: .*not 'guess'"):
        Settings().changed(options.model_dump(exclude_none=True))


def test_every_setting_of_the_training_can_be_set_for_a_run() -> None:
    assert set(TrainingOptions.model_fields) == set(Training.model_fields)
    assert TrainingOptions().model_dump(exclude_none=True) == {}
