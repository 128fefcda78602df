"""finetuned_model: the base model or the champion, fine-tuned on the pairs in a child process."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from embed_assets.errors import BusyError, ProjectError, one_line
from embed_assets.grouping import ONE_EACH, Grouping
from embed_assets.machine import Machine
from embed_assets.models.card import model_card, model_revision, version_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.identity import model_identity, model_shape
from embed_assets.models.registry import check_versions, register
from embed_assets.partitions import DOCUMENTS, asset
from embed_assets.resources.materializing import Materializing, materializing
from embed_assets.resources.previews import shown_learned
from embed_assets.resources.processes import ProcessClient
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.secrets import hide_secrets
from embed_assets.settings import Settings, Training
from embed_assets.training.claims import claimed, clear_trainings, folder_made_from
from embed_assets.training.config import TrainingConfig, as_meant, training_config
from embed_assets.training.described import describe_version
from embed_assets.training.hub_card import keep_card
from embed_assets.training.lineage import version_lineage
from embed_assets.training.preparation import TrainingInput, prepare, read_training_input
from embed_assets.training.process import TrainingError, train_in_process
from embed_assets.training.record import (
    PAIRS,
    count_splits,
    keep_version,
    record_version,
    this_code,
    trained_now,
)
from embed_assets.training.start import (
    Start,
    as_named_today,
    learned_pairs,
    pairs_from,
    training_start,
)
from embed_assets.training.tables import documents_table, first_documents
from embed_assets.training.tracked import log_result, log_settings, model_name, said_splits
from embed_assets.wording import counted

TRAINING_VERSION = "5"


TOLD = 1000
"""Documents on whose pages it is said that a version learned from them: an event of 5 to 50 ms for
each, those with the most pairs first."""


def _option(field: FieldInfo) -> tuple[Any, Any]:
    """A setting as a run's config has it: unset, or as in the environment."""
    kind = field.annotation if field.annotation in (int, float, int | None, float | None) else str
    return kind | None, Field(default=None, description=field.description)


_OPTIONS: dict[str, Any] = {name: _option(field) for name, field in Training.model_fields.items()}
_Options = create_model("_Options", __base__=dg.Config, **_OPTIONS)


class TrainingOptions(_Options):
    """Training settings for one run, in Dagster's Launchpad. Unset: as in the environment."""


@asset("finetuned_model", kinds={"huggingface", "pytorch", "mlflow"})
def finetuned_model(
    context: dg.AssetExecutionContext,
    config: TrainingOptions,
    warehouse: Warehouse,
    tracking: Tracking,
    pipes: ProcessClient,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """The embedding model, fine-tuned on the pairs: a plain folder, and a version in MLflow.

    Whether it is better, and is used, is said by comparison.
    """
    with materializing(context, warehouse, tracking, Path(settings.model).name) as making:
        warehouse = making.warehouse
        settings = settings.changed(config.model_dump(exclude_none=True))
        check_versions(warehouse, tracking)
        given, splits = read_training_input(warehouse), count_splits(warehouse)
        start = training_start(warehouse, settings, given.pairs)
        pairs = pairs_from(start, given.pairs, settings)
        folder = training_folder(settings, making.input_version, pairs, start.number)
        with claimed(folder):
            training = _prepare(making, settings, folder, given, pairs, start, pipes.machine())
            training = _train(context, pipes, training, tracking.uri)
            making.made_in = training.mlflow_run_id
            with _kept(folder, tracking):
                result = log_result(training)
                learned = learned_pairs(start, pairs)
                called = model_name(settings.model, learned)
                version = register(tracking, training.model, training.mlflow_run_id, called)
                path = _record(making, settings, training, learned, version, splits, result)
            keep_card(warehouse, settings, version, context.log.warning)
            _describe(making, settings, tracking, version)
    clear_trainings(settings.models)
    record = version_lineage(warehouse, settings, version)
    _tell_documents(context, record, settings.grouping)
    return making.result(
        **_metadata(record, settings.grouping),
        path=dg.MetadataValue.path(path),
        **{"dagster/row_count": warehouse.count("models")},
        **result,
    )


def training_folder(
    settings: Settings, input_version: str, pairs: pl.DataFrame, trained_from: str | None = None
) -> Path:
    """Where these pairs are trained on by these settings: what was cut off is taken up there.

    pairs: in their order, since a training that is taken up goes on in the middle of an epoch.
    trained_from: version that the training goes on from; None: from the base.
    """
    asked = pairs["question_id"].to_list()
    made_from = (input_version, code_versions(settings), asked, trained_from)
    return folder_made_from(settings.models, digest(made_from))


def _prepare(
    making: Materializing,
    settings: Settings,
    folder: Path,
    given: TrainingInput,
    pairs: pl.DataFrame,
    start: Start,
    machine: Machine,
) -> TrainingConfig:
    """Write what the training reads, and say what is trained on and how. machine: that trains."""
    card = model_card(settings)
    encoder = CachedEncoder(making.warehouse, card, settings)
    config = training_config(folder, settings, card, making.run_id, machine)
    config = config.model_copy(update={"trained_from": start.number, "start": start.folder})
    config = config.model_copy(update={"identity": model_identity(config.card)})
    config = prepare(config, settings, encoder, given, pairs)
    making.context.log.info(_said(start, pairs.height, given.pairs.height))
    log_settings(config, card)
    return config


def _said(start: Start, chosen: int, there: int) -> str:
    """What a training starts from and why, and on how many of the pairs that are there."""
    if start.version:
        origin = f"The training goes on from version {start.number}, the champion"
    else:
        why = f", since {start.reason}" if start.reason else ""
        origin = f"The training starts from the base model{why}"
    return f"{origin}. Of {there:,} training pairs {chosen:,} are trained on."


def _train(
    context: dg.AssetExecutionContext,
    pipes: ProcessClient,
    config: TrainingConfig,
    tracking_uri: str,
) -> TrainingConfig:
    """The training as it was made: by an earlier MLflow run, if only its recording was cut off."""
    if config.model.is_dir() and config.result.is_file():
        context.log.info("The model was trained before the last run ended: it is taken up.")
        return TrainingConfig.model_validate_json(config.path.read_bytes())
    config.path.write_text(config.model_dump_json(indent=2), encoding="utf-8")
    run = partial(pipes.run, context=context.op_execution_context)
    train_in_process(config, run, tracking_uri)
    return config


@contextmanager
def _kept(folder: Path, tracking: Tracking) -> Iterator[None]:
    """Say of what fails after a training that the model is not lost."""
    try:
        with tracking.explained("MLflow took no record of it"):
            yield
    except BusyError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, ProjectError) else f"{type(error).__name__}: "
        said = one_line(hide_secrets(f"{kind}{error}"))
        raise TrainingError(
            f"The model is trained, and kept in {folder}: the next run takes it up, without "
            f"training again. It could not be recorded: {said}"
        ) from error


def _record(
    making: Materializing,
    settings: Settings,
    config: TrainingConfig,
    pairs: pl.DataFrame,
    version: str,
    splits: Mapping[str, int],
    result: Mapping[str, Any],
) -> Path:
    """Keep a version, and all that made it; gives its folder.

    pairs: all that it has learned from. splits: questions of each split. result: of the training.
    """
    path = keep_version(config, pairs, settings.models / f"v{version}")
    encoder = CachedEncoder(making.warehouse, version_card("tuned", path), settings)
    row = {
        "version": version,
        "base": settings.model,
        "trained_from": config.trained_from,
        "path": path.relative_to(settings.home).as_posix(),
        "input_version": making.input_version,
        "mlflow_run_id": config.mlflow_run_id,
        "dagster_run_id": making.context.run.run_id,
        "trained_at": trained_now(making.warehouse),
        "fingerprints": encoder.fingerprints,
        "settings": json.dumps(
            {"set": settings.shaping_as_set, "used": settings.shaping | config.told},
            ensure_ascii=False,
        ),
        "code": this_code(),
        "machine": result["machine"],
        "identity": model_identity(version_card("tuned", path)),
        "base_identity": model_identity(model_card(settings)),
        "pairs": (path / PAIRS).relative_to(settings.home).as_posix(),
        "base_revision": model_revision(settings.model),
        "splits": json.dumps(splits),
        **{name: result.get(name) for name in ("seconds", "energy_wh", "energy_of")},
    }
    with making.storing() as transaction:
        record_version(transaction, row, pairs)
    return path


def _metadata(record: Mapping[str, Any], grouping: Grouping) -> dict[str, Any]:
    """What the UI shows of a version: its record, counts as numbers, which the UI plots."""
    chosen = ", ".join(f"{name}={value}" for name, value in record["settings_set"].items())
    documents = record["documents"]
    return {
        "version": record["version"],
        "base": record["base"],
        "base_revision": record["base_revision"] or "not known; base_identity says what it was",
        "base_identity": record["base_identity"],
        **({"trained_from": record["trained_from"]} if record["trained_from"] else {}),
        "documents": len(documents),
        "chunks": len(record["chunks"]),
        **_learned_from(documents, grouping),
        "splits": said_splits(record["splits"]),
        "settings": chosen or "as by default",
        "code": record["code"],
        "pairs_file": dg.MetadataValue.path(record["pairs"]),
    }


def _learned_from(documents: Sequence[Mapping[str, Any]], grouping: Grouping) -> dict[str, Any]:
    """The documents that made a version, each with a link to its partition's page."""
    first = first_documents(documents, grouping)
    every = documents_table(documents, grouping=grouping)
    return {
        "learned_from": dg.MetadataValue.md(first),
        **({"learned_from_all": dg.MetadataValue.md(every)} if every != first else {}),
    }


def learned_from_today(
    warehouse: Warehouse, moved: Collection[str], grouping: Grouping
) -> dg.AssetObservation | None:
    """What made the newest version, by the names of today; None where none of these made it.

    moved: ids of documents as they are now.
    """
    documents = warehouse.read(
        "SELECT document_id, path, sha256, questions FROM model_documents "
        "WHERE version = (SELECT arg_max(version, trained_at) FROM models) ORDER BY path"
    )
    pdfs = warehouse.read("SELECT document_id, path, sha256 FROM raw_pdfs ORDER BY path")
    today = (
        as_named_today(documents, pdfs)
        .group_by("document_id", maintain_order=True)  # of two copies one may be left
        .agg(pl.col("path", "sha256").first(), pl.col("questions").sum())
    )
    if set(moved).isdisjoint(today["document_id"]):
        return None
    return dg.AssetObservation(
        "finetuned_model",
        description="PDFs that it learned from have moved.",
        metadata=_learned_from(today.to_dicts(), grouping),
    )


def _tell_documents(
    context: dg.AssetExecutionContext, record: Mapping[str, Any], grouping: Grouping = ONE_EACH
) -> None:
    """Say on the page of each document's partition which version has learned from it."""
    version, partition_of = record["version"], grouping.partition_of
    known = set(context.instance.get_dynamic_partitions(DOCUMENTS))
    documents = [row for row in record["documents"] if partition_of(row["document_id"]) in known]
    documents.sort(key=lambda row: -row["questions"])
    if len(documents) > TOLD:
        context.log.info(
            f"Of {counted(len(documents) - TOLD, 'document')} the page doesn't say that version "
            f"{version} learned from it: `embed-assets lineage --document` knows it of each."
        )
    questions = Counter[str]()
    for row in documents[:TOLD]:
        questions[partition_of(row["document_id"])] += row["questions"]
    for partition, count in questions.items():
        context.log_event(
            dg.AssetObservation(
                "raw_pdfs",
                partition=partition,
                description=f"Version {version} learned from it: {counted(count, 'pair')}",
                metadata=shown_learned(version, count, record["dagster_run_id"]),
            )
        )


def _describe(
    making: Materializing,
    settings: Settings,
    tracking: Tracking,
    version: str,
) -> None:
    """Tell MLflow what the version is. It is on record by then: a server that is down costs that.

    The next comparison describes it again.
    """
    try:
        describe_version(making.warehouse, settings, tracking, version)
    except ProjectError as error:
        making.context.log.warning(str(error))


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the training and of every setting that shapes a model."""
    shape = settings.shape("finetuned_model", **model_shape(settings), **as_meant(settings))
    return {"finetuned_model": f"{TRAINING_VERSION}, {digest(shape)}"}
