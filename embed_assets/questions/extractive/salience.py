"""Which terms say most about a passage, by the other passages of its document."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from embed_assets.questions.extractive.passages import ENGLISH, Passage
from embed_assets.words import UNSPACED, split_terms, word_set

STOP_WORDS = ENGLISH | word_set(
    """
    a about above after again all also although always an any because been before being below
    between both but can could did do does doing done down during each either else ever every few
    further get give given gives had has have he hence her here his how however i if in into its
    itself just less like made make makes many may me might more most much must my neither no nor
    not now off once one only other otherwise our out over own per rather same see several shall
    she should since so some such take than their them then there therefore these they those
    through thus too two under until up upon us use used using very via was we well were what
    when where whether which while who whom whose why will within without would yet you your
    """
)


_POSSESSIVE = re.compile(r"['’]s?$")


@lru_cache(100_000)
def fold(term: str) -> str:
    """One form for `Casts`, `cast` and `cast's`."""
    folded = _POSSESSIVE.sub("", term.casefold())
    return folded[:-1] if len(folded) > 4 and folded.endswith("s") else folded


@lru_cache(100_000)
def may_be_term(folded: str) -> bool:
    """Whether a folded word says something of its own: long enough, and no stop word."""
    long_enough = len(folded) > 2 or UNSPACED.search(folded) or _has_digit_and_letter(folded)
    has_letter = any(character.isalpha() for character in folded)
    return bool(long_enough and has_letter and folded not in STOP_WORDS)


def _has_digit_and_letter(text: str) -> bool:
    return any(c.isdigit() for c in text) and any(c.isalpha() for c in text)


@dataclass(frozen=True)
class Salience:
    """How much a term says about a chunk, by the chunks of one document.

    tf-idf (Spärck Jones 1972), times a term's length up to eight letters: in a document of few
    chunks the frequencies alone can't tell little words from terms.
    """

    chunks: int
    chunks_with: Mapping[str, int]

    @classmethod
    def of(cls, passages: Sequence[Passage]) -> "Salience":
        """Count in how many passages each term occurs."""
        folded = chain.from_iterable(set(map(fold, passage.terms)) for passage in passages)
        return cls(len(passages), Counter(folded))

    def weigh(self, terms: Sequence[str]) -> dict[str, float]:
        """The weight of each folded term among these, where it may be a term at all.

        A word that a longer document has only once counts half: it is more often a turn of phrase
        than a term.
        """
        counts = Counter(filter(may_be_term, map(fold, terms)))
        return {term: self._trust(term, n) * self.rarity(term) for term, n in counts.items()}

    def _trust(self, folded: str, count: int) -> float:
        once = count == 1 and self.chunks_with.get(folded, 1) == 1 and self.chunks >= 5
        return 0.5 if once and not _has_digit_and_letter(folded) else count

    def rarity(self, folded: str) -> float:
        """Inverse document frequency (the documents are chunks), times the length."""
        length = 8 if _has_digit_and_letter(folded) or UNSPACED.search(folded) else len(folded)
        return math.log((1 + self.chunks) / self.chunks_with.get(folded, 1)) * min(length, 8)


def salient_terms(passage: Passage, salience: Salience) -> list[str]:
    """A passage's terms as first written, best first. Those of its heading count twice."""
    headed = set(map(fold, split_terms(" ".join(passage.headings[-1:]))))
    weights = {
        term: weight * (2 if term in headed else 1)
        for term, weight in salience.weigh(passage.terms).items()
    }
    written = {fold(term): term for term in reversed(passage.terms)}
    return [written[term] for term in sorted(weights, key=lambda term: (-weights[term], term))]
