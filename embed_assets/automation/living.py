"""Which runs live, and the end of those that don't.

The process that executes a run holds a file lock, which the system opens when the process dies, by
whatever cause: Dagster itself would show such a run as started for ever.
"""

import json
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.tags import GRPC_INFO_TAG  # Dagster doesn't export it
from filelock import FileLock, Timeout

from embed_assets.resources.event_log import kept_open
from embed_assets.settings import Settings

AT_WORK = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
HELD = ".held"
"""Suffix of the file that stands beside a run's lock while the lock is held: a lock that is opened
while this is there was opened by the end of its process."""
LAUNCHED_WITHIN = timedelta(minutes=10)
"""Seconds lie between the making of a run and its place in the queue; nobody launches it later."""


def executor(settings: Settings) -> dg.ExecutorDefinition:
    """Dagster's in-process executor, whose process holds the lock of its run.

    A step in a process of its own costs four seconds to start; parsing and training have theirs.
    """
    known: Any = dg.in_process_executor
    return dg.ExecutorDefinition(
        known.name,
        known.config_schema,
        executor_creation_fn=lambda c: _Holding(known.executor_creation_fn(c), settings),
        description=known.description,
    )


class _Holding(dg.Executor):
    """Another executor, and the lock of its run around its work."""

    def __init__(self, inner: dg.Executor, settings: Settings) -> None:
        self._inner, self._settings = inner, settings

    @property
    def retries(self) -> Any:
        return self._inner.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._inner.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        with held(self._settings, plan_context.run_id), kept_open(plan_context.instance):
            yield from self._inner.execute(plan_context, execution_plan)


@contextmanager
def held(settings: Settings, run_id: str) -> Iterator[None]:
    """Until the block ends the run is known to be executed by the process that calls."""
    lock = _lock(settings, run_id)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        lock.with_suffix(HELD).touch()
        try:
            yield
        finally:
            _clear(lock)


def lives(settings: Settings, record: dg.RunRecord) -> bool:
    """Whether a run is at work or may yet come to it; where nobody can tell, it is.

    One that waits in the queue is launched by the next daemon.
    """
    run, lock = record.dagster_run, _lock(settings, record.dagster_run.run_id)
    if (held_now := _is_held(lock)) is not None:
        return held_now
    if run.status is dg.DagsterRunStatus.NOT_STARTED:
        return datetime.now(UTC) - record.create_timestamp < LAUNCHED_WITHIN
    return run.status not in AT_WORK or not _is_lost(run)


def held_runs(settings: Settings) -> list[str]:
    """Ids of runs that a process is at, whatever Dagster calls them.

    A run that somebody took for dead is a failure there, and may work on.
    """
    marks = sorted(_folder(settings).glob(f"*{HELD}"))
    return [mark.stem for mark in marks if _is_held(mark.with_suffix(".lock"))]


def clear_locks(settings: Settings, living: Collection[str]) -> None:
    """Delete what runs left behind whose processes are gone. living: ids of runs that are not."""
    for mark in _folder(settings).glob(f"*{HELD}"):
        lock = mark.with_suffix(".lock")
        if mark.stem not in living and _is_held(lock) is False:
            _clear(lock)


def _folder(settings: Settings) -> Path:
    return settings.dagster_home / "running"


def _lock(settings: Settings, run_id: str) -> Path:
    return _folder(settings) / f"{run_id}.lock"


def _is_held(lock: Path) -> bool | None:
    """Whether a process holds the lock of its run, or has died with it; null where there is none.

    A run may end between two looks: its mark counts while the lock is held here.
    """
    mark = lock.with_suffix(HELD)
    if not mark.exists():
        return None
    try:
        with FileLock(lock, timeout=0):
            if mark.exists():
                return False
            with suppress(OSError):  # Windows keeps a file that is open
                lock.unlink()  # made by looking
            return None
    except Timeout:
        return True


def _clear(lock: Path) -> None:
    """Delete a lock. The mark goes first: from then on its state says nothing."""
    lock.with_suffix(HELD).unlink(missing_ok=True)
    with suppress(OSError):  # Windows keeps a file that is open
        lock.unlink()


def _is_lost(run: dg.DagsterRun) -> bool:
    """Whether a run was started on a code server that nobody is at any more.

    This is asked of runs whose process holds no lock: it is about to, has just ended, or is of an
    older version. Dagster's own monitoring can't ask how such a run is.
    """
    if GRPC_INFO_TAG not in run.tags:
        return False
    server = json.loads(run.tags[GRPC_INFO_TAG])
    try:
        if path := server.get("socket"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
        else:
            address = (server.get("host") or "localhost", server["port"])
            socket.create_connection(address, timeout=5).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return True
    except OSError:  # nobody can say
        pass
    return False
