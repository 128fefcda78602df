"""The folder of BEIR: corpus, queries and the judgements of each split (qrels).

Corpus and queries are files (`corpus.jsonl`, `corpus.jsonl.gz`) or folders of files
(`corpus/corpus-00000-of-00001.parquet`), as the hub has them. Judgements are `qrels/SPLIT.tsv` or
`qrels.tsv`, tables or TREC's lines. Thakur et al. 2021 (BEIR).
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embed_assets.data_files.content import COMPRESSED, data_suffix, is_table, read_content
from embed_assets.data_files.reading import (
    BadRow,
    DataFileError,
    Rows,
    real_text,
    sort_out,
    usable,
)
from embed_assets.data_files.rows import JSON_SUFFIXES, column_name, data_files, read_rows

WHOLE = ""
"""Name of the judgements of qrels.tsv: those of no split."""
BEIR_ROW = "BEIR has _id and text"
JUDGEMENT = "Query id, corpus id and score are wanted"

_IDS = ("_id", "id")
_QUERY_IDS, _CORPUS_IDS = ("query_id", "qid"), ("corpus_id", "doc_id", "docid", "pid")
_SCORES = ("score", "relevance", "rel", "label", "grade", "judgement", "judgment")
_LINES = (".tsv", ".txt", ".trec", ".qrels")
_SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True)
class Judgements:
    """Scores by query id and corpus id, those that say 'not relevant' (0 or less) included."""

    scores: Mapping[str, Mapping[str, float]]
    places: Mapping[tuple[str, str], str]
    bad: tuple[BadRow, ...]


def is_beir(folder: Path) -> bool:
    """Whether a folder has a corpus and queries."""
    return bool(_files(folder, "corpus") and _files(folder, "queries"))


def read_corpus(folder: Path) -> tuple[dict[str, str], tuple[BadRow, ...]]:
    """What is searched, by id: title, a space, text. And the rows that can't be used."""
    return _read_texts(folder, "corpus", _document)


def read_queries(folder: Path) -> tuple[dict[str, str], tuple[BadRow, ...]]:
    """Texts of the queries by id, none of them empty. And the rows that can't be used."""
    return _read_texts(folder, "queries", _query)


def qrels_files(folder: Path) -> dict[str, list[Path]]:
    """Files of judgements by split, WHOLE first. DataFileError where there are none."""
    found: dict[str, list[Path]] = {}
    suffixes = (*_LINES, ".csv", ".parquet", ".jsonl")
    for file in [*sorted(folder.glob("qrels.*")), *sorted((folder / "qrels").glob("*"))]:
        if data_suffix(file) in suffixes and file.is_file() and not file.name.startswith("."):
            split = WHOLE if file.parent == folder else _SHARD.sub("", _stem(file))
            found.setdefault(split, []).append(file)
    if not found:
        raise DataFileError(folder, "has neither qrels.tsv nor qrels/test.tsv")
    return found


def read_qrels(files: Sequence[Path]) -> Judgements:
    """Judgements of the files of a split. DataFileError where one holds none."""
    scores: dict[str, dict[str, float]] = {}
    places: dict[tuple[str, str], str] = {}
    bad: list[BadRow] = []

    for file in files:

        def judge(row: tuple[str, Any], name: str = file.name) -> None:
            place, content = row
            query, document, score = _judgement(content)
            if scores.setdefault(query, {}).setdefault(document, score) != score:
                raise ValueError(
                    f"query {query} and document {document} have another score above, which counts"
                )
            places.setdefault((query, document), f"{name}, {place}")

        found = usable(file, _placed(_judgement_rows(file)), judge)
        bad += sort_out(file, found, f"{JUDGEMENT}.").bad
    return Judgements(scores, places, tuple(bad))


def _files(folder: Path, part: str) -> list[Path]:
    files = [file for file in data_files(folder, f"{part}.*") if _stem(file) == part]
    return files[:1] or data_files(folder, f"{part}/*")


def _stem(file: Path) -> str:
    """Name of a file without the suffixes that say what it holds."""
    name = file.name
    for suffixes in (COMPRESSED, (data_suffix(file),)):
        for suffix in suffixes:
            if suffix and name.lower().endswith(suffix):
                name = name[: -len(suffix)]
                break
    return name


def _read_texts(
    folder: Path, part: str, make: Callable[[Any], tuple[str, str]]
) -> tuple[dict[str, str], tuple[BadRow, ...]]:
    files = _files(folder, part)
    if not files:
        reason = f"No such file, nor {part}.jsonl.gz or {part}/*.parquet"
        raise DataFileError(folder / f"{part}.jsonl", reason)
    texts: dict[str, str] = {}

    def add(row: Any) -> None:
        key, text = make(row)
        if key in texts:
            raise ValueError(f"_id {key!r} is there twice; the first counts")
        texts[key] = text

    bad: list[BadRow] = []
    for file in files:
        wanted = f"{BEIR_ROW}."
        bad += sort_out(file, usable(file, read_rows(file, _IDS, wanted), add), wanted).bad
    return texts, tuple(bad)


def _document(row: Any) -> tuple[str, str]:
    key, cells = _identified(row)
    if "text" not in cells:
        raise KeyError("text")
    title, text = _text(cells.get("title")), _text(cells["text"])
    return key, f"{title} {text}".strip()


def _query(row: Any) -> tuple[str, str]:
    key, cells = _identified(row)
    text = _text(cells["text"])
    if not text.strip():
        raise ValueError("text is empty")
    return key, text


def _identified(row: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(row, Mapping):
        raise TypeError(f"is a {type(row).__name__}, not an object")
    cells = {column_name(name): value for name, value in row.items()}
    return _id(cells, _IDS), cells


def _id(cells: Mapping[str, Any], names: Collection[str]) -> str:
    value = next((cells[name] for name in names if name in cells), None)
    if value is None:
        raise KeyError(next(iter(names)))
    if isinstance(value, (list, dict)) or not str(value).strip():
        raise ValueError(f"{next(iter(names))} is {str(value)[:40]!r}, not an id")
    return real_text(str(value))


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (list, dict, bytes)):
        raise TypeError(f"text is a {type(value).__name__}, not a text")
    return real_text(str(value))


def _judgement_rows(file: Path) -> Rows:
    """Three columns under a header as in BEIR, or four without one as in TREC; or a table.

    TREC's columns are query, iteration, document, score.
    """
    content = read_content(file, f"{JUDGEMENT}.")
    if is_table(content) or data_suffix(file) in JSON_SUFFIXES:
        yield from read_rows(file, _QUERY_IDS, f"{JUDGEMENT}.")
        return
    first = True
    for number, line in enumerate(content.splitlines(), start=1):
        text = line.decode("utf-8", "surrogateescape")
        cells = _split(text)
        if not any(cells):
            continue
        names = {column_name(cell) for cell in cells} if first else set()
        if names.isdisjoint((*_QUERY_IDS, *_CORPUS_IDS, *_SCORES)):
            yield f"line {number}", cells
        first = False


def _split(line: str) -> list[str]:
    if "\t" in line:
        return line.split("\t")
    return line.split(",") if "," in line and " " not in line.strip() else line.split()


def _placed(rows: Rows) -> Rows:
    """Rows with their place in them too."""
    for row in rows:
        yield row if isinstance(row, BadRow) else (row[0], row)


def _judgement(content: Any) -> tuple[str, str, float]:
    """Query, document and score. ValueError where it is no judgement."""
    if isinstance(content, Mapping):
        cells = {column_name(name): value for name, value in content.items()}
        query, document = _id(cells, _QUERY_IDS), _id(cells, _CORPUS_IDS)
        score = str(cells["score"])
    else:
        if not isinstance(content, list) or len(content) not in (3, 4):
            raise ValueError(JUDGEMENT)
        query, document, score = content[0], content[-2], content[-1]
    if not _is_number(score) or not math.isfinite(float(score)):
        raise ValueError(f"{JUDGEMENT}; the score is {score[:40]!r}")
    return real_text(query), real_text(document), float(score)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
