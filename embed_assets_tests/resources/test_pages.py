"""Addresses of Dagster's pages."""

from embed_assets.graph import GRAPH
from embed_assets.resources.pages import UI_VARIABLE, asset_page, graph_path


def test_a_document_s_page_is_on_the_server_that_is_served(monkeypatch):
    monkeypatch.setenv(UI_VARIABLE, "http://127.0.0.1:3005/")
    assert asset_page("chunks") == "http://127.0.0.1:3005/assets/chunks"
    assert asset_page("chunks", "a-1").endswith("/assets/chunks?view=partitions&partition=a-1")


def test_the_graph_opens_with_the_group_of_every_asset():
    opened = graph_path().partition("expanded=")[2].split(",")
    assert {f"global@global:{asset.stage}" for asset in GRAPH.values()} == set(opened)
