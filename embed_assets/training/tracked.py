"""What MLflow is told of a training: how it is made, what it returned, and which version it is."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import polars as pl

from embed_assets.models.card import ModelCard
from embed_assets.models.names import told_name
from embed_assets.pairs.splits import IN_WORDS
from embed_assets.resources.datasets import log_dataset
from embed_assets.resources.headline import headline_metrics
from embed_assets.resources.warehouse import digest
from embed_assets.training.config import TrainingConfig
from embed_assets.training.progress import send_kept_metrics
from embed_assets.training.record import PAIRS
from embed_assets.wording import counted

LINEAGE = "lineage"
"""Folder of a run's artifacts: the very pairs."""
RESULT = "result"
"""What stands before the names of what a training returned."""


def log_settings(config: TrainingConfig, card: ModelCard) -> None:
    """Add what shapes the model to the MLflow run; the base by its name, not by its path here."""
    import mlflow

    figures = {"base_ndcg_at_10"}
    told = {name: value for name, value in config.told.items() if name not in figures}
    mlflow.log_params({**told, "base": told_name(card.name)})


def log_result(config: TrainingConfig) -> dict[str, Any]:
    """Add what the training returned to the MLflow run; gives it without what it could not say."""
    import mlflow

    send_kept_metrics(config)
    result = json.loads(config.result.read_text(encoding="utf-8"))
    figures = {f"{RESULT}/{k}": v for k, v in result.items() if isinstance(v, int | float)}
    first = headline_metrics({"training_seconds": result.get("seconds")})
    mlflow.log_metrics({**first, **figures})
    return {name: value for name, value in result.items() if value is not None}


def model_name(base: str, pairs: pl.DataFrame) -> str:
    """What MLflow calls a model before it has a version; it allows no `.` and `/` there."""
    documents = counted(pairs["document_id"].n_unique(), "document")
    name = f"{PurePath(base).name} on {counted(pairs.height, 'pair')} of {documents}"
    return "".join("-" if sign in "/:.%\"'" else sign for sign in name)


def log_version(run_id: str, version: str, base: str, folder: Path) -> None:
    """Name a training's MLflow run after its version, and add the very pairs to it.

    As Parquet, and as a dataset. folder: of the version. Done once; of a version of an older
    release, which kept no pairs, never.
    """
    from mlflow import MlflowClient

    file, client = folder / PAIRS, MlflowClient()
    if not file.is_file() or client.list_artifacts(run_id, LINEAGE):
        return
    pairs = pl.read_parquet(file)
    client.set_tag(run_id, "mlflow.runName", f"finetuned_model v{version} {PurePath(base).name}")
    name, source = f"training_pairs v{version}", f"{folder.parent.name}/{folder.name}/{PAIRS}"
    log_dataset(run_id, pairs, name, pairs_version(pairs), {"file": source}, "training")
    client.log_artifact(run_id, str(file), LINEAGE)  # the last: where it is, the rest is too


def pairs_version(pairs: pl.DataFrame) -> str:
    """Digest of the pairs of a version: the same pairs have the same."""
    texts = pairs.select("question_id", "anchor", "positive").sort("question_id")
    return digest(texts.rows())


def version_tags(record: Mapping[str, Any]) -> dict[str, str]:
    """What made a version, as tags of it and of its MLflow run.

    record: as `version_lineage` gives it.
    """
    file = Path(record["pairs"] or "")
    tags = {
        "base": told_name(record["base"]),
        "base_revision": record["base_revision"],
        "trained_from": record["trained_from"] and f"v{record['trained_from']}",
        "documents": len(record["documents"]),
        "pairs": record["questions"],
        "splits": said_splits(record["splits"]),
        "pairs_version": pairs_version(pl.read_parquet(file)) if file.is_file() else None,
        "code": record["code"],
        "machine": record["machine"],
    }
    return {name: str(value) for name, value in tags.items() if value not in (None, "")}


def said_splits(splits: Mapping[str, int] | None) -> str:
    """Questions of each split, in words; nothing of a version without a record of them."""
    counts = splits or {}
    return ", ".join(
        f"{counts[split]:,} {known.counted}"
        for split, known in reversed(IN_WORDS.items())
        if split in counts
    )
