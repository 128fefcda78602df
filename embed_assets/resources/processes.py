"""Processes that are started and waited for, and ended where whoever waits is stopped.

Dagster's own client sends them SIGINT, and leaves one at work that takes long to end.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from embed_assets.machine import Machine, this_machine
from embed_assets.resources.child import end_process
from embed_assets.settings import Engine


class ProcessError(Exception):
    """A process failed. code: its exit status, negative where a signal ended it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code

    @property
    def was_killed(self) -> bool:
        """Whether the system ended it, or whoever may; torchrun and shells say it in their way."""
        return self.code in (-signal.SIGKILL, 128 + signal.SIGKILL)


def process_client(engine: Engine) -> "ProcessClient":
    """Starts processes on this machine, or on the nodes of a Ray cluster."""
    if engine == "ray":
        from embed_assets.resources.ray_processes import RayProcessClient

        return RayProcessClient()
    return ProcessClient()


class ProcessClient(dg.PipesSubprocessClient):
    """Starts a process on this machine, and stays until it ends."""

    def machine(self) -> Machine:
        """What is known of the machine that a process will run on. ProjectError where none is."""
        return this_machine()

    def run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, context: dg.OpExecutionContext | dg.AssetExecutionContext, **asked: Any
    ) -> None:
        """As `carry_out`. The run of the context hears from the process through Dagster Pipes."""
        with dg.open_pipes_session(
            context=context,
            context_injector=self.context_injector,
            message_reader=self.message_reader,
        ) as session:
            self.carry_out(**asked, pipes=session.get_bootstrap_env_vars(), log=context.log)

    def carry_out(
        self,
        *,
        command: Sequence[str],
        env: Callable[[Machine], Mapping[str, str]],
        pipes: Mapping[str, str] | None = None,
        **_: Any,
    ) -> None:
        """ProcessError where the process fails. It doesn't outlive a call that is stopped.

        env: what it finds in its environment beside what this process has, by its machine. pipes:
        variables of Dagster Pipes.
        """
        told = {**os.environ, **env(self.machine()), **(pipes or {})}
        process = subprocess.Popen(command, env=told)
        try:
            code = process.wait()
        except BaseException:
            end_process(process)
            raise
        if code != 0:
            raise ProcessError(code)
