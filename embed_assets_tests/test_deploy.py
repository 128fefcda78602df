"""What `deploy/` says holds together: no Docker engine is needed to see it."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import s3fs
import yaml
from typer.main import get_command

from embed_assets.command.cli import app
from embed_assets.command.instance import _IN_POSTGRES, ON_RAY, RAY_JOBS, STORAGE
from embed_assets.graph import GRAPH
from embed_assets.resources.pages import DAGSTER_VARIABLE, MLFLOW_VARIABLE
from embed_assets.settings import PREFIX, Settings
from embed_assets_tests.bucket import bucket
from embed_assets_tests.postgres import database, postgres

__all__ = ["bucket", "database", "postgres"]

REPOSITORY = Path(__file__).parents[1]
DEPLOY = REPOSITORY / "deploy"
FILES = sorted(file for file in DEPLOY.rglob("*") if file.is_file())
POOLS = {asset.pool for asset in GRAPH.values() if asset.pool}

pytestmark = pytest.mark.skipif(not DEPLOY.is_dir(), reason="the package alone is installed")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def compose() -> dict[str, Any]:
    return yaml.safe_load(read(DEPLOY / "compose.yaml"))


each_service = pytest.mark.parametrize(
    ("name", "service"),
    [pytest.param(name, service, id=name) for name, service in compose()["services"].items()]
    if DEPLOY.is_dir()
    else [],
)


@each_service
def test_an_image_is_built_here_or_of_one_version(name, service):
    assert re.search(r":(?!latest$)[\w.-]*\d[\w.-]*$", service["image"])
    if "build" in service:
        context = DEPLOY / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).is_file()


@each_service
def test_what_is_waited_for_can_come(name, service):
    others = compose()["services"]
    for other, wait in service.get("depends_on", {}).items():
        if wait["condition"] == "service_healthy":
            assert others[other]["healthcheck"]["test"][0] == "CMD"
        else:
            assert wait["condition"] == "service_completed_successfully"
            assert others[other].get("restart", "no") == "no", f"{other} would never be over"


@each_service
def test_a_volume_is_declared_or_a_file_that_is_there(name, service):
    for volume in service.get("volumes", []):
        source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
        here = source.startswith(".") and (DEPLOY / source).exists()
        assert here or source in compose()["volumes"], volume


@each_service
def test_a_port_is_open_to_this_machine_alone(name, service):
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@each_service
def test_no_secret_is_written_down(name, service):
    environment = service.get("environment", {})
    secret = [k for k in environment if re.search("PASSWORD|SECRET|TOKEN|_KEY", k)]
    assert all(str(environment[k]).startswith("${") for k in secret)


def test_what_a_person_must_set_stands_in_the_example_of_an_env_file():
    asked = set(re.findall(r"\$\{(\w+)", read(DEPLOY / "compose.yaml")))
    assert asked == set(re.findall(r"^#? ?(\w+)=", read(DEPLOY / ".env.example"), re.MULTILINE))


def test_the_environment_is_taken_by_the_settings(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    environment = compose()["services"]["dagster-daemon"]["environment"]
    set_here = {k for k in environment if k.startswith(PREFIX)} - {
        DAGSTER_VARIABLE,
        MLFLOW_VARIABLE,
    }
    for name in set_here:
        monkeypatch.setenv(name, re.sub(r"\$\{.*\}", "", environment[name]))
    taken = Settings(_env_file=None)  # type: ignore
    assert {PREFIX + name.upper() for name in taken.model_fields_set} == set_here
    assert str(taken.dagster_home) == environment["DAGSTER_HOME"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_names_no_setting_that_there_is_not(file):
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", read(file)))
    assert named <= known | {DAGSTER_VARIABLE, MLFLOW_VARIABLE}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_command_takes_every_line_that_calls_it(file):
    """In commands of containers, and in blocks of code on pages."""
    text = read(file).replace('", "', " ")
    group: Any = get_command(app)
    calls = r"(?:^|exec |daemon |-- |command: \[\")embed-assets ([a-z][^\"`\n\]]+)"
    for line in re.findall(calls, text, re.MULTILINE):
        name, *rest = shlex.split(line)
        group.commands[name].make_context(name, rest)


def test_the_extras_of_the_image_are_the_projects():
    project = tomllib.loads(read(REPOSITORY / "pyproject.toml"))["project"]
    extras = re.search(r"'\.\[([\w,]+)\]'", read(DEPLOY / "Dockerfile"))
    assert extras
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])


def test_what_the_image_copies_is_there_and_is_let_through():
    let_through = set(re.findall("^!(.*)$", read(DEPLOY / "Dockerfile.dockerignore"), re.MULTILINE))
    copied = re.findall("^COPY (.*) [^ ]+$", read(DEPLOY / "Dockerfile"), re.MULTILINE)
    paths = {path for line in copied for path in line.split()}
    assert all((REPOSITORY / path).exists() for path in paths)
    assert paths == let_through


def test_the_pools_of_the_graph_have_limits():
    for text in (read(DEPLOY / ".env.example"), read(DEPLOY / "compose.yaml")):
        limits = re.search(r"(parsing=[\w=,]+)", text)
        assert limits
        assert {part.split("=")[0] for part in limits[1].split(",")} == POOLS


def test_runs_that_are_jobs_of_ray_have_a_node_with_a_place_for_each():
    added = yaml.safe_load(read(DEPLOY / "runs-on-ray.yaml"))["services"]
    assert set(added) - set(compose()["services"]) == {"ray-runs"}
    node = added["ray-runs"]
    assert node["extends"] == {"file": "compose.yaml", "service": "dagster-daemon"}
    started = shlex.split(node["command"][2])
    assert "OMP_NUM_THREADS=$$(nproc)" in started
    places = json.loads(started[started.index("--resources") + 1])
    asked = yaml.safe_load(ON_RAY)["run_launcher"]["config"]["ray"]["resources"]
    limits = yaml.safe_load(read(DEPLOY / "dagster.yaml"))["concurrency"]["runs"]
    assert places == dict.fromkeys(asked, limits["max_concurrent_runs"])
    told = {name for name, service in added.items() if RAY_JOBS in service.get("environment", {})}
    assert told == {"prepare", "ray-runs", "dagster-daemon", "dagster-webserver"}


def test_what_is_prepared_again_follows_the_settings(tmp_path, database, bucket, monkeypatch):
    home = tmp_path / "dagster"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv(STORAGE, address_of(database))
    other = f"{bucket.removeprefix('s3://')}-other"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")  # as in compose.yaml
    monkeypatch.setenv("BUCKETS", f"{bucket.removeprefix('s3://')},{other}")
    for place, jobs in (("1", "http://head:8265"), ("2", "")):
        monkeypatch.setenv("POOLS", f"parsing={place},llm=4")
        monkeypatch.setenv(RAY_JOBS, jobs)
        runpy.run_path(str(DEPLOY / "prepare.py"), run_name="__main__")
        assert (ON_RAY in read(home / "dagster.yaml")) == bool(jobs)
    with dg.DagsterInstance.get() as instance:
        limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
    assert limits == {"parsing": 2, "llm": 4}
    assert not s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"]).ls(other)


def address_of(database: str) -> str:
    parts = dict(part.split("=", 1) for part in database.split())
    return f"postgresql+psycopg2://{parts['user']}@/{parts['dbname']}?host={parts['host']}"


MADE_TWICE = """
import subprocess, sys, time

import dagster as dg

@dg.asset(pool="parsing")
def parsed() -> None:
    began = time.time()
    time.sleep(1)
    print(began, time.time())

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    print(instance.global_op_concurrency_default_limit)
    if len(sys.argv) > 2:
        dg.materialize([parsed], instance=instance)
    else:
        instance.event_log_storage.set_concurrency_slots("parsing", 1)
        call = [sys.executable, __file__, sys.argv[1], "run"]
        for run in [subprocess.Popen(call), subprocess.Popen(call)]:
            run.wait(100)
"""


def test_two_runs_at_an_asset_of_a_pool_with_one_place_take_turns(tmp_path, database, monkeypatch):
    """With the instance's file of `deploy/`. In SQLite, which locks no rows, both might begin."""
    monkeypatch.setenv(STORAGE, address_of(database))
    assert yaml.safe_load(read(DEPLOY / "dagster.yaml"))["storage"] == _IN_POSTGRES
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
    program = tmp_path / "made_twice.py"
    program.write_text(MADE_TWICE, encoding="utf-8")
    call = [sys.executable, str(program), str(tmp_path)]
    done = subprocess.run(call, capture_output=True, encoding="utf-8", timeout=200, check=True)
    said = done.stdout
    assert set(re.findall(r"^\d+$", said, re.MULTILINE)) == {"1"}
    first, second = sorted(re.findall(r"^([\d.]+) ([\d.]+)$", said, re.MULTILINE))
    assert float(first[1]) <= float(second[0])
