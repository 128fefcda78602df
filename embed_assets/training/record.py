"""What is kept of a version: its folder with the very pairs, and how and from what it was made."""

import shutil
import subprocess
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.pairs.splits import SPLITS
from embed_assets.resources.warehouse import Transaction, Warehouse
from embed_assets.tables import TABLES
from embed_assets.training.config import TrainingConfig
from embed_assets.training.kept import keep_training

PAIRS = "pairs.parquet"
PAIR_COLUMNS = (
    *("question_id", "anchor", "positive", "chunk_id", "relevant_chunk_ids"),
    *("document_id", "path", "sha256", "generator", "inherited_from"),
)
"""Of a version's pairs; training calls the chunk_id global_chunk_id.

inherited_from: the version whose training the pair comes from; null of the version's own training.
"""


def keep_version(training: TrainingConfig, pairs: pl.DataFrame, folder: Path) -> Path:
    """Copy a model into the folder of its version, whole or not at all; gives that folder.

    Its pairs and what its training read stand beside it. pairs: all that it has learned from, as
    `learned_pairs` gives them.

    The training's own folder stays until the version is recorded: a run that is killed before that
    is taken up, and trains nothing.
    """
    copy = training.model.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(training.model, copy)  # not linked: some file systems know no links
    renamed = pairs.rename({"global_chunk_id": "chunk_id"})
    renamed.select(PAIR_COLUMNS).write_parquet(copy / PAIRS)
    keep_training(training, copy)
    shutil.rmtree(folder, ignore_errors=True)
    return copy.rename(folder)


def read_version_pairs(file: Path) -> pl.DataFrame:
    """The pairs that a version has learned from, as `learned_pairs` gave them.

    Those that an earlier release kept are all of the version's own training.
    """
    pairs = pl.read_parquet(file).rename({"chunk_id": "global_chunk_id"})
    if "inherited_from" in pairs.columns:
        return pairs
    return pairs.with_columns(inherited_from=pl.lit(None, pl.String))


def trained_now(warehouse: Warehouse) -> datetime:
    """The time of a version that is trained now: after every other, though the clock was set back.

    The newest version is the one that was trained last.
    """
    last = warehouse.read("SELECT max(trained_at) AS last FROM models")["last"][0]
    now = datetime.now(UTC)
    return now if last is None else max(now, last + timedelta(microseconds=1))


def record_version(transaction: Transaction, row: Mapping[str, Any], pairs: pl.DataFrame) -> None:
    """Remember a version, and which PDFs made it with how many pairs each.

    row: of `models`. pairs: all that it has learned from.
    """
    version = row["version"]
    documents = (
        pairs.group_by("document_id", "path", "sha256")
        .agg(questions=pl.len().cast(pl.Int64))
        .with_columns(version=pl.lit(version))
    )
    models = pl.DataFrame([row], schema=TABLES["models"].schema)
    transaction.replace("models", models, {"version": [version]})
    transaction.replace("model_documents", documents, {"version": [version]})


def count_splits(warehouse: Warehouse) -> dict[str, int]:
    """Questions of each split that has any."""
    rows = warehouse.read("SELECT split, count(*) FROM training_pairs GROUP BY split")
    counts = dict(rows.iter_rows())
    return {split: counts[split] for split in SPLITS if split in counts}


def redact_pairs(file: Path, names: Mapping[str, str], contents: Collection[str], text: str) -> int:
    """Take what forgotten documents say out of the pairs of a version; gives how many rows hold it.

    Rows and hashes stay, so that what a version was made of can still be counted. names: what takes
    the place of their ids and paths. contents: their sha256. text: what takes the place of texts.
    """
    pairs = pl.read_parquet(file)
    theirs = pl.col("document_id").is_in(list(names)) | pl.col("sha256").is_in(list(contents))
    count = pairs.select(theirs.sum()).item()
    redacted = pairs.with_columns(
        pl.when(theirs).then(pl.lit(text)).otherwise(column).alias(column)
        for column in ("anchor", "positive")
    ).with_columns(pl.col("document_id", "path").replace(names))
    if not redacted.equals(pairs):
        unfinished = file.with_name(f"{file.name}.unfinished")
        redacted.write_parquet(unfinished)
        unfinished.replace(file)
    return count


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
