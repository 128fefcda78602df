"""The home's instance of Dagster: where it keeps its history, how it is made, how it is found."""

import logging
import os
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from filelock import FileLock

from embed_assets.errors import SettingsError
from embed_assets.settings import PREFIX, Settings

STORAGE = f"{PREFIX}DAGSTER_STORAGE"


def prepare_home(settings: Settings) -> None:
    """Make the home folder and its Dagster instance, and point Dagster at it."""
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    try:
        settings.dagster_home.mkdir(parents=True, exist_ok=True)
        if not os.access(settings.home, os.W_OK):
            raise SettingsError(f"EMBED_ASSETS_HOME: {settings.home} may not be written to.")
        point_dagster_at(settings)
        with FileLock(settings.dagster_home / "prepared.lock"):
            _make_instance(settings)
    except OSError as error:
        raise SettingsError(f"EMBED_ASSETS_HOME: {error.filename}: {error.strerror}.") from error


def point_dagster_at(settings: Settings) -> None:
    """Have this process and its children find the home's instance of Dagster.

    SettingsError where that keeps its history elsewhere than the settings say.
    """
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    if settings.dagster_storage:
        os.environ[STORAGE] = settings.dagster_storage
    file = settings.dagster_home / "dagster.yaml"
    if not file.exists():
        return
    named = _storage(file)
    if settings.dagster_storage and not named:
        raise SettingsError(
            f"{file} was made without it: this home's history is in SQLite files. Unset it, or "
            f"move {settings.dagster_home} away and begin a new history.",
            STORAGE,
        )
    if named == _IN_POSTGRES and not settings.dagster_storage:
        raise SettingsError(f"{file} needs it: this home's history is in Postgres.", STORAGE)


def _storage(file: Path) -> Any:
    """What an instance's file says of where the history is."""
    return (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("storage")


def _make_instance(settings: Settings) -> None:
    """Make Dagster's instance, if it isn't there yet: dagster.yaml comes last, and says that it is.

    Two that make its databases at once would break each other's.
    """
    folder = settings.dagster_home
    workspace, file = folder / "workspace.yaml", folder / "dagster.yaml"
    if not workspace.exists():
        workspace.write_text(WORKSPACE_YAML, encoding="utf-8")
    if file.exists():
        return
    said = DAGSTER_YAML
    if settings.dagster_storage:
        _check_package()
        said += yaml.safe_dump({"storage": _IN_POSTGRES})
    unfinished = folder / "dagster.yaml.unfinished"
    unfinished.write_text(said, encoding="utf-8")
    dg.DagsterInstance.from_config(str(folder), unfinished.name).dispose()
    unfinished.rename(file)


def _check_package() -> None:
    try:
        import dagster_postgres  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            "it needs another package: pip install 'embed_assets[postgres]'.", STORAGE
        ) from error


_IN_POSTGRES = {"postgres": {"postgres_url": {"env": STORAGE}}}
"""What an instance's file says of a history in Postgres: its address may change."""
DAGSTER_YAML = """\
# Written by embed-assets, once. Dagster's telemetry stays off unless you turn it on here.
telemetry:
  enabled: false
nux:
  enabled: false
# A run that ingests has a pool of parsers of its own; a run that trains has the processor.
concurrency:
  runs:
    max_concurrent_runs: 2
run_monitoring:
  enabled: true
"""
WORKSPACE_YAML = """\
load_from:
  - python_module:
      module_name: embed_assets.definitions
      location_name: embed_assets
"""
