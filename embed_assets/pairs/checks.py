"""Whether the pairs prove what they are to prove, and whether all documents are in them."""

import dagster as dg
import polars as pl

from embed_assets.pairs.arrivals import missing_downstream
from embed_assets.pairs.leakage import find_leaks
from embed_assets.questions.labelled.report import report_matches, unmatched, why_unmatched
from embed_assets.questions.statuses import DROPPED
from embed_assets.resources.checking import LISTED, Finding, check_result
from embed_assets.resources.previews import shown_as_table
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.wording import counted


@dg.asset_check(
    asset="training_pairs",
    description="Nothing that tests a model trains it too: no question, and no chunk of a held-out "
    "document. A leak keeps every model from promotion.",
)
def no_leakage(warehouse: Warehouse) -> dg.AssetCheckResult:
    """Leaks are errors; what tests on trained chunks by design is shown."""
    return check_result(lambda: _leaks(warehouse), dg.AssetCheckSeverity.ERROR)


def _leaks(warehouse: Warehouse) -> Finding:
    leaks = find_leaks(warehouse)
    questions, chunks = leaks.questions, leaks.chunks
    return Finding(
        not leaks.count,
        f"Questions that test and train: {questions.height}. "
        f"Chunks of held-out documents that train: {chunks.height}.",
        {
            "questions": questions.height,
            "held_out_chunks": chunks.height,
            **{f"{split}_on_trained_chunks": n for split, n in leaks.on_trained_chunks.items()},
            **_first("tested_and_trained", questions),
            **_first("trained_though_held_out", chunks),
        },
    )


@dg.asset_check(
    asset="training_pairs",
    description="Every document that has text has chunks and questions.",
)
def documents_arrive(
    warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """Documents that are missing are listed by their paths."""
    return check_result(lambda: _missing(warehouse, settings))


def _missing(warehouse: Warehouse, settings: Settings) -> Finding:
    missing = missing_downstream(warehouse, settings)
    return Finding(
        missing.is_empty(),
        f"Missing: {counted(missing.height, 'document')} with text."
        if missing.height
        else "All documents are there.",
        {"missing": missing.height, **_first("documents", missing)},
    )


def _first(name: str, rows: pl.DataFrame) -> dict[str, dg.TableMetadataValue]:
    """The first rows as a table of this name; nothing without rows."""
    return {name: shown_as_table(rows.head(LISTED))} if rows.height else {}


@dg.asset_check(
    asset="training_pairs",
    description="Every question that people wrote has its evidence in the PDFs. One without it "
    "neither trains nor tests.",
)
def peoples_questions_found(
    warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """Questions that can't be used are listed, each with why and what to do."""
    return check_result(lambda: _without_evidence(warehouse, settings))


def _without_evidence(warehouse: Warehouse, settings: Settings) -> Finding:
    report = report_matches(settings, warehouse)
    lost = unmatched(report)
    if report.is_empty():
        return Finding(True, "There are no questions that people wrote.")
    if lost.is_empty():
        return Finding(
            True, f"Of {counted(report.height, 'question')} that people wrote, all can be used."
        )
    reasons = why_unmatched(lost)
    return Finding(
        False,
        f"{lost.height} of {counted(report.height, 'question')} that people wrote can't be used: "
        + ", ".join(f"{n} {reason}" for reason, n, _ in reasons.iter_rows())
        + ".",
        {
            "questions": report.height,
            "unused": lost.height,
            "reasons": shown_as_table(reasons),
            "without_evidence": shown_as_table(
                lost.head(LISTED).select(
                    "question",
                    "file_name",
                    "source",
                    why=pl.coalesce(
                        pl.format("{}: {}", "place", "why"), pl.col("reason").replace(DROPPED)
                    ),
                )
            ),
        },
    )
