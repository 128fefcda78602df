"""Addresses of Dagster's pages."""

from embed_assets.graph import GRAPH
from embed_assets.resources.pages import (
    DEFAULT_UI,
    UI_VARIABLE,
    asset_page,
    graph_path,
    recall_pages,
    remember_pages,
)


def test_a_document_s_page_is_on_the_server_that_is_served(monkeypatch):
    monkeypatch.setenv(UI_VARIABLE, "http://127.0.0.1:3005/")
    assert asset_page("chunks") == "http://127.0.0.1:3005/assets/chunks"
    assert asset_page("chunks", "a-1").endswith("/assets/chunks?view=partitions&partition=a-1")


def test_the_graph_opens_with_the_group_of_every_asset():
    opened = graph_path().partition("expanded=")[2].split(",")
    assert {f"global@global:{asset.stage}" for asset in GRAPH.values()} == set(opened)


def test_who_links_from_another_process_knows_where_pages_were_served_last(tmp_path, monkeypatch):
    monkeypatch.setenv(UI_VARIABLE, "")  # both are as they were after the test
    monkeypatch.delenv(UI_VARIABLE)
    recall_pages(tmp_path)  # of a home that was never served
    assert asset_page("chunks") == f"{DEFAULT_UI}/assets/chunks"
    remember_pages(tmp_path, {UI_VARIABLE: "http://127.0.0.1:3911"})
    recall_pages(tmp_path)
    assert asset_page("chunks") == "http://127.0.0.1:3911/assets/chunks"


def test_what_a_person_set_comes_before_what_was_served(tmp_path, monkeypatch):
    monkeypatch.setenv(UI_VARIABLE, "https://dagster.example.org")
    remember_pages(tmp_path, {UI_VARIABLE: "http://127.0.0.1:3911"})
    recall_pages(tmp_path)
    assert asset_page("chunks") == "https://dagster.example.org/assets/chunks"
