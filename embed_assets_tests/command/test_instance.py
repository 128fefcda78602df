"""The home's instance of Dagster, in SQLite files or in Postgres."""

import os
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage

from embed_assets.command.instance import JOB_SERVER, ON_RAY, RAY_JOBS, STORAGE, prepare_home
from embed_assets.errors import SettingsError
from embed_assets.settings import Settings
from embed_assets_tests.postgres import database, postgres, sql

__all__ = ["database", "postgres"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing sets variables: they must not outlive the test."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    for name in (STORAGE, RAY_JOBS, JOB_SERVER):
        monkeypatch.setenv(name, "")
        os.environ.pop(name)


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


@pytest.fixture
def on_ray(tmp_path: Path) -> Settings:
    """Settings by which runs are jobs of Ray. Nobody asks the server."""
    pytest.importorskip("dagster_ray", reason="dagster-ray isn't installed")
    return Settings(home=tmp_path / "home", ray_jobs="http://head:8265")


def test_runs_are_jobs_of_ray_on_nodes_that_have_a_place_for_them_where_that_is_set(on_ray):
    prepare_home(on_ray)
    with dg.DagsterInstance.get() as instance:
        launcher: Any = instance.run_launcher
    assert launcher.address == os.environ[JOB_SERVER] == "http://head:8265"
    assert (launcher.num_cpus, launcher.resources) == (0, {"embed_assets_run": 1})
    assert launcher.env_vars == ["RAY_JOB_STOP_WAIT_TIME_S=60"], "Ray's pages show them"


def test_a_home_that_is_there_says_what_to_change_before_its_runs_are_jobs_of_ray(on_ray):
    prepare_home(on_ray.changed({"ray_jobs": ""}))
    with pytest.raises(
        SettingsError, match=rf"^{RAY_JOBS}: .*Put the line `run_launcher: "
    ) as said:
        prepare_home(on_ray)
    line = str(said.value).split("`")[1]
    file = on_ray.dagster_home / "dagster.yaml"
    file.write_text(f"{file.read_text(encoding='utf-8')}{line}", encoding="utf-8")
    prepare_home(on_ray)
    with pytest.raises(SettingsError, match=rf"^{RAY_JOBS}: .* needs it"):
        prepare_home(on_ray.changed({"ray_jobs": ""}))


def test_a_person_may_say_more_of_the_launcher(on_ray):
    on_ray.dagster_home.mkdir(parents=True)
    more = ON_RAY.replace("num_cpus: 0", "num_cpus: 2")
    (on_ray.dagster_home / "dagster.yaml").write_text(more, encoding="utf-8")
    prepare_home(on_ray)


@pytest.mark.parametrize("named", ["home", "working folder"])
def test_a_path_that_no_command_of_a_job_can_name_is_refused(on_ray, tmp_path, monkeypatch, named):
    (tmp_path / "Ann's").mkdir()
    if named == "home":
        on_ray = on_ray.changed({"home": tmp_path / "Ann's" / "home"})
    else:
        monkeypatch.chdir(tmp_path / "Ann's")
    with pytest.raises(SettingsError, match=rf"^{RAY_JOBS}: .*Ann's.*its apostrophe"):
        prepare_home(on_ray)


def test_a_package_that_is_missing_is_named(on_ray, monkeypatch):
    monkeypatch.setitem(sys.modules, "dagster_ray", None)
    with pytest.raises(SettingsError, match=r"^EMBED_ASSETS_RAY_JOBS: .*embed_assets\[ray\]"):
        prepare_home(on_ray)


@pytest.mark.parametrize(
    "address", ["head:8265", "ray://head:10001", "http://me:hunter2@head:8265"]
)
def test_an_address_of_ray_that_is_none_or_holds_a_password_is_refused(address):
    with pytest.raises(SettingsError, match=rf"^{RAY_JOBS}: not http://HOST:8265") as refused:
        Settings(ray_jobs=address)
    assert "hunter2" not in str(refused.value)
