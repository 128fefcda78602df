"""Everything that a trained version was made from, as one record.

The command prints it, and the UI, MLflow, the report, the model card and the bundle show it: what
one of them says of a version, all of them say.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.errors import ProjectError
from embed_assets.evaluation.retrieval import sentence_transformers_name
from embed_assets.graph import GRAPH
from embed_assets.models.identity import model_identity
from embed_assets.models.registry import aliases, newest_model, trained_version
from embed_assets.resources.pages import asset_page, run_page
from embed_assets.resources.tracking import CHAMPION, Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings


def version_lineage(
    warehouse: Warehouse, settings: Settings, version: str | None
) -> dict[str, Any]:
    """What `lineage --json` prints. ProjectError if there is no such version.

    What a version that 0.1.0 trained has no record of is null, and so is what MLflow knows where it
    doesn't answer: `mlflow_error` says why.
    """
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
        "base_identity": model["base_identity"],
        "base_revision": model["base_revision"],
        "trained_from": model["trained_from"],
        **_known_to_mlflow(warehouse, settings, model),
        "documents": documents.to_dicts(),
        "questions": int(documents["questions"].sum()),
        "chunks": _chunks(pairs),
        "pairs": str(pairs) if pairs else None,
        "splits": json.loads(model["splits"]) if model["splits"] else None,
        "settings": shaping.get("used", shaping) or None,  # older rows hold those alone
        "settings_set": shaping.get("set"),
        "code": model["code"],
        "machine": model["machine"],
        "trained_at": model["trained_at"].isoformat(),
        "seconds": model["seconds"],
        "energy_wh": model["energy_wh"],
        "energy_of": model["energy_of"],
        "identity": model["identity"]
        or (model_identity(known.card) if known.folder.is_dir() else None),
        "model": model["path"],
        "dagster_run_id": model["dagster_run_id"],
        "dagster_run": run_page(model["dagster_run_id"]),
        "dagster_assets": {name: asset_page(name) for name in GRAPH},
        "mlflow_run_id": model["mlflow_run_id"],
        "metrics": {
            f"{split}/{sentence_transformers_name(dimension, metric, k)}": score
            for split, dimension, metric, k, score in metrics.iter_rows()
        },
    }


def _known_to_mlflow(
    warehouse: Warehouse, settings: Settings, model: Mapping[str, Any]
) -> dict[str, Any]:
    """Who is champion, the version's aliases and the page of its run. model: row of `models`."""
    tracking = Tracking(home=str(settings.home), project=settings.project)
    try:
        held = aliases(warehouse, settings)
        page = None if tracking.is_empty else tracking.run_url(model["mlflow_run_id"])
    except ProjectError as error:
        names = ("champion", "champion_version", "aliases", "mlflow_run")
        return dict.fromkeys(names) | {"mlflow_error": str(error)}
    return {
        "champion": held[CHAMPION] == model["version"],
        "champion_version": held[CHAMPION],
        "aliases": [name for name, number in held.items() if number == model["version"]],
        "mlflow_run": page,
        "mlflow_error": None,
    }


def _chunks(pairs: Path | None) -> list[str] | None:
    """Ids of the chunks that a version was trained on. pairs: its Parquet file."""
    if pairs is None or not pairs.is_file():
        return None
    return pl.read_parquet(pairs, columns=["chunk_id"])["chunk_id"].unique().sort().to_list()
