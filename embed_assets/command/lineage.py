"""What `lineage` prints: everything that a trained version was made from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.evaluation.retrieval import sentence_transformers_name
from embed_assets.models.identity import model_identity
from embed_assets.models.registry import aliases, newest_model, trained_version
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings


def lineage_summary(settings: Settings, version: str | None) -> dict[str, Any]:
    """What `lineage --json` prints. ProjectError if there is no such version.

    What a version that 0.1.0 trained has no record of is null.
    """
    warehouse = Warehouse(path=str(settings.warehouse))
    model = newest_model(warehouse, version)
    documents = warehouse.read(
        "SELECT document_id, path, sha256, questions FROM model_documents WHERE version = ? "
        "ORDER BY path",
        [model["version"]],
    )
    metrics = warehouse.read(
        "SELECT split, dimension, metric, k, score FROM evaluation_results "
        "WHERE run_id = ? AND model = 'tuned' ORDER BY ALL",
        [model["mlflow_run_id"]],
    )
    pairs = settings.home / model["pairs"] if model["pairs"] else None
    known = trained_version(model)
    shaping = json.loads(model["settings"] or "{}")
    return {
        "version": model["version"],
        "base": model["base"],
        "trained_from": model["trained_from"],
        "champion": aliases(warehouse, settings)["champion"] == model["version"],
        "documents": documents.drop("questions").to_dicts(),
        "questions": int(documents["questions"].sum()),
        "chunks": _chunks(pairs),
        "pairs": str(pairs) if pairs else None,
        "settings": shaping.get("used", shaping) or None,  # older rows hold those alone
        "settings_set": shaping.get("set"),
        "code": model["code"],
        "machine": model["machine"],
        "identity": model["identity"]
        or (model_identity(known.card) if known.folder.is_dir() else None),
        "dagster_run_id": model["dagster_run_id"],
        "mlflow_run_id": model["mlflow_run_id"],
        "metrics": {
            f"{split}/{sentence_transformers_name(dimension, metric, k)}": score
            for split, dimension, metric, k, score in metrics.iter_rows()
        },
    }


def _chunks(pairs: Path | None) -> list[str] | None:
    """Ids of the chunks that a version was trained on. pairs: its Parquet file."""
    if pairs is None or not pairs.is_file():
        return None
    return pl.read_parquet(pairs, columns=["chunk_id"])["chunk_id"].unique().sort().to_list()


def lineage_text(summary: Mapping[str, Any]) -> str:
    """The lineage for a person."""
    lines = [
        f"Version {summary['version']}, fine-tuned from {summary['base']} on "
        f"{summary['questions']} questions about {len(summary['documents'])} documents",
        f"Dagster run {summary['dagster_run_id']}, MLflow run {summary['mlflow_run_id']}",
    ]
    if summary["trained_from"]:
        lines[0] += f", going on from version {summary['trained_from']}"
    if summary["champion"]:
        lines[0] += "; the champion"
    made_by = (("Trained by", "code"), ("Machine", "machine"), ("Pairs", "pairs"))
    lines += [f"{title} {summary[name]}" for title, name in made_by if summary[name]]
    chosen = ", ".join(f"{name}={value}" for name, value in (summary["settings_set"] or {}).items())
    lines += [f"Settings other than the defaults: {chosen}"] if chosen else []
    return "\n".join([*lines, *(f"{d['sha256'][:12]}  {d['path']}" for d in summary["documents"])])
