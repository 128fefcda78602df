"""Rows of a table, whatever file it is in.

JSON lines, JSON in any of the shapes that libraries write, CSV and its kin, Parquet and Arrow, all
plain or compressed. What a file holds decides, its suffix only where that leaves a doubt.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from embed_assets.data_files.content import COMPRESSED, data_suffix, is_table, read_content
from embed_assets.data_files.reading import BadRow, DataFileError, Rows, bad_row
from embed_assets.places import Place

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
SUFFIXES = (*JSON_SUFFIXES, ".csv", ".tsv", ".parquet", ".arrow", ".feather")
FORMATS = "JSON lines, JSON, CSV, TSV, Parquet or Arrow"
DELIMITERS = "\t;,|"
LONGEST_PREAMBLE = 20
"""Lines at most before the header of a CSV."""

Known = Callable[[Any], Rows | None]

_DECODER = json.JSONDecoder(parse_constant=lambda _: None)
_BETWEEN_WORDS = re.compile(r"[\s-]+")
_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


@lru_cache(maxsize=10_000)
def column_name(name: object) -> str:
    """A column's name without case, and with underscores for spaces and hyphens."""
    return _BETWEEN_WORDS.sub("_", str(name).strip().lower())


def data_files(folder: Path, *patterns: str) -> list[Path]:
    """Files of data in a folder, by their suffix, in order; hidden ones are none."""
    suffixes = [f"{suffix}{packed}" for suffix in SUFFIXES for packed in ("", *COMPRESSED)]
    return [
        file
        for pattern in patterns
        for file in sorted(folder.glob(pattern))
        if file.name.lower().endswith(tuple(suffixes))
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def read_rows(file: Place, names: Collection[str], wanted: str, known: Known | None = None) -> Rows:
    """Place and content of every row that isn't blank, and what could not be read as one.

    names: columns of which each row has one, by `column_name`: by them a header is found, and a row
    told from what holds rows. DataFileError where the file holds no table. wanted: what a row is.
    known: gives the rows of a JSON value of another shape, or None.
    """
    wanted = f"Wanted: {FORMATS}. {wanted}"
    content = read_content(file, wanted)
    if is_table(content):
        yield from _arrow_rows(file, content)
        return
    is_json = content.lstrip()[:1] in (b"[", b"{")
    if not is_json and data_suffix(file) in JSON_SUFFIXES:
        is_json = _header(_lines(content), DELIMITERS, names) is None
    if is_json:
        yield from _json_rows(file, content, names, wanted, known)
    else:
        yield from _csv_rows(file, content, names, wanted)


def parse_json(text: str | bytes) -> Any:
    """A JSON value, NaN and infinity read as nothing. ValueError says what is wrong, and where."""
    try:
        return _DECODER.decode(text.decode() if isinstance(text, bytes) else text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"{error.msg} ({line}column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8 text; save it as such") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except ValueError as error:  # Python's limit on the digits of a number
        raise ValueError("holds a number of thousands of digits") from error


# JSON.


def _json_rows(
    file: Place, content: bytes, names: Collection[str], wanted: str, known: Known | None
) -> Rows:
    # Bytes are split at line ends alone; a text would be at U+2028 and the like, which JSON may
    # hold as they are, and text from PDFs does.
    lines = [(n, line) for n, line in enumerate(content.splitlines(), start=1) if line.strip()]
    if len(lines) > 1 and _is_object(lines[0][1]):
        yield from _line_rows(file, lines)
        return
    try:
        value = parse_json(content.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        if data_suffix(file) != ".json" or any(_is_object(line) for _, line in lines):
            yield from _line_rows(file, lines)
            return
        raise DataFileError(file, f"is no JSON: {error}. {wanted}") from error
    if known and (others := known(value)) is not None:
        yield from others
        return
    if isinstance(value, dict) and len(lines) == 1 and _is_row(value, names):
        yield from _line_rows(file, lines)
        return
    rows = value if isinstance(value, list) else _rows_of(value, names)
    if rows is None and isinstance(value, dict) and data_suffix(file) != ".json":
        yield from _line_rows(file, lines)
        return
    if rows is None:
        raise DataFileError(file, f"is JSON that holds no rows: {_shape(value)}. {wanted}")
    yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _is_object(line: bytes) -> bool:
    if line.lstrip()[:1] != b"{":
        return False
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _line_rows(file: Place, lines: Sequence[tuple[int, bytes]]) -> Rows:
    for number, line in lines:
        place = f"line {number}"
        try:
            yield place, parse_json(line.removeprefix(b"\xef\xbb\xbf").decode())
        except UnicodeDecodeError:
            yield BadRow(file, place, "is not UTF-8 text; save it as such")
        except ValueError as error:
            yield bad_row(file, place, error)


def _rows_of(value: Any, names: Collection[str]) -> Sequence[Any] | None:
    """Rows in an object: by column or by index, under a name, or the only one.

    pandas' `to_json` with any orient, `Dataset.to_dict`, the hub's rows, {"data": [rows]}.
    """
    if not isinstance(value, dict):
        return None
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list):  # orient="split"
        return [
            dict(zip(columns, row, strict=False)) if isinstance(row, list) else row for row in data
        ]
    if _is_row(value, names):
        return [value]
    named = {key: cells for key, cells in value.items() if column_name(key) in names}
    if any(isinstance(cells, dict) for cells in named.values()):  # pandas' own: by column
        by_column = {key: cells for key, cells in value.items() if isinstance(cells, dict)}
        index = dict.fromkeys(chain.from_iterable(by_column.values()))
        return [{key: cells.get(i) for key, cells in by_column.items()} for i in index]
    if named:
        lists = {key: cells for key, cells in value.items() if isinstance(cells, list)}
        return [dict(zip(lists, cells, strict=True)) for cells in zip_longest(*lists.values())]
    inner = list(value.values())
    if inner and all(isinstance(row, dict) and _has_name(row, names) for row in inner):
        return inner  # orient="index"
    tables = [list(map(_unwrapped, rows)) for rows in inner if _is_table(rows)]
    if len(tables) > 1:  # beside the rows the hub has its features
        tables = [rows for rows in tables if _has_name(rows[0], names)]
    return tables[0] if len(tables) == 1 else None


def _unwrapped(row: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """A row of the hub's server without its number."""
    return row["row"] if isinstance(row.get("row"), dict) else row


def _is_row(value: Mapping[Any, Any], names: Collection[str]) -> bool:
    named = (cells for key, cells in value.items() if column_name(key) in names)
    return any(not isinstance(cells, (dict, list)) for cells in named)


def _has_name(row: Mapping[Any, Any], names: Collection[str]) -> bool:
    return any(column_name(name) in names for name in row)


def _is_table(rows: Any) -> bool:
    return isinstance(rows, list) and bool(rows) and all(isinstance(row, dict) for row in rows)


def _shape(value: Any) -> str:
    """What a JSON value is, in a few words."""
    if not isinstance(value, dict):
        return f"it is a {type(value).__name__}"
    keys = [repr(str(key)[:40]) for key in list(value)[:5]]
    return f"an object with {', '.join(keys) or 'nothing'}{' and more' * (len(value) > 5)}"


# CSV.


def _csv_rows(file: Place, content: bytes, names: Collection[str], wanted: str) -> Rows:
    lines = _lines(content)
    delimiters = DELIMITERS
    if said := _SEPARATOR.fullmatch(lines[0]):  # a line of Excel's own
        delimiters = said[1]
        lines = lines[1:]
    found = _header(lines, delimiters, names)
    if found is None:
        first = next((line.strip() for line in lines if line.strip()), "")[:80]
        raise DataFileError(file, f"has no header that is known: it begins {first!r}. {wanted}")
    delimiter, header, header_row, start = found
    width = len(header)
    for number, record in enumerate(_records(lines, start, delimiter), start=header_row + 1):
        place = f"row {number}"
        if isinstance(record, str):
            yield BadRow(file, place, record)
        elif not any(cell.strip() for cell in record):
            continue
        elif any(cell.strip() for cell in record[width:]):
            yield BadRow(file, place, "more cells than the header has")
        elif record[:width] == header:
            yield BadRow(file, place, "repeats the header")
        else:
            row: dict[str, str] = {}
            for name, cell in zip(header, record, strict=False):
                if not row.get(name, "").strip():  # of equal names the first that is filled
                    row[name] = cell
            yield place, row


def _lines(content: bytes) -> list[str]:
    """Lines with their ends. What is not UTF-8 is kept as halves of characters."""
    text = content.decode("utf-8", "surrogateescape")
    return list(io.StringIO(text, newline=""))


def _header(
    lines: Sequence[str], delimiters: str, names: Collection[str]
) -> tuple[str, list[str], int, int] | None:
    """Delimiter and cells of the header, its row, and the line after it; None without one.

    Lines before it (a title, a date) are passed over. The delimiter is that which makes most cells.
    """
    csv.field_size_limit(2**31 - 1)
    for start in range(min(len(lines), LONGEST_PREAMBLE)):
        found = []
        for delimiter in delimiters:
            reader = csv.reader(lines[start : start + LONGEST_PREAMBLE], delimiter=delimiter)
            cells = next(reader, [])
            if any(column_name(cell) in names for cell in cells):
                found.append((len(cells), delimiter, cells, reader.line_num))
        if found:
            _, delimiter, cells, height = max(found)
            return delimiter, cells, start + 1, start + height
    return None


def _records(lines: Sequence[str], start: int, delimiter: str) -> Iterator[list[str] | str]:
    """Records from a line on; a text where there is one that can't be read, and why.

    After such a one it goes on at the next line, so that a quote that nothing closes costs a row.
    """
    while start < len(lines):
        rest = (lines[i] for i in range(start, len(lines)))
        reader = csv.reader(rest, delimiter=delimiter, strict=True)
        good = 0
        try:
            for record in reader:
                good = reader.line_num
                yield record
            return
        except csv.Error as error:
            yield str(error)
        start += good + 1


# Arrow and Parquet.


def _arrow_rows(file: Place, content: bytes) -> Rows:
    """Rows of a table of Arrow or Parquet; class labels by their names.

    Without the library datasets, which takes longer to import than the rest of the definitions.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferReader(content)
    try:
        if content.startswith(b"PAR1"):
            table = pq.read_table(buffer)
        elif content.startswith(b"ARROW1"):
            table = pa.ipc.open_file(buffer).read_all()
        else:
            table = pa.ipc.open_stream(buffer).read_all()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataFileError(file, f"is no file of a dataset: {error}") from error
    labels = _class_labels((table.schema.metadata or {}).get(b"huggingface"))
    rows = chain.from_iterable(map(_batch_rows, table.to_batches(max_chunksize=1000)))
    for number, row in enumerate(rows, start=1):
        if isinstance(row, Exception):
            yield bad_row(file, f"row {number}", row)
        else:
            named = {name: _named(value, labels.get(name)) for name, value in row.items()}
            yield f"row {number}", named


def _batch_rows(batch: Any) -> Iterator[dict[str, Any] | Exception]:
    try:
        yield from batch.to_pylist()
    except ValueError:  # text that is not UTF-8, a date that Python has not
        for place in range(batch.num_rows):
            try:
                yield from batch.slice(place, 1).to_pylist()
            except ValueError as error:
                yield error


def _class_labels(metadata: bytes | None) -> dict[str, list[str]]:
    """Names of the labels by column, of columns of a label or of a list of labels."""
    try:
        features = json.loads(metadata or b"{}").get("info", {}).get("features", {})
        inner = {name: feature.get("feature", feature) for name, feature in features.items()}
        return {name: feature["names"] for name, feature in inner.items() if "names" in feature}
    except (ValueError, AttributeError, TypeError):
        return {}


def _named(value: Any, names: Sequence[str] | None) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    known = names and isinstance(value, int) and 0 <= value < len(names)
    return names[value] if names and known else value
