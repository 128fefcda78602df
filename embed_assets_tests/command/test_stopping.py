"""Which signals end a command."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embed_assets.command import stopping

HEARS = """
import signal, sys
from embed_assets.command import stopping
stopping.listen()
passed = []
for by in map(int, sys.argv[1:]):
    signal.signal(by, lambda *_: passed.append(by))  # as Dagster takes signals over
    signal.raise_signal(by)
assert len(passed) == len(sys.argv) - 1
try:
    stopping.check()
except stopping.Stopped as stopped:
    print(stopped.by)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        ([signal.SIGWINCH], None),
        ([signal.SIGUSR1, signal.SIGTERM], signal.SIGTERM),
        ([signal.SIGHUP], signal.SIGHUP),
    ],
)
def test_a_command_ends_by_what_asks_it_to_and_by_no_other_signal(
    sent: list[int], heard: int | None
) -> None:
    call = [sys.executable, "-c", HEARS, *(str(int(by)) for by in sent)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ([str(int(heard))] if heard else [])


WAITS = """
import subprocess, sys, threading, time
from embed_assets.command import stopping
stopping.listen()
threading.Thread(target=time.sleep, args=[600], daemon=True).start()  # a library's
stopping.shield_children()
child = subprocess.Popen(["sleep", "600"])
try:
    print(child.pid, flush=True)
    child.wait()
except stopping.Stopped as stopped:
    child.kill()
    sys.exit(stopping.exit_status(stopped))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_ctrl_c_wakes_a_command_that_waits_whatever_threads_there_are() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE) as command:
        assert command.stdout is not None
        command.stdout.readline()
        command.send_signal(signal.SIGINT)
        try:
            assert command.wait(30) == 130
        finally:
            command.kill()


STOPPED = """
import signal, sys
from embed_assets.command import cli
def status(*_):
    signal.raise_signal(signal.SIGTERM)
import embed_assets.command.status
embed_assets.command.status.status_summary = status
sys.argv = ["embed-assets", "status", "--json", "--home", sys.argv[1], "--pdfs", sys.argv[1]]
cli.main()
"""


def test_a_command_that_is_stopped_still_prints_one_object(tmp_path: Path) -> None:
    call = [sys.executable, "-c", STOPPED, str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)) == (143, {"error": stopping.SAID})


THREADS = """
import os
import embed_assets.command.cli
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_no_library_has_started_a_thread_when_a_command_begins_to_listen() -> None:
    """One that is there before SIGINT is blocked would take it, and nobody would hear of it."""
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("1", "")


WITHOUT_MASKS = """
import signal
from embed_assets.command import stopping
stopping._CHANGES_MASKS = False
stopping.listen()
stopping.shield_children()
with stopping.children_hear():
    pass
print(signal.pthread_sigmask(signal.SIG_BLOCK, set()))
try:
    signal.raise_signal(signal.SIGINT)
except stopping.Stopped as stopped:
    print(stopping.exit_status(stopped))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="is what Windows does by itself")
def test_ctrl_c_ends_a_command_where_no_signal_can_be_blocked() -> None:
    call = [sys.executable, "-c", WITHOUT_MASKS]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "130"]


HEARD_BY_A_SERVER = """
import signal, subprocess, sys
from embed_assets.command import stopping
stopping.listen()
asks = '''
import signal
print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set()), end=" ")
print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
'''
def ask():
    print(subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True).stdout)
ask()
with stopping.children_hear():
    ask()
ask()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_server_hears_sigint_as_it_would_by_itself_and_other_children_do_not(
    ignored: bool,
) -> None:
    first = "signal.SIG_IGN" if ignored else "signal.default_int_handler"
    program = f"import signal; signal.signal(signal.SIGINT, {first})\n{HEARD_BY_A_SERVER}"
    call = [sys.executable, "-c", program]
    said = subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()
    blocked, left_ignored = said[::2], said[1::2]
    assert blocked == ["True", "False", "True"]
    assert left_ignored[1] == str(ignored)


IN_THE_BACKGROUND = """
import os, signal, time
from dagster._utils.interrupts import capture_interrupts
from embed_assets.command import stopping
stopping.listen()
os.kill(os.getpid(), signal.SIGINT)
with capture_interrupts():  # a run
    pass
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
except stopping.Stopped as stopped:
    print(stopping.exit_status(stopped))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_a_command_in_the_background_hears_sigterm_and_no_sigint_after_its_runs_too() -> None:
    call = f"'{sys.executable}' -c '{IN_THE_BACKGROUND}' & wait"
    done = subprocess.run(["sh", "-c", call], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["143"]
