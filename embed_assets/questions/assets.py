"""synthetic_questions: what the generator makes, beside what people wrote."""

import dagster as dg
import polars as pl

from embed_assets.partitions import BATCHES, documents
from embed_assets.questions.generation import GENERATORS, generate_questions
from embed_assets.questions.labelled import VERSION as LABELLED_VERSION
from embed_assets.questions.labelled import read_labelled
from embed_assets.questions.statuses import KEPT
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings


@dg.asset(
    partitions_def=documents,
    backfill_policy=BATCHES,
    group_name="questions",
    kinds={"python", "duckdb"},
)
def synthetic_questions(
    context: dg.AssetExecutionContext,
    chunks: pl.DataFrame,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> pl.DataFrame:
    """Questions that each chunk answers: made by the generator, or imported from people's files."""
    labelled = read_labelled(settings.labelled_files, settings.labelled_purpose)
    paths = warehouse.paths(context.partition_keys)
    questions = generate_questions(chunks, settings.questions, labelled, paths)
    for row in questions.filter(pl.col("status") != KEPT).iter_rows(named=True):
        context.log.warning(f"{row['status']}: '{row['question']}' ({row['document_id']})")
    return questions


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the generator and of the files of people's questions."""
    version = f"{settings.questions} {GENERATORS.get(settings.questions, 'unknown')}"
    rows = read_labelled(settings.labelled_files, settings.labelled_purpose)
    if rows:
        version += f", {LABELLED_VERSION} {digest(rows)}"
    return {"synthetic_questions": version}
