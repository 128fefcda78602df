"""Every question of a document in one frame: the generator's and people's."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import polars as pl

from embed_assets.questions.extractive import VERSION as EXTRACTIVE_VERSION
from embed_assets.questions.extractive import extractive_questions
from embed_assets.questions.labelled import LabelledQuestion, labelled_questions
from embed_assets.questions.statuses import KEPT
from embed_assets.settings import Settings, SettingsError
from embed_assets.tables import TABLES

GENERATORS: Mapping[str, str] = {"extractive": EXTRACTIVE_VERSION, "none": ""}
"""Version of each generator's rules, by its name in EMBED_ASSETS_QUESTIONS."""


def check_generator(settings: Settings) -> None:
    """SettingsError unless EMBED_ASSETS_QUESTIONS names a generator."""
    if settings.questions not in GENERATORS:
        raise SettingsError(
            f"EMBED_ASSETS_QUESTIONS: no generator '{settings.questions}'. "
            f"There is {' and '.join(GENERATORS)}."
        )


def generate_questions(
    chunks: pl.DataFrame,
    generator: str,
    labelled: Sequence[LabelledQuestion],
    paths: Mapping[str, str],
) -> pl.DataFrame:
    """Rows of synthetic_questions for these documents.

    chunks: rows of the table of that name. generator: a name in GENERATORS. labelled: people's
    questions, of which those about these documents are taken. paths: document_id -> path.
    """
    made = [labelled_questions(chunks, labelled, dict(paths))]
    if generator == "extractive" and chunks.height:
        made.append(
            extractive_questions(chunks).select(
                "chunk_id",
                pl.concat_list("chunk_id").alias("relevant_chunk_ids"),
                "document_id",
                "question",
                "answer",
                "kind",
                pl.lit("train").alias("purpose"),
                pl.lit("extractive").alias("generator"),
                pl.lit(EXTRACTIVE_VERSION).alias("prompt_version"),
                pl.lit(KEPT).alias("status"),
                pl.lit(None, pl.Float64).alias("score"),
            )
        )
    table = TABLES["synthetic_questions"]
    identity = ("document_id", "chunk_id", "generator", "question")
    return (
        pl.concat(made)
        .with_columns(
            pl.struct(identity).map_elements(_question_id, pl.String).alias("question_id"),
            pl.lit(0).alias("input_tokens"),
            pl.lit(0).alias("output_tokens"),
            pl.lit(datetime.now(UTC)).cast(table.schema["created_at"]).alias("created_at"),
        )
        # A question given for training and for testing is for testing.
        .sort(pl.col("purpose") == "train", maintain_order=True)
        .unique("question_id", keep="first", maintain_order=True)
        .select(table.schema.names())
    )


def _question_id(identity: Mapping[str, str]) -> str:
    return hashlib.sha256("\x1f".join(identity.values()).encode()).hexdigest()[:20]
