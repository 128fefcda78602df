"""A model that needs none: vectors made of the texts' bytes, an index of few chunks."""

import hashlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from embed_assets.search.server.served import Mode, Task

SIZE = 8
TEXTS = ("Open the valve slowly.", "The <b>pump</b> hums & leaks.", "Grease it each month.")
REFUSED = "a text that breaks the model"


def vector(text: str, task: Task, name: str) -> np.ndarray:
    """A made-up embedding, float32 (8,), normalised."""
    seed = int.from_bytes(hashlib.sha256(f"{name} {task} {text}".encode()).digest()[:4], "big")
    row = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    return row / np.linalg.norm(row)


class MadeUp:
    """Served. calls: the texts of each call. `held` keeps calls waiting while it is cleared."""

    dimensions = (8, 4, 2)
    token_limit = 6
    models = ("champion", "base")
    cutoff = 0.2
    chunks = len(TEXTS)

    def __init__(self, name: str = "v1") -> None:
        self.name, self.identity = name, f"identity of {name}"
        self.calls: list[tuple[str, list[str]]] = []
        self.threads: set[int] = set()
        self.free, self.asked = threading.Event(), threading.Event()
        self.free.set()

    def embed(self, texts: Sequence[str], task: Task) -> np.ndarray:
        self._called(task, texts)
        return np.stack([vector(text, task, self.name) for text in texts])

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def search(
        self,
        queries: Sequence[str],
        k: int,
        mode: Mode,
        model: str = "champion",
        only_likely: bool = False,
    ) -> list[list[dict[str, Any]]]:
        self._called(mode, queries)
        return [
            [
                {
                    "file_name": "pump <1>.pdf",
                    "path": "manuals/pump <1>.pdf",
                    "page_start": place + 1,
                    "page_end": place + 1,
                    "heading_path": "Care > Daily",
                    "chunk_text": f"{text} [{self.name}, {model}, {mode}]",
                    "chunk_id": f"c{place}",
                    "document_id": "pump-1",
                    "score": 0.5 - place / 10,
                    "cosine": 0.4 - place / 5,
                    "dense_rank": place + 1,
                    "lexical_rank": None if place else 2,
                    "likely": place < 2,
                }
                for place, text in enumerate(TEXTS[:k])
                if place < 2 or not only_likely
            ]
            for _ in queries
        ]

    def pdf(self, path: str) -> bytes | None:
        return b"%PDF-1.4 made up" if path == "manuals/pump <1>.pdf" else None

    def _called(self, kind: str, texts: Sequence[str]) -> None:
        self.calls.append((kind, list(texts)))
        self.threads.add(threading.get_ident())
        self.asked.set()
        assert self.free.wait(20), "nobody freed the model"
        if REFUSED in texts:
            raise RuntimeError("it broke")


class Following:
    """Follower of what a test puts in its place."""

    def __init__(self, served: MadeUp) -> None:
        self.served, self.closed = served, False

    def watch(self) -> "Following":
        return self

    def current(self) -> MadeUp:
        return self.served

    def close(self) -> None:
        self.closed = True
