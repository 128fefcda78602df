"""People's questions find the chunks that answer them.

A question names its evidence by the text of a chunk or of the evidence, by file, page and the words
of the evidence, by file and page, or by file alone (then any chunk of the file counts). Without a
file its text is looked for in every document. No row is dropped in silence: what became of each is
in `match_report.py`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
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
_LATEX_OR_BREAK = re.compile(r"\\[a-z]+|<br>")


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
    """A text as its normalised words: no case, signs, LaTeX commands or markup."""

    text: str

    @cached_property
    def list(self) -> list[str]:
        """The words in their order."""
        return _WORD.findall(_LATEX_OR_BREAK.sub(" ", self.text.lower()))

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


def read_chunks(chunks: pl.DataFrame) -> dict[str, Document]:
    """Documents by id. chunks: document_id, chunk_id, chunk_text, page_start, page_end."""
    by_document: dict[str, list[Chunk]] = defaultdict(list)
    columns = ("document_id", "chunk_id", "chunk_text", "page_start", "page_end")
    for document_id, chunk_id, text, start, end in chunks.select(columns).iter_rows():
        by_document[document_id].append(Chunk(chunk_id, Words(text), start, end))
    return {key: Document(tuple(found)) for key, found in by_document.items()}


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
    read = read_chunks(chunks)
    documents = {document_id: read.get(document_id, Document()) for document_id in paths}
    by_name = documents_by_name(paths)
    holders = _Holders(documents)
    for question in questions:
        if question.file_name is None:
            for document_id in holders.candidates(question.texts):
                match = _match(documents[document_id], question, ANYWHERE_THRESHOLD)
                if match.chunk_ids:
                    yield Evidence(question, document_id, match, status_of(question, match))
        else:
            for document_id in by_name.get(question.file_name, ()):
                match = _match(documents[document_id], question, MATCH_THRESHOLD)
                yield Evidence(question, document_id, match, status_of(question, match))


def documents_by_name(paths: Mapping[str, str]) -> dict[str, list[str]]:
    """document_ids by file name, by whole path, and by `./` and whole path.

    The last tells a file of the folder itself from one of that name further down. paths:
    document_id -> path.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    for document_id, path in paths.items():
        for name in {path, f"./{path}", path.rpartition("/")[2]}:
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

    def __init__(self, documents: Mapping[str, Document]) -> None:
        self._documents = documents

    @cached_property
    def _holding(self) -> dict[Hashable, list[str]]:
        holding: dict[Hashable, list[str]] = defaultdict(list)
        for document_id, document in self._documents.items():
            for pair in document.pairs:
                holding[pair].append(document_id)
        return holding

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
                for document_id in self._holding.get(pair, ()):
                    held[document_id] += count
            least = (2 * ANYWHERE_THRESHOLD - 1) * pairs.total()
            found.update(dict.fromkeys(key for key, count in held.items() if count >= least))
        return [key for key in self._documents if key in found]


def _match(document: Document, question: LabelledQuestion, least: float) -> Match:
    """The chunks of every text that is found; the evidence's where none of the chunks' is."""
    if question.dropped == EVIDENCE_NOT_FOUND:
        return Match((), 0.0)
    page = question.page
    matches = [_match_chunk(document, page, text, least) for text in question.chunk_texts]
    found = sorted((match for match in matches if match.chunk_ids), key=lambda match: -match.score)
    if found:
        ids = dict.fromkeys(chunk_id for match in found for chunk_id in match.chunk_ids)
        return Match(tuple(ids), found[0].score)
    if question.evidence_text or not matches:
        return match_evidence(document, page, question.evidence_text, least)
    return max(matches, key=lambda match: match.score)


def _match_chunk(document: Document, page: int | None, text: str, least: float) -> Match:
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
