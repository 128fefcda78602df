"""A server on loopback that speaks the embeddings API over HTTP, and misbehaves as it is told.

Its embeddings count words, so that texts of the same words are near each other.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from embed_assets_tests.questions.written.llm_server import LLMServer, Request, Response

SIZE = 32


def good_embeddings(request: Request) -> Response:
    """The embedding of each text, the last one first: replies carry their place."""
    rows = [
        {"object": "embedding", "index": place, "embedding": embedding(text)}
        for place, text in enumerate(request.body["input"])
    ]
    return embeddings_reply(rows[::-1])


def embeddings_reply(rows: Sequence[Mapping[str, Any]]) -> Response:
    """A reply of the API with these rows."""
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    reply = {"object": "list", "data": rows, "model": "fake", "usage": usage}
    return Response(body=json.dumps(reply))


def embedding(text: str, size: int = SIZE) -> list[float]:
    """How many words of a text fall in each place."""
    counts = [0.0] * size
    for word in text.lower().split():
        counts[zlib.crc32(word.encode()) % size] += 1.0
    return counts


class EmbeddingsServer(LLMServer):
    """`reply` decides on each call; a call is about its texts, one to a line."""

    def __init__(self) -> None:
        super().__init__(good_embeddings)

    def passage(self, body: Mapping[str, Any]) -> str:
        return "\n".join(body["input"])

    @property
    def texts(self) -> list[str]:
        """Every text that was sent, in order."""
        return [text for request in self.requests for text in request.body["input"]]
