"""What is wrong with a home's storage, where an error came of reading or writing it.

Every library says it in its own words and under its own classes: the disk and the files are looked
at, not what the library said.
"""

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from embed_assets.errors import one_line
from embed_assets.machine import processes_with

PRIVATE = 0o077
"""The umask under which files and folders are their owner's alone."""
LEAST_FREE = 1 << 22
"""Bytes: what has less free is full, for databases that write more at once."""
SQLITE_FILES = ("mlflow.db", "answers.sqlite", "dagster/*/*.db", "dagster/history/runs/*.db")
"""Databases of MLflow, of language models' answers and of Dagster in a home."""
INDEX = "dagster/history/runs/index.db"
"""Dagster's events of all runs, in a home."""
_LACKS_TABLE = "DagsterInvalidInvocationError"
"""By its name, since Dagster takes a second to import: what it raises where its index is empty."""
LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@dataclass(frozen=True)
class Disk:
    """The disk that a home is on."""

    home: Path
    free_bytes: int
    is_writable: bool


def disk_of(home: Path) -> Disk:
    """The disk of a home, or of the nearest folder above it that there is."""
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    return Disk(home, shutil.disk_usage(there).free, is_writable(there))


def is_writable(path: Path) -> bool:
    """Whether a file is there and may be written to, or files may be made in a folder."""
    return os.access(path, os.W_OK)


def keep_private(home: Path) -> None:
    """Have this process and its children make files for their owner alone, where the home is so.

    A home that is not there yet will be, and an empty folder becomes one, unless new files in it
    are its group's. One that others may open is shared on purpose, or was made by a release before
    this one: there the person's umask stays.
    """
    global _umask
    _umask = os.umask(PRIVATE)
    with suppress(OSError):
        mode = home.stat().st_mode
        if home.is_dir() and not mode & stat.S_ISGID and not any(home.iterdir()):
            home.chmod(mode & ~PRIVATE)
    if home.exists() and home.stat().st_mode & PRIVATE:
        os.umask(_umask)


_umask: int | None = None
"""The person's umask."""


@contextmanager
def as_the_person_has_it() -> Iterator[None]:
    """In the block files are made under the person's umask: they are to be handed on."""
    ours = os.umask(_umask) if _umask is not None else None
    try:
        yield
    finally:
        if ours is not None:
            os.umask(ours)


def trouble_with(disk: Disk, error: BaseException) -> str | None:
    """What is wrong with a home, in one line, where an error came of reading or writing it.

    None where it came of something else.
    """
    import duckdb  # starts threads: a command asks for none before it listens for Ctrl-C

    kinds = OSError | sqlite3.Error | duckdb.Error
    causes = [e for e in _chain(error) if isinstance(e, kinds) or type(e).__name__ == _LACKS_TABLE]
    if not causes:
        return None
    if disk.free_bytes < LEAST_FREE:
        return f"The disk of {disk.home} is full. Make room, and run it again to go on from here."
    if not disk.is_writable:
        return f"EMBED_ASSETS_HOME: {disk.home} may not be written to."
    index = disk.home / INDEX
    if not all(isinstance(cause, kinds) for cause in causes) and _lacks_partitions(index):
        return damaged(index, "it lacks tables")
    if any(isinstance(cause, sqlite3.Error) for cause in causes):
        found = (sqlite_trouble(file) for file in sqlite_files(disk.home))
        return next((said for said in found if said), None)
    home = disk.home.resolve()
    for cause in causes:
        if isinstance(cause, OSError) and cause.filename and cause.strerror:
            file = Path(os.fsdecode(cause.filename))
            if home in (file, *file.parents):
                return f"{file}: {cause.strerror}. `embed-assets check` says what is damaged."
    return None


def sqlite_files(home: Path) -> list[Path]:
    """Databases of a home beside the warehouse."""
    return [file for pattern in SQLITE_FILES for file in sorted(home.glob(pattern))]


def sqlite_trouble(file: Path) -> str | None:
    """Why a SQLite database can't be used, in one line; None where it can."""
    # Where nothing can be written, SQLite can't make the files beside a database that it wants.
    options = "mode=ro" if is_writable(file.parent) else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?{options}", uri=True, timeout=0)) as reader:
            [found] = reader.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in LOCKED:
            return locked_by(file)
        found = str(error)
    return None if found == "ok" else damaged(file, found)


def _lacks_partitions(index: Path) -> bool:
    """Whether Dagster's index is there without the table of its partitions."""
    try:
        with closing(sqlite3.connect(f"{index.as_uri()}?mode=ro", uri=True, timeout=0)) as reader:
            named = "SELECT count(*) FROM sqlite_master WHERE name = 'dynamic_partitions'"
            return reader.execute(named).fetchone() == (0,)
    except sqlite3.Error:
        return False


def is_locked(file: Path) -> bool:
    """Whether another program keeps a SQLite database from being read."""
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=0)) as reader:
            reader.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode & 0xFF in LOCKED
    except sqlite3.Error:  # damaged: who uses it says so
        return False
    return False


def locked_by(file: Path) -> str:
    """That a program keeps a database locked, and which one."""
    holders = ", ".join(processes_with(file, but=os.getpid())) or "another program"
    return f"{file} is locked by {holders}. End that, or wait for it, and try again."


def damaged(file: Path, said: object) -> str:
    """That a database can't be read, and what to do. said: by the database's library."""
    return (
        f"{file} can't be read ({one_line(str(said))}). Put it back from a backup; without one, "
        f"{_begin_anew(file)}"
    )


def _begin_anew(file: Path) -> str:
    """What becomes of a home without one of its databases."""
    if file.name == "mlflow.db":
        return (
            "move it away: MLflow begins anew, and `embed-assets check --mend` registers the "
            "versions in models/ again. Figures of old runs and the champion are lost."
        )
    if file.suffix == ".sqlite":
        return "move it away: what language models answered is asked for, and paid, again."
    if file.suffix == ".db":
        return "move the home's folder dagster/ away: the history of runs is lost, nothing else."
    return (
        "move it away: the next run reads all PDFs anew. Versions in models/ stay, what made them "
        "is lost."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
