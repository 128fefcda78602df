"""What a command says of its home's disk and files, and who may read them."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from dagster._core.errors import DagsterInvalidInvocationError

from embed_assets.errors import BusyError, ProjectError
from embed_assets.resources import waiting
from embed_assets.resources.tracking import Tracking
from embed_assets.storage import (
    INDEX,
    LEAST_FREE,
    Disk,
    as_the_person_has_it,
    disk_of,
    is_locked,
    keep_private,
    sqlite_trouble,
    trouble_with,
)

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


def test_an_error_about_a_file_of_the_home_names_the_file(tmp_path) -> None:
    disk, file = Disk(tmp_path, LEAST_FREE, is_writable=True), tmp_path / "models" / "v1"
    said = trouble_with(disk, caused_by(PermissionError(errno.EACCES, "Permission denied", file)))
    assert said is not None
    assert said.startswith(f"{file}: Permission denied.")
    elsewhere = PermissionError(errno.EACCES, "Permission denied", "/elsewhere/file")
    assert trouble_with(disk, elsewhere) is None


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE runs (id TEXT)")
        connection.executemany("INSERT INTO runs VALUES (?)", [[str(n)] for n in range(5000)])
    return file


@pytest.fixture
def locked(database: Path) -> Iterator[Path]:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield database


def test_a_damaged_database_of_mlflow_or_dagster_is_named_with_what_to_do(database: Path) -> None:
    assert sqlite_trouble(database) is None
    os.truncate(database, database.stat().st_size // 2)
    disk = Disk(database.parent, LEAST_FREE, is_writable=True)
    said = trouble_with(disk, caused_by(sqlite3.DatabaseError("malformed")))
    assert said is not None
    assert said.startswith(f"{database} can't be read (")
    assert "MLflow begins anew" in said


def test_an_index_of_dagster_s_that_was_emptied_is_named(tmp_path: Path) -> None:
    disk, error = Disk(tmp_path, LEAST_FREE, is_writable=True), DagsterInvalidInvocationError("no")
    assert trouble_with(disk, error) is None
    (tmp_path / INDEX).parent.mkdir(parents=True)
    (tmp_path / INDEX).touch()
    said = trouble_with(disk, error)
    assert said is not None
    assert said.startswith(f"{tmp_path / INDEX} can't be read (it lacks tables). ")


def test_a_locked_database_is_named_with_who_locks_it(locked: Path) -> None:
    assert is_locked(locked)
    said = sqlite_trouble(locked)
    assert said is not None
    assert said.startswith(f"{locked} is locked by ")


def test_a_database_with_a_log_is_looked_at_where_nothing_can_be_written(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    monkeypatch.setattr("embed_assets.storage.is_writable", lambda _: False)
    assert sqlite_trouble(database) is None
    assert not list(database.parent.glob("*-shm"))  # none was made


def test_who_locks_mlflows_database_is_said_while_it_is_waited_for(
    locked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("embed_assets.resources.tracking.PATIENCE", 0.2)
    monkeypatch.setattr(waiting, "FIRST_SAID", 0.0)
    with pytest.raises(BusyError, match="is locked by"):
        Tracking(home=str(locked.parent)).client()
    assert f"{locked} is in use by " in capsys.readouterr().err


def test_a_damaged_database_of_mlflow_is_one_line(database: Path) -> None:
    database.write_bytes(b"%PDF-1.7 " * 900)
    tracking = Tracking(home=str(database.parent))
    for use in (tracking.registered_model, tracking.make_database):
        with pytest.raises(ProjectError, match=r"mlflow\.db can't be read") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert database.read_bytes() == b"%PDF-1.7 " * 900


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="rights are POSIX's")
@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("is_there", [False, True])
def test_files_of_a_new_home_are_their_owners_alone_and_those_to_hand_on_are_not(
    tmp_path, is_there
) -> None:
    home = tmp_path / "home"
    if is_there:  # a volume of a container's, as an example
        home.mkdir()
    keep_private(home)
    home.mkdir(exist_ok=True)
    (home / "warehouse").touch()
    with as_the_person_has_it():
        (tmp_path / "questions.jsonl").touch()
    modes = [
        p.stat().st_mode & 0o777 for p in (home, home / "warehouse", tmp_path / "questions.jsonl")
    ]
    assert modes == [0o700, 0o600, 0o644]


@pytest.mark.skipif(os.name != "posix", reason="rights are POSIX's")
@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("mode", "is_used"), [(0o755, True), (0o2770, False)])
def test_a_home_that_is_shared_stays_so(tmp_path, mode, is_used) -> None:
    tmp_path.chmod(mode)
    if is_used:
        (tmp_path / "dagster").mkdir()
    keep_private(tmp_path)
    (tmp_path / "warehouse").touch()
    assert tmp_path.stat().st_mode & 0o7777 == mode
    assert (tmp_path / "warehouse").stat().st_mode & 0o777 == 0o644
