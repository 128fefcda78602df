"""An index on disk: the embeddings of all chunks by one model, their words, and where they stand.

A folder that is written once and never changed. It is read without the warehouse, memory-mapped, so
that it opens at once and takes the memory of what is looked at.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from embed_assets.errors import ProjectError
from embed_assets.lexical import LexicalIndex
from embed_assets.models.card import ModelCard, model_source
from embed_assets.search.approximate import ApproximateIndex, lancedb_is_there, write_approximate

MANIFEST = "index.json"
VECTORS, BASE_VECTORS = "vectors.npy", "base-vectors.npy"
PLACES = "places.arrow"
LEXICAL = "lexical"
LANCE = "lance"
NOT_WHOLE = (OSError, ValueError, TypeError, LookupError)
"""What reading an index raises that is gone or damaged."""
PLACE = ("chunk_id", "document_id", "path", "file_name", "heading_path", "page_start", "page_end")
"""What is told of where a chunk stands, beside its text."""


@dataclass(frozen=True)
class CardOnDisk:
    """A model's card as an index keeps it. folder: relative to the home; None for a base model."""

    name: str
    folder: str | None
    token_limit: int
    query_prompt: str
    document_prompt: str

    @classmethod
    def of(cls, card: ModelCard, home: Path) -> "CardOnDisk":
        """The card of a base model, or of a version in the home."""
        folder = Path(card.source)
        in_home = folder.is_absolute() and folder.is_relative_to(home / "models")
        return cls(
            card.name,
            folder.relative_to(home).as_posix() if in_home else None,
            card.token_limit,
            card.query_prompt,
            card.document_prompt,
        )

    def card(self, home: Path) -> ModelCard:
        """The card, its home being where it is today. ProjectError where the model is gone."""
        source = str(home / self.folder) if self.folder else model_source(self.name)
        if self.folder and not Path(source).is_dir():
            number = self.name.removeprefix("v")
            raise ProjectError(f"The folder of version {number} is gone: {source}.")
        return ModelCard(
            self.name, source, self.token_limit, self.query_prompt, self.document_prompt
        )


@dataclass(frozen=True)
class Manifest:
    """What an index is of.

    version: None for a base model. base: name of the base model. identity, of_chunks: what decides
    its embeddings, and those of chunks alone. dimensions: Matryoshka, largest first. cutoff: cosine
    below which nothing relevant is likely, where questions tell. documents: version of the chunks
    of each. base_model, base_identity: where the base's embeddings are in it too. corpus: digest
    of the chunks and where they stand. lance: whether it has an approximate index too. files: sizes
    in bytes by path.
    """

    version: str | None
    base: str
    identity: str
    of_chunks: str
    model: CardOnDisk
    dimensions: Sequence[int]
    chunks: int
    made_at: str
    cutoff: float | None = None
    cutoff_questions: int = 0
    documents: Mapping[str, str] = field(default_factory=dict)
    base_model: CardOnDisk | None = None
    base_identity: str = ""
    corpus: str = ""
    lance: bool = False
    files: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Of a whole index. OSError, ValueError, TypeError or LookupError where there is none."""
        known = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        base = known.pop("base_model")
        model = CardOnDisk(**known.pop("model"))
        manifest = cls(**known, model=model, base_model=base and CardOnDisk(**base))
        for name, size in manifest.files.items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{folder / name} is cut off")
        return manifest

    @property
    def called(self) -> str:
        """What a person reads of the model."""
        return f"{self.base} fine-tuned, version {self.version}" if self.version else self.base


class Index:
    """An index that is open. Row i is the i-th distinct chunk, by chunk_id."""

    def __init__(self, folder: Path) -> None:
        """Open it. OSError or ValueError where it is gone, or damaged."""
        import pyarrow as pa

        self.folder = folder
        self.manifest = Manifest.read(folder)
        self.vectors: np.ndarray = np.load(folder / VECTORS, mmap_mode="r")
        with pa.memory_map(str(folder / PLACES)) as source:
            self._places = pa.ipc.open_file(source).read_all()
        # Places of row i: from starts[i] to starts[i + 1].
        rows = pl.Series(self._places["row"]).to_numpy()  # pyarrow's own to_numpy imports pandas
        self.starts = np.searchsorted(rows, np.arange(len(self.vectors) + 1))
        # All at once: what is open can be read when the folder is gone.
        self.lexical = LexicalIndex.load(folder / LEXICAL)
        self.base_vectors: np.ndarray | None = None
        if BASE_VECTORS in self.manifest.files:
            self.base_vectors = np.load(folder / BASE_VECTORS, mmap_mode="r")
        elif self.manifest.base_model is not None:  # which embeds chunks alike
            self.base_vectors = self.vectors
        self.approximate: ApproximateIndex | None = None
        if self.manifest.lance and lancedb_is_there(self.manifest.called):
            self.approximate = ApproximateIndex(folder / LANCE, self.manifest.chunks)

    def rows_of(self, document_ids: Collection[str]) -> np.ndarray:
        """Rows that stand in these documents alone, int64."""
        if not document_ids:
            return np.empty(0, dtype=np.int64)
        theirs = pl.Series(self._places["document_id"].to_pylist()).is_in(list(document_ids))
        elsewhere = np.concatenate([[0], np.cumsum(~theirs.to_numpy())])
        return np.flatnonzero(elsewhere[self.starts[1:]] == elsewhere[self.starts[:-1]])

    def place(self, row: int, hidden: Collection[str] = ()) -> dict[str, Any]:
        """The first document in which a chunk stands that isn't hidden, and the chunk's text."""
        start, end = int(self.starts[row]), int(self.starts[row + 1])
        places = self._places.slice(start, end - start).to_pylist()
        known = next((p for p in places if p["document_id"] not in hidden), places[0])
        return {name: known[name] for name in (*PLACE, "chunk_text")}


def write_index(
    folder: Path,
    manifest: Manifest,
    places: pl.DataFrame,
    vectors: Mapping[str, Iterable[np.ndarray]],
    like: Path | None = None,
) -> None:
    """Write an index beside its place, and put it there whole.

    places: row, PLACE and chunk_text, by row. vectors: by file, blocks of embeddings in the order
    of the rows, float32 (rows, size), not normalised. like: another index of the same chunks, whose
    words are taken over, and its approximate index where the embeddings are the same.
    """
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        for name, blocks in vectors.items():
            _write_vectors(unfinished / name, manifest.chunks, blocks)
        if like is not None:
            shutil.copytree(like / LEXICAL, unfinished / LEXICAL)
        else:
            texts = places.unique("row", keep="first", maintain_order=True)["chunk_text"]
            LexicalIndex.of(texts.to_list()).save(unfinished / LEXICAL)
        if manifest.lance and like is not None and _has_lance_of(manifest, like):
            shutil.copytree(like / LANCE, unfinished / LANCE)
        elif manifest.lance:
            write_approximate(unfinished / LANCE, np.load(unfinished / VECTORS, mmap_mode="r"))
        oldest = pl.CompatLevel.oldest()
        places.write_ipc(unfinished / PLACES, compression="uncompressed", compat_level=oldest)
        files = [file for file in unfinished.rglob("*") if file.is_file()]
        sizes = {f.relative_to(unfinished).as_posix(): f.stat().st_size for f in files}
        said = json.dumps(asdict(replace(manifest, files=sizes)), ensure_ascii=False)
        (unfinished / MANIFEST).write_text(said, encoding="utf-8")
        for file in (*files, unfinished / MANIFEST):
            with file.open("r+b") as stream:
                os.fsync(stream.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _has_lance_of(manifest: Manifest, other: Path) -> bool:
    """Whether another index has an approximate one of the same embeddings."""
    known = Manifest.read(other)
    return known.lance and known.of_chunks == manifest.of_chunks


def _write_vectors(file: Path, rows: int, blocks: Iterable[np.ndarray]) -> None:
    """Embeddings of length 1, as an .npy file that is never in memory as a whole."""
    out: np.memmap | None = None
    start = 0
    for block in blocks:
        if out is None:
            shape = (rows, block.shape[1])
            out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        out[start : start + len(block)] = block / np.maximum(lengths, 1e-12)
        start += len(block)
    if out is None or start != rows:
        raise ValueError(f"{start} embeddings where {rows} chunks need one each")
    out.flush()


def known_indexes(search: Path) -> dict[str, Manifest]:
    """Whole indexes in the folder `search`, by name, the newest first."""
    found: dict[str, Manifest] = {}
    for file in search.glob(f"*/{MANIFEST}"):
        if not file.parent.name.startswith("."):
            with suppress(*NOT_WHOLE):  # one that another process removes, or that is damaged
                found[file.parent.name] = Manifest.read(file.parent)
    return dict(sorted(found.items(), key=lambda pair: pair[1].made_at, reverse=True))


def remove_indexes(search: Path, but: Collection[str] = ()) -> list[Path]:
    """Remove all indexes but these, and what a kill left of others; gives what couldn't be."""
    others = [f for f in search.glob("*") if f.is_dir() and f.name not in but]
    for folder in others:
        shutil.rmtree(folder, ignore_errors=True)
    return [folder for folder in others if folder.exists()]
