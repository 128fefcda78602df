"""synthetic_questions: what the generator makes, beside what people wrote."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl

from embed_assets.partitions import asset
from embed_assets.questions.generation import IDENTITY, generate_questions, generator_version
from embed_assets.questions.labelled.evidence import LABELLED
from embed_assets.questions.labelled.evidence import VERSION as LABELLED_VERSION
from embed_assets.questions.labelled.files import read_labelled
from embed_assets.questions.labelled.moves import read_moved
from embed_assets.questions.preview import dropped_questions, first_questions
from embed_assets.questions.statuses import CORPUS_WIDE, FAILED, KEPT, NOT_ASKED, in_words
from embed_assets.questions.written.openai import cost
from embed_assets.questions.written.writing import Writing
from embed_assets.resources.answers import AnswerStore
from embed_assets.resources.io_manager import add_partition_metadata, documents_read
from embed_assets.resources.ledger import PEOPLES_ROWS, Cause, Failure, Slices
from embed_assets.resources.previews import preview, shown_as_table
from embed_assets.resources.run_tags import BUDGET_TAG
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.wording import counted

LOGGED = 10
"""Questions of a status that are logged one by one."""


@asset("synthetic_questions", kinds={"python", "duckdb"})
def synthetic_questions(
    context: dg.AssetExecutionContext,
    chunks: pl.DataFrame,
    warehouse: Warehouse,
    answers: AnswerStore,
    settings: dg.ResourceParam[Settings],
) -> Slices:
    """Questions that each chunk answers: generated, or read from people's files.

    A document's partition shows some with their chunks, and why others are not kept.
    """
    labelled = read_moved(settings, warehouse)
    keys = documents_read(context)
    paths = warehouse.paths(keys)
    tags = context.run.tags
    session = tags.get(BUDGET_TAG) or tags.get("dagster/backfill") or context.run.run_id
    writing = Writing(settings, answers, session, context.log.info)
    questions = generate_questions(chunks, labelled, paths, writing)
    patient = warehouse.patient(context.log.warning)  # the questions are written
    questions = keep_verdicts(questions, patient, keys)
    for line in _dropped(questions):
        context.log.warning(line)
    shown = {
        key: _shown(questions.filter(document_id=key), chunks.filter(document_id=key), settings)
        for key in keys
    }
    step = context.op_execution_context.get_step_execution_context()
    add_partition_metadata(step, context.asset_key, shown, settings.grouping)
    return Slices(questions, incomplete=unanswered(questions), parts=code_version_parts(settings))


def unanswered(questions: pl.DataFrame) -> dict[str, Failure]:
    """Documents of which some chunks have no questions yet, and why: a budget before a failure."""
    failures: dict[str, Failure] = {}
    for status, cause in ((FAILED, Cause.CALL_FAILED), (NOT_ASKED, Cause.NOT_ASKED)):
        rows = questions.filter(pl.col("status") == status)
        for key, chunk_count, reason in (
            rows.group_by("document_id")
            .agg(pl.col("chunk_id").n_unique(), pl.col("reason").first())
            .iter_rows()
        ):
            failures[key] = Failure(
                cause, f"{counted(chunk_count, 'chunk')} without questions: {reason}"
            )
    return failures


def keep_verdicts(
    questions: pl.DataFrame, warehouse: Warehouse, document_ids: Sequence[str]
) -> pl.DataFrame:
    """Questions with what the filters over the whole corpus said of them the last time.

    `training_pairs` writes those verdicts, and says anew what holds when it is made again. Without
    them, questions that are made again, and come out the same, would seem to be kept.
    """
    known = warehouse.read(
        f"SELECT {', '.join(IDENTITY)}, status AS verdict FROM synthetic_questions "
        "WHERE document_id IN (SELECT unnest(?::VARCHAR[])) "
        "AND status IN (SELECT unnest(?::VARCHAR[]))",
        [list(document_ids), list(CORPUS_WIDE)],
    )
    kept = pl.when(pl.col("status") == KEPT)
    # Not by question_id: that of a document that moved since is made with its name before.
    return (
        questions.join(known, on=IDENTITY, how="left", maintain_order="left")
        .with_columns(status=kept.then(pl.coalesce("verdict", "status")).otherwise("status"))
        .drop("verdict")
    )


def _dropped(questions: pl.DataFrame) -> list[str]:
    """Lines about what was not kept: a few of each status, and how many there are."""
    lines = []
    dropped = questions.filter(pl.col("status") != KEPT)
    for (status,), rows in dropped.partition_by("status", as_dict=True).items():
        for row in rows.head(LOGGED).iter_rows(named=True):
            what = f"'{row['question']}'" if row["question"] else f"chunk {row['chunk_id']}"
            lines.append(
                f"{in_words(status)}: {what} ({row['document_id']}) {row['reason'] or ''}".rstrip()
            )
        if rows.height > LOGGED:
            lines.append(
                f"{in_words(status)}: {rows.height:,} in all; they stand in synthetic_questions."
            )
    return lines


def shown_on_record(
    warehouse: Warehouse, settings: Settings, document_ids: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """What partitions show of the questions that are on record, by document."""
    questions, chunks = (
        warehouse.read(
            f"SELECT * FROM {table} WHERE document_id IN (SELECT unnest(?::VARCHAR[])) "
            f"ORDER BY {', '.join(TABLES[table].key)}",
            [list(document_ids)],
        )
        for table in ("synthetic_questions", "chunks")
    )
    return {
        key: _shown(questions.filter(document_id=key), chunks.filter(document_id=key), settings)
        for key in document_ids
    }


def _shown(questions: pl.DataFrame, chunks: pl.DataFrame, settings: Settings) -> dict[str, Any]:
    """How many of a document's questions are kept, the first of them, and what they took.

    What they took counts whenever that was.
    """
    asked = questions.filter(pl.col("question") != "")
    others = dropped_questions(questions["status"])
    counts: dict[str, Any] = {
        "questions_kept": asked.filter(status=KEPT).height,
        "questions_by_people": asked.filter(kind=LABELLED).height,
        "questions_not_kept": others["questions"].sum(),
        **({"why_not_kept": shown_as_table(others)} if others.height else {}),
        **preview(first_questions(asked, chunks)),
    }
    read, written = (int(questions[f"{name}_tokens"].sum()) for name in ("input", "output"))
    if read or written:
        counts |= {"input_tokens": read, "output_tokens": written}
    if price := cost(settings, read, written):
        counts["cost"] = price
    return counts


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the generator and of the files of people's questions."""
    parts = code_version_parts(settings)
    version, labelled = parts["generator"], parts[PEOPLES_ROWS]
    return {
        "synthetic_questions": f"{version}, {LABELLED_VERSION} {labelled}" if labelled else version
    }


def code_version_parts(settings: Settings) -> dict[str, str]:
    """What the code version consists of, by name: a person is told which of it has changed."""
    rows = read_labelled(settings.labelled_files, settings.labelled_purpose)
    return {"generator": generator_version(settings), PEOPLES_ROWS: digest(rows) if rows else ""}
