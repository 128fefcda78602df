"""finetuned_model: the base model, fine-tuned on the training pairs in a child process."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.errors import DagsterPipesExecutionError  # Dagster doesn't export it
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from embed_assets.errors import ProjectError
from embed_assets.machine import this_machine
from embed_assets.models.card import model_card, version_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.identity import model_shape
from embed_assets.models.registry import check_versions, register
from embed_assets.partitions import asset
from embed_assets.resources.materializing import Materializing, materializing
from embed_assets.resources.tracking import Tracking, as_params
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings, Training
from embed_assets.training.claims import claimed, clear_trainings
from embed_assets.training.config import TrainingConfig, as_meant, training_config
from embed_assets.training.launch import training_command, training_environment
from embed_assets.training.preparation import (
    TrainingInput,
    pairs_to_train,
    prepare,
    read_training_input,
)
from embed_assets.training.record import PAIRS, keep_version, model_row, record_version

TRAINING_VERSION = "4"
KILLED = ("code -9", "code 137")
"""How Dagster's message ends where the process was killed: the exit status stands nowhere else."""


class TrainingError(ProjectError):
    """The training process failed; the message says why."""


def _option(field: FieldInfo) -> tuple[Any, Any]:
    """A setting as a run's config has it: unset, or as in the environment."""
    kind = field.annotation if field.annotation in (int, float, int | None, float | None) else str
    return kind | None, Field(default=None, description=field.description)


_OPTIONS: dict[str, Any] = {name: _option(field) for name, field in Training.model_fields.items()}
_Options = create_model("_Options", __base__=dg.Config, **_OPTIONS)


class TrainingOptions(_Options):
    """Training settings for one run, in Dagster's Launchpad. Unset: as in the environment."""

    @property
    def given(self) -> dict[str, Any]:
        """Those that are set, by name."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


@asset("finetuned_model", kinds={"huggingface", "pytorch", "mlflow"})
def finetuned_model(
    context: dg.AssetExecutionContext,
    config: TrainingOptions,
    warehouse: Warehouse,
    tracking: Tracking,
    pipes: dg.PipesSubprocessClient,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """The fine-tuned embedding model, registered in MLflow and as a plain folder."""
    with materializing(context, warehouse, tracking, Path(settings.model).name) as making:
        settings = settings.changed(config.given)
        check_versions(warehouse, tracking)
        given = read_training_input(warehouse)
        pairs = pairs_to_train(given.pairs, settings)
        folder = training_folder(settings, making.input_version, pairs)
        with claimed(folder):
            training = _prepare(making, settings, folder, given)
            _log_beginning(context, training, pairs, given.pairs.height)
            trained_in = _train(context, pipes, training, tracking.uri)
            result = _log_result(training)
            version = register(tracking, training.model, trained_in)
            path = keep_version(training.model, pairs, settings.models / f"v{version}")
            row = _row(making, settings, training, version, path, result["machine"])
            with making.storing() as transaction:
                record_version(transaction, row, pairs)
    clear_trainings(settings.models)
    return making.result(
        version=version,
        path=dg.MetadataValue.path(path),
        **{"dagster/row_count": pairs.height},
        **{key: value for key, value in result.items() if value is not None},
    )


def training_folder(settings: Settings, input_version: str, pairs: pl.DataFrame) -> Path:
    """Where these pairs are trained on by these settings: what was cut off is taken up there.

    pairs: in their order, since a training that is taken up goes on in the middle of an epoch.
    """
    made_from = (input_version, code_versions(settings), pairs["question_id"].to_list())
    return settings.models / f"training-{digest(made_from)}"


def _prepare(
    making: Materializing, settings: Settings, folder: Path, given: TrainingInput
) -> TrainingConfig:
    card = model_card(settings)
    config = training_config(folder, settings, card, making.run_id)
    encoder = CachedEncoder(making.warehouse, card, settings.precision)
    return prepare(config, settings, encoder, given)


def _log_beginning(
    context: dg.AssetExecutionContext, config: TrainingConfig, pairs: pl.DataFrame, every: int
) -> None:
    """Say what is trained on, and how. every: pairs that there are."""
    import mlflow
    from mlflow.data.polars_dataset import from_polars

    if pairs.height < every:
        context.log.info(
            f"Of {every:,} training pairs {pairs.height:,} are trained on (EMBED_ASSETS_MAX_PAIRS)."
        )
    mlflow.log_params(as_params(config.told))
    mlflow.log_input(from_polars(pairs, name="training_pairs"), context="training")


def _train(
    context: dg.AssetExecutionContext,
    pipes: dg.PipesSubprocessClient,
    config: TrainingConfig,
    tracking_uri: str,
) -> str:
    """The MLflow run that trained the model: an earlier one, if only its recording was cut off."""
    if config.model.is_dir() and config.result.is_file():
        context.log.info("The model was trained before the last run ended: it is taken up.")
        return json.loads(config.path.read_text(encoding="utf-8"))["mlflow_run_id"]
    config.path.write_text(config.model_dump_json(indent=2), encoding="utf-8")
    config.failure.unlink(missing_ok=True)
    try:
        pipes.run(
            command=training_command(config),
            env=training_environment(config.processes, this_machine(), tracking_uri),
            context=context.op_execution_context,
        )
    except DagsterPipesExecutionError as error:
        raise TrainingError(_why(config, str(error))) from error
    return config.mlflow_run_id


def _why(config: TrainingConfig, error: str) -> str:
    """Why a training failed, in its own words where it had time for some."""
    if config.failure.is_file():
        return config.failure.read_text(encoding="utf-8")
    if error.endswith(KILLED):
        return (
            f"The training was killed ({error}). If the system did it for lack of memory: a "
            "smaller EMBED_ASSETS_BATCH_SIZE needs less."
        )
    return f"The training ended without saying why ({error}). Its output is in the run's logs."


def _log_result(config: TrainingConfig) -> dict[str, Any]:
    """What the training returned."""
    import mlflow

    result = json.loads(config.result.read_text(encoding="utf-8"))
    mlflow.log_metrics({k: v for k, v in result.items() if isinstance(v, int | float)})
    return result


def _row(
    making: Materializing,
    settings: Settings,
    config: TrainingConfig,
    version: str,
    path: Path,
    machine: str,
) -> pl.DataFrame:
    """The version's row of `models`. path: its folder. machine: that it was trained on."""
    encoder = CachedEncoder(making.warehouse, version_card("tuned", path), settings.precision)
    return model_row(
        config,
        version=version,
        base=settings.model,
        path=path.relative_to(settings.home).as_posix(),
        pairs=(path / PAIRS).relative_to(settings.home).as_posix(),
        machine=machine,
        input_version=making.input_version,
        mlflow_run_id=making.run_id,
        dagster_run_id=making.context.run.run_id,
        trained_at=datetime.now(UTC),
        fingerprints=encoder.fingerprints,
    )


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the training and of every setting that shapes a model."""
    shape = settings.shape("finetuned_model", **model_shape(settings), **as_meant(settings))
    return {"finetuned_model": f"{TRAINING_VERSION}, {digest(shape)}"}
