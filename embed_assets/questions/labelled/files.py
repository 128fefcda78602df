"""People's questions are read from the formats in which people keep them.

| what | which |
| --- | --- |
| rows | JSON lines, JSON, CSV, TSV, Parquet, Arrow, plain or compressed (gz, bz2, xz, zst) |
| a file of JSON | also Argilla's records, and LlamaIndex's EmbeddingQAFinetuneDataset |
| a folder | BEIR, Argilla's `Dataset.to_disk`, datasets' `save_to_disk`, a clone of a dataset |

A row's columns are those of `COLUMNS`. A row that can't be used is a BadRow, and the others are
taken. How a row finds its chunks is in `evidence.py`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from embed_assets.data_files.beir import (
    WHOLE,
    is_beir,
    qrels_files,
    read_corpus,
    read_qrels,
    read_queries,
)
from embed_assets.data_files.content import read_content
from embed_assets.data_files.reading import (
    BadRow,
    DataFileError,
    Reading,
    Rows,
    real_text,
    sort_out,
    state_on_disk,
    usable,
)
from embed_assets.data_files.rows import column_name, data_files, parse_json, read_rows
from embed_assets.errors import SettingsError
from embed_assets.places import Place, RemotePath
from embed_assets.questions.formulas import unmark_formulas
from embed_assets.questions.labelled.argilla import flat_record, is_record
from embed_assets.questions.labelled.texts import cell_texts, is_empty, passage
from embed_assets.questions.statuses import EVIDENCE_NOT_FOUND, JUDGEMENTS

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
    "question": ("query", "anchor", "user_input", "input"),
    "file_name": ("file", "filename", "source_file", "document_name"),
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
    "answer": (
        "ground_truth",
        "ground_truths",
        "reference",
        "reference_answer",
        "expected_output",
        "answers",
    ),
    "purpose": (),
    "answerable": (),
    "status": (),
}
"""Columns of a row, and the names under which others keep the same (sentence-transformers, Ragas,
SQuAD, DeepEval). Case, spaces and hyphens do not count, the first that is filled does. A chunk_text
may be a list of texts, or one that was written as a text."""

CHUNK_BREAK = "\n\n⸻\n\n"
"""Between the texts of several chunks, where a format has room for one text alone."""

WANTED = "A row has a question, and file_name, chunk_text or evidence_text to say what answers it"

QUESTION_NAMES = frozenset({"question", *COLUMNS["question"]})
FARTHEST_PAGE = 10_000_000

_LLAMAINDEX = {"queries", "corpus", "relevant_docs"}
_NO_ROWS = frozenset(
    {"dataset_info", "dataset_infos", "dataset_dict", "state", "settings", "version", "config"}
)
"""Files of JSON in a folder that say something of the data, and hold none."""

_SPLIT = re.compile(r"(?<![a-z0-9])(train(ing)?|test(ing)?|valid(ation)?|dev|eval)(?![a-z])")


def read_labelled(files: Sequence[Place], default_purpose: str) -> list[LabelledQuestion]:
    """Questions of all files and folders. SettingsError names the file that can't be used, and why.

    Read once, and again when a file changes: size, times and place on the disk tell.
    """
    return list(_reading(files, default_purpose).taken)


def read_bad_rows(files: Sequence[Place], default_purpose: str) -> tuple[BadRow, ...]:
    """The rows of the same files that `read_labelled` could not take."""
    return _reading(files, default_purpose).bad


def _reading(files: Sequence[Place], default_purpose: str) -> Reading[LabelledQuestion]:
    return _read(tuple(files), default_purpose, tuple(map(_state, files)))


@lru_cache(maxsize=2)
def _read(
    files: tuple[Place, ...], default_purpose: str, _states: object
) -> Reading[LabelledQuestion]:
    taken: list[LabelledQuestion] = []
    bad: list[BadRow] = []
    try:
        for place in files:
            if isinstance(place, Path) and place.is_dir():
                found = _read_folder(place, default_purpose)
            else:
                found = _read_file(place, default_purpose)
            reading = sort_out(place, found, f"{WANTED}.")
            taken += reading.taken
            bad += reading.bad
    except DataFileError as error:
        raise SettingsError(f"EMBED_ASSETS_LABELLED: {error}") from error
    return Reading(tuple(taken), tuple(bad))


def _state(path: Place) -> tuple[object, ...]:
    """What changes when a file does, or one in a folder. A file that is absent has no state."""
    if isinstance(path, RemotePath):
        try:
            return (path.look(),)
        except OSError as error:
            raise SettingsError(f"EMBED_ASSETS_LABELLED: {path}: {error}.") from None
    return state_on_disk(path)


# Files.


def _read_file(file: Place, purpose: str) -> Iterator[LabelledQuestion | BadRow]:
    rows = read_rows(file, QUESTION_NAMES, f"{WANTED}.", lambda value: _llamaindex(file, value))
    return usable(file, rows, lambda row: _labelled_question(row, file.name, purpose))


def _llamaindex(file: Place, content: Any) -> Rows | None:
    """Rows of LlamaIndex's EmbeddingQAFinetuneDataset, if the content is one."""
    is_one = isinstance(content, dict) and content.keys() >= _LLAMAINDEX
    return _llamaindex_rows(file, content) if is_one else None


def _llamaindex_rows(file: Place, content: Row) -> Rows:
    """A row per query. The file has three objects: texts by id, texts by id, and ids by id."""
    queries, corpus, relevant = (content[name] for name in ("queries", "corpus", "relevant_docs"))
    if not all(isinstance(part, dict) for part in (queries, corpus, relevant)):
        raise DataFileError(file, "queries, corpus and relevant_docs are not all objects")
    for key, question in queries.items():
        ids = relevant.get(key) or []
        ids = ids if isinstance(ids, list) else [ids]
        there = [str(i) for i in ids if str(i) in corpus]
        lost = [str(i) for i in ids if str(i) not in corpus]
        if lost:
            reason = f"relevant_docs names {', '.join(map(repr, lost))}, which corpus lacks"
            yield BadRow(file, f"query {key!r}", reason)
        if there or not lost:
            texts = [text for i in there for text in cell_texts(corpus[i])]
            yield f"query {key!r}", {"question": question, "chunk_text": texts}
    for key in [key for key in relevant if key not in queries]:
        yield BadRow(file, f"query {key!r}", "relevant_docs names it, and queries lacks it")


# Folders.


def _read_folder(folder: Path, purpose: str) -> Iterator[LabelledQuestion | BadRow]:
    if is_beir(folder):
        yield from _read_beir(folder, purpose)
    elif (folder / "records.json").is_file():  # beside settings.json: Argilla's Dataset.to_disk
        yield from _read_members(folder, {folder / "records.json": purpose})
    else:
        yield from _read_dataset(folder, purpose)


def _read_members(folder: Path, files: Mapping[Path, str]) -> Iterator[LabelledQuestion | BadRow]:
    """Questions of files in a folder, by the purpose of each. A bad file is like a bad row."""
    for file, purpose in files.items():
        name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name
        try:
            for row in _read_file(file, purpose):
                if isinstance(row, BadRow):
                    yield BadRow(folder, f"{name}, {row.place}", row.reason)
                else:
                    yield replace(row, source=folder.name)
        except DataFileError as error:
            yield BadRow(folder, name, error.reason)


def _read_beir(folder: Path, purpose: str) -> Iterator[LabelledQuestion | BadRow]:
    """BEIR: a question for each query and split that judges it, with all its relevant passages.

    A query that no split judges comes without passages, to be reported. A score of 0 says that a
    passage is not relevant.
    """
    corpus, bad = read_corpus(folder)
    queries, bad_queries = read_queries(folder)
    yield from (*bad, *bad_queries)
    judged: set[str] = set()
    for name, files in qrels_files(folder).items():
        qrels = read_qrels(files)
        yield from qrels.bad
        judged |= qrels.scores.keys()
        split = _purpose_of_split(name) or purpose if name != WHOLE else purpose
        for query, scores in qrels.scores.items():
            relevant = [key for key, score in scores.items() if score > 0]
            if query not in queries:
                place = qrels.places[query, next(iter(scores))]
                yield BadRow(folder, place, f"query {query!r} is not among the queries")
                continue
            for key in relevant:
                if key not in corpus:
                    place = qrels.places[query, key]
                    yield BadRow(folder, place, f"document {key!r} is not in the corpus")
            texts = [corpus[key] for key in relevant if key in corpus]
            yield _passages_question(queries[query], texts, split, folder.name)
    for query, text in queries.items():
        if query not in judged:
            yield _passages_question(text, [], purpose, folder.name)


def _passages_question(
    question: str, texts: Iterable[str], purpose: str, source: str
) -> LabelledQuestion:
    return LabelledQuestion(
        question=question.strip(),
        purpose=purpose,
        source=source,
        chunk_texts=tuple(text for text in texts if text.strip()),
    )


def _read_dataset(folder: Path, purpose: str) -> Iterator[LabelledQuestion | BadRow]:
    """Hugging Face datasets: a folder of `save_to_disk`, or a clone with its data files.

    A split's name says what its rows are for where there are several splits: the one split of a
    dataset that nobody split is always named train.
    """
    files = _data_files(folder)
    if not files:
        raise DataFileError(folder, "has no corpus.jsonl, records.json, state.json or data files")
    splits = {file: _purpose_of_split(split) or purpose for file, split in files.items()}
    several = len(set(splits.values())) > 1
    return _read_members(folder, {file: splits[file] if several else purpose for file in files})


def _data_files(folder: Path) -> dict[Path, str]:
    """Data files of a folder, and the split that each belongs to."""
    states = sorted(folder.glob("state.json")) or sorted(folder.glob("*/state.json"))
    if states:
        return {file: state.parent.name for state in states for file in _saved_files(state)}
    found = [
        file
        for file in data_files(folder, "*", "*/*", "*/*/*")
        if file.name.partition(".")[0] not in _NO_ROWS
    ]
    return {file: file.relative_to(folder).as_posix().lower() for file in found}


def _saved_files(state: Path) -> list[Path]:
    """The files that a state.json of `save_to_disk` names."""
    try:
        names = [data["filename"] for data in parse_json(read_content(state, ""))["_data_files"]]
        return [state.parent / Path(name).name for name in names]
    except (ValueError, TypeError, KeyError) as error:
        raise DataFileError(state, "is not what `save_to_disk` writes") from error


def _purpose_of_split(name: str) -> str | None:
    found = _SPLIT.search(name.lower())
    if found is None:
        return None
    return "train" if found[1].startswith("train") else "test"


# Rows.


def _labelled_question(row: Any, source: str, default_purpose: str) -> LabelledQuestion:
    """The question of a row. ValueError or TypeError says what is wrong with it."""
    if not isinstance(row, Mapping):
        raise TypeError(f"is a {type(row).__name__}, not an object")
    cells = _cells(_as_exported(flat_record(row)) if is_record(row) else row)
    question = _text(cells, "question")
    if not question:
        raise ValueError("the question is empty" if "question" in cells else "lacks 'question'")
    evidence = _texts(cells, "evidence_text")
    several = tuple(evidence) if len(evidence) > 1 else ()
    status = cells.get("status")
    labelled = LabelledQuestion(
        question=question,
        file_name=_text(cells, "file_name"),
        page=_page(cells.get("page")),
        evidence_text=None if several else next(iter(evidence), None),
        answer="\n".join(_texts(cells, "answer")) or None,
        purpose=(_text(cells, "purpose") or default_purpose).lower(),
        answerable=str(cells.get("answerable")).strip().lower() not in ("false", "no", "0", "0.0"),
        source=source,
        chunk_texts=(*_chunk_texts(cells.get("chunk_text")), *several),
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
    given: dict[str, list[Any]] = {}
    for name, value in row.items():
        given.setdefault(column_name(name), []).append(value)
    cells = {}
    for column, synonyms in COLUMNS.items():
        values = [value for name in (column, *synonyms) for value in given.get(name, ())]
        if values:
            filled = (value for value in values if not is_empty(value, column != "answer"))
            cells[column] = next(filled, None)
    return cells


def _text(cells: Row, column: str) -> str | None:
    """The one text of a cell, which may stand in a list."""
    value = cells.get(column)
    if isinstance(value, (list, Mapping, bytes)):
        texts = value if isinstance(value, list) else [value]
        if len(texts) != 1 or not isinstance(texts[0], (str, int, float)):
            raise TypeError(f"{column} is a {type(value).__name__}, not a text")
        [value] = texts
    return real_text(str(value)).strip() or None if value is not None else None


def _texts(cells: Row, column: str) -> list[str]:
    """The texts of a cell, those that aren't blank."""
    value = cells.get(column)
    return [] if value is None else [t.strip() for t in cell_texts(value) if t.strip()]


def _as_exported(record: Row) -> dict[str, Any]:
    """A record of Argilla with its texts as they were before the export marked them."""
    return {
        name: unmark_formulas(value, CHUNK_BREAK) if isinstance(value, str) else value
        for name, value in record.items()
    }


def _chunk_texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    parts = value.split(CHUNK_BREAK) if isinstance(value, str) else [value]
    texts = [passage(text) for part in parts for text in cell_texts(part)]
    return tuple(text for text in texts if text.strip())


def _page(value: Any) -> int | None:
    if isinstance(value, list) and len(value) == 1:
        [value] = value
    if value is None:
        return None
    try:
        number = float(str(value))
    except ValueError:
        number = 0.5
    if not number.is_integer() or not 0 <= number < FARTHEST_PAGE:
        raise ValueError(f"page is {str(value)[:40]!r}, not a whole number")
    return int(number)
