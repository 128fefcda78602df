"""Embeddings, kept in the warehouse so that no text is encoded twice by one model.

They are kept under all that decides them: the model's identity for queries or for documents, the
precision, and the text. So filters, evaluation and search share those of the base model. Whoever
embeds in another way (a hosted model) keeps its own by `cached_embeddings`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import polars as pl

from embed_assets.errors import ProjectError
from embed_assets.models.card import ModelCard
from embed_assets.models.encoder import LocalEncoder, resolved_precision
from embed_assets.models.files import Task
from embed_assets.models.identity import model_identity, task_identity, text_id
from embed_assets.models.spread import PART, encode_on_ray
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings
from embed_assets.tables import TABLES

if TYPE_CHECKING:
    import numpy as np

BLOCK = 2048
"""Texts that are encoded before they are kept: what is lost if a run is killed."""
Encode = Callable[[Sequence[str], str | None], Iterator[tuple[Sequence[int], "np.ndarray"]]]
"""Embeds texts, under a label of its progress: gives places of texts, and their embeddings, float32
(texts, size), block after block."""


class CachedEncoder:
    """An encoder that remembers. The model is loaded only for texts that it hasn't seen."""

    def __init__(self, warehouse: Warehouse, card: ModelCard, settings: Settings) -> None:
        """`card`: of the base model or of a version. settings: how it computes, and where."""
        self._warehouse, self._card, self._settings = warehouse, card, settings

    def encode_queries(self, texts: Sequence[str], progress: str | None = None) -> "np.ndarray":
        """Embeddings of queries, float32 (queries, size), not normalised."""
        return self._embeddings(texts, "query", progress)

    def encode_documents(self, texts: Sequence[str], progress: str | None = None) -> "np.ndarray":
        """Embeddings of chunks, float32 (chunks, size), not normalised."""
        return self._embeddings(texts, "document", progress)

    @cached_property
    def _precision(self) -> Literal["fp32", "bf16"]:
        # Not before it is needed: it may take torch to tell.
        return resolved_precision(self._settings.precision)

    @cached_property
    def _encoder(self) -> LocalEncoder:
        return LocalEncoder(self._card, self._precision)

    @property
    def identity(self) -> str:
        """Digest of the model and the precision."""
        return f"{model_identity(self._card)} {self._precision}"

    def fingerprint(self, task: Task) -> str:
        """What identifies embeddings of queries or of documents."""
        return digest((task_identity(self._card, task), self._precision))

    @property
    def fingerprints(self) -> list[str]:
        """Those of queries and of documents, with these prompts, limit and precision."""
        return [self.fingerprint("query"), self.fingerprint("document")]

    def _embeddings(self, texts: Sequence[str], task: Task, progress: str | None) -> "np.ndarray":
        def encode(
            texts: Sequence[str], label: str | None
        ) -> "Iterator[tuple[Sequence[int], np.ndarray]]":
            if self._settings.engine == "ray" and len(texts) > PART:
                return encode_on_ray(self._card, self._precision, texts, task, label)
            return in_blocks(
                lambda block, label: self._encoder.encode(block, task, label), texts, label
            )

        return cached_embeddings(self._warehouse, self.fingerprint(task), texts, encode, progress)


def in_blocks(
    encode: Callable[[Sequence[str], str | None], "np.ndarray"],
    texts: Sequence[str],
    progress: str | None,
) -> "Iterator[tuple[Sequence[int], np.ndarray]]":
    """As Encode has it, BLOCK after BLOCK. encode: embeds one, under a label of its progress."""
    for start in range(0, len(texts), BLOCK):
        block = texts[start : start + BLOCK]
        part = "" if len(texts) <= BLOCK else f" {start + len(block)} of {len(texts)}"
        yield range(start, start + len(block)), encode(block, progress and progress + part)


def cached_embeddings(
    warehouse: Warehouse,
    model: str,
    texts: Sequence[str],
    encode: Encode,
    progress: str | None = None,
) -> "np.ndarray":
    """Embeddings of texts, float32 (texts, size): those kept, and the rest encoded and kept.

    model: what identifies embeddings of this model. ProjectError where what `encode` gives has
    another size than what was kept.
    """
    import numpy as np

    ids = [text_id(text) for text in texts]
    text_of = dict(zip(ids, texts, strict=True))
    known = _known(warehouse, model, list(text_of))
    missing = [key for key in text_of if key not in known]
    # The longest first, as they are encoded, so that each block holds texts of like lengths.
    missing.sort(key=lambda key: -len(text_of[key]))
    for places, matrix in encode([text_of[key] for key in missing], progress):
        block = [missing[place] for place in places]
        _check_size(matrix, known)
        if warehouse.is_writable:
            _keep(warehouse, model, block, matrix)
        known.update(zip(block, matrix, strict=True))
    if not ids:
        return np.empty((0, 0), dtype=np.float32)
    return np.stack([known[key] for key in ids])


def _known(warehouse: Warehouse, model: str, ids: Sequence[str]) -> "dict[str, np.ndarray]":
    rows = warehouse.read(
        "SELECT text_id, embedding FROM embeddings "
        "WHERE model = ? AND text_id IN (SELECT unnest(?::VARCHAR[]))",
        [model, list(ids)],
    )
    if rows.is_empty():
        return {}
    size = len(rows["embedding"][0])
    matrix = rows["embedding"].list.to_array(size).to_numpy()
    return dict(zip(rows["text_id"], matrix, strict=True))


def _check_size(matrix: "np.ndarray", known: "Mapping[str, np.ndarray]") -> None:
    kept = next(iter(known.values()), None)
    if kept is not None and len(kept) != matrix.shape[1]:
        raise ProjectError(
            f"The model gives embeddings of {matrix.shape[1]} dimensions now; those kept of it "
            f"have {len(kept)}: another model has taken its name. Give it one of its own."
        )


def _keep(warehouse: Warehouse, model: str, ids: Sequence[str], matrix: "np.ndarray") -> None:
    rows = pl.DataFrame(
        {
            "model": [model] * len(ids),
            "text_id": ids,
            "embedding": pl.Series(values=matrix).arr.to_list(),
        },
        schema=TABLES["embeddings"].schema,
    )
    warehouse.replace("embeddings", rows, where={"model": [model], "text_id": list(ids)})


def forget_embeddings(
    warehouse: Warehouse, versions: Collection[str], in_use: Collection[str]
) -> None:
    """Delete the embeddings of trained models but these versions: they can be made again.

    Without it every training would add all chunks once more to the warehouse. Those that were made
    under other settings than the model's own training stay.

    in_use: other fingerprints whose embeddings stay. An adapter's are those of its base in part.
    """
    of_others = warehouse.read(
        "WITH known AS (SELECT version, unnest(fingerprints) AS fingerprint FROM models), "
        "kept AS (SELECT fingerprint FROM known WHERE version IN (SELECT unnest(?::VARCHAR[]))) "
        "SELECT DISTINCT fingerprint FROM known WHERE fingerprint NOT IN (SELECT * FROM kept) "
        "AND fingerprint IN (SELECT model FROM embeddings)",
        [list(versions)],
    )
    models = [name for name in of_others["fingerprint"] if name not in in_use]
    if models:
        warehouse.replace("embeddings", TABLES["embeddings"].empty(), where={"model": models})
