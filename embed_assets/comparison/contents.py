"""What the report of a comparison holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.comparison.examples import most_changed
from embed_assets.comparison.hybrid_weights import weight_sentence
from embed_assets.comparison.learning_curve import curve_points, would_help_most
from embed_assets.comparison.measuring import Measured
from embed_assets.comparison.promotion import Promotion
from embed_assets.comparison.report import Fact, Report, render_report
from embed_assets.comparison.sources import find_sources
from embed_assets.comparison.verdict import (
    Comparison,
    full_size,
    headline_row,
    outcome,
    reservations,
)
from embed_assets.models.names import told_name
from embed_assets.pairs.realism import read_realism, realism_table
from embed_assets.pairs.splits import LABELLED
from embed_assets.resources.pages import asset_page, run_page
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import PREFIX, Settings
from embed_assets.training.lineage import version_lineage
from embed_assets.training.tracked import said_splits
from embed_assets.wording import counted, watt_hours

WRITERS = {"extractive": "rules, without a language model (extractive)"}
"""Who writes questions, where a setting's value alone says little."""


@dataclass(frozen=True)
class ComparedIn:
    """The runs of MLflow and Dagster in which a comparison was made."""

    mlflow_run_id: str
    dagster_run_id: str


def write_report(
    warehouse: Warehouse,
    settings: Settings,
    tracking: Tracking,
    figures: Measured,
    promotion: Promotion,
    compared_in: ComparedIn,
    curve: pl.DataFrame,
) -> Path:
    """The HTML report, written whole or not at all; its path.

    promotion: what became of the version that was compared. curve: as `measure_curve` gives it.
    """
    version, result = promotion.version, figures.result
    record = version_lineage(warehouse, settings, version)
    base = told_name(record["base"])
    won, lost = most_changed(warehouse, result)
    sources = find_sources(
        warehouse, record, result, [example.question_id for example in (*won, *lost)]
    )
    report = Report(
        title=f"{base}, fine-tuned on {settings.pdfs.name}: version {version}",
        created_at=datetime.now(UTC),
        headline_split=result.headline_split,
        verdict=f"{outcome(headline_row(result.against))}.",
        promotion=promotion,
        reservations=reservations(result.against, result.hybrid),
        facts=_facts(warehouse, settings, tracking, record, compared_in),
        notes=_notes(result, figures.failed),
        scores=result.scores,
        quality_kept=result.kept,
        significance=result.significance,
        realism=realism_table(read_realism(warehouse)),
        against=full_size(result.against),
        hybrid=result.hybrid,
        weights=figures.weights,
        hybrid_weight=weight_sentence(figures.weights),
        curve=curve_points(curve),
        would_help_most=would_help_most(curve),
        won=won,
        lost=lost,
        lineage=_lineage(record),
        settings={
            name: told_name(str(value)) for name, value in (record["settings"] or {}).items()
        },
        sources=sources,
        document_pages={
            source.document_id: asset_page(
                "synthetic_questions", settings.grouping.partition_of(source.document_id)
            )
            for source in sources.documents
        },
    )
    path = settings.report(version)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.stem}.unfinished{path.suffix}")
    unfinished.write_text(render_report(report), encoding="utf-8")
    return unfinished.replace(path)


def _facts(
    warehouse: Warehouse,
    settings: Settings,
    tracking: Tracking,
    record: Mapping[str, Any],
    compared_in: ComparedIn,
) -> list[Fact]:
    """What there is, and where to look further."""
    pairs = warehouse.read("SELECT split, count(*) FROM training_pairs GROUP BY split")
    counts = dict(pairs.iter_rows())
    return [
        Fact("Documents", f"{warehouse.count('raw_pdfs'):,} in the folder {settings.pdfs.name}"),
        Fact("Chunks", f"{warehouse.count('chunks'):,}, all of which every search looks through"),
        Fact("Questions", said_splits(counts)),
        Fact("Questions written by", WRITERS.get(settings.questions, settings.questions)),
        Fact("Registered as", f"{tracking.name}, version {record['version']}"),
        Fact("Model folder", f"models/{told_name(record['model'])}, in the home folder"),
        Fact(
            "Training",
            links={
                "Dagster run": record["dagster_run"],
                "MLflow run": record["mlflow_run"],
                "finetuned_model in Dagster": asset_page("finetuned_model"),
            },
        ),
        Fact(
            "Comparison",
            links={
                "Dagster run": run_page(compared_in.dagster_run_id),
                "MLflow run": tracking.run_url(compared_in.mlflow_run_id),
                "comparison in Dagster": asset_page("comparison"),
            },
        ),
    ]


def _lineage(record: Mapping[str, Any]) -> list[Fact]:
    """How a version was made. What its record doesn't know is left out."""
    base = told_name(record["base"])
    settings_set = record["settings_set"]
    known = {
        "Base model": _joined(base, record["base_revision"], "revision {}"),
        "Trained from": record["trained_from"] and f"version {record['trained_from']}",
        "Learned from": (
            f"{counted(record['questions'], 'question')} on "
            f"{counted(len(record['documents']), 'document')}"
        ),
        "Questions at the time": said_splits(record["splits"]),
        "Settings that differ": ", ".join(
            f"{PREFIX}{name.upper()}={told_name(str(value))}"
            for name, value in (settings_set or {}).items()
        )
        or ("none from the defaults" if settings_set is not None else ""),
        "Code": record["code"],
        "Machine": record["machine"],
        "Trained": f"{datetime.fromisoformat(record['trained_at']):%d %B %Y, %H:%M %Z}",
        "Took": _joined(
            record["seconds"] and f"{record['seconds']:,.0f} seconds",
            record["energy_wh"] and watt_hours(record["energy_wh"]),
            "{}",
        ),
        "Identity of the base": record["base_identity"],
        "Identity of the model": record["identity"],
    }
    return [Fact(name, value) for name, value in known.items() if value]


def _joined(first: str | None, second: str | None, form: str) -> str:
    """What is known of two things."""
    return ", ".join(filter(None, [first, form.format(second) if second else None]))


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
    notes += [f"{called} could not be measured: {reason}" for called, reason in failed.items()]
    return notes
