"""Removes what files of a home say of forgotten documents: their names, and what quotes them.

Dagster, MLflow and this project write previews, events, tags, logs and reports in a dozen places
and formats. They are all looked through in one way: a `Traces` knows what to look for, and each
kind of file is redacted so that whoever wrote it can still read it.
"""

import html
import json
import os
import re
import shutil
import sqlite3
import time
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from embed_assets.errors import BusyError, one_line
from embed_assets.machine import processes_with
from embed_assets.words import UNSPACED, normalised_words

FORGOTTEN = "forgotten"
"""What stands in place of a text that quotes a forgotten document."""
RUN = 8
"""Words in a row that two texts share only where one quotes the other, or both a third."""
LEAST_WORDS, LEAST_CHARACTERS = 2, 12
"""Of a text that is shorter than RUN, and is looked for where it stands as a whole piece."""
PREVIEWS = frozenset(
    {"preview", "matches", "labelled_matches", "tested_and_trained", "without_evidence"}
)
"""Labels of metadata that quotes documents as they were at the time. It goes whatever it says:
nobody knows any more what a PDF held before it changed. That on a partition quotes its document.
"""
EMPTIED: Mapping[str, Any] = {"md_str": FORGOTTEN, "records": []}
"""Where Dagster keeps what metadata in markdown and tables say, and what is left of it."""
WHITE_SPACE, WHITE_SPACES = re.compile(r"\s"), re.compile(r"\s+")
TAG = re.compile(r"<[^<>]*>")
QUOTE = re.compile(r"""["“”„«»‘`]|(?<!\w)['’]|['’](?!\w)""")
"""A quotation mark, and no apostrophe."""
AROUND_WORD = re.compile(r"^[\W_]+|[\W_]+$")
NOTHING = r"(?!)"
"""Matches nowhere."""
LEAST_PREFIX = 6
"""Characters of a name that are looked for where a line was cut off in it."""
CUT = "…"
"""What one_line and tables put after what they leave of a long text."""
PATIENCE = 60.0
"""Seconds to wait for other programs that hold a SQLite file."""
PASSES = 5
"""How often a SQLite file is read, at most, while others write to it."""
SQLITE, PARQUET = b"SQLite format 3\0", b"PAR1"
"""How these files begin."""
OF_SQLITE = ("-wal", "-shm", "-journal")
"""How files end that belong to a SQLite file, and go with it."""
PAGES = frozenset({".html", ".htm"})
"""Files that are removed whole where they quote a document: what made them makes them again."""
LOGS = frozenset({".log", ".out", ".err"})
"""Files that another program may be writing to at this moment."""
MODULES = "modules.json"
"""File of a folder that holds a model: of such a folder only what is for people is looked through.
"""


class Traces:
    """What is looked for, and what takes its place."""

    def __init__(
        self,
        names: Mapping[str, str],
        texts: Iterable[str] = (),
        other_names: Iterable[str] = (),
        other_texts: Iterable[str] = (),
        taken: Iterable[str] = (),
    ) -> None:
        """What to look for.

        names: of documents (ids, paths, names of files), each with what takes its place. texts:
        what documents say, and what was asked about them. other_names, other_texts: of documents
        that stay, of which one of `names` or `texts` may be a part. taken: partitions of these that
        were once of documents that are forgotten: whose a preview there is can't be told.
        """
        self._taken = frozenset(taken)
        self._places = {
            form.lower(): place for name, place in names.items() for form in _forms(name)
        }
        self._kept = {other for other in other_names if any(name in other for name in names)}
        longest_first = sorted({*self._places, *self._kept}, key=lambda form: (-len(form), form))
        self._pattern = _any_of(longest_first)
        self._over_lines = _any_of(form for form in longest_first if "\n" in form)
        self._runs: set[str] = set()
        self._short: set[str] = set()
        for text in texts:
            words = normalised_words(text)
            if len(words) >= RUN:
                self._runs.update(" ".join(words[i : i + RUN]) for i in _starts(words))
            elif len(words) >= LEAST_WORDS and sum(map(len, words)) >= LEAST_CHARACTERS:
                self._short.add(_as_written(text))
        self._begins = {run.partition(" ")[0] for run in self._runs}
        for text in other_texts:  # many: none is kept
            self._runs.difference_update(run for _, run in self._known_runs(normalised_words(text)))
            self._short -= {_as_written(text)}.union(*map(_pieces, text.split("\n")))

    def redact(self, text: str) -> str:
        """The text without names, without the lines that quote a document, and without previews.

        What stands in JSON is read as such, however deep, and stays JSON.
        """
        value = _as_json(text)
        if value is not None:
            redacted = self._redact_value(value)
            return text if redacted == value else json.dumps(redacted)
        if _is_address(text):
            return self.without_names(text)
        lines = self._over_lines.sub(self._other_name, text).split("\n")
        quoted = self._quoting(lines)
        return "\n".join(
            _placeholder(line) if number in quoted else self._redact_line(line, len(lines))
            for number, line in enumerate(lines)
        )

    def _redact_line(self, line: str, lines: int) -> str:
        """One of so many lines: an object of JSON Lines, or text."""
        return self.redact(line) if lines > 1 and line[:1] == "{" else self.without_names(line)

    def quotes(self, text: str) -> bool:
        """Whether a text says something that a document says, or that was asked about it."""
        value = _as_json(text)
        if value is not None:
            return any(map(self.quotes, _strings(value)))
        return not _is_address(text) and bool(self._quoting(text.split("\n")))

    def without_names(self, text: str) -> str:
        """The text with something else in place of each name, and of its beginning before a `…`."""
        text = self._pattern.sub(self._other_name, text)
        *cut, end = text.split(CUT)
        return CUT.join([*map(self._without_beginning, cut), end])

    def _redact_value(self, value: Any, others: bool = False) -> Any:
        """A value of JSON, redacted. others: whether the previews in it are of others."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, list):
            return [self._redact_value(item, others) for item in value]
        if isinstance(value, dict):
            others = others or self._is_of_another(value)
            shown = value if others else _without_preview(value)
            return {
                self.without_names(key): self._redact_value(item, others)
                for key, item in shown.items()
            }
        return value

    def _is_of_another(self, event: dict[str, Any]) -> bool:
        """Whether an event of Dagster is of the partition of a document that stays."""
        partition = event.get("partition")
        ours = self._places.keys() | self._taken
        return isinstance(partition, str) and partition.lower() not in ours

    def _other_name(self, found: re.Match[str]) -> str:
        name = found[0]
        return name if name in self._kept else self._places.get(name.lower(), FORGOTTEN)

    def _without_beginning(self, text: str) -> str:
        """The text with something else in place of the beginning of a name at its end."""
        for form, place in self._places.items():
            for size in range(min(len(form), len(text)), LEAST_PREFIX - 1, -1):
                if text[-size:].lower() == form[:size]:
                    return text[:-size] + place
        return text

    def _quoting(self, lines: list[str]) -> set[int]:
        """Numbers of the lines that quote a document. A quotation may go on in the next line."""
        quoting: set[int] = set()
        if self._runs:
            words: list[str] = []
            line_of: list[int] = []
            for number, line in enumerate(lines):
                found = normalised_words(html.unescape(line))
                words += found
                line_of += [number] * len(found)
            for start, _ in self._known_runs(words):
                quoting.update(line_of[start : start + RUN])
        if self._short:
            quoting.update(n for n, line in enumerate(lines) if self._short & _pieces(line))
            if len(lines) < RUN and _as_written("\n".join(lines)) in self._short:
                quoting.update(range(len(lines)))
        return quoting

    def _known_runs(self, words: list[str]) -> Iterator[tuple[int, str]]:
        """Where a run that is looked for begins among these words, and the run."""
        for start in _starts(words):
            if words[start] in self._begins:
                run = " ".join(words[start : start + RUN])
                if run in self._runs:
                    yield start, run


def _any_of(forms: Iterable[str]) -> re.Pattern[str]:
    """Finds the first of these that stands at a place; of none, nothing."""
    return re.compile("|".join(map(re.escape, forms)) or NOTHING, re.IGNORECASE)


def _starts(words: list[str]) -> range:
    """Where a run may begin."""
    return range(len(words) - RUN + 1)


def _is_address(text: str) -> bool:
    """Whether a text is an identifier or an address, and no language: it has no white space.

    What is written without spaces is language all the same.
    """
    return not WHITE_SPACE.search(text) and not UNSPACED.search(text)


def _pieces(line: str) -> set[str]:
    """What a short text may be the whole of: a line, a cell, an element of HTML, a quotation."""
    parts = [html.unescape(part) for part in (line, *line.split("|"), *TAG.split(line))]
    quotations = [between for part in parts for between in QUOTE.split(part)[1:-1]]
    return {_as_written(part) for part in (*parts, *quotations) if not _is_address(part)}


def _as_written(text: str) -> str:
    """Words without case and without the signs around each; those within tell `a_b` from `a b`."""
    words = (AROUND_WORD.sub("", w) for w in unicodedata.normalize("NFKC", text).casefold().split())
    return " ".join(filter(None, words))


def _as_json(text: str) -> Any:
    """The object or array that a text is; None where it is none."""
    if text.lstrip()[:1] in ("{", "["):
        with suppress(ValueError):
            return json.loads(text)
    return None


def _strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, but for keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _without_preview(value: dict[str, Any]) -> dict[str, Any]:
    """Metadata of Dagster without what stands under one of PREVIEWS.

    An entry names its label; a check's metadata has the label as key.
    """
    label, entry = value.get("label"), value.get("entry_data")
    if isinstance(label, str) and label in PREVIEWS and isinstance(entry, dict):
        return value | {"entry_data": _emptied(entry)}
    return {
        key: _emptied(item) if key in PREVIEWS and isinstance(item, dict) else item
        for key, item in value.items()
    }


def _emptied(entry: dict[str, Any]) -> dict[str, Any]:
    return entry | {key: left for key, left in EMPTIED.items() if key in entry}


def _forms(name: str) -> set[str]:
    """A name as text, in one line, in an address, in JSON and in HTML."""
    in_one_line, in_json = WHITE_SPACES.sub(" ", name), json.dumps(name)[1:-1]
    quoted = name.encode("utf-8", "surrogateescape")
    in_address = {quote(quoted), quote(quoted, safe="")}
    return {name, in_one_line, *in_address, in_json, html.escape(name)}


def _placeholder(line: str) -> str:
    """In place of a line. A row of a markdown table stays one."""
    return f"| {FORGOTTEN} |" if line.lstrip().startswith("|") else FORGOTTEN


def files_below(folder: Path) -> list[Path]:
    """Files of a folder that may say something of a document, in order."""
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        here = Path(root)
        if (here / MODULES).is_file():
            folders.clear()
            names = [name for name in names if name.endswith(".md")]
        found += [here / name for name in names if not name.endswith((".lock", *OF_SQLITE))]
    return sorted(found)


def redact_file(file: Path, traces: Traces) -> bool:
    """Redact a file, or remove it; whether anything was to be done.

    There is nothing to do where the file is gone, or is a link to one that is. BusyError where
    other programs hold it for too long.
    """
    with suppress(FileNotFoundError):
        return _redact_file(file, traces)
    return False


def _redact_file(file: Path, traces: Traces) -> bool:
    with file.open("rb") as stream:
        begins = stream.read(len(SQLITE))
    if begins == SQLITE:
        return redact_sqlite(file, traces)
    if begins.startswith(PARQUET):
        return redact_parquet(file, traces)
    content = file.read_bytes()
    if b"\0" in content:
        return False  # pictures, weights
    text = content.decode("utf-8", "surrogateescape")
    redacted = traces.redact(text)
    if file.suffix.lower() in PAGES:
        shown = html.unescape(TAG.sub("\n", text))
        if redacted == text and traces.redact(shown) == shown:
            return False
        file.unlink()
        return True
    if redacted == text:
        return False
    if file.suffix.lower() in LOGS:
        _write_over(file, redacted, len(content))
    else:
        _replace(file, lambda fresh: fresh.write_bytes(_encoded(redacted)))
    return True


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _write_over(file: Path, text: str, size: int) -> None:
    """Write the file's first bytes anew, in place: who has it open goes on writing behind them."""
    content = _encoded(text)
    with file.open("r+b") as stream:
        stream.write(content[:size].ljust(size, b"\n"))


def _replace(file: Path, write: Callable[[Path], object]) -> None:
    """Put another file in the place of one, whole or not at all."""
    fresh = file.with_name(f"{file.name}.redacting")
    try:
        write(fresh)
        shutil.copymode(file, fresh)
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)


def redact_parquet(file: Path, traces: Traces) -> bool:
    """Redact the texts of a Parquet file; whether there was anything to redact."""
    frame = pl.read_parquet(file)
    redacted = frame.with_columns(
        _redacted(frame[name], traces)
        for name, dtype in frame.schema.items()
        if dtype in (pl.String, pl.List(pl.String))
    )
    if redacted.equals(frame):
        return False
    _replace(file, redacted.write_parquet)
    return True


def _redacted(values: pl.Series, traces: Traces) -> pl.Series:
    """Texts, or lists of texts, without what is looked for."""

    def redact(value: Any) -> Any:
        if isinstance(value, str):
            return traces.redact(value)
        return value and [redact(item) for item in value]

    return pl.Series(values.name, map(redact, values.to_list()), values.dtype)


def redact_sqlite(file: Path, traces: Traces, patience: float = PATIENCE) -> bool:
    """Redact every cell of a SQLite file and write it anew; whether there was anything to redact.

    What was deleted before stands in free pages and in the write-ahead log: both are emptied.
    BusyError where other programs hold the file for too long.
    """
    deadline = time.monotonic() + patience
    changed = False
    try:
        with closing(sqlite3.connect(file, timeout=patience, isolation_level=None)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            connection.execute("PRAGMA secure_delete = ON")
            for _ in range(PASSES):
                if not sum(_redact_table(connection, name, traces) for name in _tables(connection)):
                    break
                changed = True
            if changed or connection.execute("PRAGMA freelist_count").fetchone()[0]:
                connection.execute("VACUUM")
            while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > deadline:
                    raise _busy(file, patience)
                time.sleep(0.2)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        raise _busy(file, patience) from None
    return changed


def _busy(file: Path, patience: float) -> BusyError:
    holders = ", ".join(processes_with(file)) or "another program"
    return BusyError(
        f"{file}: held for {patience:.0f} s by {one_line(holders)}. Stop that, and do it again."
    )


def _tables(connection: sqlite3.Connection) -> list[tuple[str, bool]]:
    """Name of each table, and whether its rows have a rowid."""
    rows = connection.execute("PRAGMA main.table_list").fetchall()
    return [
        (name, not without)
        for _, name, kind, _, without, _ in rows
        if kind == "table" and not name.startswith("sqlite_")
    ]


def _redact_table(connection: sqlite3.Connection, table: tuple[str, bool], traces: Traces) -> int:
    """Redact a table's cells; how many rows changed."""
    name, has_rowid = table
    columns = connection.execute(f'PRAGMA table_info("{name}")').fetchall()
    names = [f'"{column[1]}"' for column in columns]
    key = ["rowid"] if has_rowid else [f'"{column[1]}"' for column in columns if column[5]]
    found = connection.execute(f'SELECT {", ".join([*key, *names])} FROM "{name}"')
    rows = list(changes(found, names, len(key), traces))
    connection.execute("BEGIN IMMEDIATE")
    for values, place, before in rows:
        sets = ", ".join(f"{column} = ?" for column in values)
        same = " AND ".join(f"{column} IS ?" for column in (*key, *before))
        # Only as it was read: somebody else may have written to it meanwhile.
        connection.execute(
            f'UPDATE OR REPLACE "{name}" SET {sets} WHERE {same}',
            [*values.values(), *place, *before.values()],
        )
    connection.execute("COMMIT")
    return len(rows)


def changes(
    rows: Iterable[tuple[Any, ...]], columns: list[str], keys: int, traces: Traces
) -> Iterator[tuple[dict[str, Any], tuple[Any, ...], dict[str, Any]]]:
    """Of each row to change: its cells by column, its key, and the cells as they were."""
    for row in rows:
        cells = dict(zip(columns, row[keys:], strict=True))
        redacted = {column: _redact_cell(cell, traces) for column, cell in cells.items()}
        changed = {column for column, cell in cells.items() if redacted[column] != cell}
        if changed:
            yield (
                {column: redacted[column] for column in changed},
                row[:keys],
                {column: cells[column] for column in changed},
            )


def _redact_cell(cell: Any, traces: Traces) -> Any:
    """A cell without what is looked for: a text, or one that Dagster has compressed."""
    if isinstance(cell, str):
        return traces.redact(cell)
    if isinstance(cell, bytes):
        try:
            text = zlib.decompress(cell).decode("utf-8")
        except (zlib.error, UnicodeDecodeError):
            return cell
        redacted = traces.redact(text)
        return cell if redacted == text else zlib.compress(redacted.encode("utf-8"))
    return cell
