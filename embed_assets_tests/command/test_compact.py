"""`compact` frees the room of what was deleted."""

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from embed_assets.command.cli import app
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets_tests.postgres import database, postgres
from embed_assets_tests.rows import pages

__all__ = ["database", "postgres"]


@pytest.fixture(autouse=True)
def signals_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in this process would block Ctrl-C in it for the tests to come."""
    monkeypatch.setattr("embed_assets.command.stopping.listen", lambda: None)


@pytest.mark.parametrize("store", ["file", "lake"])
def test_what_was_deleted_takes_no_room_after_it(store, tmp_path, monkeypatch, request, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBED_ASSETS_HOME", str(tmp_path / "home"))
    if store == "lake":
        address = f"ducklake:postgres:{request.getfixturevalue('database')}?data={tmp_path / 'l'}"
        monkeypatch.setenv("EMBED_ASSETS_WAREHOUSE", address)
    warehouse = Warehouse.of(Settings())
    long = [pages(f"d{n:03}", f"{n} bar, {n * 7919} litres; " * 300) for n in range(100)]
    warehouse.replace("parsed_markdown", pl.concat(long))
    warehouse.replace("parsed_markdown", pages("d001", "stays"))
    done = CliRunner().invoke(app, ["compact", "--keep-days", "0", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(capfd.readouterr().out)
    assert said["warehouse"] == warehouse.name
    assert said["bytes_after"] == warehouse.size_bytes < said["bytes_before"]
    assert warehouse.count("parsed_markdown") == 1


def test_a_home_in_which_nothing_is_has_nothing_to_compact(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["compact", "--home", str(tmp_path / "none"), "--json"])
    assert done.exit_code == 0
    assert json.loads(capfd.readouterr().out)["bytes_after"] == 0
    assert not (tmp_path / "none").exists()
