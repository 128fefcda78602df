"""Search: the best chunks for a text, by meaning, by words, or by both.

Everything is answered from one index and the model that made it. What has left since the index was
made is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from embed_assets.errors import ProjectError, one_line
from embed_assets.evaluation.fusion import CANDIDATES, fuse
from embed_assets.lexical import Found
from embed_assets.models.card import ModelCard
from embed_assets.models.encoder import LocalEncoder, resolved_precision
from embed_assets.models.files import Task
from embed_assets.models.identity import model_identity
from embed_assets.resources.current_index import Current, read_current, search_folder
from embed_assets.search.index import NOT_WHOLE, CardOnDisk, Index
from embed_assets.settings import Precision, Settings

Mode = Literal["hybrid", "dense", "lexical"]
ModelChoice = Literal["champion", "base"]
OPENINGS = 5
"""Tries to open an index: one that was replaced meanwhile is gone."""
RERANKED = 50
"""Chunks that a cross-encoder reads for a query, at least."""


class NoIndexError(ProjectError):
    """There is nothing to search yet."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            f"There is nothing to search in {settings.home}. `embed-assets ingest` reads PDFs."
        )


@dataclass(frozen=True)
class Cut:
    """What of the results is shown. least: cosine that each must have. reranker: a cross-encoder of
    sentence-transformers that puts the best in another order.
    """

    k: int = 5
    least: float | None = None
    reranker: str = ""


class Searcher:
    """One index, and the models that search it, loaded when they are first needed."""

    def __init__(self, settings: Settings, current: Current, index: Index) -> None:
        """`current`: what search went by when the index was opened."""
        self._settings, self.current, self.index = settings, current, index
        self._hidden_rows = index.rows_of(current.hidden)
        self._encoders: dict[ModelChoice, LocalEncoder] = {}
        self._cross_encoders: dict[str, Any] = {}

    def is_current(self) -> bool:
        """Whether search still goes by this index, and nothing has left since."""
        now = read_current(self._settings.home)
        return (now.index, now.hidden) == (self.current.index, self.current.hidden)

    def hiding(self, current: Current) -> "Searcher":
        """The same without what has left since; what is hidden already stays so."""
        hidden = current.hidden
        if current.index is None:  # all indexes were removed, of which this is one
            hidden = dict.fromkeys(self.index.manifest.documents, "")
        elif current.index != self.current.index:
            hidden = {**self.current.hidden, **current.hidden}
        other = Searcher(self._settings, replace(self.current, hidden=hidden), self.index)
        other._encoders = self._encoders
        return other

    @property
    def models(self) -> tuple[ModelChoice, ...]:
        """The models that can search."""
        return ("champion", "base") if self.index.base_vectors is not None else ("champion",)

    @cached_property
    def card(self) -> ModelCard:
        """Card of the model that made the index. ProjectError where the model is another now."""
        return self._unchanged(self.index.manifest.model, self.index.manifest.identity)

    def _unchanged(self, kept: CardOnDisk, identity: str) -> ModelCard:
        card = kept.card(self._settings.home)
        if model_identity(card) != identity:
            raise ProjectError(
                f"{card.name} is no longer the model that made the search index: "
                "`embed-assets run` makes it anew."
            )
        return card

    def embed(
        self, texts: Sequence[str], task: Task, model: ModelChoice = "champion"
    ) -> np.ndarray:
        """Embeddings of length 1, float32 (texts, size). By one thread at a time."""
        embeddings = self._encoder(model).encode(list(texts), task)
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        return embeddings / np.maximum(lengths, 1e-12)

    def search(
        self,
        queries: Sequence[str],
        cut: Cut,
        mode: Mode = "hybrid",
        model: ModelChoice = "champion",
    ) -> list[list[dict[str, Any]]]:
        """Results of each query, the best first.

        Each says where it stands, its score (of a mode or of the cross-encoder: only those of one
        query compare), the cosine of its embedding, and its rank by meaning and by words.
        """
        if model not in self.models:
            raise ProjectError(
                "The base model's embeddings of these chunks are not there: `embed-assets run` "
                "measures the base, and then they are."
            )
        embedded = None if mode == "lexical" else self.embed(queries, "query", model)
        depth = max(cut.k, CANDIDATES, RERANKED if cut.reranker else 0)
        return [
            self._results(
                query, None if embedded is None else embedded[place], cut, mode, model, depth
            )
            for place, query in enumerate(queries)
        ]

    def _results(
        self,
        query: str,
        embedded: np.ndarray | None,
        cut: Cut,
        mode: Mode,
        model: ModelChoice,
        depth: int,
    ) -> list[dict[str, Any]]:
        vectors = self._vectors(model)
        dense = _none() if embedded is None else self._nearest(vectors, embedded, depth)
        lexical = _none() if mode == "dense" else self._by_words(query, depth)
        rows, scores = {
            "hybrid": lambda: fuse(dense, lexical, depth, self._settings.dense_weight),
            "dense": lambda: dense,
            "lexical": lambda: lexical,
        }[mode]()
        cosines = None if embedded is None else vectors[rows] @ embedded
        if cut.least is not None and cosines is not None:
            near = cosines >= cut.least
            rows, scores, cosines = rows[near], scores[near], cosines[near]
        ranks = [{int(row): n for n, row in enumerate(found[0], 1)} for found in (dense, lexical)]
        cutoff = self.index.manifest.cutoff if model == "champion" else None
        results = []
        for place, row in enumerate(rows[: max(cut.k, RERANKED) if cut.reranker else cut.k]):
            cosine = None if cosines is None else round(float(cosines[place]), 6)
            results.append(
                {
                    **self.index.place(int(row), self.current.hidden),
                    "score": round(float(scores[place]), 6),
                    "cosine": cosine,
                    "dense_rank": ranks[0].get(int(row)),
                    "lexical_rank": ranks[1].get(int(row)),
                    "likely": None if cosine is None or cutoff is None else cosine >= cutoff,
                }
            )
        return self._reranked(query, results, cut) if cut.reranker else results

    def _reranked(
        self, query: str, results: list[dict[str, Any]], cut: Cut
    ) -> list[dict[str, Any]]:
        """Results by what a cross-encoder says of each with the query, the best first."""
        if not results:
            return []
        scores = self._cross_encoder(cut.reranker).predict(
            [(query, result["chunk_text"]) for result in results], show_progress_bar=False
        )
        order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")[: cut.k]
        return [{**results[i], "score": round(float(scores[i]), 6)} for i in order]

    def _cross_encoder(self, name: str) -> Any:
        if name not in self._cross_encoders:
            self._cross_encoders[name] = load_cross_encoder(name)
        return self._cross_encoders[name]

    def _encoder(self, model: ModelChoice) -> LocalEncoder:
        if model not in self._encoders:
            manifest, card = self.index.manifest, self.card
            if manifest.base_model and model == "base":
                card = self._unchanged(manifest.base_model, manifest.base_identity)
            precision: Precision = self._settings.precision
            self._encoders[model] = LocalEncoder(card, resolved_precision(precision))
        return self._encoders[model]

    def _vectors(self, model: ModelChoice) -> np.ndarray:
        of_base = self.index.base_vectors
        return self.index.vectors if model == "champion" or of_base is None else of_base

    def _nearest(self, vectors: np.ndarray, query: np.ndarray, k: int) -> Found:
        """Rows of the k nearest embeddings and their cosines; equal ones by row."""
        k = min(k, len(vectors) - len(self._hidden_rows))
        if k < 1:
            return _none()
        rows = None
        if self.index.approximate and vectors is self.index.vectors:
            rows = self.index.approximate.candidates(query, k, len(self._hidden_rows))
        if rows is None:
            rows = np.arange(len(vectors))
            cosines = vectors @ query
            cosines[self._hidden_rows] = -np.inf
        else:
            rows = np.setdiff1d(rows, self._hidden_rows)
            cosines = vectors[rows] @ query
        least = np.partition(cosines, -k)[-k]
        best = np.flatnonzero(cosines >= least)
        best = best[np.argsort(-cosines[best], kind="stable")][:k]
        return rows[best], cosines[best]

    def _by_words(self, query: str, k: int) -> Found:
        rows, scores = self.index.lexical.top(query, k + len(self._hidden_rows))
        there = ~np.isin(rows, self._hidden_rows)
        return rows[there][:k], scores[there][:k]


def _none() -> Found:
    return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)


def open_searcher(settings: Settings) -> Searcher:
    """A searcher of the index that search goes by. NoIndexError where there is none."""
    for _ in range(OPENINGS):
        current = read_current(settings.home)
        if current.index is None:
            break
        try:
            index = Index(search_folder(settings.home) / current.index)
        except NOT_WHOLE:
            continue  # replaced meanwhile, or damaged
        return Searcher(settings, current, index)
    raise NoIndexError(settings)


def load_cross_encoder(name: str) -> Any:
    """A cross-encoder of sentence-transformers. ProjectError where it can't be loaded."""
    from sentence_transformers import CrossEncoder

    from embed_assets.machine import this_machine
    from embed_assets.models.files import NoModelError, find_file, may_run_code

    try:
        find_file(name, "config.json")  # soon tells whether there is one: the library tries long
        return CrossEncoder(
            name,
            device=None if this_machine().gpus else "cpu",
            trust_remote_code=may_run_code(name),
        )
    except NoModelError as error:
        raise ProjectError(f"--rerank: there is no folder and no hub model '{name}'.") from error
    except (OSError, ValueError) as error:
        said = one_line(str(error))
        raise ProjectError(f"--rerank: {name} can't be loaded: {said}") from error


def model_of(searcher: Searcher) -> Mapping[str, Any]:
    """Which model searches: what a person reads, its version, and the cut-off of its cosines."""
    manifest = searcher.index.manifest
    return {
        "model": manifest.called,
        "version": manifest.version,
        "cutoff": manifest.cutoff,
        "cutoff_questions": manifest.cutoff_questions,
    }
