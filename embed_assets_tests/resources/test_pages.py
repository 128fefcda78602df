"""Addresses of Dagster's pages."""

import shutil

import pytest

from embed_assets.graph import GRAPH
from embed_assets.resources.pages import (
    DAGSTER_VARIABLE,
    DEFAULT_UI,
    MLFLOW_VARIABLE,
    SERVED,
    asset_page,
    graph_path,
    recall_pages,
    remember_pages,
)


def test_a_document_s_page_is_on_the_server_that_is_served(monkeypatch):
    monkeypatch.setenv(DAGSTER_VARIABLE, "http://127.0.0.1:3005/")
    assert asset_page("chunks") == "http://127.0.0.1:3005/assets/chunks"
    assert asset_page("chunks", "a-1").endswith("/assets/chunks?view=partitions&partition=a-1")


def test_the_graph_opens_with_the_group_of_every_asset():
    opened = graph_path().partition("expanded=")[2].split(",")
    assert {f"global@global:{asset.stage}" for asset in GRAPH.values()} == set(opened)


SERVED_THERE = {
    DAGSTER_VARIABLE: "http://127.0.0.1:3911",
    MLFLOW_VARIABLE: "http://127.0.0.1:5911",
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in SERVED_THERE:
        monkeypatch.setenv(name, "")  # they are as they were after the test
        monkeypatch.delenv(name)


def test_who_links_from_another_process_knows_where_pages_were_served_last(tmp_path):
    recall_pages(tmp_path)  # of a home that was never served
    assert asset_page("chunks") == f"{DEFAULT_UI}/assets/chunks"
    remember_pages(tmp_path, SERVED_THERE)
    recall_pages(tmp_path)
    assert asset_page("chunks") == "http://127.0.0.1:3911/assets/chunks"


def test_what_a_person_set_comes_before_what_was_served(tmp_path, monkeypatch):
    monkeypatch.setenv(DAGSTER_VARIABLE, "https://dagster.example.org")
    remember_pages(tmp_path, SERVED_THERE)
    recall_pages(tmp_path)
    assert asset_page("chunks") == "https://dagster.example.org/assets/chunks"


@pytest.mark.parametrize("found", ["", "[]", "{}", '{"home": "elsewhere"}', "3", "\x00"])
def test_a_file_that_says_nothing_of_this_home_is_passed_over(tmp_path, found):
    (tmp_path / SERVED).write_text(found, encoding="utf-8")
    recall_pages(tmp_path)
    assert asset_page("chunks").startswith(DEFAULT_UI)


def test_a_copy_of_a_home_was_never_served(tmp_path):
    home, copy = tmp_path / "home", tmp_path / "copy"
    home.mkdir()
    remember_pages(home, SERVED_THERE)
    shutil.copytree(home, copy)
    recall_pages(copy)
    assert asset_page("chunks").startswith(DEFAULT_UI)
