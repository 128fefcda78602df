"""Processes that an asset starts and talks to through Dagster Pipes, and ends if it is stopped.

Dagster's own client sends them SIGINT, and leaves one at work that takes long to end.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

SECONDS_TO_END = 10.0


class ProcessError(Exception):
    """A process failed. code: its exit status, negative where a signal ended it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code

    @property
    def was_killed(self) -> bool:
        """Whether the system ended it, or whoever may; torchrun and shells say it in their way."""
        return self.code in (-signal.SIGKILL, 128 + signal.SIGKILL)


class ProcessClient(dg.PipesSubprocessClient):
    """Starts a process, and stays until it ends."""

    def run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        command: Sequence[str],
        env: Mapping[str, str],
        **_: Any,
    ) -> None:
        """ProcessError where the process fails. It doesn't outlive a call that is stopped."""
        with dg.open_pipes_session(
            context=context,
            context_injector=self.context_injector,
            message_reader=self.message_reader,
        ) as session:
            told = {**os.environ, **env, **session.get_bootstrap_env_vars()}
            process = subprocess.Popen(command, env=told)
            try:
                code = process.wait()
            except BaseException:
                _end(process)
                raise
        if code != 0:
            raise ProcessError(code)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
