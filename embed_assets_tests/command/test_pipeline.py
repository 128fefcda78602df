"""What a failed run says on the command line."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import dagster as dg
import mlflow
import psutil
import pytest
from dagster._core.test_utils import create_run_for_test

from embed_assets.automation.runs import BY_COMMAND, TRAIN
from embed_assets.command.champion import promote_version, roll_back
from embed_assets.command.instance import prepare_home
from embed_assets.command.pipeline import (
    _end_dead_in_mlflow,
    _Runs,
    at_rest,
    end_dead_said,
    let_others_end,
)
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.resources.patience import ONCE
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.claims import training_in
from embed_assets_tests.rows import model
from embed_assets_tests.together import do_together


def run(instance: dg.DagsterInstance, body: Callable[[], None]) -> dict[str, float]:
    """Seconds by asset of a run of one asset that does this."""

    @dg.asset
    def chunks() -> None:
        body()

    definitions = dg.Definitions([chunks], jobs=[dg.define_asset_job(TRAIN, [chunks])])
    seconds: dict[str, float] = {}
    runs = _Runs(Settings(), "command")
    vars(runs)["definitions"] = definitions
    runs.execute(instance, TRAIN, ["chunks"], (), seconds)
    return seconds


@pytest.fixture
def instance():
    with dg.instance_for_test() as made:
        yield made


def said_of(instance: dg.DagsterInstance, error: Exception, cause: Exception | None = None) -> str:
    """What the command says when an asset raises this."""

    def fail() -> None:
        raise error from cause

    with pytest.raises(ProjectError) as failed:
        run(instance, fail)
    [failure] = instance.get_runs()
    assert failure.status is dg.DagsterRunStatus.FAILURE
    said = str(failed.value)
    assert said.endswith(f" (Dagster run {failure.run_id[:8]})")
    return said.rpartition(" (")[0]


def prepare(home: Path) -> None:
    prepare_home(Settings(home=home))


def test_commands_that_come_first_to_a_home_at_once_share_it(tmp_path):
    homes = [tmp_path / str(i) for i in range(8)]
    assert do_together(prepare, homes) == [0, 0]


def test_a_home_counts_as_used_only_when_dagster_s_databases_are_there(tmp_path, monkeypatch):
    def be_killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dg.DagsterInstance, "from_config", be_killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path)
    assert not (tmp_path / "dagster" / "dagster.yaml").exists()
    prepare(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as made:
        assert made.get_runs() == []
    assert (tmp_path / "dagster" / "schedules" / "schedules.db").is_file()


def test_what_the_project_says_is_shown_alone_whatever_caused_it(instance):
    error = SettingsError("EMBED_ASSETS_MODEL: it can't\nbe loaded.")
    said = said_of(instance, error, OSError("errno 2"))
    assert said == "EMBED_ASSETS_MODEL: it can't be loaded."


def test_what_the_project_says_is_shown_though_another_error_came_of_it(instance):
    error = RuntimeError("the step failed")
    assert said_of(instance, error, SettingsError("No model.")) == "No model."


def test_of_other_errors_the_first_cause_is_shown_with_its_step(instance):
    said = said_of(instance, RuntimeError("outer"), ValueError("inner"))
    assert said == "chunks: ValueError: inner"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_interrupted_is_no_failure(instance, by):
    with pytest.raises(KeyboardInterrupt):
        run(instance, lambda: signal.raise_signal(by))
    [interrupted] = instance.get_runs()
    assert interrupted.status is dg.DagsterRunStatus.CANCELED
    ended = {dg.DagsterEventType.PIPELINE_FAILURE, dg.DagsterEventType.PIPELINE_CANCELED}
    said = {e.dagster_event_type for e in instance.all_logs(interrupted.run_id)} & ended
    assert said == {dg.DagsterEventType.PIPELINE_CANCELED}


def test_a_run_says_what_it_made_and_how_long_that_took(instance):
    assert set(run(instance, lambda: None)) == {"chunks"}


def waits_until(instance: dg.DagsterInstance, home: Path, end: Callable[[], object]) -> bool:
    """Whether a command goes on only when this was done."""
    ended = []

    def end_later() -> None:
        time.sleep(1)
        ended.append(True)
        end()

    thread = Thread(target=end_later)
    thread.start()
    let_others_end(instance, Settings(home=home))
    went_on_after = bool(ended)
    thread.join()
    return went_on_after


def test_a_command_waits_while_another_process_trains(instance, tmp_path: Path, capfd):
    other = training_in(tmp_path / "models" / "training-a")
    other.__enter__()
    assert waits_until(instance, tmp_path, partial(other.__exit__, None, None, None))
    said = capfd.readouterr().err
    this_process = f"{psutil.Process().name()} (process {os.getpid()})"
    assert f"the training of a run that was killed, {this_process}. Waiting" in said


def test_a_command_waits_while_a_run_of_the_ui_is_at_work(instance, tmp_path: Path, capfd):
    started = create_run_for_test(instance, job_name=TRAIN, status=dg.DagsterRunStatus.STARTED)
    assert waits_until(instance, tmp_path, lambda: instance.report_run_canceled(started))
    said = capfd.readouterr().err
    assert f"At work in this home: run {started.run_id[:8]} ({TRAIN})." in said
    assert said.count("Waiting") == 1


def test_a_home_that_is_not_there_is_not_made_to_change_something_in_it(tmp_path):
    mistyped = tmp_path / "hmoe"
    with pytest.raises(SettingsError, match=r"there is nothing in .*/hmoe yet"):
        roll_back(Settings(home=mistyped), None)
    assert not mistyped.exists()


def test_it_is_said_how_many_runs_were_ended_that_no_process_is_at(instance, tmp_path, capfd):
    settings = Settings(home=tmp_path)
    end_dead_said(instance, settings)
    assert capfd.readouterr().err == ""
    killed = {BY_COMMAND: "a command that was killed"}
    create_run_for_test(instance, job_name=TRAIN, status=dg.DagsterRunStatus.STARTED, tags=killed)
    end_dead_said(instance, settings)
    assert capfd.readouterr().err.endswith("no process is at it any more: 1 run.\n")


@pytest.fixture
def mlflow_down(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ONCE:  # commands set them for their own process
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    yield
    # Tests that come after it would ask that server.
    mlflow.set_tracking_uri(None)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("mlflow_down")
def test_a_command_that_needs_no_mlflow_says_that_it_does_not_answer_and_goes_on(tmp_path, capfd):
    settings = Settings(home=tmp_path)
    Warehouse.of(settings).replace("models", model("1"))
    with at_rest(settings):
        said = capfd.readouterr().err
    assert said.startswith("What was killed may look alive in MLflow: MLflow can't say")
    assert said.endswith("Start it, or set MLFLOW_TRACKING_URI to another one.\n")


@pytest.mark.usefixtures("mlflow_down")
def test_work_that_needs_mlflow_says_that_it_waits_for_it(instance, tmp_path, capfd):
    with pytest.raises(ProjectError, match=r"the server http://127\.0\.0\.1:9 doesn't answer"):
        _end_dead_in_mlflow(instance, Settings(home=tmp_path))
    assert "it is asked for some minutes more" in capfd.readouterr().err


class Refusing(BaseHTTPRequestHandler):
    """A server that is about to come up, and counts who asks."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(503)


@pytest.mark.usefixtures("mlflow_down")
def test_a_decision_about_the_champion_says_at_once_that_mlflow_does_not_answer(
    tmp_path, monkeypatch
):
    for name in ONCE:
        monkeypatch.delenv(name)
    settings = Settings(home=tmp_path)
    Warehouse.of(settings).replace("models", model("1"))
    decisions = (lambda: promote_version(settings, "1", None), lambda: roll_back(settings, None))
    for decide in decisions:
        with pytest.raises(ProjectError, match="doesn't answer"):
            decide()
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        for decide in decisions:
            with pytest.raises(ProjectError, match=r"can't answer: .*503.*Its log says more"):
                decide()
        server.shutdown()
    assert len(Refusing.asked) == len(decisions)
    assert ONCE.keys().isdisjoint(os.environ), "what is changed is changed with patience"
