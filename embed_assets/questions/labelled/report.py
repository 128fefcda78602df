"""What became of every row of people's questions: whether it matched, how well, and why not."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from embed_assets.data_files.reading import BadRow
from embed_assets.errors import one_line
from embed_assets.questions.labelled.evidence import (
    LABELLED,
    Evidence,
    documents_asked_about,
    find_evidence,
    status_of,
)
from embed_assets.questions.labelled.files import LabelledQuestion, read_bad_rows
from embed_assets.questions.labelled.matching import MATCH_THRESHOLD, Match
from embed_assets.questions.labelled.moves import read_moved
from embed_assets.questions.labelled.names import FileNames
from embed_assets.questions.statuses import (
    AMBIGUOUS_FILE,
    BAD_ROW,
    CORPUS_WIDE,
    DUPLICATE,
    EVIDENCE_NOT_FOUND,
    KEPT,
    NO_SUCH_FILE,
    REJECTED_BY_REVIEWER,
    TOO_VAGUE,
    UNANSWERABLE,
    in_words,
)
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.wording import in_cell

BUCKETS: Mapping[str, float] = {"exact": 0.95, "good": 0.7, "weak": MATCH_THRESHOLD}
"""Least score of a match by its words, best bucket first."""
BY_PLACE = "by place"
"""A match by file or page alone, where there are no words to compare."""
LONGEST_CELL = 200
"""Characters of a cell."""
WORST = 10
DOCUMENTS_AT_A_TIME = 200

_SCHEMA = {
    "source": pl.String,
    "file_name": pl.String,
    "question": pl.String,
    "purpose": pl.String,
    "evidence": pl.String,
    "chunk_text": pl.String,
    "match": pl.String,
    "score": pl.Float64,
    "reason": pl.String,
    "place": pl.String,
    "why": pl.String,
    "document_ids": pl.List(pl.String),
}


def match_report(
    questions: Sequence[LabelledQuestion],
    chunks: Iterable[pl.DataFrame],
    paths: Mapping[str, str],
    bad_rows: Sequence[BadRow] = (),
) -> pl.DataFrame:
    """One row for every labelled question, in their order, and for every row that holds none.

    chunks, paths: as `find_evidence` takes them, of the documents that are asked about.
    Returns source, file_name, question, purpose, evidence, chunk_text (the best), match (a name in
    BUCKETS or BY_PLACE, null where there is none), score, reason: null, or the status that says why
    it can't be used; place and why: of a bad row its place in the file and what is wrong, of an
    ambiguous name the files; and document_ids: those that were looked through for it.
    """
    found: dict[LabelledQuestion, list[Evidence]] = defaultdict(list)
    for evidence in find_evidence(chunks, questions, paths):
        found[evidence.question].append(evidence)
    names = FileNames(paths)
    rows: list[dict[str, object]] = [
        {
            "source": bad.file.name,
            "question": "",
            "score": 0.0,
            "reason": BAD_ROW,
            "place": bad.place,
            "why": bad.reason,
            "document_ids": [],
        }
        for bad in bad_rows
    ]
    for question in questions:
        first = max(found[question], key=lambda evidence: evidence.match.score, default=None)
        best = first.match if first else Match((), 0.0)
        status = status_of(question, best)
        several = names.could_be(question.file_name)
        if status != KEPT and question.file_name and not names.named(question.file_name):
            status = AMBIGUOUS_FILE if several else NO_SUCH_FILE
        rows.append(
            {
                "source": question.source,
                "file_name": question.file_name,
                "question": question.question,
                "purpose": question.purpose,
                "evidence": next(iter(question.texts), None),
                "chunk_text": first.text if first else None,
                "match": _bucket(question, best) if best.chunk_ids else None,
                "score": best.score,
                "reason": None if status == KEPT else status,
                "why": ", ".join(several) or None,
                "document_ids": [evidence.document_id for evidence in found[question]],
            }
        )
    return pl.DataFrame(rows, schema=_SCHEMA)


def report_matches(settings: Settings, warehouse: Warehouse) -> pl.DataFrame:
    """The report of people's questions on what the warehouse holds."""
    questions, paths = read_moved(settings, warehouse), warehouse.paths()
    chunks = _read_chunks(warehouse, documents_asked_about(questions, paths))
    bad_rows = read_bad_rows(settings.labelled_files, settings.labelled_purpose)
    return match_report(questions, chunks, paths, bad_rows)


def _read_chunks(warehouse: Warehouse, document_ids: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Chunks of a few documents at a time, so that the whole corpus is never in memory."""
    for start in range(0, len(document_ids), DOCUMENTS_AT_A_TIME):
        yield warehouse.read(
            "SELECT document_id, chunk_id, chunk_text, page_start, page_end FROM chunks "
            "WHERE document_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY document_id, chunk_index",
            [document_ids[start : start + DOCUMENTS_AT_A_TIME]],
        )


def _bucket(question: LabelledQuestion, match: Match) -> str:
    if not question.texts:
        return BY_PLACE
    return next(name for name, least in BUCKETS.items() if match.score >= least)


def unmatched(report: pl.DataFrame) -> pl.DataFrame:
    """source, place, file_name, question, reason and why of the rows that can't be used."""
    failed = report.filter(pl.col("reason").is_not_null())
    return failed.select("source", "place", "file_name", "question", "reason", "why")


def unused_line(row: Mapping[str, Any]) -> str:
    """A row of `unmatched` for a person: which it is, and why it can't be used."""
    if row["reason"] == BAD_ROW:
        return f"{row['source']}, {row['place']}: {row['why']}"
    why = f": {row['why']}" if row["why"] else ""
    asked = f"{row['file_name'] or row['source']}: {row['question']}"
    return f"{asked} ({in_words(row['reason'])}{why})"


def row_statuses(report: pl.DataFrame, questions: pl.DataFrame) -> list[str]:
    """What became of each row of the report in the end, once the filters have passed, as a status.

    questions: document_id, kind, purpose, question and status of synthetic_questions. A row that
    repeats another is a DUPLICATE: one question of the two is kept.
    """
    settled = pl.col("status").is_in([KEPT, *CORPUS_WIDE])
    asked = ["document_id", "purpose", "question"]
    verdicts = (
        report.with_row_index("row")
        .explode("document_ids")
        .rename({"document_ids": "document_id"})
        .join(questions.filter(pl.col("kind") == LABELLED, settled), on=asked)
        # Of two documents that answer a question, one is enough.
        .sort(pl.col("status") != KEPT)
        .unique("row", keep="first")
        .select("row", "status")
    )
    repeats = pl.struct("question", "chunk_text", "reason").is_first_distinct().not_()
    repeated = pl.when(repeats).then(pl.lit(DUPLICATE))
    numbered = report.with_row_index("row").with_columns(repeated=repeated)
    judged = numbered.join(verdicts, on="row", how="left", maintain_order="left")
    return (
        judged.select(pl.coalesce("reason", "repeated", "status", pl.lit(KEPT)))
        .to_series()
        .to_list()
    )


_TO_DO: Mapping[str, str] = {
    BAD_ROW: "Correct the row: its file, place and what is wrong are listed.",
    AMBIGUOUS_FILE: "Write the file's whole path, as it stands in the folder.",
    NO_SUCH_FILE: "Correct the question's file_name, or add that PDF to the folder.",
    EVIDENCE_NOT_FOUND: "Quote the PDF's own words as evidence_text, or give file_name and page: "
    "whether the file was read is on the page of its partition in parsed_markdown.",
    UNANSWERABLE: "Nothing: its file says that no document answers it.",
    REJECTED_BY_REVIEWER: "Nothing: its file says that a reviewer rejected it.",
    TOO_VAGUE: "Give it a page or evidence_text, or let it test.",
}


def why_unmatched(lost: pl.DataFrame) -> pl.DataFrame:
    """Reason (in words), questions, and what to do about it; the most frequent first.

    lost: as `unmatched` gives it.
    """
    rows = [
        (in_words(reason), count, _TO_DO.get(reason, ""))
        for reason, count in Counter(lost["reason"]).most_common()
    ]
    return pl.DataFrame(rows, ["reason", "questions", "what_to_do"], orient="row")


def match_table(report: pl.DataFrame) -> str:
    """The report in markdown: how many of each source came, matched and failed; the worst."""
    matched = pl.col("reason").is_null()
    counts = report.group_by("source", maintain_order=True).agg(
        pl.len().alias("came"),
        matched.sum().alias("matched"),
        *((matched & (pl.col("match") == name)).sum().alias(name) for name in (*BUCKETS, BY_PLACE)),
        (~matched).sum().alias("failed"),
    )
    worst = (
        report.filter(matched & (pl.col("match") != BY_PLACE) & (pl.col("score") < 1))
        .sort("score")
        .head(WORST)
        .select(pl.col("score").round(2), "question", "evidence", "chunk_text")
    )
    if worst.is_empty():
        return markdown_table(counts)
    return f"{markdown_table(counts)}\n\nWorst of those that matched:\n\n{markdown_table(worst)}"


def markdown_table(frame: pl.DataFrame) -> str:
    """A frame in markdown, long cells cut."""
    rows = [frame.columns, ["---"] * frame.width]
    rows += [[_cell(value) for value in row] for row in frame.iter_rows()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: object) -> str:
    return in_cell(one_line(value, LONGEST_CELL)) if isinstance(value, str) else str(value)
