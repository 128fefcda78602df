"""Follows the champion for the server: each answer is of one index and the model that made it."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from embed_assets.errors import ProjectError
from embed_assets.resources.current_index import read_current, state_of
from embed_assets.search.searching import Cut, Mode, ModelChoice, Searcher, open_searcher
from embed_assets.search.server.served import CHAMPION, Task
from embed_assets.settings import Settings

_log = logging.getLogger(__name__)
LOOKS = 1.0
"""Seconds between two looks at what search goes by, whether anybody asks or not."""
AGAIN = 30.0
"""Seconds until an index that could not be opened is tried again."""


class ServedIndex:
    """An index and its model, as the server asks for them: see `served.Served`."""

    def __init__(self, settings: Settings, searcher: Searcher) -> None:
        self._settings, self.searcher = settings, searcher
        manifest = searcher.index.manifest
        self.name = f"v{manifest.version}" if manifest.version else manifest.base
        self.identity, self.dimensions = manifest.identity, manifest.dimensions
        self.token_limit, self.chunks = manifest.model.token_limit, manifest.chunks
        self.models, self.cutoff = searcher.models, manifest.cutoff

    def embed(self, texts: Sequence[str], task: Task) -> np.ndarray:
        """Embeddings, float32 (texts, size), normalised."""
        return self.searcher.embed(texts, task)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special ones left out."""
        return self.searcher.card.count_tokens(text)

    def search(
        self,
        queries: Sequence[str],
        k: int,
        mode: Mode,
        model: str = CHAMPION,
        only_likely: bool = False,
    ) -> list[list[dict[str, Any]]]:
        """The k best chunks of each query, the best first."""
        chosen: ModelChoice = "base" if model == "base" else "champion"
        least = self.cutoff if only_likely and chosen == "champion" else None
        return self.searcher.search(queries, Cut(k, least), mode, chosen)

    def pdf(self, path: str) -> bytes | None:
        """The PDF of a document on record; None of one that left."""
        from embed_assets.resources.warehouse import Warehouse

        warehouse = Warehouse.of(self._settings)
        rows = warehouse.read("SELECT sha256, content FROM raw_pdfs WHERE path = ?", [path])
        return None if rows.is_empty() else warehouse.with_contents(rows)["content"][0]


class IndexFollower:
    """Gives the newest index whose model is loaded; what is hidden in it shows at once."""

    def __init__(self, settings: Settings) -> None:
        """Open the index and load its model. ProjectError where there is none."""
        self._settings = settings
        self._seen = state_of(settings.home)
        self._served = ServedIndex(settings, _loaded(open_searcher(settings)))
        self._lock = threading.Lock()
        self._loading: threading.Thread | None = None
        self._failed_at: float | None = None
        self._closed = threading.Event()
        self._watching: threading.Thread | None = None

    def watch(self) -> "IndexFollower":
        """Look by itself from now on: the first who asks after a change has its answer."""
        self._watching = threading.Thread(target=self._watch, name="following", daemon=True)
        self._watching.start()
        return self

    def _watch(self) -> None:
        while not self._closed.wait(LOOKS):
            try:
                self.current()
            except Exception:  # it is looked at again, and whoever asks is told
                _log.warning("What search goes by can't be read.", exc_info=True)

    def current(self) -> ServedIndex:
        """The newest set that is ready."""
        seen = state_of(self._settings.home)
        failed = self._failed_at
        if seen != self._seen or (failed is not None and time.monotonic() > failed + AGAIN):
            with self._lock:
                self._follow(seen)
        return self._served

    def _follow(self, seen: object) -> None:
        """Hide what left, and begin to load another index; once for each state of the file."""
        if seen == self._seen and self._failed_at is None:
            return
        before = self._served.searcher
        # What left is left out at once, whatever index comes.
        hidden = before.hiding(read_current(self._settings.home))
        self._served = ServedIndex(self._settings, hidden)
        self._seen, self._failed_at = seen, None
        try:
            now = open_searcher(self._settings)
        except ProjectError:  # all indexes were removed: one with less in it follows
            self._failed_at = time.monotonic()
            return
        if now.index.folder == before.index.folder:
            return
        self._loading = threading.Thread(target=self._load, args=[now], daemon=True)
        self._loading.start()

    def _load(self, searcher: Searcher) -> None:
        try:
            served = ServedIndex(self._settings, _loaded(searcher))
        except Exception:  # of a model, an index, or what reads them
            _log.warning("The next index can't be opened yet.", exc_info=True)
            self._failed_at = time.monotonic()
            return
        with self._lock:
            if searcher.is_current():
                self._served = served
            else:
                self._seen = None  # looked at again by the next request

    def close(self) -> None:
        """Wait for a model that is being loaded: torch is not to be ended in the middle of it."""
        self._closed.set()
        if self._watching is not None:
            self._watching.join()
        if self._loading is not None:
            self._loading.join()


def _loaded(searcher: Searcher) -> Searcher:
    """A searcher that is warm: its model and words are in memory."""
    searcher.search(["a text"], Cut(1))
    return searcher
