"""An interruption that comes where no exception gets through."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embed_assets.interruptions import none_lost, unwrapped

IN_A_CALLBACK = """
import signal, time, weakref
class Thing: pass
def come(reference):
    if comes:
        signal.raise_signal(comes.pop())
comes = [signal.SIGTERM]
def work():
    thing = Thing()
    kept = weakref.ref(thing, come)
    del thing
    print("goes on", flush=True)
    time.sleep(60)
"""
IN_AN_IMPORT = """
import time
def work():
    import interrupted
    print("goes on", interrupted.ready, flush=True)
    time.sleep(60)
"""
IMPORTED = """
import os, signal
try:
    signal.raise_signal(signal.SIGTERM)
except BaseException:
    os._exit(134)  # as C++ does
ready = True
"""
IN_A_CALLBACK_ON_WINDOWS = IN_A_CALLBACK.replace(
    "time.sleep(60)", "[time.sleep(0.1) for _ in range(600)]"
).replace("class Thing", "del signal.pthread_kill\nclass Thing")
OF_A_COMMAND = """
from embed_assets.command import stopping
from embed_assets.interruptions import none_lost
stopping.listen()
try:
    with none_lost():
        work()
except stopping.Stopped as stopped:
    print(stopping.exit_status(stopped))
"""
IN_A_QUERY = """
import os, signal, sys, threading
from embed_assets.resources.warehouse import Warehouse
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may have it ignored
warehouse = Warehouse(path=sys.argv[1])
with warehouse.transaction():
    pass
threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    warehouse.read("SELECT sum(hash(range)) FROM range(1000000000000)")
except KeyboardInterrupt:
    print("interrupted")
"""
OF_A_RUN = """
from dagster._core.errors import DagsterExecutionInterruptedError, raise_execution_interrupts
from dagster._utils.interrupts import capture_interrupts
from embed_assets.interruptions import none_lost
with capture_interrupts(), raise_execution_interrupts():
    try:
        with none_lost():
            work()
    except DagsterExecutionInterruptedError:
        print(143)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize("where", [IN_A_CALLBACK, IN_A_CALLBACK_ON_WINDOWS, IN_AN_IMPORT])
@pytest.mark.parametrize("of", [OF_A_COMMAND, OF_A_RUN])
def test_it_is_raised_again(tmp_path: Path, where: str, of: str) -> None:
    (tmp_path / "interrupted.py").write_text(IMPORTED, encoding="utf-8")
    call = [sys.executable, "-c", where + of]
    done = subprocess.run(
        call, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=True
    )
    said, status = done.stdout.splitlines()
    assert said.startswith("goes on")
    assert status == "143"


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_a_query_ends_by_it_at_once_and_not_by_an_error_of_duckdb(tmp_path: Path) -> None:
    call = [sys.executable, "-c", IN_A_QUERY, str(tmp_path / "warehouse.duckdb")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.split() == ["interrupted"]


def in_a_thread() -> str:
    with none_lost():
        return "worked"


def test_a_thread_that_gets_no_signals_works_too() -> None:
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(in_a_thread).result() == "worked"


@unwrapped()
def fail() -> None:
    try:
        raise ValueError("the cause")
    except ValueError as error:
        raise OSError("of something else") from error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(OSError, match="of something else") as raised:
        fail()
    assert isinstance(raised.value.__cause__, ValueError)


OTHERS = """
import weakref
from embed_assets.interruptions import none_lost
class Thing: pass
def fail(reference):
    raise ValueError("said as ever")
with none_lost():
    thing = Thing()
    kept = weakref.ref(thing, fail)
    del thing
"""


def test_other_errors_in_a_callback_are_said_as_ever() -> None:
    call = [sys.executable, "-c", OTHERS]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert "ValueError: said as ever" in done.stderr
