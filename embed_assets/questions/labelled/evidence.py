"""People's questions find the chunks that answer them.

A question names its evidence by the text of a chunk or of the evidence, by file, page and the words
of the evidence, by file and page, or by file alone (then any chunk of the file counts). Without a
file its text is looked for in every document. No row is dropped in silence: what became of each is
in `report.py`.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl

from embed_assets.questions.labelled.files import LabelledQuestion
from embed_assets.questions.labelled.matching import (
    MATCH_THRESHOLD,
    Document,
    Match,
    Words,
    match_chunk,
    match_evidence,
    read_documents,
)
from embed_assets.questions.labelled.names import FileNames
from embed_assets.questions.statuses import EVIDENCE_NOT_FOUND, KEPT, TOO_VAGUE, UNANSWERABLE
from embed_assets.tables import TABLES

ANYWHERE_THRESHOLD = 0.7
"""Least share of the evidence to be found where a question names no file.

Higher than MATCH_THRESHOLD, because the words alone choose the document.
"""
VERSION = "labelled-4"
LABELLED = "labelled"
"""Kind of a question that a person wrote."""


@dataclass(frozen=True)
class Evidence:
    """What one document holds for a question. text: of the chunk that answers best, if any does."""

    question: LabelledQuestion
    document_id: str
    match: Match
    text: str | None


_COLUMNS = (
    *("chunk_id", "relevant_chunk_ids", "document_id", "question", "answer", "kind", "purpose"),
    *("generator", "prompt_version", "status", "score"),
)


def labelled_questions(
    chunks: pl.DataFrame, questions: Sequence[LabelledQuestion], paths: Mapping[str, str]
) -> pl.DataFrame:
    """Labelled questions about these documents, each with the chunks that answer it.

    chunks: document_id, chunk_id, chunk_text, page_start, page_end. paths: document_id -> path.
    Returns most columns of synthetic_questions.
    """
    return pl.DataFrame(
        [_row(evidence) for evidence in find_evidence([chunks], questions, paths)],
        schema={name: TABLES["synthetic_questions"].schema[name] for name in _COLUMNS},
    )


def _row(evidence: Evidence) -> dict[str, Any]:
    question, match = evidence.question, evidence.match
    return {
        "chunk_id": match.chunk_ids[0] if match.chunk_ids else "",
        "relevant_chunk_ids": list(match.chunk_ids),
        "document_id": evidence.document_id,
        "question": question.question,
        "answer": question.answer,
        "kind": LABELLED,
        "purpose": question.purpose,
        "generator": f"labelled:{question.source}",
        "prompt_version": VERSION,
        "status": status_of(question, match),
        "score": match.score,
    }


def find_evidence(
    chunks: Iterable[pl.DataFrame],
    questions: Sequence[LabelledQuestion],
    paths: Mapping[str, str],
) -> list[Evidence]:
    """What each question finds in each document that it names; by question, then as in paths.

    A question that names a file is answered for each document of that name, found or not; one that
    names none only for the documents in which its text is found. chunks: each frame holds all those
    of some documents; the words of one document are held at a time. paths: document_id -> path.
    """
    naming = _questions_by_document(questions, paths)
    sought = Sought(questions)
    found: list[tuple[int, str, Evidence]] = []

    def look(number: int, document_id: str, document: Document, least: float) -> None:
        question = questions[number]
        match = _match(document, question, least)
        if match.chunk_ids or question.file_name is not None:
            texts = (c.words.text for c in document.chunks if c.chunk_id in match.chunk_ids[:1])
            evidence = Evidence(question, document_id, match, next(texts, None))
            found.append((number, document_id, evidence))

    for frame in chunks:
        for document_id, document in read_documents(frame):
            if document_id in paths:
                for number in naming.pop(document_id, ()):
                    look(number, document_id, document, MATCH_THRESHOLD)
                for number in sought.candidates(document):
                    look(number, document_id, document, ANYWHERE_THRESHOLD)
    for document_id, numbers in naming.items():
        for number in numbers:
            look(number, document_id, Document(), MATCH_THRESHOLD)
    place = {document_id: place for place, document_id in enumerate(paths)}
    return [evidence for *_, evidence in sorted(found, key=lambda row: (row[0], place[row[1]]))]


def documents_asked_about(
    questions: Sequence[LabelledQuestion], paths: Mapping[str, str]
) -> list[str]:
    """The documents that `find_evidence` reads: all of them where a question names no file."""
    if any(question.file_name is None for question in questions):
        return list(paths)
    return list(_questions_by_document(questions, paths))


def _questions_by_document(
    questions: Sequence[LabelledQuestion], paths: Mapping[str, str]
) -> dict[str, list[int]]:
    """Places of the questions that name each document's file."""
    names = FileNames(paths)
    naming: dict[str, list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        for document_id in names.named(question.file_name):
            naming[document_id].append(number)
    return dict(naming)


def status_of(question: LabelledQuestion, match: Match) -> str:
    """What becomes of a question whose evidence was looked for."""
    if question.dropped:
        return question.dropped
    if not question.answerable:
        return UNANSWERABLE
    if question.purpose == "train" and question.page is None and not question.texts:
        return TOO_VAGUE
    return KEPT if match.chunk_ids else EVIDENCE_NOT_FOUND


class Sought:
    """The texts of questions that name no file, by their pairs of neighbouring words."""

    def __init__(self, questions: Sequence[LabelledQuestion]) -> None:
        self._question_of: list[int] = []
        self._least: list[float] = []
        self._with: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
        for number, question in enumerate(questions):
            for text in question.texts if question.file_name is None else ():
                pairs = Words(text).pairs
                for pair, count in pairs.items():
                    self._with[pair].append((len(self._least), count))
                self._question_of.append(number)
                self._least.append((2 * ANYWHERE_THRESHOLD - 1) * pairs.total())

    def candidates(self, document: Document) -> list[int]:
        """Places of the questions of which a text may be found in a document.

        Where words and pairs make half of the score each, a text found to a share t has at least
        2t - 1 of its pairs there.
        """
        there: set[Hashable] = set()
        for chunk in document.chunks if self._with else ():
            there |= self._with.keys() & set(pairwise(chunk.words.list))
        held = Counter[int]()
        for pair in there:
            for text, count in self._with[pair]:
                held[text] += count
        enough = (text for text, count in held.items() if count >= self._least[text])
        return sorted({self._question_of[text] for text in enough})


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
