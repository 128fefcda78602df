"""Finds marked words in everything that a home holds, wherever and however they stand there."""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import duckdb
import polars as pl


def find_marks(home: Path, marks: Iterable[str]) -> set[tuple[str, str]]:
    """Which marks stand where, in any case: in a file (relative to the home), in a column of it."""
    wanted = [mark.lower() for mark in marks]
    return {
        (place, mark)
        for file in sorted(home.rglob("*"))
        for place, content in [(str(file.relative_to(home)), str(file)), *_contents(home, file)]
        for mark in wanted
        if mark in content.lower()
    }


def _contents(home: Path, file: Path) -> Iterator[tuple[str, str]]:
    """The bytes of a file, and each cell of one that is a database or a table."""
    if not file.is_file():
        return
    name, content = str(file.relative_to(home)), file.read_bytes()
    yield name, _text(content)
    if content.startswith(b"SQLite format 3"):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
            for (table,) in connection.execute(tables).fetchall():
                rows = connection.execute(f'SELECT * FROM "{table.decode()}"')
                yield from _cells(name, table.decode(), rows.description, rows)
    if file.suffix == ".duckdb":
        with duckdb.connect(str(file), read_only=True) as connection:
            for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                rows = connection.execute(f"SELECT * FROM {table}")
                yield from _cells(name, table, rows.description or [], rows.fetchall())
    if file.suffix == ".parquet":
        yield name, str(pl.read_parquet(file).to_dicts())


def _cells(
    file: str, table: str, columns: Iterable[tuple], rows: Iterable[tuple]
) -> Iterator[tuple[str, str]]:
    names = [column[0] for column in columns]
    for row in rows:
        for name, cell in zip(names, row, strict=True):
            yield f"{file} {table}.{name}", _text(cell)


def _text(cell: Any) -> str:
    if not isinstance(cell, bytes):
        return str(cell)
    for unpack in (zlib.decompress, lambda raw: zlib.decompress(raw, wbits=31)):
        with suppress(zlib.error):
            return unpack(cell).decode(errors="replace")
    return cell.decode(errors="replace")
