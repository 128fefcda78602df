"""A version's card, written anew once the version has been compared."""

from collections.abc import Callable

import polars as pl

from embed_assets.comparison.verdict import (
    SPLIT_TITLES,
    Comparison,
    headline_row,
    reservations,
    verdict_sentence,
)
from embed_assets.errors import one_line
from embed_assets.pairs.splits import VALIDATION
from embed_assets.resources.warehouse import Warehouse
from embed_assets.secrets import hide_secrets
from embed_assets.settings import Settings
from embed_assets.training.hub_card import Judgement, keep_card

TITLES = {**SPLIT_TITLES, VALIDATION: "validation questions, by which the epoch was chosen"}
MODEL_CARD = "model_card.md"
"""What the card is called in MLflow, where a run's artifacts are of many kinds."""


def judgement_of(result: Comparison) -> Judgement:
    """What a comparison says in the card of its version."""
    headline_first = pl.col("split") != result.headline_split
    return Judgement(
        verdict=verdict_sentence(headline_row(result.against)),
        reservations=reservations(result.against, result.hybrid),
        against=result.against.sort(headline_first, maintain_order=True),
        titles=TITLES,
    )


def rewrite_card(
    warehouse: Warehouse,
    settings: Settings,
    version: str,
    result: Comparison,
    warn: Callable[[str], None],
) -> None:
    """Write the card with the figures of a comparison, and log it to the MLflow run.

    Where that can't be done, the comparison warns, and does not fail.
    """
    import mlflow

    file = keep_card(warehouse, settings, version, warn, judgement_of(result))
    if file is None:
        return
    try:
        mlflow.log_text(file.read_text(encoding="utf-8"), MODEL_CARD)
    except Exception as error:  # of whatever library: the verdict is worth more than the card
        reason = one_line(hide_secrets(str(error)))
        warn(f"MLflow takes no card of version {version}: {reason}")
