"""Embeddings of chunks, kept in the warehouse so that none is computed twice."""

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from embed_assets.resources.encoder import Encoder, ModelCard
from embed_assets.resources.warehouse import Warehouse, digest

if TYPE_CHECKING:
    import numpy as np


def corpus_embeddings(
    warehouse: Warehouse, encoder: Encoder, fingerprint: str, corpus: pl.DataFrame
) -> "np.ndarray":
    """Embeddings of the corpus (chunk_id, chunk_text), in its order: float32 (chunks, size).

    What is in the warehouse under this fingerprint is read from there; the rest is encoded and
    written there.
    """
    import numpy as np

    known = warehouse.read(
        "SELECT chunk_id, embedding FROM chunk_embeddings WHERE model = ?", [fingerprint]
    )
    new = corpus.join(known, on="chunk_id", how="anti")
    if new.height:
        encoded = encoder.encode_documents(new["chunk_text"].to_list(), "Encoding chunks")
        rows = pl.DataFrame(
            {"chunk_id": new["chunk_id"], "embedding": encoded.tolist()},
            schema={"chunk_id": pl.String, "embedding": pl.List(pl.Float32)},
        )
        warehouse.replace(
            "chunk_embeddings",
            rows.select(pl.lit(fingerprint).alias("model"), "chunk_id", "embedding"),
            where={"model": [fingerprint], "chunk_id": new["chunk_id"].to_list()},
        )
        known = pl.concat([known, rows])
    ordered = corpus.select("chunk_id").join(
        known, on="chunk_id", how="left", maintain_order="left"
    )
    return np.array(ordered["embedding"].to_list(), dtype=np.float32).reshape(corpus.height, -1)


def fingerprint(source: str, card: ModelCard, precision: str) -> str:
    """What identifies embeddings: the model's weights, document prompt, length limit, precision."""
    return digest((_weights(source), card.document_prompt, card.token_limit, precision))


@functools.cache
def _weights(source: str) -> str:
    files = sorted(Path(source).glob("**/*.safetensors")) if Path(source).is_dir() else []
    if not files:
        return source
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
