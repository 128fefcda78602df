"""A home that version 0.1.0 made is taken up: what it has trained is not trained anew.

The ledger of 0.1.0 knew neither attempts nor parts of the pairs, and the code version of a model
held every setting under one digest.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from embed_assets.graph import GRAPH, TRAINING
from embed_assets.models.card import model_card
from embed_assets.pairs.parts import part_versions
from embed_assets.questions.assets import unanswered
from embed_assets.resources.ledger import (
    UNPARTITIONED,
    Ledger,
    Materialization,
    Records,
    Slice,
    next_attempt,
    write_made,
    write_tried,
)
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.training.assets import code_versions

VERSION = "0.1.0"
Row = TypeVar("Row")


def take_up(warehouse: Warehouse, settings: Settings) -> None:
    """Translate the ledger of 0.1.0; a home of today stays as it is."""
    if _is_of_today(Ledger(warehouse).read("training_pairs"), warehouse):
        return
    before = Ledger(warehouse).read()
    after = taken_up(before, warehouse, settings)
    with warehouse.transaction() as transaction:
        for asset in GRAPH:
            made = _of(asset, {k: v for k, v in after.made.items() if before.made.get(k) != v})
            tried = _of(asset, {k: v for k, v in after.tried.items() if k not in before.tried})
            dropped = _of(asset, {k: v for k, v in before.made.items() if k not in after.made})
            write_made(transaction, asset, made, VERSION)
            write_tried(transaction, asset, tried, VERSION)
            where = {"asset": [asset], "document_id": list(dropped)}
            transaction.delete("materializations", where)


def taken_up(records: Records, warehouse: Warehouse, settings: Settings) -> Records:
    """Records of 0.1.0 in today's words; those of today are given back. Changes nothing."""
    if _is_of_today(records, warehouse):
        return records
    pairs = records.made.get(("training_pairs", UNPARTITIONED))
    made, tried = dict(records.made), dict(records.tried)
    if pairs is not None:
        columns = ", ".join(TABLES["training_pairs"].columns)
        parts = part_versions(
            warehouse.read(f"SELECT {columns} FROM training_pairs"),
            warehouse.read("SELECT document_id, chunk_index, chunk_id FROM chunks"),
        )
        made["training_pairs", UNPARTITIONED] = replace(pairs, parts=parts)
        made |= _made_of_pairs(records, settings, parts)
    failures = unanswered(warehouse.read("SELECT * FROM synthetic_questions WHERE question = ''"))
    for key, failure in failures.items():
        if asked := made.get(("synthetic_questions", key)):
            about = (asked.code_version, asked.input_version)
            of = ("synthetic_questions", key)
            tried[of] = next_attempt(None, failure, *about, datetime.now(UTC))
    # 0.1.0 took passing causes for facts about the file: what failed is read once more.
    failed = warehouse.read(
        "SELECT document_id FROM parsed_markdown WHERE page = 0 AND parser_status = 'ERROR'"
    )
    for key in failed["document_id"]:
        made.pop(("parsed_markdown", key), None)
    return Records(made, tried)


def _is_of_today(records: Records, warehouse: Warehouse) -> bool:
    """Whether a ledger knows attempts, and parts of the pairs if there are any."""
    tables = "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'attempts'"
    pairs = records.made.get(("training_pairs", UNPARTITIONED))
    return bool(warehouse.read(tables).item()) and (pairs is None or bool(pairs.parts))


def _of(asset: str, slices: Mapping[Slice, Row]) -> dict[str, Row]:
    """Those of an asset, by document."""
    return {key: row for (name, key), row in slices.items() if name == asset}


def _made_of_pairs(
    records: Records, settings: Settings, parts: Mapping[str, str]
) -> dict[Slice, Materialization]:
    """Today's record of the newest model, where that of 0.1.0 says that it is up to date."""
    made_from = digest(
        sorted(
            (asset, key, row.data_version)
            for (asset, key), row in records.made.items()
            if asset in ("training_pairs", "chunks") and row.data_version
        )
    )
    model = records.made.get(("finetuned_model", UNPARTITIONED))
    as_of_then = (_code_version(settings), made_from)
    if model is None or (model.code_version, model.input_version) != as_of_then:
        return {}
    code = code_versions(settings)["finetuned_model"]
    today = replace(model, code_version=code, input_version=parts[TRAINING])
    return {("finetuned_model", UNPARTITIONED): today}


def _code_version(settings: Settings) -> str:
    """Code version of finetuned_model as 0.1.0 made it of these settings."""
    card = model_card(settings)
    shape: tuple[object, ...] = (
        settings.method,
        settings.max_pairs,
        settings.learning_rate,
        settings.seed,
    )
    if settings.method != "adapter":
        no_dropout, no_patience = 0.0, 0
        shape += (
            settings.epochs,
            settings.batch_size,
            settings.pairs_together,
            settings.loss,
            settings.hard_negatives,
            settings.frozen_share,
            no_dropout,
            no_patience,
            settings.merge,
            settings.processes,
        )
    about = (card.name, card.query_prompt, card.document_prompt, card.token_limit)
    return f"3.1, {digest((*about, settings.dimensions, shape, settings.precision))}"
