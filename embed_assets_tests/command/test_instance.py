"""The home's instance of Dagster, in SQLite files or in Postgres."""

import os
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage

from embed_assets.command.instance import STORAGE, prepare_home
from embed_assets.errors import SettingsError
from embed_assets.settings import Settings
from embed_assets_tests.postgres import database, postgres, sql

__all__ = ["database", "postgres"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing sets variables: they must not outlive the test."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv(STORAGE, "")
    os.environ.pop(STORAGE)


@pytest.fixture
def in_postgres(tmp_path: Path, database: str) -> Settings:
    """Settings that keep Dagster's history in Postgres."""
    parts = dict(part.split("=", 1) for part in database.split())
    address = f"postgresql+psycopg2://{parts['user']}@/{parts['dbname']}?host={parts['host']}"
    return Settings(home=tmp_path / "home", dagster_storage=address)


def test_the_history_is_in_files_of_the_home(tmp_path):
    prepare_home(Settings(home=tmp_path / "home"))
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, SqliteEventLogStorage)


def test_the_history_is_in_postgres_where_that_is_set(in_postgres, database):
    for _ in range(2):  # made once, and found again
        prepare_home(in_postgres)
        with dg.DagsterInstance.get() as instance:
            instance.add_dynamic_partitions("documents", ["a"])
    assert sql(database, "SELECT partition FROM dynamic_partitions") == [("a",)]
    assert not list(in_postgres.home.rglob("*.db"))


def test_a_home_whose_history_is_elsewhere_than_the_setting_says_is_refused(in_postgres, tmp_path):
    home = tmp_path / "files"
    prepare_home(Settings(home=home))
    with pytest.raises(SettingsError, match=rf"^{STORAGE}: .*in SQLite files"):
        prepare_home(in_postgres.changed({"home": home}))
    prepare_home(in_postgres)
    os.environ.pop(STORAGE)
    with pytest.raises(SettingsError, match=rf"^{STORAGE}: .*in Postgres"):
        prepare_home(Settings(home=in_postgres.home))


def test_a_history_of_a_persons_own_stays_as_it_is(in_postgres, tmp_path):
    home = tmp_path / "own"
    (home / "dagster").mkdir(parents=True)
    own = "storage:\n  sqlite:\n    base_dir: /somewhere\n"
    (home / "dagster" / "dagster.yaml").write_text(own, encoding="utf-8")
    prepare_home(in_postgres.changed({"home": home}))
    prepare_home(Settings(home=home))
    assert (home / "dagster" / "dagster.yaml").read_text(encoding="utf-8") == own


@pytest.mark.parametrize("address", ["mysql://me@db/x", "postgresql+psycopg2://me:hunter2@db/x"])
def test_an_address_that_is_none_or_holds_a_password_is_refused(address):
    with pytest.raises(SettingsError, match=rf"^{STORAGE}: ") as refused:
        Settings(dagster_storage=address)
    assert "hunter2" not in str(refused.value)
