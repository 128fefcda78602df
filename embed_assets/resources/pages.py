"""Addresses of Dagster's pages, for links from elsewhere."""

import os

DEFAULT_UI = "http://127.0.0.1:3000"
UI_VARIABLE = "EMBED_ASSETS_DAGSTER_UI"
"""Where Dagster's pages are served; set by `embed-assets ui`."""


def run_page(run_id: str) -> str:
    """Page of a Dagster run."""
    return f"{_server()}/runs/{run_id}"


def asset_page(asset: str, partition: str | None = None) -> str:
    """Page of an asset, or of one of its partitions."""
    chosen = f"?view=partitions&partition={partition}" if partition else ""
    return f"{_server()}/assets/{asset}{chosen}"


def _server() -> str:
    return os.environ.get(UI_VARIABLE, DEFAULT_UI).rstrip("/")
