"""BM25: what plain words find, without any model."""

import functools
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from embed_assets.evaluation.metrics import DEPTH
from embed_assets.evaluation.retrieval import (
    NO_DIMENSION,
    Evaluation,
    evaluate_rankings,
    without_own,
)
from embed_assets.words import search_words

BM25 = "bm25"
IDENTITY = "bm25 1"
"""What identifies these rankings; to be counted up where they change."""


def bm25_rankings(
    queries: Sequence[str], corpus: Mapping[str, str], k: int = DEPTH
) -> list[list[str]]:
    """Ids of the k texts of the corpus that BM25 ranks best for each query, the best first.

    A text that shares no word with a query is not found, so a list may be shorter than k. Equal
    scores stand in the order of the ids. Words are `search_words` without English stop words,
    stemmed by Snowball's English stemmer; k1 = 1.5, b = 0.75, Lucene's IDF.
    Robertson & Zaragoza 2009; Lù 2024 (bm25s).
    """
    import bm25s

    words_of = _stemmed_words()
    corpus_words = [words_of(text) for text in corpus.values()]
    if not any(corpus_words):
        return [[] for _ in queries]
    index = bm25s.BM25()
    index.index(corpus_words, show_progress=False)
    ids = list(corpus)
    id_ranks = np.empty(len(ids), dtype=np.int64)
    id_ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return [
        [ids[i] for i in _best(index.get_scores(words), id_ranks, k)] if words else []
        for words in map(words_of, queries)
    ]


def _stemmed_words() -> Callable[[str], list[str]]:
    """A function that gives the words of a text by which BM25 finds it."""
    import Stemmer
    from bm25s.stopwords import STOPWORDS_EN

    stem = functools.cache(Stemmer.Stemmer("english").stemWord)
    stop_words = frozenset(STOPWORDS_EN)
    return lambda text: [stem(word) for word in search_words(text) if word not in stop_words]


def evaluate_bm25(
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    relevant: Mapping[str, AbstractSet[str]],
    splits: Sequence[str] | None = None,
    own: Mapping[str, str] | None = None,
) -> Evaluation:
    """BM25's scores under NO_DIMENSION. queries, corpus: texts by id; the rest as in `evaluate`."""
    rankings = bm25_rankings(list(queries.values()), corpus, DEPTH + bool(own))
    rankings = without_own(rankings, list(queries), own)
    return evaluate_rankings(rankings, list(queries), relevant, NO_DIMENSION, splits)


def _best(scores: np.ndarray, tie_ranks: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k largest scores above 0, the largest first, then by tie rank."""
    least = np.partition(scores, -k)[-k] if k < len(scores) else 0
    candidates = np.flatnonzero((scores >= least) & (scores > 0))
    return candidates[np.lexsort((tie_ranks[candidates], -scores[candidates]))][:k]
