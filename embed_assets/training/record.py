"""What is kept of a version: its folder with the very pairs, and how and from what it was made."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.resources.warehouse import Transaction
from embed_assets.tables import TABLES
from embed_assets.training.config import TrainingConfig

PAIRS = "pairs.parquet"
PAIR_COLUMNS: Mapping[str, str] = {
    "question_id": "question_id",
    "anchor": "anchor",
    "positive": "positive",
    "chunk_id": "global_chunk_id",
    "relevant_chunk_ids": "relevant_chunk_ids",
    "document_id": "document_id",
    "path": "path",
    "sha256": "sha256",
    "generator": "generator",
}
"""Columns of a version's pairs, and what training calls them."""


def keep_version(model: Path, pairs: pl.DataFrame, folder: Path) -> Path:
    """Copy a model into the folder of its version, and its pairs beside it; whole or not at all.

    The training's own folder stays until the version is recorded: a run that is killed before that
    is taken up, and trains nothing.
    """
    copy = model.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(model, copy)  # not linked: some file systems know no links
    pairs.select(**PAIR_COLUMNS).write_parquet(copy / PAIRS)
    shutil.rmtree(folder, ignore_errors=True)
    return copy.rename(folder)


def model_row(config: TrainingConfig, **columns: Any) -> pl.DataFrame:
    """Row of `models`. columns: those that neither the config nor this package knows."""
    settings = json.dumps(config.told, ensure_ascii=False)
    row = {"settings": settings, "code": this_code(), **columns}
    return pl.DataFrame([row], schema=TABLES["models"].schema)


def record_version(transaction: Transaction, row: pl.DataFrame, pairs: pl.DataFrame) -> None:
    """Remember a version, and which PDFs made it with how many pairs each.

    row: of `models`. pairs: those that it was trained on.
    """
    version = row["version"].item()
    documents = (
        pairs.group_by("document_id", "path", "sha256")
        .agg(questions=pl.len().cast(pl.Int64))
        .with_columns(version=pl.lit(version))
    )
    transaction.replace("models", row, {"version": [version]})
    transaction.replace("model_documents", documents, {"version": [version]})


def this_code() -> str:
    """Version of this package, and the commit that it stands at where it runs from a checkout."""
    here = Path(__file__)
    # In another project's checkout a package is installed, not tracked.
    tracked = _git(here.parent, "ls-files", "--error-unmatch", here.name)
    commit = tracked and _git(here.parent, "describe", "--always", "--dirty", "--exclude=*")
    released = f"embed-assets {version('embed_assets')}"
    return f"{released}, commit {commit}" if commit else released


def _git(folder: Path, *arguments: str) -> str:
    """What git says; nothing where there is no git, or no repository."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        said = subprocess.run(command, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.decode(errors="replace").strip() if said.returncode == 0 else ""
