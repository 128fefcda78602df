"""training_pairs: every question that trains, chooses or tests a model, with its split."""

from collections import Counter

import dagster as dg
import polars as pl

from embed_assets.charts import to_markdown, to_png
from embed_assets.models.identity import model_shape
from embed_assets.pairs.parts import part_versions
from embed_assets.pairs.selection import corpus_filter, make_pairs
from embed_assets.pairs.splits import SPLITS, check_enough
from embed_assets.partitions import asset
from embed_assets.questions.filters.names import CORPUS_FILTERS, NEED_EMBEDDINGS, enabled_filters
from embed_assets.questions.funnel import funnel, funnel_chart
from embed_assets.questions.labelled.files import read_labelled
from embed_assets.questions.labelled.report import match_table, report_matches
from embed_assets.resources.ledger import data_version
from embed_assets.resources.materializing import materializing
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings

PAIRS_VERSION = "5"


@asset("training_pairs", kinds={"python", "duckdb"})
def training_pairs(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """(anchor, positive) pairs and test questions, in splits that never move."""
    with materializing(context, warehouse) as making:
        places = warehouse.read("SELECT document_id, chunk_index, chunk_id FROM chunks")
        made = make_pairs(warehouse, corpus_filter(warehouse, settings))
        pairs = made.pairs
        check_enough(pairs["split"], places["document_id"].n_unique(), places.height)
        with making.storing(
            data_version=data_version("training_pairs", pairs), parts=part_versions(pairs, places)
        ) as transaction:
            transaction.replace("split_assignments", made.assignments)
            transaction.update("synthetic_questions", made.statuses)
            transaction.replace("training_pairs", pairs)
    labelled = read_labelled(settings.labelled_files, settings.labelled_purpose)
    report = report_matches(warehouse, labelled)
    unmatched = report.filter(pl.col("reason").is_not_null())
    for source, file_name, question, reason in unmatched.select(
        "source", "file_name", "question", "reason"
    ).iter_rows():
        context.log.warning(f"{source}: {reason}: '{question}' ({file_name or 'any file'})")
    counts = Counter(pairs["split"])
    return making.result(
        **{"dagster/row_count": pairs.height},
        **{split: counts[split] for split in SPLITS},
        labelled_came=report.height,
        labelled_matched=report.height - unmatched.height,
        labelled_failed=unmatched.height,
        labelled_matches=dg.MetadataValue.md(match_table(report)),
        funnel=dg.MetadataValue.md(_funnel(warehouse)),
        preview=dg.MetadataValue.md(_preview(pairs)),
    )


def _funnel(warehouse: Warehouse) -> str:
    """What became of every question, as a chart and a line for those who can't see it."""
    rows = warehouse.read("SELECT status FROM synthetic_questions WHERE question <> ''")
    stages = funnel(rows["status"])
    counts = stages.select("stage", "remaining").iter_rows()
    steps = ", ".join(f"{stage} {count:,}" for stage, count in counts)
    return f"{to_markdown('funnel', to_png(funnel_chart(stages), scale=1.0))}\n\n{steps}"


def _preview(pairs: pl.DataFrame) -> str:
    rows = pairs.filter(pl.col("split") == "train").head(8)
    lines = ["| anchor | positive |", "| --- | --- |"]
    lines += [
        f"| {_cell(anchor, 120)} | {_cell(positive, 200)} |"
        for anchor, positive in rows.select("anchor", "positive").iter_rows()
    ]
    return "\n".join(lines)


def _cell(text: str, limit: int) -> str:
    line = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return line if len(line) <= limit else f"{line[:limit]}…"


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the rules by which splits are made, and of what filters go by."""
    enabled = enabled_filters(settings.filters) & CORPUS_FILTERS
    embeds = bool(enabled & NEED_EMBEDDINGS)
    card = model_shape(settings) | {"precision": settings.precision}
    shape = settings.shape(
        "training_pairs",
        **{name: value if embeds else None for name, value in card.items()},
        filters=sorted(enabled),
        # The report of people's questions names rows that no document has.
        labelled=read_labelled(settings.labelled_files, settings.labelled_purpose),
        labelled_purpose=None,  # each row says its own
    )
    return {"training_pairs": f"{PAIRS_VERSION}, {digest(shape)}"}
