"""A warehouse that is damaged, or of another release, is one line; nothing in it is touched."""

import os
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from filelock import UnixFileLock

from embed_assets.resources.warehouse import SchemaError, Warehouse, WarehouseError
from embed_assets.tables import TABLES
from embed_assets_tests.rows import pages


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    made = Warehouse(path=str(tmp_path / "home" / "warehouse.duckdb"), lock_timeout=1)
    made.replace("parsed_markdown", pages("a", "one", "two"))
    return made


def change(warehouse: Warehouse, sql: str) -> None:
    with duckdb.connect(warehouse.path) as connection:
        connection.execute(sql)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[8300:8400] = bytes(255 - byte for byte in content[8300:8400])
    file.write_bytes(content)


def empty_beside_models(file: Path) -> None:
    (file.parent / "models" / "v1").mkdir(parents=True)
    file.write_bytes(b"")


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        empty_beside_models,
        make_folder,
        lambda file: os.truncate(file, 4096),
        lambda file: file.write_bytes(b"%PDF-1.7\n" * 900),
        lambda file: file.write_bytes(b"SQLite format 3\0" * 900),
    ],
    ids=["flipped", "empty", "a folder", "cut off", "a PDF", "SQLite"],
)
def test_a_damaged_file_is_one_line_and_stays_as_it_is(
    warehouse: Warehouse, damage: Callable[[Path], object]
) -> None:
    file = Path(warehouse.path)
    damage(file)
    before = file.read_bytes() if file.is_file() else None
    for use in (
        lambda: warehouse.count("chunks"),
        lambda: warehouse.replace("parsed_markdown", pages("b", "uno")),
    ):
        with pytest.raises(WarehouseError) as caught:
            use()
        said = str(caught.value)
        assert said.startswith(f"{file} can't be read (")
        assert "from a backup" in said
        assert "\n" not in said
    assert (file.read_bytes() if file.is_file() else None) == before


def test_an_empty_file_in_a_home_without_models_is_one_that_was_never_written(tmp_path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    Path(warehouse.path).touch()  # a kill came before the first byte
    assert warehouse.count("chunks") == 0
    warehouse.replace("parsed_markdown", pages("a", "one"))
    assert warehouse.count("parsed_markdown") == 1


def test_a_first_write_that_was_killed_half_way_is_begun_anew(tmp_path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    (tmp_path / "warehouse.duckdb.unfinished").write_bytes(b"\0" * 4096)
    warehouse.replace("parsed_markdown", pages("a", "one"))
    assert warehouse.count("parsed_markdown") == 1
    assert not list(tmp_path.glob("*.unfinished*"))


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("ALTER TABLE parsed_markdown DROP COLUMN markdown", "no column markdown"),
        (
            "ALTER TABLE parsed_markdown ALTER markdown TYPE BLOB",
            "BLOB where VARCHAR belongs, in markdown",
        ),
        (
            "CREATE OR REPLACE TABLE parsed_markdown AS FROM parsed_markdown",
            "the key () where (document_id, page) belongs",
        ),
    ],
)
def test_a_table_that_is_not_as_it_should_be_is_said_by_whoever_uses_the_warehouse(
    warehouse: Warehouse, sql: str, said: str
) -> None:
    change(warehouse, sql)
    for use in (
        lambda: Warehouse(path=warehouse.path).count("chunks"),
        lambda: warehouse.replace("chunks", TABLES["chunks"].empty()),
    ):
        with pytest.raises(SchemaError, match="the table parsed_markdown has ") as caught:
            use()
        assert said in str(caught.value)
        assert "check --mend" in str(caught.value)


def test_a_column_of_ones_own_disturbs_nobody_and_is_kept(warehouse: Warehouse) -> None:
    change(warehouse, "ALTER TABLE parsed_markdown ADD COLUMN mine VARCHAR DEFAULT 'note'")
    warehouse.replace("parsed_markdown", pages("b", "uno"), {"document_id": ["b"]})
    assert warehouse.count("parsed_markdown") == 3
    assert set(warehouse.read("SELECT mine FROM parsed_markdown")["mine"]) == {"note"}


def test_a_home_of_a_newer_release_is_refused_in_one_line(warehouse: Warehouse) -> None:
    change(
        warehouse,
        "CREATE OR REPLACE TABLE parsed_markdown (document_id VARCHAR, page BIGINT, "
        "markdown VARCHAR, parser_status VARCHAR, error VARCHAR, parser VARCHAR, "
        "script VARCHAR NOT NULL, PRIMARY KEY (document_id, page))",
    )
    with pytest.raises(SchemaError, match="A newer release of embed_assets made it"):
        warehouse.replace("parsed_markdown", pages("b", "uno"))


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may not be written to, whoever asks."""
    allows = os.access

    def access(path: str | Path, mode: int, **options: bool) -> bool:
        return not mode & os.W_OK and allows(path, mode, **options)

    def refuse(lock: UnixFileLock) -> None:
        raise OSError(30, "Read-only file system", str(lock.lock_file))

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr(UnixFileLock, "_acquire", refuse)


def test_a_home_that_may_only_be_read_is_read_without_a_lock(
    warehouse: Warehouse, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("closed")
    assert warehouse.count("parsed_markdown") == 2
    assert not warehouse.is_writable


def test_a_home_that_may_only_be_read_is_named_to_whoever_writes(
    warehouse: Warehouse, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("closed")
    with pytest.raises(WarehouseError, match=r"EMBED_ASSETS_HOME: .* may not be written to"):
        warehouse.replace("parsed_markdown", pages("b", "uno"))
