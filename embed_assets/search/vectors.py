"""The embeddings of all chunks for a vector store elsewhere, and a bridge to those that are there.

A new champion embeds chunks in a space of its own: whoever keeps vectors elsewhere must replace all
of them. Until then a linear map takes the new model's queries into the old vectors' space.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from embed_assets.errors import ProjectError, SettingsError
from embed_assets.evaluation.retrieval import top_k
from embed_assets.pairs.splits import TEST_SPLITS, VALIDATION
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.index import PLACE, Index
from embed_assets.search.searching import Searcher
from embed_assets.settings import Settings
from embed_assets.wording import counted

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["parquet", "lance"]
SUFFIXES: Mapping[str, Format] = {".parquet": "parquet", ".lance": "lance"}
AT_ONCE = 8192
"""Rows in memory at a time."""
PULLS = (np.inf, 10.0, 0.1, 1e-3)
"""How strongly a bridge may be drawn towards a rotation, as shares of the texts' mean variance."""
HELD_OUT = 5
"""One text in so many decides that."""
FOUND = 10
"""Results by which the bridge is measured."""
MOST_QUESTIONS = 500


def export_vectors(
    searcher: Searcher, file: Path, file_format: Format | None = None, dimension: int | None = None
) -> dict[str, Any]:
    """Write id, text, vector, identity and place of each chunk, as Parquet or Lance.

    vector: of length 1, float32, at a Matryoshka dimension; the model's own size without one. Gives
    path, format, rows, dimension, identity. SettingsError where the file or the dimension won't do.
    """
    chosen = file_format or SUFFIXES.get(file.suffix.lower())
    if chosen is None:
        raise SettingsError(
            f"{file}: no format for this suffix. Name it .parquet or .lance, or give --format."
        )
    index = searcher.index
    known = list(index.manifest.dimensions)
    size = dimension or known[0]
    if size not in known:
        raise SettingsError(f"--dimension: {size} is none of {', '.join(map(str, known))}.")
    hidden = set(searcher.current.hidden)
    rows = np.setdiff1d(np.arange(len(index.vectors)), index.rows_of(hidden))
    schema = _schema(size, index)
    if file.is_dir() and not (chosen == "lance" and _is_lance(file)):
        raise SettingsError(f"{file} is a folder. Choose another name.")
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    before = file.with_name(f".{file.name}.{os.getpid()}.before")
    try:
        _write(chosen, unfinished, schema, _batches(index, rows, size, hidden, schema))
        if file.is_dir():
            file.rename(before)
        unfinished.replace(file)
        shutil.rmtree(before, ignore_errors=True)
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror or error}. Write to another file.") from error
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.unlink(missing_ok=True)
    return {
        "path": str(file),
        "format": chosen,
        "rows": len(rows),
        "dimension": size,
        "identity": index.manifest.identity,
        "model": index.manifest.called,
    }


def _is_lance(folder: Path) -> bool:
    """Whether a folder is a Lance dataset, which another may take the place of."""
    names = {entry.name for entry in folder.iterdir()}
    return "_versions" in names and all(n == "data" or n.startswith("_") for n in names)


def _schema(size: int, index: Index) -> "pa.Schema":
    import pyarrow as pa

    texts = ("id", "text", "identity", *(name for name in PLACE if name != "chunk_id"))
    types = {"page_start": pa.int64(), "page_end": pa.int64()}
    fields = [pa.field(name, types.get(name, pa.string())) for name in texts]
    said = {"embed_assets": json.dumps({"model": index.manifest.called, "dimension": size})}
    return pa.schema([*fields, pa.field("vector", pa.list_(pa.float32(), size))], said)


def _batches(
    index: Index, rows: np.ndarray, size: int, hidden: set[str], schema: "pa.Schema"
) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    for start in range(0, len(rows), AT_ONCE):
        block = rows[start : start + AT_ONCE]
        vectors = _shortened(index.vectors[block], size)
        places = [index.place(int(row), hidden) for row in block]
        columns = {
            "id": [place["chunk_id"] for place in places],
            "text": [place["chunk_text"] for place in places],
            "identity": [index.manifest.identity] * len(block),
            **{n: [place[n] for place in places] for n in PLACE if n != "chunk_id"},
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), size),
        }
        yield pa.RecordBatch.from_pydict(columns, schema=schema)


def _shortened(vectors: np.ndarray, size: int) -> np.ndarray:
    """The first numbers of each vector, of length 1 again."""
    short = np.ascontiguousarray(vectors[:, :size], dtype=np.float32)
    return short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12)


def _write(
    file_format: Format, file: Path, schema: "pa.Schema", batches: "Iterator[pa.RecordBatch]"
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file_format == "parquet":
        with pq.ParquetWriter(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return
    try:
        import lance  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise SettingsError(
            "--format lance needs the package pylance: pip install 'embed_assets[lance]'."
        ) from None
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches), str(file))


@dataclass(frozen=True, eq=False)
class Bridge:
    """A linear map of queries. matrix: (new size, old size), float32.

    recall: share of the ten results of full re-embedding that are found over the bridge, mean over
    the questions; None without questions. texts: chunks that it was fitted on.
    """

    matrix: np.ndarray
    recall: float | None
    questions: int
    texts: int
    old_identity: str


def bridge_to(settings: Settings, searcher: Searcher, old: Path) -> Bridge:
    """The map from this model's queries into the space of vectors that were exported before.

    Fitted on the embeddings of the chunks that both have; measured with questions that test, which
    it was not fitted on. ProjectError where they share too few chunks, or the vectors are this
    model's own.
    """
    before = _read_old(old)
    index = searcher.index
    ids = pl.Series([index.place(row)["chunk_id"] for row in range(len(index.vectors))])
    both = pl.DataFrame({"id": ids, "row": range(len(ids))}).join(before, on="id", how="inner")
    old_vectors = both["vector"].to_numpy() if both.height else np.empty((0, 0))
    if both.height < 2 * FOUND:
        raise ProjectError(
            f"{old} shares {counted(both.height, 'chunk')} with the chunks of now: too few to "
            "fit a bridge on. Export the vectors once, and replace them."
        )
    if before["identity"][0] == index.manifest.identity:
        raise ProjectError(f"{old} is of {index.manifest.called} itself: no bridge is needed.")
    new_vectors = np.asarray(index.vectors[both["row"].to_numpy()])
    matrix = fit_bridge(new_vectors, old_vectors)
    asked = Warehouse.of(settings).read(
        "SELECT DISTINCT anchor FROM training_pairs WHERE split IN (SELECT unnest(?::VARCHAR[])) "
        "ORDER BY md5(anchor) LIMIT ?",
        [[*TEST_SPLITS, VALIDATION], MOST_QUESTIONS],
    )["anchor"]
    recall = None
    if len(asked):
        queries = searcher.embed(asked.to_list(), "query")
        recall = bridge_recall(queries, new_vectors, queries @ matrix, old_vectors)
    return Bridge(matrix, recall, len(asked), both.height, before["identity"][0])


def fit_bridge(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """The matrix that takes new vectors nearest to old ones.

    Least squares, drawn towards the rotation that fits best (orthogonal Procrustes, Schönemann
    1966): of few texts a rotation is all that can be told, of many more. How strongly, every fifth
    text decides, as a query of what was fitted on the others. new: (texts, new size). old: (texts,
    old size). Gives (new size, old size), float32.
    """
    new, old = new.astype(np.float64), old.astype(np.float64)
    held = np.arange(len(new)) % HELD_OUT == 0
    asked = np.flatnonzero(held)[:MOST_QUESTIONS]

    def found(pull: float) -> float:
        matrix = _drawn(new[~held], old[~held], pull)
        return bridge_recall(new[asked], new, new[asked] @ matrix, old)

    return _drawn(new, old, max(PULLS, key=found)).astype(np.float32)


def _drawn(new: np.ndarray, old: np.ndarray, pull: float) -> np.ndarray:
    """Least squares with this penalty on what differs from the rotation; the rotation at inf."""
    left, _, right = np.linalg.svd(new.T @ old, full_matrices=False)
    rotation = left @ right
    if np.isinf(pull):
        return rotation
    gram = new.T @ new
    penalty = pull * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + penalty * np.eye(len(gram)), new.T @ old + penalty * rotation)


def bridge_recall(
    queries: np.ndarray, vectors: np.ndarray, bridged: np.ndarray, old_vectors: np.ndarray
) -> float:
    """Share of what queries find among vectors that bridged queries find among the old ones."""
    k = min(FOUND, len(vectors))
    found, over_it = top_k(queries, vectors, k)[0], top_k(bridged, old_vectors, k)[0]
    shared = [len({*one} & {*other}) / k for one, other in zip(found, over_it, strict=True)]
    return float(np.mean(shared))


def write_bridge(bridge: Bridge, searcher: Searcher, file: Path) -> None:
    """Write the matrix as safetensors, with what it leads from and to as metadata."""
    from safetensors.numpy import save_file

    said = {
        "from": searcher.index.manifest.identity,
        "to": bridge.old_identity,
        "recall_at_10": str(bridge.recall),
        "use": "old_space_query = new_query @ matrix",
    }
    save_file({"matrix": np.ascontiguousarray(bridge.matrix)}, str(file), metadata=said)


def _read_old(old: Path) -> pl.DataFrame:
    """id, identity and vector of an export. SettingsError where the file is none."""
    columns = ["id", "identity", "vector"]
    try:
        if old.is_dir():
            import lance  # pyright: ignore[reportMissingImports]

            table = lance.dataset(str(old)).to_table(columns=columns)
            rows = pl.DataFrame(table)
        else:
            rows = pl.read_parquet(old, columns=columns)
    except (OSError, ValueError, ModuleNotFoundError, pl.exceptions.PolarsError) as error:
        said = f"{old} is no export of vectors: {error}"
        raise SettingsError(said, "--bridge") from error
    if rows.is_empty():
        raise SettingsError(f"{old} holds no vectors.", "--bridge")
    if isinstance(rows["vector"].dtype, pl.List):
        rows = rows.with_columns(pl.col("vector").list.to_array(len(rows["vector"][0])))
    return rows


def vectors_text(summary: Mapping[str, Any]) -> str:
    """The export for a person."""
    lines: Sequence[str] = [
        f"{counted(summary['rows'], 'chunk')} at {summary['dimension']} dimensions by "
        f"{summary['model']} in {summary['path']}"
    ]
    if bridge := summary.get("bridge"):
        share = bridge["recall_at_10"]
        measured = "not measured: no question tests yet"
        if share is not None:
            measured = f"{100 * share:.1f} % of the ten results of re-embedding are found over it"
        lines = [*lines, f"Bridge in {bridge['path']}: {measured}."]
    return "\n".join(lines)
