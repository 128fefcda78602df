"""Forgetting: base and tuned model on general questions, which no training is about.

They come from a BEIR folder, by default `data/general`. Their figures are stored as all are, under
model names that no other figures have.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import polars as pl

from embed_assets.data_files.reading import state_on_disk
from embed_assets.errors import SettingsError
from embed_assets.evaluation.beir import read_beir
from embed_assets.evaluation.scoring import RetrievalTask, full_ndcg, measured
from embed_assets.models.encoder import Encoder
from embed_assets.models.identity import text_id
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings

SETTING = "EMBED_ASSETS_GENERAL"
GENERAL = "general"
"""Split of the general questions."""
BASE, TUNED = "base, general", "tuned, general"
"""What the tables call the models on general questions. No baseline's name has a comma."""


@dataclass(frozen=True)
class GeneralFigures:
    """NDCG@10 of base and tuned model at their full size, on so many general questions."""

    base: float
    tuned: float
    questions: int


def measure_general(
    warehouse: Warehouse, settings: Settings, base: Encoder, tuned: Encoder, run_id: str
) -> GeneralFigures | None:
    """Figures of both models on the general questions; None where none are wanted.

    Read back where a model was measured on them before. run_id: MLflow run that shows the figures.
    SettingsError where the folder is missing or broken.
    """
    task = general_task(settings)
    if task is None:
        return None
    on_base, on_tuned = (
        full_ndcg(measured(warehouse, task, encoder, run_id=run_id, model=model).scores)[GENERAL]
        for model, encoder in ((BASE, base), (TUNED, tuned))
    )
    return GeneralFigures(on_base, on_tuned, task.questions.height)


def general_task(settings: Settings) -> RetrievalTask | None:
    """The general questions and their corpus; None where none are wanted.

    Read once, and again when a file changes. SettingsError where the folder is missing or broken.
    """
    folder = settings.general_folder
    return folder and _read(folder, state_on_disk(folder))


def general_version(settings: Settings) -> str | None:
    """Version of the general questions and their corpus; None where none are wanted.

    A folder that can't be read has a version too: whoever measures says what is wrong with it.
    """
    try:
        task = general_task(settings)
    except SettingsError:
        return "unreadable"
    return task and digest((task.questions_version, task.corpus_version))


@lru_cache(maxsize=2)
def _read(folder: Path, _state: object) -> RetrievalTask:
    try:
        beir = read_beir(folder, named_by=SETTING)
    except SettingsError as error:
        remedy = "Set it to a BEIR folder, or to none."
        raise SettingsError(f"{error.reason} {remedy}", SETTING) from error
    # As in the corpus of chunks, a text's id is its digest, and equal texts are one entry.
    ids = {document: text_id(text) for document, text in beir.corpus.items()}
    questions = [
        {
            "question_id": query,
            "anchor": text,
            "relevant_chunk_ids": sorted({ids.get(key, key) for key in beir.grades[query]}),
            "split": GENERAL,
            "document_id": folder.name,
        }
        for query, text in beir.queries.items()
    ]
    corpus = {ids[document]: text for document, text in beir.corpus.items()}
    relevant = {row["question_id"]: row["relevant_chunk_ids"] for row in questions}
    own = {query: ids[document] for query, document in beir.own.items()}
    return RetrievalTask(
        questions=pl.DataFrame(questions),
        corpus=pl.DataFrame({"chunk_id": list(corpus), "chunk_text": list(corpus.values())}),
        own={query: chunk for query, chunk in own.items() if chunk not in relevant[query]},
    )
