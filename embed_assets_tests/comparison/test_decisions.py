"""A person promotes or rolls back, from a terminal or in the UI; the record says who and why."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from embed_assets.automation import jobs
from embed_assets.automation.runs import PROMOTE, ROLLBACK, TRAIN, at_work, command_lock
from embed_assets.command.champion import promote_version, roll_back
from embed_assets.command.instance import prepare_home
from embed_assets.comparison.decisions import promote_by_hand, withdraw_versions
from embed_assets.definitions import build_definitions
from embed_assets.errors import ProjectError
from embed_assets.models.registry import aliases, make_champion
from embed_assets.resources.tracking import MADE_CHAMPION, WITHDRAWN, Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.ways import ask_ways
from embed_assets.settings import Settings
from embed_assets_tests.decisions import BY_TEST
from embed_assets_tests.rows import filled
from embed_assets_tests.tiny_model import make_tiny_model


class Home:
    """A home with three versions in its tables and in MLflow."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.warehouse = Warehouse.of(settings)
        self.tracking = Tracking(home=str(settings.home))

    @property
    def aliases(self) -> dict[str, str | None]:
        return aliases(self.warehouse, self.settings)

    def tags(self, version: str) -> dict[str, str]:
        return self.tracking.client().get_model_version(self.tracking.name, version).tags

    def write(self, table: str, *rows: dict[str, Any]) -> None:
        with self.warehouse.transaction() as transaction:
            transaction.upsert(table, filled(table, rows))


@pytest.fixture(scope="module")
def three_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home; tests work on copies."""
    folder = tmp_path_factory.mktemp("made")
    home = Home(Settings(home=folder / "home"))
    model = make_tiny_model(folder / "model")
    client, name = home.tracking.client(), home.tracking.connect()
    client.create_registered_model(name)
    for number in ("1", "2", "3"):
        client.create_model_version(name, str(model))
        shutil.copytree(model, home.settings.models / f"v{number}")
        home.write(
            "models",
            {
                "version": number,
                "base": "tiny",
                "path": f"models/v{number}",
                "mlflow_run_id": f"run {number}",
                "trained_at": datetime.now(UTC),
            },
        )
    prepare_home(home.settings)
    return home.settings.home


@pytest.fixture
def home(three_versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("DAGSTER_HOME", "")  # the command sets it: it must not outlive the test
    return Home(Settings(home=shutil.copytree(three_versions, tmp_path / "home")))


@contextmanager
def instance_of(home: Home) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home.settings.dagster_home)) as instance:
        yield instance


def observed(home: Home) -> list[dict[str, Any]]:
    """Metadata of the events on `comparison`, oldest first."""
    with instance_of(home) as instance:
        found = instance.fetch_observations(dg.AssetKey("comparison"), limit=10).records
    rows = [record.asset_observation for record in found[::-1]]
    return [{k: v.value for k, v in row.metadata.items()} for row in rows if row is not None]


def test_a_person_promotes_and_rolls_back_from_a_terminal_and_both_are_on_record(home):
    make_champion(home.tracking, "1", BY_TEST)
    printed, said = promote_version(home.settings, "v2", "it reads better")
    assert printed == {"champion": "2", "previous": "1"}
    assert said.startswith("Version 2 is the champion, in place of version 1.")
    assert "@" in home.tags("2")[MADE_CHAMPION]
    assert home.tags("2")[MADE_CHAMPION].endswith(": it reads better")

    printed, said = roll_back(home.settings, None)
    assert printed == {"champion": "1", "previous": None}
    assert said == "Version 2 was withdrawn: version 1 is the champion again."
    assert home.tags("2")[WITHDRAWN].endswith(": a person went back to the version before")

    printed, said = roll_back(home.settings, "neither")
    assert printed == {"champion": None, "previous": None}
    assert "the base model serves" in said
    said = home.tracking.client().get_model_version(home.tracking.name, "2").description
    assert said is not None
    assert ": it reads better" in said, "the registry says who decided, and why"
    assert "- Withdrawn: " in said
    promoted, back, base = observed(home)
    assert (promoted["champion"], promoted["previous"], promoted["why"]) == (
        "2",
        "1",
        "it reads better",
    )
    assert back["champion"] == "1"
    assert base["champion"] == "none: the base model serves"


@pytest.mark.parametrize("version", ["4", "v9", "x"])
def test_a_version_that_the_home_does_not_have_is_not_promoted(home, version):
    with pytest.raises(ProjectError, match=f"no model version {version}"):
        promote_version(home.settings, version, None)
    assert home.aliases["champion"] is None
    assert observed(home) == []


def test_a_version_whose_folder_is_gone_is_not_promoted(home):
    shutil.rmtree(home.settings.models / "v2")
    with pytest.raises(ProjectError, match="folder of version 2 is gone"):
        promote_version(home.settings, "2", None)


def test_a_version_that_mlflow_does_not_have_is_not_promoted_and_it_is_said_in_a_line(home):
    home.tracking.client().delete_model_version(home.tracking.name, "2")
    with pytest.raises(ProjectError, match="MLflow does not give version 2"):
        promote_version(home.settings, "2", None)


def test_a_version_trained_on_a_forgotten_document_is_not_promoted(home):
    forgotten = {"path": "a.pdf", "versions": ["2"], "forgotten_at": datetime.now(UTC)}
    home.write("forgotten", forgotten)
    with pytest.raises(ProjectError, match=r"trained on a\.pdf, forgotten on"):
        promote_version(home.settings, "2", None)


def test_without_a_champion_there_is_nothing_to_roll_back_from(home):
    with pytest.raises(ProjectError, match="no champion to roll back from"):
        roll_back(home.settings, None)


def test_figures_of_both_stand_side_by_side_on_the_same_questions_and_corpus_alone(home):
    def measured(version: str, corpus: str, score: float) -> None:
        labels = {"run_id": f"run {version}", "model": "tuned"}
        about = {"identity": version, "corpus_version": corpus, "dimensions": [32, 16]}
        home.write("evaluations", {**labels, **about, "measured_at": datetime.now(UTC)})
        for dimension, shown in ((32, score), (16, 0.0)):
            figure = {"split": "s", "dimension": dimension, "metric": "ndcg", "k": 10}
            home.write("evaluation_results", {**labels, **figure, "score": shown})

    measured("1", "today", 0.5)
    measured("2", "today", 0.6)
    measured("3", "another", 0.9)
    promote_by_hand(home.settings, home.tracking, "1", BY_TEST, ask_ways)
    second = promote_by_hand(home.settings, home.tracking, "2", BY_TEST, ask_ways)
    assert second.scores == {"s": (0.6, 0.5)}
    assert "| s | 0.6000 | 0.5000 |" in second.table
    third = promote_by_hand(home.settings, home.tracking, "3", BY_TEST, ask_ways)
    assert third.scores == {"s": (0.9, None)}


def test_a_rollback_passes_over_a_version_whose_folder_is_gone(home):
    for version in "123":
        promote_version(home.settings, version, None)
    shutil.rmtree(home.settings.models / "v2")
    assert roll_back(home.settings, None)[0] == {"champion": "1", "previous": None}
    assert home.aliases == {"champion": "1", "challenger": None, "previous": None}


def test_a_withdrawn_champion_gives_way_to_the_newest_that_can_serve_and_its_mark_says_why(home):
    for version in "123":
        promote_version(home.settings, version, None)
    shutil.rmtree(home.settings.models / "v2")
    taken, change = withdraw_versions(home.settings, home.tracking, ["3"], BY_TEST)
    assert taken == ["3"]
    assert change
    assert (change.champion, change.previous) == ("1", None)
    assert home.tags("1")[MADE_CHAMPION].endswith(f"{BY_TEST.who}: {BY_TEST.why}")
    assert withdraw_versions(home.settings, home.tracking, ["3"], BY_TEST) == ([], None)


# The jobs of the UI.


def execute(home: Home, instance: dg.DagsterInstance, name: str, **config: Any) -> Any:
    op = {PROMOTE: "promote_version", ROLLBACK: "roll_back"}[name]
    job = build_definitions(home.settings).resolve_job_def(name)
    return job.execute_in_process(
        instance=instance, run_config={"ops": {op: {"config": config}}}, raise_on_error=False
    )


def test_the_jobs_of_the_ui_do_the_same(home):
    with instance_of(home) as instance:
        assert execute(home, instance, PROMOTE, version="1").success
        promoted = execute(home, instance, PROMOTE, version="2", why="it reads better")
        assert promoted.success
        said = f"Dagster run {promoted.run_id}: it reads better"
        assert home.tags("2")[MADE_CHAMPION].endswith(said)
        assert home.aliases["champion"] == "2"
        assert execute(home, instance, ROLLBACK).success
        assert home.aliases["champion"] == "1"
        assert not execute(home, instance, PROMOTE, version="9").success
    assert [event["champion"] for event in observed(home)] == ["1", "2", "1"]


def waits_for(home: Home, instance: dg.DagsterInstance, end: Callable[[], object]) -> list[str]:
    """Lines that a job logged while it waited until this was done; it must have."""
    done = threading.Event()
    waited: list[str] = []

    def wait(_: float) -> None:
        waited.append("a look")
        if not done.is_set():
            assert home.aliases["champion"] is None  # nothing happens before
            end()
            done.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "sleep", wait)
        result = execute(home, instance, PROMOTE, version="1")
    assert result.success
    assert waited
    assert home.aliases["champion"] == "1"
    logs = instance.all_logs(result.run_id)
    return [entry.user_message for entry in logs if "Waiting for that" in entry.user_message]


def test_a_job_waits_until_a_run_that_is_at_work_has_ended_and_says_so_once(home):
    with instance_of(home) as instance:
        run = create_run_for_test(instance, job_name=TRAIN, status=dg.DagsterRunStatus.STARTED)
        [line] = waits_for(home, instance, lambda: instance.report_run_canceled(run))
    assert f"run {run.run_id[:8]} (train)" in line


def test_two_jobs_that_wait_do_not_wait_for_each_other_nor_does_a_command_for_them(home):
    with instance_of(home) as instance:
        for job in (PROMOTE, ROLLBACK):
            create_run_for_test(instance, job_name=job, status=dg.DagsterRunStatus.STARTED)
        assert at_work(instance, home.settings) == []
        assert execute(home, instance, PROMOTE, version="1").success


HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_job_waits_for_a_command_of_another_process(home):
    lock = command_lock(home.settings.home).lock_file
    pipe = subprocess.PIPE
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, os.fspath(lock)], stdin=pipe, stdout=pipe, text=True
    )
    assert other.stdout
    assert other.stdout.readline() == "held\n"
    with instance_of(home) as instance:
        [line] = waits_for(home, instance, other.communicate)
    assert "an embed-assets command" in line
