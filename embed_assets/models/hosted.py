"""Other people's embedding models, behind an OpenAI-compatible /v1/embeddings."""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embed_assets.errors import one_line
from embed_assets.models.card import chosen_prompts
from embed_assets.models.embeddings import cached_embeddings, in_blocks
from embed_assets.resources.openai_server import (
    Connection,
    OpenAIServer,
    RefusedError,
    ServerError,
    TransientError,
)
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings
from embed_assets.terminal import progress_bar
from embed_assets.wording import printable

if TYPE_CHECKING:
    from openai import AsyncOpenAI

BATCH = 64
"""Texts in one request for embeddings; a server that refuses so many is given fewer."""


class HostedEncoder:
    """An embedding model behind an OpenAI-compatible /v1/embeddings, asked for each text once.

    Its embeddings are kept in the warehouse under the server's address, the model's name, the
    prompt and the text. Raises ServerError where the server can't be used or its replies don't fit
    what was asked; what was kept before stays.
    """

    def __init__(self, warehouse: Warehouse, model: str, settings: Settings) -> None:
        """`model`: its name at the server. SettingsError where no server is known."""
        self._server = OpenAIServer()
        self._server.check(f"openai:{model}")
        self._warehouse, self._model, self._settings = warehouse, model, settings
        self._query_prompt, self._document_prompt = chosen_prompts(settings, model, {})

    @property
    def identity(self) -> str:
        """Digest of the server, the model's name and its prompts."""
        return digest([self._key(self._query_prompt), self._key(self._document_prompt)])

    def encode_queries(self, texts: Sequence[str], progress: str | None = None) -> np.ndarray:
        """Embeddings of queries, float32 (queries, size), as the server gives them."""
        return self._embeddings(texts, self._query_prompt, progress)

    def encode_documents(self, texts: Sequence[str], progress: str | None = None) -> np.ndarray:
        """Embeddings of documents, float32 (documents, size), as the server gives them."""
        return self._embeddings(texts, self._document_prompt, progress)

    def _embeddings(self, texts: Sequence[str], prompt: str, progress: str | None) -> np.ndarray:
        def encode_block(block: Sequence[str], label: str | None) -> np.ndarray:
            return asyncio.run(self._ask([prompt + text for text in block], label))

        def encode(
            texts: Sequence[str], label: str | None
        ) -> Iterator[tuple[Sequence[int], np.ndarray]]:
            return in_blocks(encode_block, texts, label)

        return cached_embeddings(self._warehouse, self._key(prompt), texts, encode, progress)

    def _key(self, prompt: str) -> str:
        """What the cache knows embeddings with this prompt by."""
        return digest(("openai", self._server.address, self._model, prompt))

    async def _ask(self, texts: Sequence[str], progress: str | None) -> np.ndarray:
        """Embeddings of texts, many batches at a time."""
        starts = iter(range(0, len(texts), BATCH))
        batches: dict[int, list[np.ndarray]] = {}
        with progress_bar(progress, len(texts), "text") as bar:
            async with self._connection() as connection:

                async def work() -> None:
                    for start in starts:
                        batch = texts[start : start + BATCH]
                        batches[start] = await self._embed(connection, batch)
                        bar.update(len(batch))

                concurrency = self._settings.llm_concurrency
                tasks = [asyncio.create_task(work()) for _ in range(concurrency)]
                try:
                    await asyncio.gather(*tasks)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        return self._matrix([vector for start in sorted(batches) for vector in batches[start]])

    def _connection(self) -> Connection:
        from tqdm import tqdm

        return Connection(
            self._server,
            f"openai:{self._model}",
            timeout=self._settings.llm_timeout,
            requests_per_minute=self._settings.llm_requests_per_minute,
            log=lambda line: tqdm.write(printable(line), file=sys.stderr),
        )

    async def _embed(self, connection: Connection, texts: Sequence[str]) -> list[np.ndarray]:
        """Embeddings of one batch, or of its halves where the server refuses so much at once."""

        async def send(client: "AsyncOpenAI") -> list[np.ndarray]:
            # The raw reply: the client would look at every number of it. And floats, since not all
            # servers know base64. Some refuse an empty text, none a blank one.
            response = await client.embeddings.with_raw_response.create(
                model=self._model,
                input=[text or " " for text in texts],
                encoding_format="float",
            )
            vectors = _vectors(response.content)
            if len(vectors) != len(texts):
                raise self._error(
                    f"it was sent {len(texts)} texts and gave {len(vectors)} embeddings."
                )
            return vectors

        try:
            return await connection.call(send)
        except TransientError as error:
            raise self._error(
                f"no answer: {error}. Embeddings kept so far stay; run it again when it answers."
            ) from None
        except RefusedError as error:
            if len(texts) == 1:
                start = one_line(texts[0], 60)
                raise self._error(f"it refuses the text '{start}': {error}") from None
        half = len(texts) // 2
        first = await self._embed(connection, texts[:half])
        return first + await self._embed(connection, texts[half:])

    def _matrix(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        sizes = sorted({len(vector) for vector in vectors})
        if len(sizes) > 1 or 0 in sizes:
            listed = " and of ".join(map(str, sizes))
            raise self._error(f"it gave embeddings of {listed} dimensions in one run.")
        matrix = np.stack(vectors)
        if not np.isfinite(matrix).all():
            raise self._error("its embeddings hold something that is no number.")
        return matrix

    def _error(self, reason: str) -> ServerError:
        return ServerError(reason, f"openai:{self._model}")


def _vectors(body: bytes) -> list[np.ndarray]:
    """Embeddings of a reply in the order of the texts. ValueError where it isn't the API's."""
    try:
        rows = sorted(json.loads(body)["data"], key=lambda row: row["index"])
        return [np.array(row["embedding"], dtype=np.float32, ndmin=1) for row in rows]
    except (KeyError, TypeError, ValueError):
        raise ValueError(one_line(body.decode(errors="replace"), 80) or "an empty body") from None
