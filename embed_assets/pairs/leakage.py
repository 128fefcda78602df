"""Leakage: what tests a model though it trains it too.

Pairs are made without any: `selection.py` drops what would leak, by what is defined here. The check
`no_leakage` looks at the pairs as they are, whoever made them.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from embed_assets.pairs.splits import TEST_SPLITS, TRAIN, UNSEEN, VALIDATION
from embed_assets.resources.warehouse import Warehouse
from embed_assets.words import normalised_words

TRAINED = (TRAIN, VALIDATION)
"""Splits that decide a training."""
TENTHS = 9
"""Of the words of two questions together, the tenths that both must have to be nearly the same."""
FEWEST_WORDS = 5
"""Different words of a question from which on it may be nearly another; below, it is or is not."""

LETTERS = r"md5(coalesce(nullif(regexp_replace(lower({0}), '[^\pL\pN\pM]+', '', 'g'), ''), {0}))"
"""SQL: alike of texts that are twins. They differ in case, signs, spaces and line breaks alone."""

OCCURRENCES = (
    f"WITH texts AS (SELECT DISTINCT chunk_id, document_id, {LETTERS.format('chunk_text')} "
    "AS letters FROM chunks) "
    "SELECT DISTINCT a.chunk_id, b.document_id FROM texts a JOIN texts b USING (letters)"
)
"""Query of chunk_id and document_id: every document in which a chunk's text stands, or its twin."""

_HELD_OUT = (
    "WITH held AS (SELECT DISTINCT " + LETTERS.format("chunk_text") + " AS letters FROM chunks "
    "JOIN split_assignments ON kind = 'document' AND id = document_id WHERE split = ?) "
    "SELECT DISTINCT document_id, global_chunk_id AS chunk_id FROM training_pairs "
    "WHERE split IN (SELECT unnest(?::VARCHAR[])) "
    "AND " + LETTERS.format("positive") + " IN (SELECT letters FROM held) ORDER BY ALL"
)
_ON_TRAINED_CHUNKS = (
    "WITH tests AS (SELECT split, question_id, unnest(relevant_chunk_ids) AS chunk_id "
    "FROM training_pairs WHERE split IN (SELECT unnest(?::VARCHAR[]))) "
    "SELECT split, count(DISTINCT question_id) FROM tests WHERE chunk_id IN "
    "(SELECT global_chunk_id FROM training_pairs WHERE split = ?) GROUP BY split ORDER BY split"
)


@dataclass(frozen=True, eq=False)
class Leaks:
    """What leaks, and what is by design.

    questions: `tested` and `trained`, two questions that are nearly the same. chunks: document_id
    and chunk_id of what trains though a held-out document has it, or its twin. on_trained_chunks:
    by split, questions that test on a chunk that other questions train on.
    """

    questions: pl.DataFrame
    chunks: pl.DataFrame
    on_trained_chunks: dict[str, int]

    @property
    def count(self) -> int:
        """Leaks of both kinds."""
        return self.questions.height + self.chunks.height


def find_leaks(warehouse: Warehouse) -> Leaks:
    """What leaks between the splits of training_pairs."""
    pairs = warehouse.read("SELECT anchor, split FROM training_pairs ORDER BY question_id")
    trains = pl.col("split").is_in(TRAINED)
    trained, tested = (pairs.filter(side)["anchor"].to_list() for side in (trains, ~trains))
    rows = [
        {"tested": tested[place], "trained": trained[other]}
        for place, other in nearly_same(tested, trained).items()
    ]
    return Leaks(
        pl.DataFrame(rows, schema={"tested": pl.String, "trained": pl.String}),
        warehouse.read(_HELD_OUT, [UNSEEN, list(TRAINED)]),
        dict(warehouse.read(_ON_TRAINED_CHUNKS, [list(TEST_SPLITS), TRAIN]).iter_rows()),
    )


def nearly_same(questions: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """Place of each question that is nearly one of the others -> the place of that one.

    Case and signs don't count. From FEWEST_WORDS on the order of words doesn't either, and TENTHS
    of the words of both together must be shared (Jaccard); but every figure must be, in order: a
    question about fault 17 is none about fault 18. Others are looked up by their rarest words, of
    which two such questions share at least one (Chaudhuri, Ganti & Kaushik 2006).
    """
    words = [normalised_words(text) or [text] for text in (*questions, *others)]
    counts = Counter(word for known in words for word in set(known))
    rarest_first = sorted(counts, key=lambda word: (counts[word], word))
    number_of = {word: number for number, word in enumerate(rarest_first)}
    asked = [_Words.of(known, number_of) for known in words]
    same: dict[tuple[int, ...], int] = {}
    holding: dict[tuple[int, tuple[str, ...]], list[int]] = defaultdict(list)
    of_others = asked[len(questions) :]
    for place, other in enumerate(of_others):
        same.setdefault(other.in_order, place)
        for word in other.telling:
            holding[word, other.figures].append(place)
    found: dict[int, int] = {}
    for place, question in enumerate(asked[: len(questions)]):
        match = same.get(question.in_order)
        if match is None:
            keys = ((word, question.figures) for word in question.telling)
            candidates = (other for key in keys for other in holding.get(key, ()))
            near = (other for other in candidates if question.is_nearly(of_others[other]))
            match = next(near, None)
        if match is not None:
            found[place] = match
    return found


@dataclass(frozen=True)
class _Words:
    """The words of a question by their numbers, the rarest lowest. figures: words with digits."""

    in_order: tuple[int, ...]
    each: frozenset[int]
    figures: tuple[str, ...]

    @classmethod
    def of(cls, words: Sequence[str], number_of: Mapping[str, int]) -> "_Words":
        in_order = tuple(number_of[word] for word in words)
        figures = tuple(word for word in words if any(map(str.isdigit, word)))
        return cls(in_order, frozenset(in_order), figures)

    @property
    def telling(self) -> list[int]:
        """The rarest words, of which a question that is nearly this one has at least one."""
        if len(self.each) < FEWEST_WORDS:
            return []
        least_shared = -(-TENTHS * len(self.each) // 10)
        return sorted(self.each)[: len(self.each) - least_shared + 1]

    def is_nearly(self, other: "_Words") -> bool:
        """Whether both, whose figures are the same, share most words."""
        shared = len(self.each & other.each)
        return 10 * shared >= TENTHS * (len(self.each) + len(other.each) - shared)
