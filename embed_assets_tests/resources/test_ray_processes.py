"""What becomes of a process on a node: what it says, how it ends, and that it never lives on."""

import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import psutil
import pytest

from embed_assets.definitions import build_resources
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.machine import Machine, this_machine
from embed_assets.resources import ray_processes
from embed_assets.resources.processes import ProcessError, process_client
from embed_assets.resources.ray_actor import NodeLostError
from embed_assets.resources.ray_cluster import travelling
from embed_assets.resources.ray_process import SAID, Job, RayProcess
from embed_assets.resources.ray_processes import (
    TRAVELS,
    BeforeAgain,
    RayProcessClient,
    run_on_cluster,
)
from embed_assets.settings import Engine, Settings
from embed_assets.terminal import TERMINAL
from embed_assets.training.again import largest_difference, prepare_again, train_again
from embed_assets.training.config import TrainingConfig, process_count
from embed_assets.training.launch import training_environment
from embed_assets.training.process import TrainingError
from embed_assets_tests.ray_cluster import two_nodes
from embed_assets_tests.tiny_model import make_tiny_model
from embed_assets_tests.training.trainings import make_config

ENGINES: tuple[Engine, Engine] = ("ray", "local")
MESSAGE = b'{"method": "log"}\n'
SAY = f"""
import os, sys
from dagster_pipes import decode_param
print("to Dagster's log")
print("a bar", end="\\r", file=sys.stderr)
with open(decode_param(os.environ["DAGSTER_PIPES_MESSAGES"])["path"], "ab") as messages:
    messages.write({MESSAGE!r})
sys.exit(3)
"""
BEGIN_AND_WAIT = """
import os, sys, time
from pathlib import Path
from embed_assets.resources.child import end_with_actor
end_with_actor()
folder = Path(sys.argv[1])
(folder / f"begun-{os.getpid()}-{os.getppid()}").touch()
while not (folder / "go on").exists():
    time.sleep(0.02)
"""
REPORT = """
import os
from dagster_pipes import open_dagster_pipes
names = ("EMBED_ASSETS_SEED", "MLFLOW_TRACKING_URI", "PGPASSWORD", "OMP_NUM_THREADS")
with open_dagster_pipes() as pipes:
    pipes.log.info(" ".join(f"{name}={os.environ.get(name)}" for name in names))
    print("on stdout")
raise SystemExit(7)
"""


class Log:
    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, message: str) -> None:
        pass

    def warning(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def connected(cluster: Any) -> None:
    """As the client does it."""
    RayProcessClient().machine()


def nothing(machine: Machine) -> Mapping[str, str]:
    return {}


def job(code: str, folder: Path, environment: Callable[..., Mapping[str, str]] = nothing) -> Job:
    command = [sys.executable, "-c", textwrap.dedent(code), str(folder)]
    return Job(command, sys.executable, {}, environment, folder, folder, asked_on="elsewhere")


def read_config(file: Path) -> TrainingConfig:
    return TrainingConfig.model_validate_json(file.read_bytes())


def run(
    job: Job,
    *,
    gpus: int = 0,
    log: Log | None = None,
    before_again: BeforeAgain = bool,
) -> tuple[int, list[bytes]]:
    sinks = [BytesIO() for _ in SAID]
    status = run_on_cluster(job, gpus, sinks, log or Log(), before_again)
    return status, [sink.getvalue() for sink in sinks]


def begun(folder: Path) -> list[tuple[int, int]]:
    """Ids of the processes that began, and of the actors that began them."""
    named = (file.name.split("-") for file in folder.glob("begun-*"))
    return [(int(process), int(actor)) for _, process, actor in named]


def is_at_work(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def once_begun(folder: Path, do: Callable[[], object]) -> threading.Thread:
    def wait_and_do() -> None:
        wait_for(lambda: begun(folder))
        do()

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    return thread


def test_all_that_a_process_says_arrives_and_how_it_ended(tmp_path):
    status, said = run(job(SAY, tmp_path))
    assert status == 3
    assert said == [b"to Dagster's log\n", b"a bar\r", MESSAGE]


def test_dagster_hears_a_process_as_it_hears_one_of_this_machine(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("EMBED_ASSETS_SEED", "5")
    monkeypatch.setenv("PGPASSWORD", "of this machine")

    @dg.asset
    def model(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with pytest.raises(ProcessError, match="7"):
            process_client("ray").run(
                context=context.op_execution_context,
                command=[sys.executable, "-c", REPORT],
                env=partial(training_environment, 1, tracking_uri="http://mlflow"),
                processes=1,
                folder=tmp_path,
                before_again=bool,
            )
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([model], instance=instance)
        logged = [entry.user_message for entry in instance.all_logs(done.run_id)]
    told = "EMBED_ASSETS_SEED=5 MLFLOW_TRACKING_URI=http://mlflow PGPASSWORD=None"
    assert f"{told} OMP_NUM_THREADS=1" in logged
    assert not [message for message in logged if "did not receive" in message]
    assert "on stdout\n" in capfd.readouterr().out


def test_a_process_whose_node_is_lost_is_begun_again_on_another(cluster, tmp_path):
    all_nodes, nodes = cluster
    log, ended = Log(), []

    def lose_node() -> None:
        [(_, actor)] = begun(tmp_path)
        [lost] = [node for node in nodes if raylet(node) == psutil.Process(actor).ppid()]
        all_nodes.remove_node(lost, allow_graceful=False)
        os.kill(actor, signal.SIGKILL)

    def go_on(stopped: threading.Event) -> None:
        assert not stopped.is_set()
        [(process, _)] = begun(tmp_path)
        wait_for(lambda: not is_at_work(process))
        ended.append(process)
        (tmp_path / "go on").touch()

    losing = once_begun(tmp_path, lose_node)
    status, _ = run(job(BEGIN_AND_WAIT, tmp_path), log=log, before_again=go_on)
    losing.join()
    assert status == 0
    assert len(begun(tmp_path)) == 2
    assert len(ended) == 1, "a process ends with its actor"
    assert log.said == ["A node of the Ray cluster is lost: what it had at work is begun again."]


def raylet(node: Any) -> int:
    """The process that stands for a node, and starts its actors."""
    return node.all_processes["raylet"][0].process.pid


class Unlucky(ray_processes._Actor):
    """An actor that comes too late for its node."""

    def __init__(self, *_: Any) -> None:
        pass

    def has_begun(self) -> bool:
        raise NodeLostError

    def end(self) -> None:
        pass


def test_node_after_node_that_is_lost_is_the_end(monkeypatch, tmp_path):
    monkeypatch.setattr(ray_processes, "_Actor", Unlucky)
    again: list[threading.Event] = []
    with pytest.raises(ProjectError, match="3 nodes of the Ray cluster were lost"):
        run(job("", tmp_path), before_again=again.append)
    assert len(again) == 2


class Patient(Unlucky):
    """An actor for which no node has more than one CPU free."""

    asked: ClassVar[list[int]] = []

    def __init__(self, cpus: int, *_: Any) -> None:
        self.asked.append(cpus)
        self.address = "node"

    def has_begun(self) -> bool:
        return self.asked[-1] == 1

    def follow(self, job: Job, sinks: Any) -> int:
        return 0


def test_a_process_takes_fewer_cpus_where_no_node_has_all_of_them_free(monkeypatch, tmp_path):
    monkeypatch.setattr(ray_processes, "_Actor", Patient)
    monkeypatch.setattr(ray_processes, "most", lambda _: 12)
    monkeypatch.setattr(ray_processes, "SECONDS_UNTIL_SAID", -1.0)
    monkeypatch.setattr(ray_processes, "SECONDS_FOR_ALL_CPUS", -1.0)
    log = Log()
    assert run(job("", tmp_path), log=log)[0] == 0
    assert Patient.asked == [12, 6, 3, 1]
    said = "No node of the Ray cluster has 12 CPUs free so far: the process waits for one."
    assert log.said == [said]


def test_a_process_whose_actor_the_system_kills_was_killed(tmp_path):
    killing = once_begun(tmp_path, lambda: os.kill(begun(tmp_path)[0][1], signal.SIGKILL))
    status, _ = run(job(BEGIN_AND_WAIT, tmp_path))
    killing.join()
    assert ProcessError(status).was_killed
    wait_for(lambda: not is_at_work(begun(tmp_path)[0][0]))


def test_a_process_ends_with_the_call_that_is_stopped(tmp_path):
    stopping = once_begun(tmp_path, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(job(BEGIN_AND_WAIT, tmp_path))
    stopping.join()
    [(process, _)] = begun(tmp_path)
    assert not is_at_work(process)


def test_a_process_on_a_node_with_gpus_sees_those_that_are_its_own(cluster, tmp_path):
    """Ray believes what it is told of a node."""
    all_nodes, _ = cluster
    node = all_nodes.add_node(num_cpus=1, num_gpus=2)
    all_nodes.wait_for_nodes()
    environment = partial(training_environment, 1, tracking_uri="")
    show = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'])"
    machine = RayProcessClient().machine()
    status, [said, _, _] = run(job(show, tmp_path, environment), gpus=1)
    with pytest.raises(ProjectError, match=r"takes 3 GPUs of one node, .* has 2\."):
        RayProcessClient().carry_out(
            command=[], env=nothing, processes=3, folder=tmp_path, before_again=bool
        )
    all_nodes.remove_node(node)
    share = max(1, this_machine().cores // 2)
    assert (status, said.decode()) == (0, f"0 {share}\n")
    assert process_count(Settings(), machine) == 2
    with pytest.raises(SettingsError, match="and the largest node of the Ray cluster has 2"):
        process_count(Settings(processes=3), machine)


def test_a_version_trained_again_on_a_node_has_the_weights_that_it_has_here(tmp_path, capfd):
    (tmp_path / "kept").mkdir()
    base = make_tiny_model(tmp_path / "base")
    kept = read_config(make_config(tmp_path / "kept", base, epochs=1))
    models: list[Path] = []
    for engine in ENGINES:
        again = prepare_again(kept, str(base), None, tmp_path / engine, label=f"By {engine}")
        assert train_again(again, 2, engine)["threads"] == 2, "not as many as CPUs"
        models.append(again.model)
    assert largest_difference(*models) == 0
    said = capfd.readouterr().err
    assert "By ray: 100%" in said
    assert "By local: 100%" in said


@pytest.mark.parametrize(
    ("death", "said"),
    [
        ("echo no room > failure.txt; exit 1", "no room"),
        ("kill -9 $$", r"was killed \(exit code -9\)"),
    ],
)
def test_a_training_that_fails_on_a_node_says_why_as_it_does_here(
    tmp_path, monkeypatch, death, said
):
    kept = read_config(make_config(tmp_path, tmp_path, epochs=1))
    start = ["sh", "-c", f"cd {tmp_path}; {death}"]
    monkeypatch.setattr("embed_assets.training.process.training_command", lambda _: start)
    failures: list[str] = []
    for engine in ENGINES:
        with pytest.raises(TrainingError, match=said) as raised:
            train_again(kept, 1, engine)
        failures.append(str(raised.value))
    assert failures[0] == failures[1]


def test_the_setting_of_the_engine_decides_where_a_training_runs():
    on_ray, here = (build_resources(Settings(engine=engine))["pipes"] for engine in ENGINES)
    assert isinstance(on_ray, RayProcessClient)
    assert not isinstance(here, RayProcessClient)


def test_a_database_of_mlflow_that_is_a_file_is_no_place_for_two_machines(tmp_path, monkeypatch):
    monkeypatch.setattr(RayProcess, "node", lambda _: ("here", "127.0.0.1"))
    monkeypatch.setattr("embed_assets.resources.ray_process._cores", lambda: 1)
    address = f"sqlite:///{tmp_path}/mlflow.db"
    own = job("", tmp_path, lambda _: {"MLFLOW_TRACKING_URI": address})
    process = RayProcess()
    with pytest.raises(ProjectError, match=r"^MLFLOW_TRACKING_URI: .*Start an MLflow server"):
        process.start(own)
    process.start(replace(own, asked_on="here"))
    process.end()
    on_server = job("", tmp_path, lambda _: {"MLFLOW_TRACKING_URI": "http://mlflow:5000"})
    process = RayProcess()
    process.start(on_server)
    process.end()


def test_a_node_without_the_home_is_named(tmp_path):
    with pytest.raises(ProjectError, match=f"doesn't have {tmp_path}/none. Mount the home there"):
        run(job("", tmp_path / "none"))


def test_settings_and_credentials_travel_and_nothing_else(tmp_path, monkeypatch):
    for name in ("EMBED_ASSETS_SEED", "HF_TOKEN", "PGPASSWORD", TERMINAL):
        monkeypatch.setenv(name, "of this machine")
    (tmp_path / ".env").write_text(
        "EMBED_ASSETS_SEED=1\nEMBED_ASSETS_TRUSTED_MODELS=mine\n", "utf-8"
    )
    monkeypatch.chdir(tmp_path)
    told = travelling(TRAVELS)
    assert told["EMBED_ASSETS_SEED"] == told["HF_TOKEN"] == "of this machine"
    assert told["EMBED_ASSETS_TRUSTED_MODELS"] == "mine"
    assert not {"PGPASSWORD", "PATH", TERMINAL} & set(told)
