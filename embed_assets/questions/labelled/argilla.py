"""Argilla's records as rows of questions: of version 1 and 2, as JSON and as datasets."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from embed_assets.data_files.rows import parse_json
from embed_assets.questions.statuses import REJECTED_BY_REVIEWER

Row = Mapping[str, Any]

EDITED_QUESTIONS = ("edited_question", "question")
"""Names of the text question in Argilla by which a reviewer rewrites a question, or writes one for
the passage in a field; Argilla allows no question of the same name as a field."""
REVIEW_QUESTIONS = ("keep", "verdict", "decision")
"""Names of the label question in Argilla by which a reviewer rejects a question…"""
REJECTIONS = frozenset({"no", "discard", "reject", "rejected", "drop", "bad", "false"})
"""…and the labels that do so. One reviewer's rejection is enough."""


def is_record(row: Row) -> bool:
    """Whether a row is a record of Argilla."""
    return (
        isinstance(row.get("fields"), Mapping)
        or isinstance(row.get("inputs"), Mapping)
        or any(".responses" in name for name in row)
        or any(_is_column_of_answers(row, name) for name in (*EDITED_QUESTIONS, *REVIEW_QUESTIONS))
    )


def flat_record(record: Row) -> dict[str, Any]:
    """An Argilla record as a row: its fields and metadata, and what the reviewers said.

    A reviewer's text for one of EDITED_QUESTIONS replaces the field's question.
    """
    fields = record.get("fields") or record.get("inputs") or record
    row = {**_metadata(record.get("metadata")), **fields}
    answers = _responses(record)
    for name in [name for name in row if _is_column_of_answers(row, name)]:
        del row[name]
    written = [text for name in EDITED_QUESTIONS for text in answers[name]]
    edited = [text for text in written if isinstance(text, str) and text.strip()]
    if edited:
        row["question"] = edited[-1]
    given = [label for name in REVIEW_QUESTIONS for v in answers[name] for label in _labels(v)]
    verdicts = [label.strip().lower() for label in given]
    if REJECTIONS.intersection(verdicts) or answers["discarded"]:
        row["status"] = REJECTED_BY_REVIEWER
    elif verdicts:
        row["status"] = None
    return row


def _labels(value: Any) -> list[str]:
    """Labels of an answer: one, several in a list, or in an object."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return [label for part in value for label in _labels(part)]
    return [str(value)]


def _metadata(value: Any) -> Row:
    """Metadata, which the hub's datasets of Argilla 1 hold as JSON."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _is_column_of_answers(record: Row, name: str) -> bool:
    """Whether a column holds [{value, status, user_id}], as in the hub's datasets of Argilla 1."""
    answers = record.get(name)
    return (
        isinstance(answers, list)
        and bool(answers)
        and all(isinstance(a, Mapping) and {"value", "status"} <= a.keys() for a in answers)
    )


def _responses(record: Row) -> dict[str, list[Any]]:
    """Submitted answers by question; under `discarded` those of a record that was discarded.

    Argilla 2 writes {question: [{value}]}, and as columns of a dataset question.responses and
    question.responses.status; Argilla 1 a list of {values: {question: {value}}, status}, and as
    columns of a dataset question: [{value, status}]; before its feedback datasets, annotation.
    """
    given: list[tuple[str, Any, str]] = []
    responses = record.get("responses") or {}
    if isinstance(responses, Mapping):
        given += [(name, *answer) for name, said in responses.items() for answer in _answers(said)]
    else:
        given += [
            (name, (answer or {}).get("value"), response.get("status") or "submitted")
            for response in responses
            for name, answer in (response.get("values") or {"": {}}).items()
        ]
    for name in (*EDITED_QUESTIONS, *REVIEW_QUESTIONS):
        if _is_column_of_answers(record, name):
            given += [(name, *answer) for answer in _answers(record[name])]
    for column in [name for name in record if name.endswith(".responses")]:
        values = record[column] or []
        statuses = record.get(f"{column}.status") or ["submitted"] * len(values)
        name = column.removesuffix(".responses")
        given += [(name, v, s or "submitted") for v, s in zip(values, statuses, strict=True)]
    if isinstance(record.get("inputs"), Mapping):
        given.append((REVIEW_QUESTIONS[0], record.get("annotation"), "submitted"))
        if str(record.get("status")).lower() == "discarded":
            given.append(("", None, "discarded"))
    answers: dict[str, list[Any]] = defaultdict(list)
    for name, value, status in given:
        if status in ("submitted", "discarded"):
            answers[name if status == "submitted" else status].append(value)
    return answers


def _answers(said: Iterable[Row] | None) -> list[tuple[Any, str]]:
    """Value and status of each answer."""
    return [(answer.get("value"), answer.get("status") or "submitted") for answer in said or ()]
