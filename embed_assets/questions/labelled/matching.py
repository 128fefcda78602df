"""Where in one document a text stands: which of its chunks hold the words of the evidence."""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from embed_assets.words import normalised_words

MATCH_THRESHOLD = 0.4
"""Least share of the evidence's words and word pairs that the chunks of a named file must hold."""
NEARLY_BEST = 0.95
PAGE_WORTH = 0.2
"""The page that a row names counts for as much as this share of the evidence found elsewhere."""
LEAST_PART = 0.2
CONTAINED = 0.6
LEAST_RUN = 4
"""A further chunk is added if it holds LEAST_PART of the evidence's word pairs, or if CONTAINED of
its own pairs are evidence not yet found. Fewer than LEAST_RUN pairs are chance.
"""
_LATEX_OR_BREAK = re.compile(r"\\[a-z]+|<br>")


@dataclass(frozen=True)
class Match:
    """Chunks that answer a question, best first, and how much of the evidence they hold."""

    chunk_ids: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class Words:
    """A text as its normalised words: no case, signs, LaTeX commands or markup."""

    text: str

    @cached_property
    def list(self) -> list[str]:
        """The words in their order."""
        return normalised_words(_LATEX_OR_BREAK.sub(" ", self.text))

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each word stands in the text."""
        return Counter(self.list)

    @cached_property
    def pairs(self) -> Counter[tuple[str, str]]:
        """How often each pair of neighbouring words stands in the text."""
        return Counter(zip(self.list, self.list[1:], strict=False))


@dataclass(frozen=True)
class Chunk:
    """A chunk and its words."""

    chunk_id: str
    words: Words
    page_start: int
    page_end: int


@dataclass(frozen=True)
class Document:
    """The chunks of a document, indexed once by what stands in them, for any number of questions.

    An index says in which places (of chunks) a word or a pair stands, and how often.
    """

    chunks: tuple[Chunk, ...] = ()

    @cached_property
    def words(self) -> "Index":
        """Index of the words."""
        return _index([chunk.words.counts for chunk in self.chunks])

    @cached_property
    def pairs(self) -> "Index":
        """Index of the pairs of neighbouring words."""
        return _index([chunk.words.pairs for chunk in self.chunks])

    def on_page(self, page: int | None) -> list[int]:
        """Places of the chunks that stand on a page, at least in part; of all without one."""
        return [
            place
            for place, chunk in enumerate(self.chunks)
            if page is None or chunk.page_start <= page <= chunk.page_end
        ]


Index = Mapping[Hashable, Sequence[tuple[int, int]]]


def _index(counts: Sequence[Counter[Any]]) -> Index:
    index: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    for place, counter in enumerate(counts):
        for item, count in counter.items():
            index[item].append((place, count))
    return index


def read_documents(chunks: pl.DataFrame) -> Iterator[tuple[str, Document]]:
    """Documents by id, one at a time. chunks: document_id, chunk_id, chunk_text, page_start, _end.

    What is read of a document's words goes when the document does.
    """
    columns = ("chunk_id", "chunk_text", "page_start", "page_end")
    for (document_id,), rows in chunks.group_by("document_id", maintain_order=True):
        found = rows.select(columns).iter_rows()
        read = (Chunk(chunk_id, Words(text), start, end) for chunk_id, text, start, end in found)
        yield str(document_id), Document(tuple(read))


def match_chunk(document: Document, page: int | None, text: str, least: float) -> Match:
    """The very chunk, where its text or else its words are the same: not those that hold it."""
    words = Words(text)
    equal = [chunk for chunk in document.chunks if chunk.words.text == text] or [
        chunk for chunk in document.chunks if chunk.words.list == words.list
    ]
    if equal:
        return Match(tuple(dict.fromkeys(chunk.chunk_id for chunk in equal)), 1.0)
    return match_evidence(document, page, text, least)


def match_evidence(
    document: Document,
    page: int | None,
    evidence_text: str | None,
    least: float = MATCH_THRESHOLD,
) -> Match:
    """Chunks of one document that hold the evidence.

    Words are compared normalised, since tables in markdown differ from the source. The page is
    preferred, but where much more of the evidence stands elsewhere, that counts: printed page
    numbers often differ from those of the file, and evidence may go on over the page.
    """
    on_page = document.on_page(page)
    evidence = Words(evidence_text or "")
    if not evidence.list:
        ids = tuple(dict.fromkeys(document.chunks[place].chunk_id for place in on_page))
        return Match(ids, 1.0 if ids else 0.0)
    best = _best(document, on_page, evidence, least)
    if page is None or best.score >= 1 - PAGE_WORTH:
        return best
    anywhere = _best(document, document.on_page(None), evidence, least)
    if best.chunk_ids and anywhere.score <= best.score + PAGE_WORTH:
        return best
    return anywhere


def _best(document: Document, places: Sequence[int], evidence: Words, least: float) -> Match:
    words = _shared(evidence.counts, document.words)
    pairs = _shared(evidence.pairs, document.pairs)
    scores = {place: _coverage(evidence, words[place], pairs[place]) for place in places}
    top = max(scores.values(), default=0.0)
    chosen = [place for place in places if scores[place] >= max(least, NEARLY_BEST * top)]
    chosen += _further(document, places, evidence, chosen)
    texts = [document.chunks[place].words for place in chosen]
    lacking = _lacking(evidence.counts, [text.counts for text in texts])
    lacking_pairs = _lacking(evidence.pairs, [text.pairs for text in texts])
    together = _coverage(
        evidence,
        evidence.counts.total() - lacking.total(),
        evidence.pairs.total() - lacking_pairs.total(),
    )
    score = max(top, together)
    if score < least:
        return Match((), score)
    ranked = sorted(chosen, key=lambda place: -scores[place])
    return Match(tuple(dict.fromkeys(document.chunks[place].chunk_id for place in ranked)), score)


def _further(
    document: Document, places: Sequence[int], evidence: Words, chosen: Sequence[int]
) -> list[int]:
    """Places of chunks with parts of the evidence that the chosen ones lack, largest part first."""
    further: list[int] = []
    rest = _lacking(evidence.pairs, [document.chunks[place].words.pairs for place in chosen])
    while rest.total() >= LEAST_RUN:
        added = _shared(rest, document.pairs)
        parts = [p for p in places if _is_part(added[p], document.chunks[p].words, evidence)]
        if not parts:
            break
        largest = max(parts, key=lambda place: added[place])
        further.append(largest)
        rest = rest - document.chunks[largest].words.pairs
    return further


def _is_part(added: int, chunk: Words, evidence: Words) -> bool:
    large = added >= LEAST_PART * evidence.pairs.total()
    contained = added >= CONTAINED * chunk.pairs.total()
    return added >= LEAST_RUN and (large or contained)


def _shared(wanted: Counter[Any], index: Index) -> Counter[int]:
    """How many of the wanted words or pairs the chunk at each place holds."""
    shared = Counter[int]()
    for item, count in wanted.items():
        for place, there in index.get(item, ()):
            shared[place] += min(count, there)
    return shared


def _coverage(evidence: Words, words: int, pairs: int) -> float:
    """Mean share of the evidence's words and of its pairs that is held, 0 to 1."""
    share = words / evidence.counts.total()
    return (share + pairs / evidence.pairs.total()) / 2 if evidence.pairs else share


def _lacking(wanted: Counter[Any], parts: Sequence[Counter[Any]]) -> Counter[Any]:
    for part in parts:
        wanted = wanted - part
    return wanted
