"""People's questions find the chunks that answer them.

A question names its evidence by the text of a chunk or of the evidence, by file, page and the words
of the evidence, by file and page, or by file alone (then any chunk of the file counts). Without a
file its text is looked for in every document. No row is dropped in silence: what became of each is
in `report.py`.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from embed_assets.questions.labelled.matching import (
    MATCH_THRESHOLD,
    Document,
    Match,
    Words,
    match_chunk,
    match_evidence,
    read_chunks,
)
from embed_assets.questions.labelled.question import LabelledQuestion
from embed_assets.questions.statuses import (
    EVIDENCE_NOT_FOUND,
    KEPT,
    TOO_VAGUE,
    UNANSWERABLE,
)

ANYWHERE_THRESHOLD = 0.7
"""The same where no file is named: then the words alone say which document is meant."""
VERSION = "labelled-3"


@dataclass(frozen=True)
class Evidence:
    """What one document holds for a question, and what that makes of it."""

    question: LabelledQuestion
    document_id: str
    match: Match
    status: str


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
    matches = [match_chunk(document, page, text, least) for text in question.chunk_texts]
    found = sorted((match for match in matches if match.chunk_ids), key=lambda match: -match.score)
    if found:
        ids = dict.fromkeys(chunk_id for match in found for chunk_id in match.chunk_ids)
        return Match(tuple(ids), found[0].score)
    if question.evidence_text or not matches:
        return match_evidence(document, page, question.evidence_text, least)
    return max(matches, key=lambda match: match.score)
