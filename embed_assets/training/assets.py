"""finetuned_model: the base model, fine-tuned on the training pairs in a child process."""

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
from dagster._core.errors import DagsterPipesExecutionError  # Dagster doesn't export it
from filelock import Timeout

from embed_assets.errors import ProjectError
from embed_assets.evaluation.scoring import (
    mlflow_metrics,
    ndcg_table,
    retrieval_task,
    score_encoder,
    store,
)
from embed_assets.machine import this_machine
from embed_assets.models.card import model_card, version_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.identity import model_shape
from embed_assets.models.registry import register
from embed_assets.partitions import asset
from embed_assets.resources.materializing import materializing
from embed_assets.resources.tracking import Tracking, as_params
from embed_assets.resources.warehouse import Transaction, Warehouse, digest
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.training.config import TrainingConfig, training_config, without_effect
from embed_assets.training.launch import training_command, training_environment
from embed_assets.training.preparation import pairs_to_train, prepare, training_pairs
from embed_assets.training.trainer import training_lock

TRAINING_VERSION = "4"


class TrainingError(ProjectError):
    """The training process failed; the message says why."""


@asset("finetuned_model", kinds={"huggingface", "pytorch", "mlflow"})
def finetuned_model(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    tracking: Tracking,
    pipes: dg.PipesSubprocessClient,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """The fine-tuned embedding model, registered in MLflow and as a plain folder."""
    import mlflow

    card = model_card(settings)
    task = retrieval_task(warehouse)
    every_pair = training_pairs(warehouse)
    pairs = pairs_to_train(every_pair, settings)
    if pairs.height < every_pair.height:
        context.log.info(
            f"Of {every_pair.height:,} training pairs {pairs.height:,} are trained on "
            "(EMBED_ASSETS_MAX_PAIRS)."
        )
    with materializing(context, warehouse, tracking, Path(card.name).name) as making:
        run_id = making.run_id
        made_from = digest((making.input_version, making.code_version))
        folder = settings.models / f"training-{made_from}"
        config = training_config(folder, settings, card, tracking.uri, run_id)
        config = prepare(config, warehouse, settings, card, every_pair, task)
        mlflow.log_params(as_params(config.model_dump(exclude={"folder", "tracking_uri"})))
        _log_dataset(pairs)
        trained_in = _train(context, pipes, config)
        result = json.loads(config.result.read_text(encoding="utf-8"))
        mlflow.log_metrics({k: v for k, v in result.items() if isinstance(v, int | float)})
        encoder = CachedEncoder(warehouse, version_card("tuned", config.model), settings.precision)
        evaluation = score_encoder(task, encoder, config.dimensions)
        mlflow.log_metrics(mlflow_metrics(evaluation.scores))
        registered = register(tracking, config.model, trained_in)
        path = _keep(config.model, settings.models / f"v{registered}")
        store(warehouse, evaluation, "tuned", run_id)
        model = {
            "version": registered,
            "base": card.name,
            "path": str(path),
            "input_version": making.input_version,
            "mlflow_run_id": run_id,
            "dagster_run_id": context.run.run_id,
            "trained_at": datetime.now(UTC),
            "fingerprints": encoder.fingerprints,
        }
        with making.storing() as transaction:
            _record_model(transaction, model, pairs)
    _clear_trainings(settings.models)
    return making.result(
        version=registered,
        path=dg.MetadataValue.path(path),
        **{"dagster/row_count": pairs.height},
        ndcg_at_10=dg.MetadataValue.md(ndcg_table(evaluation.scores)),
        **{key: value for key, value in result.items() if value is not None},
    )


def _train(
    context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient, config: TrainingConfig
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
            env=training_environment(config.processes, this_machine()),
            context=context.op_execution_context,
        )
    except DagsterPipesExecutionError as error:
        said = config.failure.read_text(encoding="utf-8") if config.failure.is_file() else ""
        raise TrainingError(
            said
            or f"The training ended without saying why ({error}). If the system ended it for lack "
            "of memory: a smaller EMBED_ASSETS_BATCH_SIZE needs less."
        ) from error
    return config.mlflow_run_id


def _log_dataset(pairs: pl.DataFrame) -> None:
    import mlflow
    from mlflow.data.polars_dataset import from_polars

    mlflow.log_input(from_polars(pairs, name="training_pairs"), context="training")


def _keep(model: Path, path: Path) -> Path:
    """Copy the model into the folder named after its version, whole or not at all.

    What it was trained from stays until the version is recorded: a run that is killed before that
    is taken up, and trains nothing.
    """
    copy = model.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(model, copy)  # not linked: some file systems know no links
    shutil.rmtree(path, ignore_errors=True)
    return copy.rename(path)


def _clear_trainings(models: Path) -> None:
    """Delete the folders of trainings that are over, or that nothing will take up."""
    for unfinished in models.glob("training-*"):
        if not unfinished.is_dir():
            continue
        lock = training_lock(unfinished)
        try:
            with lock:
                shutil.rmtree(unfinished)
        except Timeout:  # another run trains there
            continue
        Path(lock.lock_file).unlink(missing_ok=True)


def _record_model(
    transaction: Transaction, model: Mapping[str, object], pairs: pl.DataFrame
) -> None:
    """Remember which PDFs made the model, so that `lineage` can say so later.

    model: its row of `models`. pairs: those that it was trained on.
    """
    where = {"version": [model["version"]]}
    documents = (
        pairs.group_by("document_id", "path", "sha256")
        .agg(questions=pl.len().cast(pl.Int64))
        .with_columns(version=pl.lit(model["version"]))
    )
    row = pl.DataFrame([model], schema=TABLES["models"].schema)
    transaction.replace("models", row, where)
    transaction.replace("model_documents", documents, where)


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the training and of every setting that shapes a model."""
    shape = settings.shape("finetuned_model", **model_shape(settings), **without_effect(settings))
    return {"finetuned_model": f"{TRAINING_VERSION}, {digest(shape)}"}
