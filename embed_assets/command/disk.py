"""What a command says where its home's disk is full, or may not be written to.

Every library says it in its own words and under its own classes: the disk is asked, not they.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

LEAST_FREE = 1 << 22
"""Bytes: what has less free is full, for databases that write more at once."""


@dataclass(frozen=True)
class Disk:
    """The disk that a home is on."""

    home: Path
    free_bytes: int
    is_writable: bool


def disk_of(home: Path) -> Disk:
    """The disk of a home, or of the nearest folder above it that there is."""
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    return Disk(home, shutil.disk_usage(there).free, os.access(there, os.W_OK))


def trouble_with(disk: Disk, error: BaseException) -> str | None:
    """What is wrong with the disk, in one line, where an error came of reading or writing."""
    if not any(isinstance(e, OSError | sqlite3.Error | duckdb.Error) for e in _chain(error)):
        return None
    if disk.free_bytes < LEAST_FREE:
        return f"The disk of {disk.home} is full. Make room, and run it again to go on from here."
    if not disk.is_writable:
        return f"EMBED_ASSETS_HOME: {disk.home} may not be written to."
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
