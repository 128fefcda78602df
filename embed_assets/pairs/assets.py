"""training_pairs: every question that trains, chooses or tests a model, with its split."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl

from embed_assets.charts import to_markdown, to_png
from embed_assets.graph import TRAINING
from embed_assets.models.identity import model_shape
from embed_assets.pairs.changes import last_version, record_change, unpaired_since
from embed_assets.pairs.parts import part_versions
from embed_assets.pairs.realism import read_realism, realism_table
from embed_assets.pairs.selection import Pairs, corpus_filter, make_pairs
from embed_assets.pairs.splits import SPLITS, TRAIN, check_enough
from embed_assets.partitions import asset
from embed_assets.questions.filters.names import CORPUS_FILTERS, NEED_EMBEDDINGS, enabled_filters
from embed_assets.questions.funnel import funnel_chart, funnel_lines, funnel_table, funnels
from embed_assets.questions.labelled.evidence import LABELLED
from embed_assets.questions.labelled.files import read_labelled
from embed_assets.questions.labelled.report import (
    match_table,
    report_matches,
    row_statuses,
    unmatched,
    unused_line,
)
from embed_assets.resources.ledger import PEOPLES_ROWS, data_version
from embed_assets.resources.materializing import Materializing, materializing
from embed_assets.resources.previews import shown_as_table
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings
from embed_assets.wording import printable

PAIRS_VERSION = "6"
CHECKS = (
    "no_leakage",
    "splits_are_filled",
    "documents_arrive",
    "peoples_questions_found",
    "figures_are_fresh",
)
"""Of training_pairs."""


@asset("training_pairs", kinds={"python", "duckdb"})
def training_pairs(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """Questions with the chunk that answers each, divided into what trains, chooses and tests.

    They are made from all documents together, and stay in their splits. Look at the checks first.
    """
    with materializing(context, warehouse, checks=CHECKS) as making:
        warehouse = making.warehouse
        since = unpaired_since(warehouse)
        places = warehouse.read("SELECT document_id, chunk_index, chunk_id FROM chunks")
        made = make_pairs(warehouse, corpus_filter(warehouse, settings))
        _store(making, made, places, since, code_version_parts(settings))
    report = report_matches(settings, warehouse)
    for row in unmatched(report).iter_rows(named=True):
        context.log.warning(printable(f"{row['source']}: not used: {unused_line(row)}"))
    return making.result(**_metadata(warehouse, made.pairs, report))


def _store(
    making: Materializing,
    made: Pairs,
    places: pl.DataFrame,
    since: datetime | None,
    made_by: Mapping[str, str],
) -> None:
    """Write pairs, splits and what became of each question. ProjectError where they are too few.

    places: of `chunks`. since: when the oldest of what changed them was made. made_by: parts of the
    code version.
    """
    pairs = made.pairs
    check_enough(pairs["split"], places["document_id"].n_unique(), places.height)
    parts = part_versions(pairs, places)
    others = parts[TRAINING] != last_version(making.warehouse)
    with making.storing(
        data_version=data_version("training_pairs", pairs), parts={**parts, **made_by}
    ) as transaction:
        if others:
            record_change(transaction, parts[TRAINING], since)
        transaction.replace("split_assignments", made.assignments)
        transaction.update("synthetic_questions", made.statuses)
        transaction.replace("training_pairs", pairs)


def _metadata(warehouse: Warehouse, pairs: pl.DataFrame, report: pl.DataFrame) -> dict[str, Any]:
    """What the UI shows of the pairs. report: as `report_matches` gives it."""
    counts = Counter(pairs["split"])
    without = unmatched(report).height
    stages = _stages(warehouse, report)
    examples = pairs.filter(split=TRAIN).head(8).select("anchor", "positive")
    return {
        "dagster/row_count": pairs.height,
        **{split: counts[split] for split in SPLITS},
        "peoples_questions": report.height,
        "peoples_questions_unused": without,
        "funnel": dg.MetadataValue.md("\n\n".join(funnel_lines(stages, ",  \n"))),
        "funnel_table": shown_as_table(funnel_table(stages)),
        "realism": shown_as_table(realism_table(read_realism(warehouse))),
        "preview": shown_as_table(examples),
        "funnel_chart": dg.MetadataValue.md(
            to_markdown("funnel", to_png(funnel_chart(stages), scale=1.0))
        ),
        "matches": dg.MetadataValue.md(match_table(report)),
    }


def _stages(warehouse: Warehouse, report: pl.DataFrame) -> pl.DataFrame:
    """The funnels: of people's questions by the rows of their files, used or not."""
    questions = warehouse.read(
        "SELECT document_id, kind, purpose, question, status FROM synthetic_questions "
        "WHERE question <> ''"
    )
    generated = questions.filter(pl.col("kind").ne_missing(LABELLED))
    return funnels(generated["status"], row_statuses(report, questions))


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the rules by which splits are made, and of what filters go by."""
    # The report of people's questions names rows that no document has.
    labelled = read_labelled(settings.labelled_files, settings.labelled_purpose)
    return {"training_pairs": f"{PAIRS_VERSION}, {_rules(settings, labelled)}"}


def code_version_parts(settings: Settings) -> dict[str, str]:
    """What the code version consists of, by name."""
    rows = read_labelled(settings.labelled_files, settings.labelled_purpose)
    return {"rules": f"{PAIRS_VERSION}, {_rules(settings, None)}", PEOPLES_ROWS: digest(rows)}


def _rules(settings: Settings, labelled: object) -> str:
    enabled = enabled_filters(settings.filters) & CORPUS_FILTERS
    embeds = bool(enabled & NEED_EMBEDDINGS)
    card = model_shape(settings) | {"precision": settings.precision}
    shape = settings.shape(
        "training_pairs",
        **{name: value if embeds else None for name, value in card.items()},
        filters=sorted(enabled),
        labelled=labelled,
        labelled_purpose=None,  # each row says its own
    )
    return digest(shape)
