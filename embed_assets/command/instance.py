"""The home's instance of Dagster: where it keeps its history, how it is made, how it is found."""

import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from filelock import FileLock

from embed_assets.errors import SettingsError
from embed_assets.settings import PREFIX, Settings

STORAGE = f"{PREFIX}DAGSTER_STORAGE"
RAY_JOBS = f"{PREFIX}RAY_JOBS"
JOB_SERVER = "RAY_API_SERVER_ADDRESS"
"""Ray's own variable. Without it Ray asks for jobs where RAY_ADDRESS says, whatever it is told."""


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
        _check_launcher(settings)
        _check_packages(settings)
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
    if settings.ray_jobs:
        os.environ[RAY_JOBS] = os.environ[JOB_SERVER] = settings.ray_jobs
    file = settings.dagster_home / "dagster.yaml"
    if not file.exists():
        return
    named = _said(file).get("storage")
    if settings.dagster_storage and not named:
        raise SettingsError(
            f"{file} was made without it: this home's history is in SQLite files. Unset it, or "
            f"move {settings.dagster_home} away and begin a new history.",
            STORAGE,
        )
    if named == _IN_POSTGRES and not settings.dagster_storage:
        raise SettingsError(f"{file} needs it: this home's history is in Postgres.", STORAGE)


def _check_launcher(settings: Settings) -> None:
    """SettingsError where the instance's file launches runs elsewhere than the settings say.

    It may say more of the launcher than is written here. SettingsError too where a job's command
    would hold an apostrophe: dagster-ray puts the paths in it between two.
    """
    for path in (settings.home, Path.cwd(), Path(sys.executable)):
        if settings.ray_jobs and "'" in str(path):
            said = f"{path}: its apostrophe can't stand in the command of a job of Ray."
            raise SettingsError(said, RAY_JOBS)
    file = settings.dagster_home / "dagster.yaml"
    if not file.exists():
        return
    launcher = _said(file).get("run_launcher") or {}
    of_ray = (launcher.get("config") or {}).get("ray") or {}
    named = of_ray.get("address") == {"env": RAY_JOBS}
    if settings.ray_jobs and not named:
        raise SettingsError(
            f"{file} launches runs elsewhere. Put the line `{ON_RAY.strip()}` into it, in place of "
            "its run_launcher if it has one, or unset this.",
            RAY_JOBS,
        )
    if named and not settings.ray_jobs:
        raise SettingsError(f"{file} needs it. Set it, or take run_launcher out there.", RAY_JOBS)


def _check_packages(settings: Settings) -> None:
    """SettingsError where Dagster needs a package that isn't there."""
    for value, package, extra, setting in (
        (settings.dagster_storage, "dagster_postgres", "postgres", STORAGE),
        (settings.ray_jobs, "dagster_ray", "ray", RAY_JOBS),
    ):
        if value and not find_spec(package):
            said = f"it needs another package: pip install 'embed_assets[{extra}]'."
            raise SettingsError(said, setting)


def _said(file: Path) -> dict[str, Any]:
    """What an instance's file says."""
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


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
        said += yaml.safe_dump({"storage": _IN_POSTGRES})
    if settings.ray_jobs:
        said += ON_RAY
    unfinished = folder / "dagster.yaml.unfinished"
    unfinished.write_text(said, encoding="utf-8")
    dg.DagsterInstance.from_config(str(folder), unfinished.name).dispose()
    unfinished.rename(file)


_IN_POSTGRES = {"postgres": {"postgres_url": {"env": STORAGE}}}
"""What an instance's file says of a history in Postgres: its address may change."""
ON_RAY = (
    "run_launcher: {module: dagster_ray, class: RayRunLauncher, config: {ray: {"
    f"address: {{env: {RAY_JOBS}}}, num_cpus: 0, resources: {{embed_assets_run: 1}}, "
    "env_vars: [RAY_JOB_STOP_WAIT_TIME_S=60]}}}\n"
)
"""What an instance's file says where runs are jobs of Ray: a line that fits any file.

A run is on a node that has the resource, on one of it, and holds no CPU: it waits for the workers
that do. One that is stopped has a minute to end by itself, where Ray would give it 3 s."""
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
