"""Serves the model that is champion at the start, by dense vectors alone, whatever the mode."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embed_assets.errors import ProjectError
from embed_assets.evaluation.retrieval import top_k
from embed_assets.models.card import model_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.registry import champion
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.server.served import CHAMPION, Mode, Task
from embed_assets.settings import Settings

if TYPE_CHECKING:
    import numpy as np


class Standing:
    """A set that stays as it was made."""

    models = (CHAMPION,)
    cutoff = None

    def __init__(self, settings: Settings) -> None:
        """Load the model and embed the chunks. ProjectError where there are none."""
        self._warehouse = Warehouse(path=str(settings.warehouse))
        corpus = self._warehouse.corpus()
        if corpus.is_empty():
            said = (
                f"There is nothing to serve in {settings.home}. `embed-assets ingest` reads PDFs."
            )
            raise ProjectError(said)
        version = champion(self._warehouse, settings)
        card = version.card if version else model_card(settings)
        cached = CachedEncoder(self._warehouse, card, settings.precision)
        self.name = f"v{version.number}" if version else card.name
        self.identity = cached.identity
        self.dimensions = card.dimensions(settings.dimensions)
        self.token_limit, self._count = card.token_limit, card.count_tokens
        self._vectors = cached.encode_documents(corpus["chunk_text"].to_list(), "Encoding chunks")
        self._encoder = cached.encoder
        places = self._warehouse.read(
            "SELECT chunk_id, document_id, file_name, path, page_start, page_end, heading_path, "
            "chunk_text FROM chunks JOIN raw_pdfs USING (document_id, file_name) "
            "ORDER BY document_id, chunk_index"
        ).unique("chunk_id", keep="first")
        self._chunks = corpus.select("chunk_id").join(places, "chunk_id", "left").to_dicts()
        self.chunks = len(self._chunks)

    def embed(self, texts: Sequence[str], task: Task) -> "np.ndarray":
        """Embeddings, float32 (texts, size), normalised."""
        import numpy as np

        vectors = self._encoder.encode(texts, task)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special ones left out."""
        return self._count(text)

    def search(
        self, queries: Sequence[str], k: int, mode: Mode, model: str = CHAMPION
    ) -> list[list[dict[str, Any]]]:
        """The k nearest chunks of each query."""
        found, scores = top_k(self.embed(queries, "query"), self._vectors, k)
        own = {"lexical_rank": None, "likely": None}
        return [
            [
                self._chunks[place] | own | {"score": score, "cosine": score, "dense_rank": rank}
                for rank, (place, score) in enumerate(zip(row, cosines, strict=True), 1)
            ]
            for row, cosines in zip(found.tolist(), scores.tolist(), strict=True)
        ]

    def pdf(self, path: str) -> bytes | None:
        """The PDF of a document on record."""
        rows = self._warehouse.read("SELECT content FROM raw_pdfs WHERE path = ?", [path])
        return None if rows.is_empty() else rows["content"][0]


class StandingFollower:
    """Follows nobody."""

    def __init__(self, settings: Settings) -> None:
        self._served = Standing(settings)

    def current(self) -> Standing:
        """Always the same."""
        return self._served

    def close(self) -> None:
        """There is nothing to close."""
