"""A training's folder is one run's, whichever process looks."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embed_assets.training import claims
from embed_assets.training.claims import (
    FolderClaimedError,
    claimed,
    clear_trainings,
    held_lock,
    training_in,
    wait_until_left,
)

HOLD = """
import sys
from pathlib import Path
from embed_assets.training import claims
with getattr(claims, sys.argv[1])(Path(sys.argv[2])):
    Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(process: str, folder: Path) -> Iterator[None]:
    """Another process that has claimed the folder, or trains in it, until it is killed."""
    command = [sys.executable, "-c", HOLD, process, str(folder)]
    held = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert held.stdout is not None
    assert held.stdout.readline() == "held\n"
    try:
        yield
    finally:
        held.kill()
        held.communicate()


@pytest.mark.parametrize("process", ["claimed", "training_in"])
def test_a_folder_in_which_another_process_is_busy_is_neither_taken_nor_deleted(
    tmp_path: Path, process: str
) -> None:
    """A run that prepares, and a process that its killed run left behind."""
    folder = tmp_path / "training-a"
    with another(process, folder):
        clear_trainings(tmp_path)
        assert folder.is_dir()
        with pytest.raises(FolderClaimedError, match=f"still trains in {folder}"), claimed(folder):
            pass
    with claimed(folder):
        assert folder.is_dir(), "whoever was killed holds nothing"
    clear_trainings(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("process", ["claimed", "training_in"])
def test_who_asks_knows_that_another_process_is_busy(tmp_path: Path, process: str) -> None:
    with another(process, tmp_path / "training-a"):
        assert held_lock(tmp_path)
    assert not held_lock(tmp_path), "whoever was killed is not"
    assert not held_lock(tmp_path / "nowhere")


def test_a_process_on_a_lost_node_is_waited_for_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "training-a"
    waiting = threading.Thread(target=wait_until_left, args=(folder, threading.Event()))
    with another("training_in", folder):
        waiting.start()
        monkeypatch.setattr(claims, "SECONDS_TO_LOSE_LOCKS", 0.0)
        with pytest.raises(FolderClaimedError):
            wait_until_left(folder, threading.Event())
        monkeypatch.undo()
        stopped = threading.Event()
        stopped.set()
        with pytest.raises(FolderClaimedError):
            wait_until_left(folder, stopped)
    waiting.join(60)
    assert not waiting.is_alive()


def test_a_lock_that_can_t_be_tried_is_no_training(tmp_path: Path) -> None:
    (tmp_path / "training-a.lock").mkdir()
    assert not held_lock(tmp_path)


def test_a_folder_is_claimed_before_it_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "training-a"
    with claimed(folder):
        folder.mkdir()
        with training_in(folder):  # the process that the run starts
            clear_trainings(folder.parent)
        clear_trainings(folder.parent)
        assert folder.is_dir()


def test_what_is_no_training_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "training-notes.txt").touch()
    clear_trainings(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training-notes.txt", "v1"]
