"""What a command says of its home's disk."""

import sqlite3
from pathlib import Path

import duckdb
import pytest
from embed_assets.command.disk import LEAST_FREE, Disk, disk_of, trouble_with

HOME = Path("/home/me/model")
FULL = Disk(HOME, LEAST_FREE - 1, is_writable=True)
READ_ONLY = Disk(HOME, LEAST_FREE, is_writable=False)
WELL = Disk(HOME, LEAST_FREE, is_writable=True)


def caused_by(cause: Exception) -> Exception:
    """An error of a library that hides what it came of."""
    try:
        try:
            raise cause
        except Exception:
            raise RuntimeError("the run failed")  # noqa: B904
    except RuntimeError as error:
        return error


@pytest.mark.parametrize("cause", [OSError(), sqlite3.OperationalError(), duckdb.IOException()])
def test_an_error_of_reading_or_writing_is_explained_by_the_disk(cause: Exception) -> None:
    for error in (cause, caused_by(cause)):
        assert trouble_with(FULL, error) == (
            f"The disk of {HOME} is full. Make room, and run it again to go on from here."
        )
        said = trouble_with(READ_ONLY, error)
        assert said == f"EMBED_ASSETS_HOME: {HOME} may not be written to."
        assert trouble_with(WELL, error) is None


def test_an_error_in_the_program_is_none_of_the_disk() -> None:
    assert trouble_with(FULL, KeyError("page")) is None


def test_the_disk_of_a_home_that_is_not_there_yet_is_that_of_the_folder_above(tmp_path) -> None:
    disk = disk_of(tmp_path / "new" / "home")
    assert disk.is_writable
    assert disk.free_bytes > 0
