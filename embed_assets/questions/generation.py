"""Every question of a document in one frame: the generator's and people's."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import polars as pl

from embed_assets.errors import SettingsError
from embed_assets.questions.extractive.mix import VERSION as EXTRACTIVE_VERSION
from embed_assets.questions.extractive.mix import extractive_questions
from embed_assets.questions.filters.each import filter_each
from embed_assets.questions.filters.names import CORPUS_FILTERS, enabled_filters
from embed_assets.questions.labelled.evidence import labelled_questions
from embed_assets.questions.labelled.files import LabelledQuestion
from embed_assets.questions.statuses import KEPT, REJECTED_BY_REVIEWER
from embed_assets.questions.written.prompts import JUDGE_VERSION
from embed_assets.questions.written.writing import (
    COLUMNS,
    Writing,
    judged_questions,
    written_questions,
)
from embed_assets.questions.written.writing import version as written_version
from embed_assets.resources.openai_server import OpenAIServer
from embed_assets.settings import EXTRACTIVE, Settings
from embed_assets.tables import TABLES

MODELS = ("openai", "huggingface")
IDENTITY = ("document_id", "chunk_id", "generator", "question")
"""Columns that tell a question from others: its question_id is made from them."""
GENERATORS = (EXTRACTIVE, *(f"{kind}:MODEL" for kind in MODELS), "none")


def check_generator(settings: Settings) -> None:
    """SettingsError unless what EMBED_ASSETS_QUESTIONS and _JUDGE name can be used."""
    if settings.questions not in (EXTRACTIVE, "none"):
        _check_model("EMBED_ASSETS_QUESTIONS", settings.questions, MODELS, GENERATORS)
    if settings.judge:
        _check_model("EMBED_ASSETS_JUDGE", settings.judge, MODELS[:1], ["openai:MODEL"])
    if settings.llm_cost_budget and not settings.llm_input_price + settings.llm_output_price:
        raise SettingsError(
            "EMBED_ASSETS_LLM_COST_BUDGET bounds nothing without prices: set "
            "EMBED_ASSETS_LLM_INPUT_PRICE and EMBED_ASSETS_LLM_OUTPUT_PRICE."
        )
    generator_version(settings)


def _check_model(setting: str, value: str, kinds: Sequence[str], known: Sequence[str]) -> None:
    kind, _, model = value.partition(":")
    if kind not in kinds or not model:
        raise SettingsError(f"{setting}: no generator '{value}'. There is {', '.join(known)}.")
    if kind == "openai":
        OpenAIServer().check(setting)


def generator_version(settings: Settings) -> str:
    """What identifies the questions that these settings make."""
    if settings.questions == "none":
        return "none"
    written = settings.questions != EXTRACTIVE
    version = written_version(settings) if written else f"extractive {EXTRACTIVE_VERSION}"
    filters = ",".join(sorted(enabled_filters(settings.filters) - CORPUS_FILTERS))
    judge = f", {JUDGE_VERSION} {settings.judge} {settings.judge_threshold:g}"
    return f"{version}, filters {filters or 'none'}{judge if settings.judge else ''}"


def generate_questions(
    chunks: pl.DataFrame,
    labelled: Sequence[LabelledQuestion],
    paths: Mapping[str, str],
    writing: Writing,
) -> pl.DataFrame:
    """Rows of synthetic_questions for these documents.

    chunks: rows of the table of that name. labelled: people's questions, of which those about these
    documents are taken. paths: document_id -> path. writing: settings, and what a model needs.
    """
    check_generator(writing.settings)
    people = labelled_questions(chunks, labelled, paths)
    place = ["document_id", "chunk_id", "question"]
    rejected = people.filter(status=REJECTED_BY_REVIEWER).select(*place, "status").unique()
    made = _machine_questions(chunks, writing).update(rejected, on=place)
    table = TABLES["synthetic_questions"]
    return (
        pl.concat([people, made], how="diagonal")
        .with_columns(
            pl.struct(IDENTITY).map_elements(_question_id, pl.String).alias("question_id"),
            pl.col("input_tokens", "output_tokens").fill_null(0),
            pl.col("created_at").fill_null(datetime.now(UTC)),
        )
        # A question given for training and for testing is for testing.
        .sort(pl.col("purpose") == "train", maintain_order=True)
        .unique("question_id", keep="first", maintain_order=True)
        .select(table.schema.names())
    )


def _machine_questions(chunks: pl.DataFrame, writing: Writing) -> pl.DataFrame:
    settings = writing.settings
    none = pl.DataFrame(schema=COLUMNS)
    if chunks.is_empty() or settings.questions == "none":
        return none
    if settings.questions == EXTRACTIVE:
        extracted = extractive_questions(chunks).with_columns(
            relevant_chunk_ids=pl.concat_list("chunk_id"),
            purpose=pl.lit("train"),
            generator=pl.lit(EXTRACTIVE),
            prompt_version=pl.lit(EXTRACTIVE_VERSION),
            status=pl.lit(KEPT),
        )
        made = pl.concat([none, extracted], how="diagonal")
    else:
        made = written_questions(chunks, writing)
    texts = dict(chunks.select("chunk_id", "chunk_text").iter_rows())
    filtered = filter_each(made, texts, enabled_filters(settings.filters))
    return judged_questions(filtered, texts, writing) if settings.judge else filtered


def _question_id(identity: Mapping[str, str]) -> str:
    return hashlib.sha256("\x1f".join(identity.values()).encode()).hexdigest()[:20]
