"""How what would train differs from what the newest version was trained on, as it is on record.

What follows from it is decided in `retraining.py`.
"""

from datetime import datetime
from pathlib import Path

import polars as pl

from embed_assets.automation.retraining import Untrained
from embed_assets.errors import ProjectError
from embed_assets.pairs.changes import changed_since, unpaired_since
from embed_assets.pairs.selection import why_too_few
from embed_assets.pairs.splits import TRAIN
from embed_assets.resources.ledger import UNPARTITIONED, Records
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.preparation import pairs_to_train, read_pairs

FEW = 2000
"""Questions, below which it is looked at before a run whether they are enough."""
PAIR = ["anchor", "global_chunk_id"]


def read_untrained(warehouse: Warehouse, settings: Settings, records: Records) -> Untrained:
    """The difference as it is. Changes nothing."""
    newest = warehouse.read(
        "SELECT version, pairs, trained_at FROM models ORDER BY trained_at DESC LIMIT 1"
    )
    too_few = why_too_few(warehouse) if warehouse.count("synthetic_questions") < FEW else None
    if ("training_pairs", UNPARTITIONED) not in records.made:
        return Untrained(since=unpaired_since(warehouse), too_few=too_few)
    trained_on = records.made.get(("finetuned_model", UNPARTITIONED))
    since = [changed_since(warehouse, trained_on.input_version if trained_on else None)]
    made = records.made["training_pairs", UNPARTITIONED]
    if made.input_version != records.input_version("training_pairs"):
        since.append(unpaired_since(warehouse))
    oldest = min(filter(None, since), default=None)
    exist = _training_pairs(warehouse)
    chosen = pairs_to_train(exist, settings)
    if newest.is_empty():
        return Untrained(pairs=chosen.height, new=chosen.height, since=oldest, too_few=too_few)
    version, file, trained_at = newest.row(0)
    kept = settings.home / (file or "")
    trained = (
        _kept_pairs(kept) if kept.is_file() else _pairs_of_documents(warehouse, version, exist)
    )
    differ = chosen.join(trained, on=PAIR, how="anti")
    same_question = differ.join(trained, on="anchor", how="semi")
    return Untrained(
        pairs=chosen.height,
        new=differ.height - same_question.height,
        changed=same_question.height,
        removed=trained.join(exist, on="anchor", how="anti").height,
        since=oldest,
        trained_at=trained_at,
        scored_at=_made_at(warehouse, "comparison"),
        forgotten=_learned_what_was_forgotten(warehouse, version),
        too_few=too_few,
    )


def _training_pairs(warehouse: Warehouse) -> pl.DataFrame:
    """Pairs that train, selected or not; none where there is nothing to train on."""
    try:
        return read_pairs(warehouse).filter(split=TRAIN)
    except ProjectError:
        schema = dict.fromkeys(["question_id", *PAIR, "generator", "sha256"], pl.String)
        return pl.DataFrame(schema=schema)


def _kept_pairs(file: Path) -> pl.DataFrame:
    kept = pl.read_parquet(file, columns=["anchor", "chunk_id"])
    return kept.rename({"chunk_id": "global_chunk_id"})


def _pairs_of_documents(warehouse: Warehouse, version: str, exist: pl.DataFrame) -> pl.DataFrame:
    """Pairs of the documents that a version was trained on: of one of 0.1.0 no more is known."""
    documents = warehouse.read("SELECT sha256 FROM model_documents WHERE version = ?", [version])
    return exist.join(documents, on="sha256", how="semi").select(PAIR)


def _made_at(warehouse: Warehouse, asset: str) -> datetime | None:
    made = warehouse.read("SELECT materialized_at FROM materializations WHERE asset = ?", [asset])
    return None if made.is_empty() else made.item()


def _learned_what_was_forgotten(warehouse: Warehouse, version: str) -> bool:
    rows = warehouse.read(
        "SELECT count(*) FROM forgotten WHERE list_contains(versions, ?)", [version]
    )
    return bool(rows.item())
