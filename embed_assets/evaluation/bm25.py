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
from embed_assets.languages import LITTLE_WORDS, languages_of
from embed_assets.words import search_words

BM25 = "bm25"
IDENTITY = "bm25 2"
"""What identifies these rankings; to be counted up where they change."""


def bm25_rankings(
    queries: Sequence[str], corpus: Mapping[str, str], k: int = DEPTH
) -> list[list[str]]:
    """Ids of the k texts of the corpus that BM25 ranks best for each query, the best first.

    A text that shares no word with a query is not found, so a list may be shorter than k. Equal
    scores stand in the order of the ids. Words are `search_words` without the stop words of the
    text's language, stemmed by Snowball's stemmer of it; a query is stemmed as each text that it is
    compared with. k1 = 1.5, b = 0.75, Lucene's IDF.
    Robertson & Zaragoza 2009; Lù 2024 (bm25s).
    """
    import bm25s

    languages = np.array(languages_of(map(search_words, corpus.values())), dtype=object)
    words_in = {language: _words_in(language) for language in sorted(set(languages))}
    texts = zip(languages, corpus.values(), strict=True)
    corpus_words = [words_in[language](text) for language, text in texts]
    if not any(corpus_words):
        return [[] for _ in queries]
    index = bm25s.BM25()
    index.index(corpus_words, show_progress=False)
    written_in = {language: languages == language for language in words_in}
    ids = list(corpus)
    id_ranks = np.empty(len(ids), dtype=np.int64)
    id_ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    rankings = []
    for query in queries:
        scores = np.zeros(len(ids), dtype=np.float32)
        for language, here in written_in.items():
            if words := words_in[language](query):
                scores[here] = index.get_scores(words)[here]
        rankings.append([ids[i] for i in _best(scores, id_ranks, k)])
    return rankings


_LOWER_CASE = {"turkish": str.maketrans("Iİ", "ıi")}
_STOP_WORDS = {
    "danish": "STOPWORDS_DANISH",
    "dutch": "STOPWORDS_DUTCH",
    "english": "STOPWORDS_EN",
    "french": "STOPWORDS_FRENCH",
    "german": "STOPWORDS_GERMAN",
    "italian": "STOPWORDS_ITALIAN",
    "norwegian": "STOPWORDS_NORWEGIAN",
    "portuguese": "STOPWORDS_PORTUGUESE",
    "russian": "STOPWORDS_RUSSIAN",
    "spanish": "STOPWORDS_SPANISH",
    "swedish": "STOPWORDS_SWEDISH",
    "turkish": "STOPWORDS_TURKISH",
}
"""Lists of bm25s; other languages leave out their little words."""


def _words_in(language: str) -> Callable[[str], list[str]]:
    """A function that gives the words by which BM25 finds a text of a language."""
    import bm25s.stopwords
    import Stemmer

    stem = functools.cache(Stemmer.Stemmer(language).stemWord)
    named = _STOP_WORDS.get(language)
    stop_words = frozenset(getattr(bm25s.stopwords, named) if named else LITTLE_WORDS[language])
    letters = _LOWER_CASE.get(language, {})
    return lambda text: [
        stem(word) for word in search_words(text.translate(letters)) if word not in stop_words
    ]


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
