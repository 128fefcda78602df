"""synthetic_questions: what the generator makes, beside what people wrote."""

from collections import Counter

import dagster as dg
import polars as pl

from embed_assets.partitions import BATCHES, documents
from embed_assets.questions.generation import generate_questions, generator_version
from embed_assets.questions.labelled import VERSION as LABELLED_VERSION
from embed_assets.questions.labelled_files import read_labelled
from embed_assets.questions.openai import Limits
from embed_assets.questions.statuses import KEPT
from embed_assets.questions.writing import Writing
from embed_assets.resources.answers import AnswerStore
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings

BUDGET_TAG = "embed_assets/command"
"""Runs with the same value share the budget for language models."""


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
    answers: AnswerStore,
    settings: dg.ResourceParam[Settings],
) -> pl.DataFrame:
    """Questions that each chunk answers: made by the generator, or imported from people's files."""
    labelled = read_labelled(settings.labelled_files, settings.labelled_purpose)
    paths = warehouse.paths(context.partition_keys)
    tags = context.run.tags
    session = tags.get(BUDGET_TAG) or tags.get("dagster/backfill") or context.run_id
    writing = Writing(settings, answers, session, context.log.info)
    questions = generate_questions(chunks, labelled, paths, writing)
    for row in questions.filter(pl.col("status") != KEPT).iter_rows(named=True):
        what = f"'{row['question']}'" if row["question"] else f"chunk {row['chunk_id']}"
        context.log.warning(f"{row['status']}: {what} ({row['document_id']}) {row['reason'] or ''}")
    context.add_output_metadata(_counts(questions, Limits.of(settings)))
    return questions


def _counts(questions: pl.DataFrame, limits: Limits) -> dict[str, int | float]:
    """How many questions there are of each status, and what they took, whenever that was."""
    counts: dict[str, int | float] = {
        f"questions_{status.lower()}": n
        for status, n in sorted(Counter(questions["status"]).items())
    }
    read, written = (int(questions[f"{name}_tokens"].sum()) for name in ("input", "output"))
    if read or written:
        counts |= {"input_tokens": read, "output_tokens": written}
    if cost := limits.cost(read, written):
        counts["cost"] = cost
    return counts


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the generator and of the files of people's questions."""
    version = generator_version(settings)
    rows = read_labelled(settings.labelled_files, settings.labelled_purpose)
    if rows:
        version += f", {LABELLED_VERSION} {digest(rows)}"
    return {"synthetic_questions": version}
