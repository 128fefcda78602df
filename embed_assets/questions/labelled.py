"""People's questions, read from JSONL, find the chunks that answer them.

A row is `{"question", "file_name", "page", "evidence_text", "answer", "purpose"}`. It names its
evidence by file, page and the words of the evidence, or by file and page, or by file alone (then
any chunk of the file counts). No row is dropped in silence: one without evidence is kept with a
status that says so, one that names no known file is returned as an orphan.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.questions.statuses import (
    EVIDENCE_NOT_FOUND,
    KEPT,
    TOO_VAGUE,
    UNANSWERABLE,
)
from embed_assets.settings import SettingsError

MATCH_THRESHOLD = 0.4
"""Least share of the evidence's words and word pairs that a chunk must hold: less than half, since
evidence may be cut in two by the end of a chunk."""
NEARLY_BEST = 0.95
VERSION = "labelled-1"
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class LabelledQuestion:
    """One row of a file of people's questions."""

    question: str
    file_name: str
    page: int | None
    evidence_text: str | None
    answer: str | None
    purpose: str
    answerable: bool
    source: str


@dataclass(frozen=True)
class Match:
    """Chunks that answer a question, best first, and how much of the evidence the best holds."""

    chunk_ids: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class _Words:
    text: str

    @cached_property
    def list(self) -> list[str]:
        return _WORD.findall(self.text.lower())

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(self.list)

    @cached_property
    def pairs(self) -> Counter[tuple[str, str]]:
        return Counter(zip(self.list, self.list[1:], strict=False))


def read_labelled(files: Sequence[Path], default_purpose: str) -> list[LabelledQuestion]:
    """Rows of JSONL files. SettingsError names the file and line that can't be read."""
    return [row for file in files for row in _read_file(file, default_purpose)]


def _read_file(file: Path, default_purpose: str) -> list[LabelledQuestion]:
    try:
        # Not splitlines(): JSON may hold U+2028 and the like as they are, and text from PDFs does.
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise SettingsError(f"EMBED_ASSETS_LABELLED: {file}: {reason}.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_labelled_question(json.loads(line), file.name, default_purpose))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise SettingsError(
                f"EMBED_ASSETS_LABELLED: {file}, line {number}: {reason}. A row is a JSON object "
                'with "question" and "file_name".'
            ) from error
    return rows


def _labelled_question(row: dict[str, Any], source: str, default_purpose: str) -> LabelledQuestion:
    purpose = row.get("purpose") or default_purpose
    if purpose not in ("train", "test"):
        raise ValueError(f"purpose is {purpose!r}, neither train nor test")
    question, file_name = (str(row[name] or "").strip() for name in ("question", "file_name"))
    if not question or not file_name:
        raise ValueError(f"the {'file name' if question else 'question'} is empty")
    page = row.get("page")
    return LabelledQuestion(
        question=question,
        file_name=file_name,
        page=None if page is None else int(page),
        evidence_text=row.get("evidence_text") or None,
        answer=row.get("answer") or None,
        purpose=purpose,
        answerable=row.get("answerable", True) is not False,
        source=source,
    )


def labelled_questions(
    chunks: pl.DataFrame, questions: Sequence[LabelledQuestion], paths: dict[str, str]
) -> pl.DataFrame:
    """Labelled questions about these documents, each with the chunks that answer it.

    chunks: document_id, chunk_id, chunk_text, page_start, page_end. paths: document_id -> path.
    Returns chunk_id, relevant_chunk_ids, document_id, question, answer, kind, purpose, generator,
    prompt_version, status, score.
    """
    rows = [
        _row(document_id, question, chunks.filter(pl.col("document_id") == document_id))
        for document_id, path in paths.items()
        for question in questions
        if names_document(question, path)
    ]
    return pl.DataFrame(
        rows,
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


def names_document(question: LabelledQuestion, path: str) -> bool:
    """Whether a question is about the document at a path: its file name, or the whole path."""
    return question.file_name in (path, path.rpartition("/")[2])


def orphans(questions: Sequence[LabelledQuestion], paths: Sequence[str]) -> list[LabelledQuestion]:
    """Questions that name a file which is not in the PDF folder."""
    known = {name for path in paths for name in (path, path.rpartition("/")[2])}
    return [question for question in questions if question.file_name not in known]


def _row(document_id: str, question: LabelledQuestion, chunks: pl.DataFrame) -> dict[str, Any]:
    match = match_evidence(chunks, question.page, question.evidence_text)
    status = KEPT if match.chunk_ids else EVIDENCE_NOT_FOUND
    if question.purpose == "train" and question.page is None and question.evidence_text is None:
        status = TOO_VAGUE
    return {
        "chunk_id": match.chunk_ids[0] if match.chunk_ids else "",
        "relevant_chunk_ids": list(match.chunk_ids),
        "document_id": document_id,
        "question": question.question,
        "answer": question.answer,
        "kind": "labelled",
        "purpose": question.purpose,
        "generator": f"labelled:{question.source}",
        "prompt_version": VERSION,
        "status": status if question.answerable else UNANSWERABLE,
        "score": match.score,
    }


def match_evidence(chunks: pl.DataFrame, page: int | None, evidence_text: str | None) -> Match:
    """Chunks of one document that hold the evidence.

    Words are compared normalised, since tables in markdown differ from the source. The page
    narrows the search; where the evidence isn't there, the whole document is searched, since
    printed page numbers often differ from those of the file.
    """
    on_page = chunks
    if page is not None:
        on_page = chunks.filter((pl.col("page_start") <= page) & (pl.col("page_end") >= page))
    if evidence_text is None or not _WORD.search(evidence_text):
        ids = tuple(dict.fromkeys(on_page["chunk_id"]))
        return Match(ids, 1.0 if ids else 0.0)
    evidence = _Words(evidence_text)
    best = _best(on_page, evidence)
    return best if best.chunk_ids else _best(chunks, evidence)


def _best(chunks: pl.DataFrame, evidence: _Words) -> Match:
    scores = {
        chunk_id: _coverage(evidence, _Words(text))
        for chunk_id, text in chunks.select("chunk_id", "chunk_text").iter_rows()
    }
    top = max(scores.values(), default=0.0)
    if top < MATCH_THRESHOLD:
        return Match((), top)
    ranked = sorted(scores, key=lambda chunk_id: -scores[chunk_id])
    return Match(tuple(c for c in ranked if scores[c] >= NEARLY_BEST * top), top)


def _coverage(evidence: _Words, chunk: _Words) -> float:
    """Share of the evidence's words and neighbouring word pairs that the chunk holds, 0 to 1."""
    shared = (evidence.counts & chunk.counts).total() / max(1, evidence.counts.total())
    if not evidence.pairs:
        return shared
    pairs = (evidence.pairs & chunk.pairs).total() / evidence.pairs.total()
    return (shared + pairs) / 2
