"""A home that version 0.1.0 made is taken up: what it has trained is not trained anew.

The ledger of 0.1.0 knew neither attempts nor parts of the pairs, and the code version of a model
held every setting under one digest.
"""

from dataclasses import replace
from datetime import UTC, datetime

from embed_assets.graph import TRAINING
from embed_assets.models.card import model_card
from embed_assets.pairs.parts import part_versions
from embed_assets.questions.assets import unanswered
from embed_assets.resources.ledger import (
    UNPARTITIONED,
    Ledger,
    Materialization,
    Records,
    next_attempt,
    write_made,
    write_tried,
)
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.training.assets import code_versions

VERSION = "0.1.0"


def take_up(warehouse: Warehouse, settings: Settings) -> None:
    """Translate the ledger of 0.1.0; a home of today stays as it is."""
    tables = "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'attempts'"
    if warehouse.read(tables).item():
        return
    records = Ledger(warehouse).read()
    pairs = records.made.get(("training_pairs", UNPARTITIONED))
    failures = unanswered(warehouse.read("SELECT * FROM synthetic_questions WHERE question = ''"))
    now = datetime.now(UTC)
    tried = {
        key: next_attempt(None, failure, made.code_version, made.input_version, now)
        for key, failure in failures.items()
        if (made := records.made.get(("synthetic_questions", key)))
    }
    taken: dict[str, Materialization] = {}
    if pairs is not None:
        parts = part_versions(
            warehouse.read(
                f"SELECT {', '.join(TABLES['training_pairs'].columns)} FROM training_pairs"
            ),
            warehouse.read("SELECT document_id, chunk_index, chunk_id FROM chunks"),
        )
        taken["training_pairs"] = replace(pairs, parts=parts)
        if model := _model(records, settings, parts[TRAINING]):
            taken["finetuned_model"] = model
    with warehouse.transaction() as transaction:
        for asset, made in taken.items():
            write_made(transaction, asset, {UNPARTITIONED: made}, VERSION)
        write_tried(transaction, "synthetic_questions", tried, VERSION)
        # 0.1.0 took passing causes for facts about the file: what failed is read once more.
        transaction.execute(
            "DELETE FROM materializations WHERE asset = 'parsed_markdown' AND document_id IN "
            "(SELECT document_id FROM parsed_markdown WHERE page = 0 AND parser_status = 'ERROR')"
        )


def _model(records: Records, settings: Settings, pairs: str) -> Materialization | None:
    """Today's record of the newest model, where that of 0.1.0 says that it is up to date."""
    known = records.made.get(("finetuned_model", UNPARTITIONED))
    made_from = sorted(
        (asset, key, row.data_version)
        for (asset, key), row in records.made.items()
        if asset in ("training_pairs", "chunks") and row.data_version
    )
    as_of_then = (_code_version(settings), digest(made_from))
    if known is None or (known.code_version, known.input_version) != as_of_then:
        return None
    return Materialization(code_versions(settings)["finetuned_model"], pairs, known.data_version)


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
