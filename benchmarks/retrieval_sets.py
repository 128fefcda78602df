"""Sets of questions and texts for benchmarks of retrieval, as a command line names them.

--beir: folders in BEIR's form, for the base model. --home: homes of the project, asked the
questions that people wrote for them (all that test, where there are none), for the base model and
for the newest version. --cache: a home in whose warehouse the embeddings of the BEIR sets are kept.
--model: the base model.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import polars as pl

from embed_assets.evaluation.beir import read_beir
from embed_assets.evaluation.scoring import RetrievalTask, retrieval_task
from embed_assets.models.encoder import Encoder, LocalEncoder, TransientEncoder
from embed_assets.models.names import find_encoder
from embed_assets.models.registry import newest_model
from embed_assets.pairs.splits import LABELLED, TEST_SPLITS
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings


@dataclass(frozen=True)
class RetrievalSet:
    """A task and the model that it is for. The models of a home share one task."""

    name: str
    task: RetrievalTask
    encoder: Encoder


class StandIns(TransientEncoder):
    """A model that embeds some documents by another text; it has no identity to keep them by."""

    def __init__(self, embedded: Mapping[str, str], load: Callable[[], LocalEncoder]) -> None:
        super().__init__("", load)
        self._embedded = embedded

    def encode_documents(self, texts: Sequence[str], progress: str | None = None) -> np.ndarray:
        return super().encode_documents([self._embedded.get(text, text) for text in texts])


@contextmanager
def named_sets(about: str) -> Iterator[list[RetrievalSet]]:
    """The sets that the command line names; about: what `--help` says."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beir", nargs="*", type=Path, default=[])
    parser.add_argument("--home", nargs="*", type=Path, default=[])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--model", default=Settings().model)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as unkept:
        cache = options.cache or Path(unkept)
        cache.mkdir(parents=True, exist_ok=True)
        sets = []
        if options.beir:
            base = _encoder(Warehouse(path=str(cache / "warehouse.duckdb")), options.model)
            sets = [RetrievalSet(folder.name, _beir_task(folder), base) for folder in options.beir]
        for home in options.home:
            warehouse = Warehouse(path=str(home / "warehouse.duckdb"))
            task = home_task(warehouse)
            sets += [
                RetrievalSet(home.name + of, task, _encoder(warehouse, model))
                for of, model in _home_models(warehouse, options.model).items()
            ]
        yield sets


def _encoder(warehouse: Warehouse, model: str) -> Encoder:
    return find_encoder(warehouse, Settings(model=model), model, "--model")[1]


def _beir_task(folder: Path) -> RetrievalTask:
    found = read_beir(folder)
    questions = {
        "question_id": list(found.queries),
        "anchor": list(found.queries.values()),
        "relevant_chunk_ids": [list(found.relevant[query]) for query in found.queries],
    }
    corpus = {"chunk_id": list(found.corpus), "chunk_text": list(found.corpus.values())}
    return RetrievalTask(pl.DataFrame(questions), pl.DataFrame(corpus), found.own)


def home_task(warehouse: Warehouse) -> RetrievalTask:
    task = retrieval_task(warehouse)
    asked = task.questions.filter(split=LABELLED)
    if asked.is_empty():
        asked = task.questions.filter(pl.col("split").is_in(TEST_SPLITS))
    return RetrievalTask(asked, task.corpus)


def _home_models(warehouse: Warehouse, base: str) -> dict[str, str]:
    """The base model and a home's newest version, by what a table adds to the home's name."""
    if not warehouse.count("models"):
        return {"": base}
    return {"": base, ", tuned": f"v{newest_model(warehouse)['version']}"}
