"""Text files in which people keep data: JSONL, and the files of a BEIR folder.

What is wrong with one is said with its line. Which questions and texts they make up is known to the
stages that read them.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from embed_assets.places import Place


class DataFileError(Exception):
    """A file can't be read; the message names it, the place in it and the reason."""

    def __init__(self, file: Place, reason: str, place: str = "") -> None:
        """`place`: a line or row of the file."""
        where = f"{file}, {place}" if place else str(file)
        super().__init__(f"{where}: {' '.join(reason.split())}.")


def read_text(file: Place) -> str:
    """Content of a UTF-8 file, without the mark that some editors put first."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataFileError(file, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        remedy = " (in Excel: save as 'CSV UTF-8')" if file.suffix.lower() == ".csv" else ""
        raise DataFileError(file, f"is not UTF-8 text; save it as such{remedy}") from error


def json_lines(file: Place) -> Iterator[tuple[int, Any]]:
    """Number and content of each line that isn't empty."""
    # Not splitlines(): JSON may hold U+2028 and the like as they are, and text from PDFs does.
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise DataFileError(file, _in_words(error), f"line {number}") from error


def _in_words(error: ValueError) -> str:
    """What is wrong with a line of JSON, and in which column."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (column {error.colno})"
    return str(error)


def beir_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and row of BEIR's corpus.jsonl or queries.jsonl; `_id` and `text` are texts."""
    for number, row in json_lines(file):
        try:
            yield number, {**row, "_id": str(row["_id"]), "text": str(row["text"])}
        except (KeyError, TypeError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else error
            reason = f"{what}. BEIR has _id and text"
            raise DataFileError(file, reason, f"line {number}") from error


def beir_text(row: Mapping[str, Any]) -> str:
    """What is searched of a row of corpus.jsonl: title, a space, text."""
    return f"{row.get('title') or ''} {row['text']}".strip()


def read_qrels(file: Path) -> dict[str, dict[str, float]]:
    """Scores by query id and corpus id, those that say 'not relevant' (0 or less) included.

    Three columns under a header as in BEIR, or four without one as in TREC: query, iteration,
    document, score.
    """
    judged: dict[str, dict[str, float]] = {}
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        cells = line.strip("\r").split("\t") if "\t" in line else line.split()
        if not any(cells) or (number == 1 and not is_number(cells[-1])):
            continue
        if len(cells) not in (3, 4) or not is_number(cells[-1]):
            reason = "query id, corpus id and score are wanted"
            raise DataFileError(file, reason, f"line {number}")
        scores, document, score = judged.setdefault(cells[0], {}), cells[-2], float(cells[-1])
        if scores.setdefault(document, score) != score:
            reason = f"query {cells[0]} and document {document} have another score above"
            raise DataFileError(file, reason, f"line {number}")
    return judged


def state_on_disk(path: Path) -> tuple[object, ...]:
    """What changes when a file does, or one in a folder. A file that is absent has no state."""
    files = [path]
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(folder, name) for name in names]
    found = []
    for file in sorted(files):
        with suppress(OSError):
            stat = file.stat()
            found.append((file, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return tuple(found)


def is_number(text: str) -> bool:
    """Whether a cell holds a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
