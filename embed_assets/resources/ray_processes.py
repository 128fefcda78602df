"""Processes on the nodes of a Ray cluster, as `processes.py` has them on this machine.

An actor starts the process on its node and keeps what the process says, for whoever asks. The actor
ends with the process that asked for it, and its own process with the actor. Secrets reach the node
as an argument of a method: Ray shows environments of actors on its pages, and arguments nowhere.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import dagster as dg
from dagster_pipes import (
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PipesDefaultMessageWriter,
    decode_param,
)

from embed_assets.errors import ProjectError
from embed_assets.machine import Gpu, Machine, this_machine
from embed_assets.resources.child import SECONDS_TO_END
from embed_assets.resources.processes import ProcessClient, ProcessError
from embed_assets.resources.ray_actor import (
    SECONDS_BEHIND,
    Actor,
    ActorLostError,
    NodeLostError,
    NoLongerWantedError,
)
from embed_assets.resources.ray_cluster import connect, most, this_node, travelling
from embed_assets.resources.ray_process import SAID, Job, RayProcess
from embed_assets.resources.ray_workers import MOST_LOST_NODES, SECONDS_UNTIL_SAID
from embed_assets.wording import counted

TRAVELS = ("EMBED_ASSETS_", "MLFLOW_", "DATABRICKS_", "HF_", "AWS_")
"""How the names of variables begin that go with a process to its node: settings and credentials.
All else there is the node's own."""
SECONDS_FOR_ALL_CPUS = 60.0
"""Within which a node may have all its CPUs free; then half of them are enough, and so on."""
BeforeAgain = Callable[[threading.Event], object]
"""Is called before a process is begun again on another node. Its event: it is no longer wanted."""
A_GPU = Gpu("a GPU of the Ray cluster", 0, computes_bf16=False)

_log = logging.getLogger(__name__)


class RayProcessClient(ProcessClient):
    """Starts a process on a node of the Ray cluster, and stays until it ends."""

    def __init__(self) -> None:
        """No file of this machine tells the process what Dagster has to say."""
        super().__init__(context_injector=dg.PipesEnvContextInjector())

    def machine(self) -> Machine:
        """As many GPUs as the node has that has most; all else is taken to be as it is here.

        ProjectError where there is no cluster.
        """
        connect(1)
        gpus, called = (A_GPU,) * most("GPU"), "the largest node of the Ray cluster"
        return replace(this_machine(), find_gpus=lambda: gpus, called=called)

    def carry_out(
        self,
        *,
        command: Sequence[str],
        env: Callable[[Machine], Mapping[str, str]],
        processes: int,
        folder: Path,
        before_again: BeforeAgain,
        pipes: Mapping[str, str] | None = None,
        log: Any = _log,
        **_: Any,
    ) -> None:
        """As ProcessClient has it. Begun again on another node where its own is lost.

        processes: GPUs that it needs, of one node, if the cluster has any. folder: that must be on
        the node. before_again: as BeforeAgain has it. ProjectError where no node has so many GPUs
        or can start it, or where MOST_LOST_NODES were lost under it.
        """
        connect(processes)
        gpus = min(processes, most("GPU"))
        if 0 < gpus < processes:
            said = f"It takes {counted(processes, 'GPU')} of one node"
            raise ProjectError(f"{said}, and the largest of the Ray cluster has {gpus}.")
        told = {**travelling(TRAVELS), **(pipes or {})}
        job = Job(command, sys.executable, told, env, folder, Path.cwd(), this_node()[0])
        messages = os.devnull
        if pipes:
            params = decode_param(pipes[DAGSTER_PIPES_MESSAGES_ENV_VAR])
            messages = params[PipesDefaultMessageWriter.FILE_PATH_KEY]
        with (
            open(1, "wb", closefd=False) as out,
            open(2, "wb", closefd=False) as err,
            open(messages, "ab") as heard,
        ):
            code = run_on_cluster(job, gpus, [out, err, heard], log, before_again)
        if code != 0:
            raise ProcessError(code)


def run_on_cluster(
    job: Job,
    gpus: int,
    sinks: Sequence[BinaryIO],
    log: Any,
    before_again: BeforeAgain,
) -> int:
    """The exit status of a job, once it has ended; -9 where the system took its actor with it.

    gpus: of one node; 0: as many CPUs as one has. sinks: take what it says, as SAID has it. log:
    who is told. before_again: as BeforeAgain has it. ProjectError as
    RayProcessClient has it.
    """
    stopped = threading.Event()
    # Of its own: an interruption is lost that comes in the midst of Ray's code.
    with ThreadPoolExecutor(1, "talks to Ray") as thread:
        try:
            task = _Task(job, gpus, sinks, log, before_again, stopped)
            return thread.submit(task.carry_out).result()
        finally:
            stopped.set()


@dataclass(frozen=True)
class _Task:
    """What `run_on_cluster` was asked for. stopped: whether it is no longer wanted."""

    job: Job
    gpus: int
    sinks: Sequence[BinaryIO]
    log: Any
    before_again: BeforeAgain
    stopped: threading.Event

    def carry_out(self) -> int:
        for lost_nodes in range(MOST_LOST_NODES):
            if lost_nodes:
                said = "A node of the Ray cluster is lost: what it had at work is begun again."
                self.log.warning(said)
                self.before_again(self.stopped)
            try:
                with self._begun() as actor:
                    return actor.follow(self.job, self.sinks)
            except ActorLostError:
                return -signal.SIGKILL
            except NodeLostError:
                continue
        raise ProjectError(f"{MOST_LOST_NODES} nodes of the Ray cluster were lost under it.")

    @contextmanager
    def _begun(self) -> "Iterator[_Actor]":
        """An actor that has begun. NodeLostError where it is lost before."""
        cpus = 0 if self.gpus else max(1, most("CPU"))
        since, told = time.monotonic(), False
        actor = _Actor(cpus, self.gpus, self._look)
        try:
            while not actor.has_begun():
                waited = time.monotonic() - since
                if waited > SECONDS_UNTIL_SAID and not told:
                    told = True
                    said = f"No node of the Ray cluster has {self._having(cpus)} free so far"
                    self.log.warning(f"{said}: the process waits for one.")
                if cpus > 1 and waited > SECONDS_FOR_ALL_CPUS:
                    actor.end()
                    cpus, since = cpus // 2, time.monotonic()
                    actor = _Actor(cpus, 0, self._look)
            where = f"the node {actor.address} of the Ray cluster"
            self.log.info(f"A process begins on {where}, with {self._having(cpus)}.")
            yield actor
        finally:
            actor.end()

    def _look(self) -> None:
        if self.stopped.is_set():
            raise NoLongerWantedError

    def _having(self, cpus: int) -> str:
        return counted(self.gpus, "GPU") if self.gpus else counted(cpus, "CPU")


class _Actor(Actor):
    """One that has a process at work."""

    kind = RayProcess

    def follow(self, job: Job, sinks: Sequence[BinaryIO]) -> int:
        """The exit status of a job, once it has ended. sinks: take what it says meanwhile.

        ActorLostError or NodeLostError where it can't be known.
        """
        self._ask(self._actor.start, job)
        seen = [0] * len(SAID)
        while True:
            new, status = self._ask(self._actor.news, seen)
            for sink, text in zip(sinks, new, strict=True):
                sink.write(text)
                sink.flush()
            seen = [start + len(text) for start, text in zip(seen, new, strict=True)]
            if status is not None:
                return status

    def end(self) -> None:
        """End it and its process, if they are there."""
        import ray

        if self._node_id:
            ray.wait([self._actor.end.remote()], timeout=SECONDS_TO_END + SECONDS_BEHIND)
        super().end()
