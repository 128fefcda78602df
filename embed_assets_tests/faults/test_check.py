"""`check` finds what is damaged, changes nothing unasked, and what it mends is made as before."""

import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from embed_assets.command.check import MEND, PERSON, check_home, check_text
from embed_assets.errors import SettingsError
from embed_assets_tests.command.conftest import Project


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    """A folder with PDFs, and the home that they were ingested into."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DAGSTER_HOME", "")
        project = Project(folder, small_model, patched)
        project.put("alder.pdf", "birch.pdf")
        project.ingest()
    return folder


@pytest.fixture
def ingested(project: Project, made: Path) -> Project:
    shutil.copytree(made / "pdfs", project.pdfs, dirs_exist_ok=True)
    shutil.copytree(made / "home", project.settings.home)
    return project


def change(project: Project, *sql: str) -> None:
    with duckdb.connect(project.warehouse.path) as connection:
        for statement in sql:
            connection.execute(statement)


def found(project: Project) -> list[tuple[str, str]]:
    return [(row["what"], row["mended_by"]) for row in check_home(project.settings)["damaged"]]


def test_there_is_nothing_to_check_where_there_is_no_home(project: Project) -> None:
    with pytest.raises(SettingsError, match="there is nothing in"):
        check_home(project.settings)


def test_what_an_ingest_made_is_whole_and_so_is_what_has_moved(ingested: Project) -> None:
    assert check_home(ingested.settings)["damaged"] == []
    (ingested.pdfs / "alder.pdf").rename(ingested.pdfs / "elm.pdf")
    ingested.ingest()
    summary = check_home(ingested.settings)
    assert summary["whole"]
    assert "Nothing is damaged." in check_text(summary)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (
            (
                "DELETE FROM chunks WHERE chunk_index > 0 AND document_id LIKE 'alder%'",
                "UPDATE parsed_markdown SET markdown = 'x' WHERE document_id LIKE 'birch%'",
                "UPDATE raw_pdfs SET content = '' WHERE document_id LIKE 'birch%'",
            ),
            {"chunks", "parsed_markdown", "raw_pdfs", "synthetic_questions"},
        ),
        (
            ("ALTER TABLE chunks DROP COLUMN heading_path", "DROP TABLE synthetic_questions"),
            {"chunks"},
        ),
    ],
    ids=["rows", "tables"],
)
def test_damage_that_can_be_made_again_is_made_again_as_it_was(
    ingested: Project, damage: tuple[str, ...], what: set[str]
) -> None:
    before = ingested.contents
    change(ingested, *damage)
    rows = Path(ingested.warehouse.path).read_bytes()
    assert {by for _, by in found(ingested)} == {MEND}
    assert {name for name, _ in found(ingested)} <= what
    assert Path(ingested.warehouse.path).read_bytes() == rows  # it only looked
    assert check_home(ingested.settings, mend=True)["whole"]
    ingested.ingest()
    assert ingested.contents == before
    assert found(ingested) == []


def test_rows_of_a_table_that_had_to_begin_anew_are_kept_as_parquet(ingested: Project) -> None:
    rows = ingested.warehouse.count("chunks")
    change(ingested, "ALTER TABLE chunks DROP COLUMN heading_path")
    check_home(ingested.settings, mend=True)
    [kept] = (ingested.settings.home / "damaged").iterdir()
    assert duckdb.sql(f"SELECT count(*) FROM '{kept}'").fetchone() == (rows,)


def test_a_table_that_lost_its_key_keeps_all_its_rows_but_those_that_belong_to_nothing(
    ingested: Project,
) -> None:
    before = ingested.contents
    change(
        ingested,
        "INSERT INTO chunks SELECT * REPLACE ('stray-00000000' AS document_id) FROM chunks "
        "WHERE document_id LIKE 'alder%'",
    )
    assert found(ingested) == [("chunks", MEND)]
    change(
        ingested, 'CREATE OR REPLACE TABLE chunks AS SELECT *, \'mine\' AS "a ""note" FROM chunks'
    )
    assert found(ingested) == [("chunks", MEND)]
    assert check_home(ingested.settings, mend=True)["whole"]
    assert ingested.contents == before
    notes = ingested.warehouse.read('SELECT DISTINCT "a ""note" AS note FROM chunks')
    assert notes["note"].to_list() == ["mine"]


def test_rows_that_nothing_can_make_again_are_a_persons_to_bring_back(ingested: Project) -> None:
    change(
        ingested,
        "ALTER TABLE model_documents DROP COLUMN path",
        "INSERT INTO model_documents VALUES ('1', 'alder', 'sha', 3)",
    )
    summary = check_home(ingested.settings, mend=True)
    assert not summary["whole"]
    assert ingested.warehouse.stored_tables()["model_documents"].keys() >= {"version", "sha256"}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("warehouse.duckdb", lambda file: file.write_bytes(b"nothing" * 2000)),
        ("dagster/schedules/schedules.db", lambda file: file.write_bytes(b"nothing" * 2000)),
    ],
)
def test_a_database_that_cannot_be_read_is_a_row_with_what_to_do(
    ingested: Project, name: str, damage: Callable[[Path], object]
) -> None:
    damage(ingested.settings.home / name)
    [row] = check_home(ingested.settings)["damaged"]
    assert (row["what"], row["mended_by"]) == (name, PERSON)
    assert "away" in row["remedy"]
