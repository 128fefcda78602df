"""What the training process of a version read and returned, kept in the version's folder.

With it the version can be trained again, whatever became of the PDFs. It is no part of the model:
neither sentence-transformers nor MLflow reads it.

Imported where there is neither Dagster nor a warehouse: nothing of them belongs here.
"""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from embed_assets.training.config import TrainingConfig

KEPT = "training"
"""Folder in a version's folder."""
LIBRARIES = ("torch", "transformers", "sentence-transformers", "tokenizers", "accelerate", "peft")
"""Packages that compute a model's weights."""
QUESTIONS, CHUNKS = "question_id", "chunk_id"


def libraries() -> str:
    """Versions of the packages that compute a model's weights, in one line."""
    return ", ".join(f"{name} {version(name)}" for name in LIBRARIES)


def surroundings() -> dict[str, Any]:
    """What decides a model's last digits beside the machine and the code."""
    import torch

    return {"threads": torch.get_num_threads(), "libraries": libraries()}


def keep_training(training: TrainingConfig, folder: Path) -> None:
    """Copy what a training read and returned into the folder of its version."""
    (folder / KEPT).mkdir()
    for file in _files(training):
        shutil.copyfile(file, folder / KEPT / file.name)


def kept_training(folder: Path) -> TrainingConfig | None:
    """The training of the version in a folder, with its files where they are kept.

    None where they are not kept, or as another release reads them.
    """
    kept = _places(folder)
    if kept is None or not all(file.is_file() for file in _files(kept)):
        return None
    said = json.loads(kept.path.read_text(encoding="utf-8"))
    try:
        return TrainingConfig.model_validate(said | {"folder": kept.folder})
    except ValidationError:
        return None


def kept_result(training: TrainingConfig) -> dict[str, Any]:
    """What a training returned."""
    return json.loads(training.result.read_text(encoding="utf-8"))


def copy_training(
    kept: TrainingConfig, training: TrainingConfig, pairs: pl.DataFrame | None = None
) -> None:
    """Write what a training reads into its folder, from where it is kept; the config comes last.

    pairs: what stands in place of those that are kept.
    """
    training.folder.mkdir(parents=True, exist_ok=True)
    for file in (kept.pairs, kept.validation, kept.corpus):
        shutil.copyfile(file, training.folder / file.name)
    if pairs is not None:
        pairs.write_parquet(training.pairs)
    unfinished = training.path.with_suffix(".unfinished")
    unfinished.write_text(training.model_dump_json(indent=2), encoding="utf-8")
    unfinished.replace(training.path)


def _places(folder: Path) -> TrainingConfig | None:
    """Where the files are that are kept with a version, whichever release kept them."""
    kept = folder / KEPT
    return TrainingConfig.model_construct(folder=kept) if kept.is_dir() else None


def _files(training: TrainingConfig) -> tuple[Path, ...]:
    frames = (training.pairs, training.validation, training.corpus, training.sources)
    return (training.path, *frames, training.result)


def texts_of(folder: Path, ids: Collection[str], contents: Collection[str]) -> set[str]:
    """What the training kept with a version has read of documents.

    ids: of the documents. contents: their sha256.
    """
    training = _places(folder)
    if training is None:
        return set()
    theirs = _of_documents(pl.read_parquet(training.sources), ids, contents)
    return {
        text
        for file, key, column in _texts(training)
        for text in pl.read_parquet(file).filter(pl.col(key).is_in(theirs[key].implode()))[column]
    }


def redact_training(
    folder: Path, names: Mapping[str, str], contents: Collection[str], text: str
) -> None:
    """Take what forgotten documents say out of the training kept with a version, and the embeddings
    of that.

    names, contents and text: as `redact_pairs` takes them.
    """
    training = _places(folder)
    if training is None:
        return
    sources = pl.read_parquet(training.sources)
    theirs = _of_documents(sources, list(names), contents)
    redacted = {
        file: pl.read_parquet(file)
        for file in (training.pairs, training.validation, training.corpus)
    }
    for file, key, column in _texts(training):
        is_theirs = pl.col(key).is_in(theirs[key].implode())
        gone = pl.when(is_theirs)
        replaced = [gone.then(pl.lit(text)).otherwise(column).alias(column)]
        for embedding in {f"{column}_embedding", "embedding"} & {*redacted[file].columns}:
            replaced.append(gone.then(None).otherwise(embedding).alias(embedding))
        redacted[file] = redacted[file].with_columns(replaced)
    redacted[training.pairs] = _without_negatives(redacted[training.pairs], theirs[CHUNKS], text)
    redacted[training.sources] = sources.with_columns(pl.col("document_id").replace(names))
    for file, frame in redacted.items():
        unfinished = file.with_name(f"{file.name}.unfinished")
        frame.write_parquet(unfinished)
        unfinished.replace(file)


def count_redacted(training: TrainingConfig, text: str) -> int:
    """How many questions and chunks that a training read are redacted. text: what stands there."""
    pairs = pl.read_parquet(training.pairs, columns=["negatives"])
    negatives = pairs["negatives"].explode().eq(text).sum()
    return int(negatives or 0) + sum(
        int((pl.read_parquet(file, columns=[column])[column] == text).sum())
        for file, _, column in _texts(training)
    )


def _texts(training: TrainingConfig) -> Iterator[tuple[Path, str, str]]:
    """Where texts stand, but for negatives: a file, whose they are, and the column."""
    yield training.pairs, QUESTIONS, "anchor"
    yield training.pairs, CHUNKS, "positive"
    yield training.validation, QUESTIONS, "anchor"
    yield training.corpus, CHUNKS, "chunk_text"


def _of_documents(
    sources: pl.DataFrame, ids: Collection[str], contents: Collection[str]
) -> pl.DataFrame:
    theirs = pl.col("document_id").is_in(list(ids)) | pl.col("sha256").is_in(list(contents))
    return sources.filter(theirs)


def _without_negatives(pairs: pl.DataFrame, chunks: pl.Series, text: str) -> pl.DataFrame:
    """The pairs with a text in place of the negatives that are among these chunks."""
    gone = set(chunks)
    rows = pairs.select("negative_ids", "negatives").iter_rows()
    texts = [
        [text if chunk_id in gone else said for chunk_id, said in zip(ids, negatives, strict=True)]
        for ids, negatives in rows
    ]
    return pairs.with_columns(negatives=pl.Series(texts, dtype=pl.List(pl.String)))
