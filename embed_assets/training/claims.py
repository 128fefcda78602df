"""Two file locks protect the folder of a training. The system opens a lock when its process dies.

The run that prepares, trains and records holds one. The process that trains holds the other, since
it outlives a run that is killed.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout

from embed_assets.errors import BusyError

PREFIX = "training-"
"""How the folders begin in which trainings are under way, or were when they were cut off."""
SECONDS_TO_LOSE_LOCKS = 180.0
"""Twice as long as NFS 4 leaves locks to a machine that says nothing."""


class FolderClaimedError(BusyError):
    """Another run, or the process that a killed one left behind, trains in the folder."""


def folder_made_from(models: Path, made_from: str) -> Path:
    """Where a training is made. made_from: digest of what must be as it was to take it up there."""
    return models / f"{PREFIX}{made_from}"


def training_folders(models: Path) -> list[Path]:
    """Where trainings are under way, or were when they were cut off."""
    return sorted(folder for folder in models.glob(f"{PREFIX}*") if folder.is_dir())


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The folder is this run's until the block ends, whether it is there or not.

    FolderClaimedError where it is another's, or where a process still trains there.
    """
    with _held(_claim(folder), folder):
        with training_in(folder):  # a process that was left behind would read what is written next
            pass
        yield


def wait_until_left(folder: Path, stopped: Event) -> None:
    """Wait until a process on a lost node trains there no more.

    A file server takes a node's locks from it a while after it has last heard of the node.
    FolderClaimedError if one trains there still after that, or when it is stopped.
    """
    until = time.monotonic() + SECONDS_TO_LOSE_LOCKS
    while True:
        try:
            with training_in(folder):
                return
        except FolderClaimedError:
            if stopped.is_set() or time.monotonic() > until:
                raise


@contextmanager
def training_in(folder: Path) -> Iterator[None]:
    """The process trains in the folder until the block ends. FolderClaimedError if one does."""
    with _held(_process(folder), folder):
        yield


def held_lock(models: Path) -> Path | None:
    """A lock of a training that is under way in a folder of models, whoever started it."""
    for lock in models.glob(f"{PREFIX}*.lock"):
        try:
            with FileLock(lock, timeout=0):
                pass
        except Timeout:
            return lock
        except OSError:  # who may not write there can't tell
            continue
    return None


def clear_trainings(models: Path) -> None:
    """Delete the folders of trainings that are over, or that nothing will take up."""
    for folder in training_folders(models):
        with suppress(FolderClaimedError):
            delete_training(folder)


def delete_training(folder: Path) -> None:
    """Delete the folder of a training. FolderClaimedError where it is under way."""
    with claimed(folder):
        shutil.rmtree(folder)
        for lock in (_claim(folder), _process(folder)):
            lock.unlink(missing_ok=True)


def _claim(folder: Path) -> Path:
    return Path(f"{folder}.lock")


def _process(folder: Path) -> Path:
    return Path(f"{folder}.process.lock")


@contextmanager
def _held(path: Path, folder: Path) -> Iterator[None]:
    lock = FileLock(path, timeout=1)  # who only looks holds it for a moment
    try:
        lock.acquire()
    except Timeout:
        raise FolderClaimedError(
            f"Another process still trains in {folder}. Wait for it, or end it."
        ) from None
    try:
        yield
    finally:
        lock.release()
