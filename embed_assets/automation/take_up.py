"""A home that version 0.1.0 made is taken up: what was up to date there is not made anew.

The ledger of 0.1.0 knew neither attempts nor parts of the pairs, and its code versions were made
from settings in another way.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from filelock import FileLock

from embed_assets.automation.state import code_versions
from embed_assets.graph import GRAPH
from embed_assets.models.card import model_card
from embed_assets.pairs.parts import part_versions
from embed_assets.questions.assets import unanswered
from embed_assets.questions.filters.names import CORPUS_FILTERS, NEED_EMBEDDINGS, enabled_filters
from embed_assets.questions.labelled.files import read_labelled
from embed_assets.resources.ledger import (
    UNPARTITIONED,
    Records,
    Slice,
    next_attempt,
    read_records,
    write_made,
    write_tried,
)
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings
from embed_assets.tables import TABLES

VERSION = "0.1.0"
Row = TypeVar("Row")


def take_up(warehouse: Warehouse, settings: Settings) -> None:
    """Translate the ledger of 0.1.0; a home of today stays as it is."""
    if _is_of_today(read_records(warehouse, "training_pairs"), warehouse):
        return
    with FileLock(f"{warehouse.path}.take-up.lock"):
        before = read_records(warehouse)
        if not _is_of_today(before, warehouse):  # as it is if another process was quicker
            _rewrite(warehouse, before, taken_up(before, warehouse, settings))


def _rewrite(warehouse: Warehouse, before: Records, after: Records) -> None:
    """Store the difference."""
    with warehouse.transaction() as transaction:
        # Their keys said too little of the model: none of them can be told from a wrong one.
        transaction.delete("embeddings", {})
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
    then, today = _code_versions(settings), code_versions(settings)
    made, tried = dict(records.made), dict(records.tried)
    pairs = records.made.get(("training_pairs", UNPARTITIONED))
    if pairs is not None:
        columns = ", ".join(TABLES["training_pairs"].columns)
        parts = part_versions(
            warehouse.read(f"SELECT {columns} FROM training_pairs"),
            warehouse.read("SELECT document_id, chunk_index, chunk_id FROM chunks"),
        )
        made["training_pairs", UNPARTITIONED] = replace(pairs, parts=parts)
    for asset in ("training_pairs", "finetuned_model"):
        row = made.get((asset, UNPARTITIONED))
        as_of_then = (then[asset], _input_version(records, asset))
        if row is not None and (row.code_version, row.input_version) == as_of_then:
            inputs = Records(made).input_version(asset)
            made[asset, UNPARTITIONED] = replace(
                row, code_version=today[asset], input_version=inputs
            )
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


def _input_version(records: Records, asset: str) -> str:
    """Version of what an unpartitioned asset is made from, as 0.1.0 made it."""
    return digest(
        sorted(
            (name, key, row.data_version)
            for (name, key), row in records.made.items()
            if name in GRAPH[asset].upstream and row.data_version
        )
    )


def _code_versions(settings: Settings) -> dict[str, str]:
    """Code versions that 0.1.0 made from these settings, of the assets whose version differs."""
    return {
        "training_pairs": _pairs_version(settings),
        "finetuned_model": _model_version(settings),
    }


def _pairs_version(settings: Settings) -> str:
    enabled = enabled_filters(settings.filters) & CORPUS_FILTERS
    shape: list[object] = [sorted(enabled)]
    if "near_duplicates" in enabled:
        shape.append(0.95)  # settings of then, as they were without being set
    if "round_trip" in enabled:
        shape.append(20)
    if enabled & NEED_EMBEDDINGS:
        card = model_card(settings)
        shape += [card.name, card.query_prompt, card.document_prompt, settings.precision]
    shape.append(read_labelled(settings.labelled_files, settings.labelled_purpose))
    return f"4, {digest(shape)}"


def _model_version(settings: Settings) -> str:
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
