"""People's questions are read from the formats in which people keep them.

| path | what it may hold |
| --- | --- |
| `.jsonl`, `.ndjson` | a row or an Argilla record per line |
| `.csv`, `.tsv` | a row per line; commas, semicolons or tabs; UTF-8 |
| `.json` | a list of rows, a list of Argilla records, LlamaIndex's EmbeddingQAFinetuneDataset |
| folder | BEIR, Argilla's `Dataset.to_disk`, datasets' `save_to_disk`, a clone of a dataset |

A row's columns are those of `COLUMNS`. How a row finds its chunks is in `evidence.py`.
"""

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from embed_assets.data_files import (
    DataFileError,
    beir_rows,
    beir_text,
    is_number,
    json_lines,
    read_qrels,
    read_text,
    state_on_disk,
)
from embed_assets.errors import SettingsError
from embed_assets.places import Place, RemotePath
from embed_assets.questions.formulas import unmark_formulas
from embed_assets.questions.statuses import EVIDENCE_NOT_FOUND, JUDGEMENTS, REJECTED_BY_REVIEWER

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LabelledQuestion:
    """One row of people's questions. dropped: the status that a reviewer gave it, if any."""

    question: str
    file_name: str | None = None
    page: int | None = None
    evidence_text: str | None = None
    answer: str | None = None
    purpose: str
    answerable: bool = True
    source: str
    chunk_texts: tuple[str, ...] = ()
    dropped: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts that name the evidence by its words, rather than by its place alone."""
        return (*self.chunk_texts, *filter(None, [self.evidence_text]))


COLUMNS: Mapping[str, tuple[str, ...]] = {
    "question": ("query", "anchor", "user_input"),
    "file_name": ("file", "filename"),
    "page": ("page_number",),
    "evidence_text": ("evidence",),
    "chunk_text": (
        "chunk",
        "context",
        "contexts",
        "reference_contexts",
        "passage",
        "positive",
        "text",
    ),
    "answer": ("ground_truth", "reference"),
    "purpose": (),
    "answerable": (),
    "status": (),
}
"""Columns of a row, and the names under which others keep the same (sentence-transformers, Ragas,
SQuAD). Case does not count, the first that is filled does. A chunk_text may be a list of texts."""

CHUNK_BREAK = "\n\n⸻\n\n"
"""Between the texts of several chunks, where a format has room for one text alone."""

EDITED_QUESTIONS = ("edited_question", "question")
"""Names of the text question in Argilla by which a reviewer rewrites a question, or writes one for
the passage in a field; Argilla allows no question of the same name as a field."""
REVIEW_QUESTIONS = ("keep", "verdict", "decision")
"""Names of the label question in Argilla by which a reviewer rejects a question…"""
REJECTIONS = frozenset({"no", "discard", "reject", "rejected", "drop", "bad", "false"})
"""…and the labels that do so. One reviewer's rejection is enough."""

_SPLIT = re.compile(r"(?<![a-z0-9])(train(ing)?|test(ing)?|valid(ation)?|dev|eval)(?![a-z])")


def read_labelled(files: Sequence[Place], default_purpose: str) -> list[LabelledQuestion]:
    """Questions of all files and folders. SettingsError names the file and row that is wrong.

    Read once, and again when a file changes: size, times and place on the disk tell.
    """
    return list(_read(tuple(files), default_purpose, tuple(map(_state, files))))


@lru_cache(maxsize=2)
def _read(
    files: tuple[Place, ...], default_purpose: str, _states: object
) -> tuple[LabelledQuestion, ...]:
    try:
        return tuple(row for file in files for row in _read_place(file, default_purpose))
    except DataFileError as error:
        raise SettingsError(f"EMBED_ASSETS_LABELLED: {error}") from error


def _read_place(place: Place, purpose: str) -> Iterable[LabelledQuestion]:
    if isinstance(place, RemotePath):  # beside the PDFs: a name that says JSONL
        return _read_jsonl(place, purpose)
    return _reader(place)(place, purpose)


def _state(path: Place) -> tuple[object, ...]:
    """What changes when a file does, or one in a folder. A file that is absent has no state."""
    if isinstance(path, RemotePath):
        try:
            return (path.look(),)
        except OSError as error:
            raise SettingsError(f"EMBED_ASSETS_LABELLED: {path}: {error}.") from None
    return state_on_disk(path)


def _reader(path: Path) -> Callable[[Path, str], Iterable[LabelledQuestion]]:
    if path.is_dir():
        return _read_folder
    readers = {
        ".jsonl": _read_jsonl,
        ".ndjson": _read_jsonl,
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".json": _read_json,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataFileError(path, f"a folder or one of {', '.join(readers)} is wanted")
    return reader


# Files.


def _read_jsonl(file: Place, purpose: str) -> Iterator[LabelledQuestion]:
    for number, row in json_lines(file):
        yield _read_row(row, file, f"line {number}", purpose)


def _read_csv(file: Path, purpose: str) -> Iterator[LabelledQuestion]:
    text = read_text(file)
    header = text.partition("\n")[0]
    delimiter = max("\t;,", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 1
    try:
        for number, row in enumerate(rows, start=2):
            if None in row:
                raise DataFileError(file, "more cells than the header has", f"row {number}")
            if any(row.values()):
                yield _read_row(row, file, f"row {number}", purpose)
    except csv.Error as error:
        raise DataFileError(file, str(error), f"row {number + 1}") from error


def _read_json(file: Path, purpose: str) -> Iterator[LabelledQuestion]:
    content = _parse_json(file)
    if isinstance(content, dict) and {"queries", "corpus", "relevant_docs"} <= content.keys():
        yield from _read_llamaindex(file, content, purpose)
    elif isinstance(content, list):
        for number, row in enumerate(content, start=1):
            yield _read_row(row, file, f"row {number}", purpose)
    else:
        raise DataFileError(
            file,
            "neither a list of rows, nor a list of Argilla records, nor LlamaIndex's queries, "
            "corpus and relevant_docs",
        )


def _read_llamaindex(file: Path, content: Row, purpose: str) -> Iterator[LabelledQuestion]:
    """LlamaIndex's EmbeddingQAFinetuneDataset: three dictionaries, of texts by id and ids by id."""
    try:
        for key, question in content["queries"].items():
            relevant = content["relevant_docs"].get(key, ())
            texts = [content["corpus"][document] for document in relevant]
            yield _passages_question(question, texts, purpose, file.name)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"relevant_docs and corpus don't fit together: {error}"
        raise DataFileError(file, reason) from error


def _passages_question(
    question: str, texts: Iterable[str], purpose: str, source: str
) -> LabelledQuestion:
    return LabelledQuestion(
        question=question.strip(),
        purpose=purpose,
        source=source,
        chunk_texts=tuple(text for text in texts if text.strip()),
    )


def _parse_json(file: Path) -> Any:
    try:
        return json.loads(read_text(file))
    except ValueError as error:
        raise DataFileError(file, str(error)) from error


# Folders.


def _read_folder(folder: Path, purpose: str) -> Iterator[LabelledQuestion]:
    if (folder / "corpus.jsonl").is_file() and (folder / "queries.jsonl").is_file():
        yield from _read_beir(folder, purpose)
    elif (folder / "records.json").is_file():  # beside settings.json: Argilla's Dataset.to_disk
        for question in _read_json(folder / "records.json", purpose):
            yield replace(question, source=folder.name)
    else:
        yield from _read_dataset(folder, purpose)


def _read_beir(folder: Path, purpose: str) -> Iterator[LabelledQuestion]:
    """BEIR: a question for each query and split that judges it, with all its relevant passages.

    A query that no split judges comes without passages, to be reported. A score of 0 says that a
    passage is not relevant.
    """
    corpus = {row["_id"]: beir_text(row) for _, row in beir_rows(folder / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for _, row in beir_rows(folder / "queries.jsonl")}
    judged: set[str] = set()
    for file in _qrels_files(folder):
        qrels = read_qrels(file)
        judged |= qrels.keys()
        for query, scores in qrels.items():
            if query not in queries:
                raise DataFileError(file, f"query {query} is not in queries.jsonl")
            texts = [corpus[key] for key, score in scores.items() if score > 0 and key in corpus]
            split = _purpose_of_split(file.stem) or purpose
            yield _passages_question(queries[query], texts, split, folder.name)
    for query, text in queries.items():
        if query not in judged:
            yield _passages_question(text, [], purpose, folder.name)


def _qrels_files(folder: Path) -> list[Path]:
    files = sorted((folder / "qrels").glob("*.tsv")) or [folder / "qrels.tsv"]
    if not files[0].is_file():
        raise DataFileError(folder, "has neither qrels.tsv nor qrels/*.tsv")
    return files


def _read_dataset(folder: Path, purpose: str) -> Iterator[LabelledQuestion]:
    """Hugging Face datasets: a folder of `save_to_disk`, or a clone with its data files.

    A split's name says what its rows are for where there are several splits: the one split of a
    dataset that nobody split is always named train.
    """
    files = _data_files(folder)
    if not files:
        raise DataFileError(folder, "has no corpus.jsonl, records.json, state.json or data files")
    splits = {file: _purpose_of_split(split) or purpose for file, split in files.items()}
    several = len(set(splits.values())) > 1
    for file in files:
        read = _read_arrow if file.suffix in (".arrow", ".parquet") else _reader(file)
        for question in read(file, splits[file] if several else purpose):
            yield replace(question, source=folder.name)


def _data_files(folder: Path) -> dict[Path, str]:
    """Data files of a folder, and the split that each belongs to."""
    states = sorted(folder.glob("state.json")) or sorted(folder.glob("*/state.json"))
    if states:
        return {
            state.parent / data["filename"]: state.parent.name
            for state in states
            for data in _parse_json(state)["_data_files"]
        }
    found = [
        file
        for pattern in ("*", "*/*", "*/*/*")
        for file in sorted(folder.glob(pattern))
        if file.suffix in (".parquet", ".jsonl", ".csv", ".tsv")
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    return {file: file.relative_to(folder).as_posix().lower() for file in found}


def _read_arrow(file: Path, purpose: str) -> Iterator[LabelledQuestion]:
    """Rows of an Arrow stream or Parquet file; class labels by their names.

    Without the library datasets, which takes longer to import than the rest of the definitions.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = (
            pq.read_table(file)
            if file.suffix == ".parquet"
            else pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
        )
    except (OSError, pa.ArrowInvalid) as error:
        raise DataFileError(file, f"is no file of a dataset: {error}") from error
    metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    labels = _class_labels(metadata.get("info", {}).get("features", {}))
    for number, row in enumerate(table.to_pylist(), start=1):
        named = {name: _named(value, labels.get(name)) for name, value in row.items()}
        yield _read_row(named, file, f"row {number}", purpose)


def _class_labels(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of the labels by column, of columns of a label or of a list of labels."""
    inner = {name: feature.get("feature", feature) for name, feature in features.items()}
    return {name: feature["names"] for name, feature in inner.items() if "names" in feature}


def _named(value: Any, names: Sequence[str] | None) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if names and isinstance(value, int) and value >= 0 else value


def _purpose_of_split(name: str) -> str | None:
    found = _SPLIT.search(name.lower())
    if found is None:
        return None
    return "train" if found[1].startswith("train") else "test"


# Rows.


def _read_row(row: Any, file: Place, place: str, default_purpose: str) -> LabelledQuestion:
    try:
        return _labelled_question(row, file.name, default_purpose)
    except (ValueError, TypeError, AttributeError) as error:
        reason = (
            f"{error}. A row has a question, and file_name, chunk_text or evidence_text to say "
            "what answers it"
        )
        raise DataFileError(file, reason, place) from error


def _labelled_question(row: Any, source: str, default_purpose: str) -> LabelledQuestion:
    if not isinstance(row, Mapping):
        raise TypeError(f"is a {type(row).__name__}, not an object")
    cells = _cells(_flat_record(row) if _is_record(row) else row)
    question = _text(cells, "question")
    if not question:
        raise ValueError("the question is empty" if "question" in cells else "lacks 'question'")
    status = cells.get("status")
    labelled = LabelledQuestion(
        question=question,
        file_name=_text(cells, "file_name"),
        page=_page(cells.get("page")),
        evidence_text=_text(cells, "evidence_text"),
        answer=_text(cells, "answer"),
        purpose=_text(cells, "purpose") or default_purpose,
        answerable=str(cells.get("answerable")).strip().lower() not in ("false", "no", "0"),
        source=source,
        chunk_texts=_chunk_texts(cells.get("chunk_text")),
        dropped=status if status in JUDGEMENTS else None,
    )
    if status == EVIDENCE_NOT_FOUND and not labelled.texts:
        # It named evidence once: it must not come back as a question that names its file alone.
        labelled = replace(labelled, dropped=status)
    if labelled.purpose not in ("train", "test"):
        raise ValueError(f"purpose is {labelled.purpose!r}, neither train nor test")
    if labelled.file_name is None and not labelled.texts and labelled.answerable:
        raise ValueError("names no file, no chunk and no evidence")
    return labelled


def _cells(row: Row) -> dict[str, Any]:
    """The row by our names of the columns; empty cells only where no synonym is filled."""
    given = {str(name).strip().lower(): value for name, value in row.items()}
    cells = {}
    for column, synonyms in COLUMNS.items():
        values = [given[name] for name in (column, *synonyms) if name in given]
        if values:
            cells[column] = next((value for value in values if value not in (None, "", [])), None)
    return cells


def _text(cells: Row, column: str) -> str | None:
    value = cells.get(column)
    if isinstance(value, (list, dict)):
        raise TypeError(f"{column} is a {type(value).__name__}, not a text")
    return str(value).strip() or None if value is not None else None


def _chunk_texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = value if isinstance(value, list) else str(value).split(CHUNK_BREAK)
    return tuple(str(text) for text in texts if str(text).strip())


def _page(value: Any) -> int | None:
    if value is None:
        return None
    if not is_number(str(value)) or not float(value).is_integer():
        raise ValueError(f"page is {value!r}, not a whole number")
    return int(float(value))


# Argilla.


def _is_record(row: Row) -> bool:
    return isinstance(row.get("fields"), Mapping) or any(".responses" in name for name in row)


def _flat_record(record: Row) -> dict[str, Any]:
    """An Argilla record as a row: its fields and metadata, and what the reviewers said.

    A reviewer's text for one of EDITED_QUESTIONS replaces the field's question.
    """
    row = {**(record.get("metadata") or {}), **(record.get("fields") or record)}
    row = {name: _as_exported(value) for name, value in row.items()}
    answers = _responses(record)
    written = [text for name in EDITED_QUESTIONS for text in answers[name]]
    edited = [text for text in written if isinstance(text, str) and text.strip()]
    if edited:
        row["question"] = _as_exported(edited[-1])
    verdicts = [str(v).strip().lower() for name in REVIEW_QUESTIONS for v in answers[name]]
    if REJECTIONS.intersection(verdicts) or answers["discarded"]:
        row["status"] = REJECTED_BY_REVIEWER
    elif verdicts:
        row["status"] = None
    return row


def _as_exported(value: Any) -> Any:
    """A text as it was before the export marked it."""
    return unmark_formulas(value, CHUNK_BREAK) if isinstance(value, str) else value


def _responses(record: Row) -> dict[str, list[Any]]:
    """Submitted answers by question; under `discarded` those of a record that was discarded.

    Argilla 2 writes {question: [{value}]}, and as columns of a dataset question.responses and
    question.responses.status; Argilla 1 a list of {values: {question: {value}}, status}.
    """
    given: list[tuple[str, Any, str]] = []
    responses = record.get("responses") or {}
    if isinstance(responses, Mapping):
        given += [
            (name, answer.get("value"), answer.get("status") or "submitted")
            for name, answers in responses.items()
            for answer in answers
        ]
    else:
        given += [
            (name, answer.get("value"), response.get("status") or "submitted")
            for response in responses
            for name, answer in (response.get("values") or {"": {}}).items()
        ]
    for column in [name for name in record if name.endswith(".responses")]:
        values = record[column] or []
        statuses = record.get(f"{column}.status") or ["submitted"] * len(values)
        name = column.removesuffix(".responses")
        given += [(name, v, s or "submitted") for v, s in zip(values, statuses, strict=True)]
    answers: dict[str, list[Any]] = defaultdict(list)
    for name, value, status in given:
        if status in ("submitted", "discarded"):
            answers[name if status == "submitted" else status].append(value)
    return answers
