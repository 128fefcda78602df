"""Search by words: BM25 over texts, each stemmed by its own language."""

import functools
import json
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embed_assets.languages import LITTLE_WORDS, languages_of
from embed_assets.words import search_words

if TYPE_CHECKING:
    from bm25s import BM25 as BM25Index

IDENTITY = "bm25 2"
"""What identifies these rankings; to be counted up where they change."""
Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows of a corpus and their scores, the best first."""
_ABOUT, _LANGUAGE_OF = "about.json", "language_of.npy"
_STEMS_KEPT = 100_000
"""Words of each language whose stems are remembered."""


@dataclass(frozen=True, eq=False)
class LexicalIndex:
    """BM25 over texts: row i is the i-th text.

    Words are `search_words` without the stop words of the text's language, stemmed by Snowball's
    stemmer of it; a query is stemmed as each text that it is compared with. k1 = 1.5, b = 0.75,
    Lucene's IDF. Robertson & Zaragoza 2009; Lù 2024 (bm25s).

    words: bm25s's index of the stemmed words; None where no text has any. languages: those of the
    texts. language_of: the place in languages of each text's, uint8 (texts,).
    """

    words: "BM25Index | None"
    languages: tuple[str, ...]
    language_of: NDArray[np.uint8]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "LexicalIndex":
        """The index of texts, in memory."""
        import bm25s

        # Each text is split once: the language that its words tell decides how they are stemmed.
        seen: dict[str, int] = {}
        split = [
            array("I", [seen.setdefault(word, len(seen)) for word in search_words(text)])
            for text in texts
        ]
        words_seen = list(seen)
        told = languages_of([words_seen[number] for number in text] for text in split)
        languages = tuple(sorted(set(told)))
        language_of = np.array([languages.index(language) for language in told], dtype=np.uint8)
        numbers: dict[str, int] = {}
        numbered: list[list[int]] = []
        for language, text, known in zip(told, texts, split, strict=True):
            if language in _LOWER_CASE:
                found = _split(text, language)
            else:
                found = [words_seen[number] for number in known]
            stems = _stems_in(language)(found)
            numbered.append([numbers.setdefault(stem, len(numbers)) for stem in stems])
        if not numbers:
            return cls(None, languages, language_of)
        words = bm25s.BM25()
        words.index((numbered, numbers), show_progress=False)
        return cls(words, languages, language_of)

    def save(self, folder: Path) -> None:
        """Write the index to a folder: a new one, since a loaded index reads its files as it goes.

        OSError where the disk doesn't take it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / _LANGUAGE_OF, self.language_of, allow_pickle=False)
        if self.words:
            self.words.save(folder, show_progress=False)
        about = {"identity": IDENTITY, "languages": self.languages, "words": bool(self.words)}
        (folder / _ABOUT).write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "LexicalIndex":
        """The index that a folder holds; only the vocabulary is read, the rest is memory-mapped.

        OSError where a file is missing, ValueError where one is damaged or of another IDENTITY.
        """
        import bm25s

        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        if about["identity"] != IDENTITY:
            raise ValueError(f"{folder} is an index of {about['identity']}, not of {IDENTITY}.")
        words = bm25s.BM25.load(folder, mmap=True) if about["words"] else None
        language_of = np.load(folder / _LANGUAGE_OF, mmap_mode="r", allow_pickle=False)
        return cls(words, tuple(about["languages"]), language_of)

    def top(self, query: str, k: int) -> Found:
        """The k best texts that share a word with the query, the best first; equal scores by row.

        Returns rows, int64, and scores, float32; fewer than k where fewer texts share a word.
        """
        scores = np.zeros(len(self.language_of), dtype=np.float32)
        if self.words:
            for place, language in enumerate(self.languages):
                if words := _stems_in(language)(_split(query, language)):
                    found = self.words.get_scores(words)
                    scores = np.where(self.language_of == place, found, scores)
        best = _best(scores, k)
        return best, scores[best]

    def language(self, row: int) -> str:
        """Language of a text, by which its words are compared with a query's."""
        return self.languages[self.language_of[row]]


def find_by_words(
    queries: Sequence[str], corpus: Mapping[str, str], k: int
) -> tuple[list[str], list[Found]]:
    """Ids of the corpus in their order, and `LexicalIndex.top` of each query: rows among them."""
    ids = sorted(corpus)
    index = LexicalIndex.of([corpus[key] for key in ids])
    return ids, [index.top(query, k) for query in queries]


def share_of_words(query: str, text: str, language: str) -> float | None:
    """Share of a query's distinct words that stand in a text, compared as BM25 compares them.

    language: of the text. None for a query without any word.
    """
    asked, said = (set(_stems_in(language)(_split(words, language))) for words in (query, text))
    return len(asked & said) / len(asked) if asked else None


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


def _split(text: str, language: str) -> list[str]:
    """The words of a text of a language, not stemmed yet."""
    return search_words(text.translate(_LOWER_CASE.get(language, {})))


@functools.cache
def _stems_in(language: str) -> Callable[[Sequence[str]], list[str]]:
    """A function that gives the stems of words, by which BM25 finds a text of a language."""
    import bm25s.stopwords
    import Stemmer

    stem = functools.lru_cache(_STEMS_KEPT)(Stemmer.Stemmer(language).stemWord)
    named = _STOP_WORDS.get(language)
    stop_words = frozenset(getattr(bm25s.stopwords, named) if named else LITTLE_WORDS[language])
    one_at_a_time = threading.Lock()  # a stemmer holds its word while it works

    def stems_of(words: Sequence[str]) -> list[str]:
        with one_at_a_time:
            return [stem(word) for word in words if word not in stop_words]

    return stems_of


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Rows of the k largest scores above 0, the largest first; equal ones by row."""
    least = np.partition(scores, -k)[-k] if k < len(scores) else 0
    candidates = np.flatnonzero((scores >= least) & (scores > 0))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]
