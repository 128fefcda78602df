"""What the report of a comparison holds."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embed_assets.comparison.examples import most_changed
from embed_assets.comparison.report import Report, render_report
from embed_assets.comparison.verdict import (
    Comparison,
    full_size,
    headline_row,
    outcome,
    reservations,
)
from embed_assets.models.card import model_card
from embed_assets.pairs.splits import LABELLED
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings


def write_report(
    warehouse: Warehouse,
    settings: Settings,
    result: Comparison,
    model: Mapping[str, Any],
    failed: Mapping[str, str],
    registered_as: str,
) -> Path:
    """The HTML report, written; its path.

    failed: why baselines could not be scored. registered_as: name of the registered model.
    """
    won, lost = most_changed(warehouse, result)
    report = Report(
        title=f"{model_card(settings).name}, fine-tuned on {settings.pdfs.name}",
        created_at=datetime.now(UTC),
        headline_split=result.headline_split,
        verdict=f"{outcome(headline_row(result.against))}.",
        reservations=reservations(result.against),
        facts={
            "Base model": str(model["base"]),
            "Fine-tuned model": f"{registered_as} version {model['version']}",
            "Model folder": str(model["path"]),
            **_counts(warehouse, model["version"]),
            "Written by": settings.questions,
            "MLflow run of the training": str(model["mlflow_run_id"]),
            "Dagster run of the training": str(model["dagster_run_id"]),
        },
        notes=_notes(result, failed),
        scores=result.scores,
        quality_kept=result.kept,
        significance=result.significance,
        against=full_size(result.against),
        won=won,
        lost=lost,
    )
    path = settings.report(model["version"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_report(report), encoding="utf-8")
    return path


def _counts(warehouse: Warehouse, version: str) -> dict[str, str]:
    """How many documents, chunks, pairs and questions there are, for the report."""
    trained_on = warehouse.read(
        "SELECT coalesce(sum(questions), 0)::BIGINT FROM model_documents WHERE version = ?",
        [version],
    ).item()
    pairs = warehouse.read(
        "SELECT split, count(*) FROM training_pairs GROUP BY split ORDER BY split"
    )
    counts = dict(pairs.iter_rows())
    return {
        "Documents": str(warehouse.count("raw_pdfs")),
        "Chunks": str(warehouse.count("chunks")),
        "Training pairs": f"{trained_on} of {counts.get('train', 0)}",
        "Questions": ", ".join(f"{n} {split}" for split, n in counts.items()),
    }


def _notes(result: Comparison, failed: Mapping[str, str]) -> list[str]:
    notes = [
        "The corpus of every search is all chunks, those of held-out documents included.",
        "The epoch was chosen on validation; the test splits were scored once, at the end.",
    ]
    if result.headline_split != LABELLED:
        few = "Too few" if LABELLED in set(result.scores["split"]) else "No"
        notes.append(
            f"{few} questions written by people: those written by a machine flatter every model."
        )
    notes += [f"{called} could not be scored: {reason}" for called, reason in failed.items()]
    return notes
