"""An actor on Ray that has a process at work on its node. Imports nothing heavy.

What starts and ends actors is in `ray_processes.py`.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dagster_pipes import (
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PipesDefaultMessageWriter,
    encode_param,
)
from filelock import FileLock

from embed_assets.errors import ProjectError
from embed_assets.machine import Machine, this_machine
from embed_assets.resources.child import ENDS_WITH, end_process
from embed_assets.resources.ray_cluster import this_node
from embed_assets.settings import TRACKING_URI

SECONDS_BETWEEN_NEWS = 0.5
SAID = ("stdout", "stderr", "messages")
"""What is kept of a process: the last is for Dagster Pipes."""


@dataclass(frozen=True)
class Job:
    """A process that a node is asked to start.

    python: how `command` names the interpreter, for which the node has its own. told: variables
    that it finds in its environment beside the node's own, and environment: those that depend on
    the machine. It knows its GPUs by Ray's variables: the machine is shown without. folder: that
    must be on the node. working_folder: of the process, if the node has it. asked_on: id of the
    node that asks for it.
    """

    command: Sequence[str]
    python: str
    told: Mapping[str, str]
    environment: Callable[[Machine], Mapping[str, str]]
    folder: Path
    working_folder: Path
    asked_on: str


class RayProcess:
    """A process on this node, and what it says."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._kept = tempfile.TemporaryDirectory(prefix="embed-assets-")
        self._alive = FileLock(Path(self._kept.name) / "alive")
        self._alive.acquire()

    def node(self) -> tuple[str, str]:
        """The id and the address of the node that it is on."""
        return this_node()

    def start(self, job: Job) -> None:
        """Start it, unless it was started.

        ProjectError where the node lacks the job's folder, or MLflow is a file that another uses.
        """
        if self._process:
            return
        if not job.folder.is_dir():
            said = f"The node {self.node()[1]} of the Ray cluster doesn't have {job.folder}."
            raise ProjectError(f"{said} Mount the home there, at the same path.")
        machine = replace(this_machine(), cores=_cores(), find_gpus=tuple)
        environment = job.environment(machine)
        is_file = environment.get(TRACKING_URI, "").startswith("sqlite:")
        if is_file and self.node()[0] != job.asked_on:
            raise ProjectError(
                f"{TRACKING_URI}: MLflow is a file of the machine that runs the command, and two "
                "machines would break it. Start an MLflow server, and name it there."
            )
        messages = {PipesDefaultMessageWriter.FILE_PATH_KEY: str(self._file("messages"))}
        for name in SAID:
            self._file(name).touch()
        with self._file("stdout").open("ab") as out, self._file("stderr").open("ab") as err:
            self._process = subprocess.Popen(
                [sys.executable if word == job.python else word for word in job.command],
                env={
                    **os.environ,
                    **job.told,
                    "OMP_NUM_THREADS": str(machine.cores),  # Ray says 1 to who has a GPU
                    **environment,
                    DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param(messages),
                    ENDS_WITH: self._alive.lock_file,
                },
                cwd=job.working_folder if job.working_folder.is_dir() else None,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def news(self, seen: Sequence[int]) -> tuple[list[bytes], int | None]:
        """What it has said since, as SAID has it, and its exit status once it has ended.

        Waits for it a moment. seen: bytes of each that are known. Whole lines: what comes last of a
        process that is lost with its node is no message.
        """
        assert self._process, "it was started"
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_BETWEEN_NEWS)
        status = self._process.poll()
        new = [_read(self._file(name), start) for name, start in zip(SAID, seen, strict=True)]
        return new if status is not None else [_whole_lines(text) for text in new], status

    def end(self) -> None:
        """End it, if it is at work, and delete what is kept of it."""
        if self._process:
            end_process(self._process)
        self._kept.cleanup()

    def _file(self, name: str) -> Path:
        return Path(self._kept.name) / name


def _cores() -> int:
    """Cores of this node that fall to this actor: its CPUs, or the share of the node's GPUs."""
    import ray

    context = ray.get_runtime_context()
    mine = context.get_assigned_resources()
    if mine.get("CPU"):
        return int(mine["CPU"])
    [all_gpus] = [
        node["Resources"]["GPU"] for node in ray.nodes() if node["NodeID"] == context.get_node_id()
    ]
    return max(1, int(this_machine().cores * mine["GPU"] / all_gpus))


def _read(file: Path, start: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read()


def _whole_lines(text: bytes) -> bytes:
    """A bar returns to the start of its line."""
    return text[: max(text.rfind(b"\n"), text.rfind(b"\r")) + 1]
