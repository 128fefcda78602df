"""Each home has its own experiment, models and champion; each MLflow run ends as its work did."""

import multiprocessing
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.remote_representation.external_data import RepositorySnap
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, event

from embed_assets.definitions import build_definitions
from embed_assets.errors import hide_password
from embed_assets.models.registry import aliases, champion_version, make_champion
from embed_assets.resources.headline import VIEW_TAG, runs_view
from embed_assets.resources.tracking import DAGSTER_RUN, HOME, NOTE, TRAINED_IN, Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets_tests.decisions import BY_TEST
from embed_assets_tests.rows import model
from embed_assets_tests.together import do_together

PASSWORD = "swordfish-in-the-uri"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database that homes share."""
    uri = f"sqlite:///{tmp_path / 'server.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def home(folder: Path, name: str) -> Tracking:
    return Tracking(home=str(folder / name))


def add_versions(tracking: Tracking, *trained_in: str) -> None:
    """Register versions, as trainings do."""
    name = tracking.connect()
    client = tracking.client()
    if tracking.registered_model() is None:
        client.create_registered_model(name)
    for run in trained_in:
        client.create_model_version(name, tracking.home, tags={TRAINED_IN: run})
    tracking.connect()


def record_version(tracking: Tracking, version: str, run: str) -> None:
    """Let the home know of a version."""
    warehouse = Warehouse(path=str(Path(tracking.home) / "warehouse.duckdb"))
    warehouse.replace("models", model(version, mlflow_run_id=run))


# Whose models are whose.


@pytest.mark.usefixtures("server")
def test_two_homes_on_one_server_keep_their_own_champion(tmp_path: Path):
    first, second = home(tmp_path, "first"), home(tmp_path, "second")
    add_versions(first, "run-1", "run-2")
    make_champion(first, "2", BY_TEST)
    add_versions(second, "run-3")
    assert champion_version(second) is None
    make_champion(second, "1", BY_TEST)
    assert (champion_version(first), champion_version(second)) == ("2", "1")
    assert first.name == "embed-assets"
    assert second.name == f"embed-assets-{(tmp_path / 'second' / 'home-id').read_text()[:8]}"


@pytest.mark.usefixtures("server")
def test_a_project_has_the_name_that_it_is_given(tmp_path: Path):
    add_versions(home(tmp_path, "first"), "run-1")
    named = Tracking(home=str(tmp_path / "second"), project="manuals")
    add_versions(named, "run-2")
    assert named.name == "manuals"
    model, experiment = named.registered_model(), named.client().get_experiment_by_name("manuals")
    assert model is not None
    assert experiment is not None
    assert model.tags[HOME] == experiment.tags[HOME] == (tmp_path / "second/home-id").read_text()


@pytest.mark.usefixtures("server")
def test_the_server_is_asked_for_the_name_until_a_mark_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ask, asked = Tracking._experiment, []
    monkeypatch.setattr(
        Tracking, "_experiment", lambda self, name: asked.append(name) or ask(self, name)
    )
    first, second = home(tmp_path, "first"), home(tmp_path, "second")
    assert [second.name, second.name] == ["embed-assets"] * 2, "nobody has it yet"
    assert len(asked) == 2
    first.connect()
    second.connect()
    for tracking, is_first in ((first, True), (second, False)):
        names = {tracking.name, tracking.name}
        asked.clear()
        assert {tracking.name, tracking.name} == names
        assert (names == {"embed-assets"}) == is_first
        assert not asked


@pytest.mark.usefixtures("server")
def test_a_copy_of_a_home_is_the_same_project(tmp_path: Path):
    first = home(tmp_path, "first")
    add_versions(first, "run-1")
    make_champion(first, "1", BY_TEST)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert champion_version(home(tmp_path, "copy")) == "1"


def older_server(server: str) -> MlflowClient:
    """What homes of before left: an experiment and a registered model without marks."""
    client = MlflowClient(server, registry_uri=server)
    client.create_experiment("embed-assets")
    client.create_registered_model("embed-assets")
    client.create_model_version("embed-assets", "somewhere", tags={TRAINED_IN: "run-1"})
    client.set_registered_model_alias("embed-assets", "champion", "1")
    return client


def note(home: Path, name: str) -> str:
    """A run of a home that keeps a text; its id."""
    tracking = Tracking(home=str(home))
    project = tracking.connect()
    experiment = tracking.client().get_experiment_by_name(project)
    assert experiment is not None
    run_id = tracking.client().create_run(experiment.experiment_id).info.run_id
    tracking.client().log_text(run_id, name, name)
    return run_id


@pytest.mark.parametrize("take", [shutil.move, shutil.copytree])
def test_a_home_that_was_moved_or_copied_keeps_and_finds_artifacts_where_it_is(
    tmp_path: Path, take: Callable[[Path, Path], object]
):
    home, now = tmp_path / "home", tmp_path / "now, elsewhere"
    before = note(home, "before.txt")
    take(home, now)
    there = sorted(home.rglob("*"))
    after = note(now, "after.txt")
    assert sorted(home.rglob("*")) == there
    assert {file.name for file in now.rglob("*.txt")} == {"before.txt", "after.txt"}
    shutil.rmtree(home, ignore_errors=True)
    client = Tracking(home=str(now)).client()
    for run_id, name in ((before, "before.txt"), (after, "after.txt")):
        assert [file.path for file in client.list_artifacts(run_id)] == [name]


def test_what_a_moved_home_left_behind_is_found_where_it_is(tmp_path: Path):
    home, now = tmp_path / "home", tmp_path / "now"
    run_id = note(home, "before.txt")
    home.rename(now)
    (home / "mlartifacts").parent.mkdir()
    (now / "mlartifacts").rename(home / "mlartifacts")
    note(now, "after.txt")
    client = Tracking(home=str(now)).client()
    assert [file.path for file in client.list_artifacts(run_id)] == ["before.txt"]


def test_an_older_home_s_models_stay_its_own_and_are_marked(tmp_path: Path, server: str):
    client = older_server(server)
    older = home(tmp_path, "older")
    record_version(older, "1", "run-1")
    assert champion_version(older) == "1"
    assert HOME not in client.get_registered_model("embed-assets").tags  # reading marks nothing
    assert not (tmp_path / "older" / "home-id").exists()
    older.connect()
    mark = (tmp_path / "older" / "home-id").read_text()
    assert client.get_registered_model("embed-assets").tags[HOME] == mark
    experiment = client.get_experiment_by_name("embed-assets")
    assert experiment is not None
    assert experiment.tags[HOME] == mark


def test_unmarked_models_that_a_home_knows_nothing_of_are_not_its_own(tmp_path: Path, server: str):
    client = older_server(server)
    other = home(tmp_path, "other")
    record_version(other, "1", "a run of its own")
    assert champion_version(other) is None
    add_versions(other, "run-9")
    assert other.name != "embed-assets"
    assert HOME not in client.get_registered_model("embed-assets").tags


def test_mlflow_in_the_home_is_the_home_s_whatever_it_holds(tmp_path: Path):
    (tmp_path / "older").mkdir()
    older_server(f"sqlite:///{tmp_path / 'older' / 'mlflow.db'}")
    assert champion_version(home(tmp_path, "older")) == "1"


def test_to_ask_for_the_champion_makes_no_database(tmp_path: Path):
    assert champion_version(home(tmp_path, "new")) is None
    settings = Settings(home=tmp_path / "new")
    warehouse = Warehouse.of(settings)
    assert aliases(warehouse, settings)["champion"] is None
    assert not (tmp_path / "new").exists()


def test_a_home_that_is_used_after_another_has_its_own_database(tmp_path: Path):
    for name in ("first", "second"):
        home(tmp_path, name).connect()
        assert (tmp_path / name / "mlflow.db").is_file()


# What its pages show.


def test_an_experiment_gets_the_view_of_its_runs_and_what_a_person_wrote_there_stays(
    tmp_path: Path,
):
    tracking = home(tmp_path, "first")
    tracking.make_database()
    client = tracking.client()
    experiment = client.create_experiment(tracking.name, tags={NOTE: "a person's"})
    tracking.connect()
    tags = client.get_experiment(experiment).tags
    assert (tags[VIEW_TAG], tags[NOTE]) == (runs_view(), "a person's")
    client.set_experiment_tag(experiment, VIEW_TAG, "a person's too")
    tracking.connect()
    assert client.get_experiment(experiment).tags[VIEW_TAG] == "a person's too"
    shows = f"experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey="
    assert shows in tracking.runs_link


def test_a_run_links_to_dagster_and_names_no_path_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EMBED_ASSETS_DAGSTER_UI", "http://127.0.0.1:3456")
    tracking = home(tmp_path, "first")
    materialize(tracking, lambda: None)
    experiment = tracking.client().get_experiment_by_name(tracking.name)
    assert experiment is not None
    [run] = tracking.client().search_runs([experiment.experiment_id])
    tags = run.data.tags
    assert tags["mlflow.source.name"] == "embed-assets an_asset"
    for page in (f"runs/{tags[DAGSTER_RUN]}", "assets/an_asset"):
        assert f"(http://127.0.0.1:3456/{page})" in tags[NOTE]
    tracking.describe_run(run.info.run_id, "**Better.**")
    said = tracking.client().get_run(run.info.run_id).data.tags[NOTE]
    assert said == f"**Better.**\n\n{tags[NOTE]}"


# How runs end.


def materialize(tracking: Tracking, work: Callable[[], object]) -> None:
    @dg.asset
    def an_asset(context: dg.AssetExecutionContext, tracking: Tracking) -> None:
        with tracking.run(context, "an asset"):
            work()

    dg.materialize([an_asset], resources={"tracking": tracking})


def only_run(tracking: Tracking) -> str:
    experiment = tracking.client().get_experiment_by_name(tracking.name)
    assert experiment is not None
    [run] = tracking.client().search_runs([experiment.experiment_id])
    return run.info.status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (ValueError("broken"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (DagsterExecutionInterruptedError(), "KILLED"),
        (SystemExit(1), "KILLED"),
    ],
)
def test_a_run_ends_as_its_work_does(tmp_path: Path, error: BaseException | None, status: str):
    tracking = home(tmp_path, "home")

    def work() -> None:
        if error is not None:
            raise error

    with pytest.raises(type(error)) if error else nullcontext():
        materialize(tracking, work)
    assert only_run(tracking) == status


def test_mlflow_prints_no_line_among_those_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", raising=False)
    ended = home(tmp_path, "home").client()._tracking_client
    ended._log_url("of a run")  # it would ask the server what the run is called
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "false")
    with pytest.raises(MlflowException):
        ended._log_url("of a run")


def test_a_run_whose_process_is_terminated_is_killed(tmp_path: Path):
    program = (
        "import signal, sys, time\n"
        "from pathlib import Path\n"
        "from embed_assets.resources.tracking import Tracking\n"
        "from embed_assets_tests.resources.test_tracking import materialize\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
        "def work():\n"
        "    print('at work', flush=True)\n"
        "    time.sleep(60)\n"
        f"materialize(Tracking(home={str(tmp_path / 'home')!r}), work)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != b"at work":
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
    assert only_run(home(tmp_path, "home")) == "KILLED"


@pytest.mark.usefixtures("server")
def test_runs_of_the_dead_are_ended_and_those_at_work_or_of_others_are_not(tmp_path: Path):
    first, second = home(tmp_path, "first"), home(tmp_path, "second")
    runs = {}
    for tracking, dagster_run in ((first, "at work"), (first, "dead"), (second, "dead elsewhere")):
        experiment = tracking.client().get_experiment_by_name(tracking.connect())
        assert experiment is not None
        run = tracking.client().create_run(
            experiment.experiment_id, tags={DAGSTER_RUN: dagster_run}
        )
        runs[dagster_run] = run.info.run_id
    by_hand = first.client().create_run(first.client().get_run(runs["dead"]).info.experiment_id)

    assert first.end_dead_runs(lambda run_id: run_id == "at work") == [runs["dead"]]

    status = {name: first.client().get_run(run).info.status for name, run in runs.items()}
    assert status == {"at work": "RUNNING", "dead": "KILLED", "dead elsewhere": "RUNNING"}
    assert first.client().get_run(by_hand.info.run_id).info.status == "RUNNING"


def connect(home: Path) -> None:
    Tracking(home=str(home)).connect()


def die_half_way(home: Path) -> None:
    commits = count()

    def die(*_: object) -> None:
        if next(commits):  # the second, which would say how far the tables are changed already
            signal.raise_signal(signal.SIGKILL)

    event.listen(Engine, "commit", die)
    connect(home)


def test_processes_that_track_first_at_once_share_one_database(tmp_path: Path):
    assert do_together(connect, [tmp_path]) == [0, 0]
    assert home(tmp_path, "").client().get_experiment_by_name("embed-assets") is not None


def test_a_kill_while_the_database_is_made_breaks_nothing(tmp_path: Path):
    process = multiprocessing.get_context("spawn").Process(target=die_half_way, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "mlflow.db.unfinished").stat().st_size > 0

    assert home(tmp_path, "").connect() == "embed-assets"
    assert {file.name for file in tmp_path.glob("mlflow.db*")} == {"mlflow.db", "mlflow.db.lock"}


def test_where_nothing_was_tracked_nothing_is_ended(tmp_path: Path):
    assert home(tmp_path, "new").end_dead_runs(lambda _: False) == []
    assert not (tmp_path / "new").exists()


# What nobody may see.


def test_the_server_s_password_is_not_in_dagster_s_snapshot(tmp_path: Path, monkeypatch):
    uri = f"postgresql://mlflow:{PASSWORD}@db.example/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    definitions = build_definitions(Settings(home=tmp_path))
    tracking = Tracking(home=str(tmp_path))
    assert tracking.uri == uri
    snapshot = dg.serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))
    assert "finetuned_model" in snapshot
    assert PASSWORD not in snapshot
    assert PASSWORD not in repr(definitions) + repr(tracking) + str(tracking.model_dump())


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://user:p%40ss@host/db", "auth failed for p@ss at user:p%40ss@host"),
        ("postgresql://host/db?user=u&password=s3cret", "can't connect with password=s3cret"),
    ],
)
def test_a_password_is_hidden_however_it_is_written(address: str, said: str):
    shown = hide_password(said, address)
    assert "…" in shown
    assert not any(secret in shown for secret in ("p@ss", "p%40ss", "s3cret"))


def test_the_address_of_a_run_holds_no_password(tmp_path: Path, monkeypatch):
    tracking = home(tmp_path, "home")
    tracking.connect()
    key = tracking._experiment(tracking.name)
    address = f"https://me:{PASSWORD}@mlflow.example:8443/tracking/"
    monkeypatch.setattr(Tracking, "uri", address)
    monkeypatch.setattr(Tracking, "_experiment", lambda *_: key)
    monkeypatch.setattr(Tracking, "name", "embed-assets")
    page = "https://mlflow.example:8443/tracking/#/experiments/"
    assert tracking.run_url("abc").startswith(page)
    assert tracking.run_url("abc", "report.html").startswith(page)
    assert "/runs/abc/artifacts/report.html?" in tracking.run_url("abc", "report.html")
