"""Addresses of Dagster's pages, for links from elsewhere and within them."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from embed_assets.graph import GRAPH

DEFAULT_UI = "http://127.0.0.1:3000"
DAGSTER_VARIABLE, MLFLOW_VARIABLE = "EMBED_ASSETS_DAGSTER_UI", "EMBED_ASSETS_MLFLOW_UI"
"""Where the pages of each are served; set by `embed-assets ui`."""
LOCATION = "embed_assets"
"""What Dagster calls the project, by its package."""
SERVED = "pages.json"
"""File of a home: where its pages were served last, as those variables, and its own path then."""


def remember_pages(home: Path, served: Mapping[str, str]) -> None:
    """Keep where pages are served, for links from other processes. served: those variables."""
    file = home / SERVED
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"home": str(home), **served}), encoding="utf-8")
    unfinished.replace(file)


def recall_pages(home: Path) -> None:
    """Have this process and its children link to where pages were served last.

    What the environment says comes first. A copy of the home was never served.
    """
    with suppress(OSError, ValueError, LookupError, TypeError):
        served = json.loads((home / SERVED).read_text(encoding="utf-8"))
        if served["home"] == str(home):
            for name in (DAGSTER_VARIABLE, MLFLOW_VARIABLE):
                os.environ.setdefault(name, served[name])


def run_page(run_id: str) -> str:
    """Page of a Dagster run."""
    return _server() + run_path(run_id)


def asset_page(asset: str, partition: str | None = None) -> str:
    """Page of an asset, or of one of its partitions."""
    return _server() + asset_path(asset, partition)


def run_path(run_id: str) -> str:
    """Page of a run as Dagster's own pages link to it, wherever they are served."""
    return f"/runs/{run_id}"


def asset_path(asset: str, partition: str | None = None) -> str:
    """Likewise: page of an asset, or of one of its partitions."""
    chosen = f"?view=partitions&partition={partition}" if partition else ""
    return f"/assets/{asset}{chosen}"


def launchpad_path(job: str) -> str:
    """Where a job is launched."""
    return f"/locations/{LOCATION}/jobs/{job}/playground"


def graph_path() -> str:
    """The graph with every group open: by itself Dagster opens it with all groups closed."""
    stages = dict.fromkeys(asset.stage for asset in GRAPH.values())
    return f"/asset-groups?expanded={','.join(f'global@global:{stage}' for stage in stages)}"


def _server() -> str:
    return os.environ.get(DAGSTER_VARIABLE, DEFAULT_UI).rstrip("/")
