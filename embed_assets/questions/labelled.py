"""People's questions find the chunks that answer them.

A question names its evidence by the text of a chunk or of the evidence, by file, page and the words
of the evidence, by file and page, or by file alone (then any chunk of the file counts). Without a
file its text is looked for in every document. No row is dropped in silence: what became of each is
in `match_report.py`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from embed_assets.questions.statuses import (
    EVIDENCE_NOT_FOUND,
    KEPT,
    TOO_VAGUE,
    UNANSWERABLE,
)

MATCH_THRESHOLD = 0.4
"""Least share of the evidence's words and word pairs that the chunks of a named file must hold."""
ANYWHERE_THRESHOLD = 0.7
"""The same where no file is named: then the words alone say which document is meant."""
NEARLY_BEST = 0.95
PAGE_WORTH = 0.2
"""The page that a row names counts for as much as this share of the evidence found elsewhere."""
LEAST_PART = 0.2
CONTAINED = 0.6
LEAST_RUN = 4
"""A further chunk counts where it adds so large a part of the evidence's word pairs, or is so
largely made of evidence not yet found; below so many pairs that is chance."""
VERSION = "labelled-2"
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class LabelledQuestion:
    """One row of people's questions. dropped: the status that a reviewer gave it, if any."""

    question: str
    file_name: str | None
    page: int | None
    evidence_text: str | None
    answer: str | None
    purpose: str
    answerable: bool
    source: str
    chunk_texts: tuple[str, ...] = ()
    dropped: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts that name the evidence by its words, rather than by its place alone."""
        return (*self.chunk_texts, *filter(None, [self.evidence_text]))


@dataclass(frozen=True)
class Match:
    """Chunks that answer a question, best first, and how much of the evidence they hold."""

    chunk_ids: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class Evidence:
    """What one document holds for a question, and what that makes of it."""

    question: LabelledQuestion
    document_id: str
    match: Match
    status: str


@dataclass(frozen=True)
class Words:
    """A text as its normalised words: no case, signs or markup."""

    text: str

    @cached_property
    def list(self) -> list[str]:
        """The words in their order."""
        return _WORD.findall(self.text.lower())

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
    """A chunk whose words are counted once, however many questions are compared with it."""

    chunk_id: str
    words: Words
    page_start: int
    page_end: int


def read_chunks(chunks: pl.DataFrame) -> dict[str, list[Chunk]]:
    """Chunks by document_id. chunks: document_id, chunk_id, chunk_text, page_start, page_end."""
    by_document: dict[str, list[Chunk]] = defaultdict(list)
    columns = ("document_id", "chunk_id", "chunk_text", "page_start", "page_end")
    for document_id, chunk_id, text, start, end in chunks.select(columns).iter_rows():
        by_document[document_id].append(Chunk(chunk_id, Words(text), start, end))
    return dict(by_document)


def labelled_questions(
    chunks: pl.DataFrame, questions: Sequence[LabelledQuestion], paths: Mapping[str, str]
) -> pl.DataFrame:
    """Labelled questions about these documents, each with the chunks that answer it.

    chunks: document_id, chunk_id, chunk_text, page_start, page_end. paths: document_id -> path.
    Returns chunk_id, relevant_chunk_ids, document_id, question, answer, kind, purpose, generator,
    prompt_version, status, score.
    """
    return pl.DataFrame(
        [_row(evidence) for evidence in find_evidence(chunks, questions, paths)],
        schema={
            "chunk_id": pl.String,
            "relevant_chunk_ids": pl.List(pl.String),
            "document_id": pl.String,
            "question": pl.String,
            "answer": pl.String,
            "kind": pl.String,
            "purpose": pl.String,
            "generator": pl.String,
            "prompt_version": pl.String,
            "status": pl.String,
            "score": pl.Float64,
        },
    )


def _row(evidence: Evidence) -> dict[str, Any]:
    question, match = evidence.question, evidence.match
    return {
        "chunk_id": match.chunk_ids[0] if match.chunk_ids else "",
        "relevant_chunk_ids": list(match.chunk_ids),
        "document_id": evidence.document_id,
        "question": question.question,
        "answer": question.answer,
        "kind": "labelled",
        "purpose": question.purpose,
        "generator": f"labelled:{question.source}",
        "prompt_version": VERSION,
        "status": evidence.status,
        "score": match.score,
    }


def find_evidence(
    chunks: pl.DataFrame, questions: Sequence[LabelledQuestion], paths: Mapping[str, str]
) -> Iterator[Evidence]:
    """What each question finds in each document that it names.

    A question that names a file is answered for each document of that name, found or not; one that
    names none only for the documents in which its text is found.
    """
    by_document = read_chunks(chunks)
    by_name = documents_by_name(paths)
    holders = _Holders({key: by_document.get(key, []) for key in paths})
    for question in questions:
        if question.file_name is None:
            for document_id in holders.candidates(question.texts):
                match = _match(by_document[document_id], question, ANYWHERE_THRESHOLD)
                if match.chunk_ids:
                    yield Evidence(question, document_id, match, status_of(question, match))
        else:
            for document_id in by_name.get(question.file_name, ()):
                match = _match(by_document.get(document_id, []), question, MATCH_THRESHOLD)
                yield Evidence(question, document_id, match, status_of(question, match))


def documents_by_name(paths: Mapping[str, str]) -> dict[str, list[str]]:
    """document_ids by file name, and by whole path. paths: document_id -> path."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for document_id, path in paths.items():
        for name in {path, path.rpartition("/")[2]}:
            by_name[name].append(document_id)
    return dict(by_name)


def status_of(question: LabelledQuestion, match: Match) -> str:
    """What becomes of a question whose evidence was looked for."""
    if question.dropped:
        return question.dropped
    if not question.answerable:
        return UNANSWERABLE
    if question.purpose == "train" and question.page is None and not question.texts:
        return TOO_VAGUE
    return KEPT if match.chunk_ids else EVIDENCE_NOT_FOUND


class _Holders:
    """Which documents hold enough of a text to be worth a closer look."""

    def __init__(self, by_document: Mapping[str, Sequence[Chunk]]) -> None:
        self._by_document = by_document

    @cached_property
    def _documents_of(self) -> dict[tuple[str, str], set[str]]:
        documents: dict[tuple[str, str], set[str]] = defaultdict(set)
        for document_id, chunks in self._by_document.items():
            for chunk in chunks:
                for pair in chunk.words.pairs:
                    documents[pair].add(document_id)
        return documents

    def candidates(self, texts: Sequence[str]) -> list[str]:
        """Documents in which one of the texts may be found.

        Where words and pairs make half of the score each, a text found to a share t has at least
        2t - 1 of its pairs there.
        """
        found: dict[str, None] = {}
        for text in texts:
            pairs = Words(text).pairs
            held = Counter[str]()
            for pair, count in pairs.items():
                for document_id in self._documents_of.get(pair, ()):
                    held[document_id] += count
            least = (2 * ANYWHERE_THRESHOLD - 1) * pairs.total()
            found.update(dict.fromkeys(key for key, count in held.items() if count >= least))
        return [key for key in self._by_document if key in found]


def _match(chunks: Sequence[Chunk], question: LabelledQuestion, least: float) -> Match:
    """The chunks of every text that is found; the evidence's where none of the chunks' is."""
    matches = [_match_chunk(chunks, question.page, text, least) for text in question.chunk_texts]
    found = sorted((match for match in matches if match.chunk_ids), key=lambda match: -match.score)
    if found:
        ids = dict.fromkeys(chunk_id for match in found for chunk_id in match.chunk_ids)
        return Match(tuple(ids), found[0].score)
    if question.evidence_text or not matches:
        return match_evidence(chunks, question.page, question.evidence_text, least)
    return max(matches, key=lambda match: match.score)


def _match_chunk(chunks: Sequence[Chunk], page: int | None, text: str, least: float) -> Match:
    """The very chunk, where its words are the same: not those that hold them too."""
    words = Words(text).list
    equal = dict.fromkeys(chunk.chunk_id for chunk in chunks if chunk.words.list == words)
    return Match(tuple(equal), 1.0) if equal else match_evidence(chunks, page, text, least)


def match_evidence(
    chunks: Sequence[Chunk],
    page: int | None,
    evidence_text: str | None,
    least: float = MATCH_THRESHOLD,
) -> Match:
    """Chunks of one document that hold the evidence.

    Words are compared normalised, since tables in markdown differ from the source. The page is
    preferred, but where much more of the evidence stands elsewhere, that counts: printed page
    numbers often differ from those of the file, and evidence may go on over the page.
    """
    on_page = [
        chunk for chunk in chunks if page is None or chunk.page_start <= page <= chunk.page_end
    ]
    evidence = Words(evidence_text or "")
    if not evidence.list:
        ids = tuple(dict.fromkeys(chunk.chunk_id for chunk in on_page))
        return Match(ids, 1.0 if ids else 0.0)
    best = _best(on_page, evidence, least)
    if page is None or best.score >= 1 - PAGE_WORTH:
        return best
    anywhere = _best(chunks, evidence, least)
    if best.chunk_ids and anywhere.score <= best.score + PAGE_WORTH:
        return best
    return anywhere


def _best(chunks: Sequence[Chunk], evidence: Words, least: float) -> Match:
    scores = {chunk.chunk_id: _coverage(evidence, [chunk]) for chunk in chunks}
    top = max(scores.values(), default=0.0)
    chosen = [c for c in chunks if top >= least and scores[c.chunk_id] >= NEARLY_BEST * top]
    chosen += _further(chunks, evidence, chosen)
    score = max(top, _coverage(evidence, chosen))
    if score < least:
        return Match((), score)
    ids = dict.fromkeys(chunk.chunk_id for chunk in chosen)
    return Match(tuple(sorted(ids, key=lambda chunk_id: -scores[chunk_id])), score)


def _further(chunks: Sequence[Chunk], evidence: Words, chosen: Sequence[Chunk]) -> list[Chunk]:
    """Chunks that hold parts of the evidence which the chosen ones lack, largest part first."""
    further: list[Chunk] = []
    rest = _lacking(evidence.pairs, [chunk.words.pairs for chunk in chosen])
    while rest.total() >= LEAST_RUN:
        parts = [((rest & chunk.words.pairs).total(), chunk) for chunk in chunks]
        parts = [(size, chunk) for size, chunk in parts if _is_part(size, chunk, evidence)]
        if not parts:
            break
        _, chunk = max(parts, key=lambda part: part[0])
        further.append(chunk)
        rest -= chunk.words.pairs
    return further


def _is_part(size: int, chunk: Chunk, evidence: Words) -> bool:
    large = size >= LEAST_PART * evidence.pairs.total()
    contained = size >= CONTAINED * chunk.words.pairs.total()
    return size >= LEAST_RUN and (large or contained)


def _coverage(evidence: Words, chunks: Sequence[Chunk]) -> float:
    """Share of the evidence's words and neighbouring pairs that the chunks hold, 0 to 1."""
    shared = _share(evidence.counts, [chunk.words.counts for chunk in chunks])
    if not evidence.pairs:
        return shared
    return (shared + _share(evidence.pairs, [chunk.words.pairs for chunk in chunks])) / 2


def _share(wanted: Counter[Any], parts: Sequence[Counter[Any]]) -> float:
    return 1 - _lacking(wanted, parts).total() / wanted.total()


def _lacking(wanted: Counter[Any], parts: Sequence[Counter[Any]]) -> Counter[Any]:
    for part in parts:
        wanted = wanted - part
    return wanted
