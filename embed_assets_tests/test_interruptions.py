"""An interruption that comes where Python lets no exception out."""

import subprocess
import sys

import pytest

COMES_IN_A_CALLBACK = """
import signal, sys, time, weakref
from embed_assets.interruptions import none_lost
class Thing: pass
def come(reference):
    if comes:
        signal.raise_signal(comes.pop())
def wait():
    with none_lost():
        thing = Thing()
        kept = weakref.ref(thing, come)
        del thing
        print("goes on", flush=True)
        time.sleep(60)
comes = [signal.SIGTERM]
"""
OF_A_COMMAND = """
from embed_assets.command import stopping
stopping.listen()
try:
    wait()
except stopping.Stopped as stopped:
    print(stopping.exit_status(stopped))
"""
OF_A_RUN = """
from dagster._core.errors import DagsterExecutionInterruptedError, raise_execution_interrupts
from dagster._utils.interrupts import capture_interrupts
with capture_interrupts(), raise_execution_interrupts():
    try:
        wait()
    except DagsterExecutionInterruptedError:
        print(143)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize("of", [OF_A_COMMAND, OF_A_RUN])
def test_it_is_raised_again(of: str) -> None:
    call = [sys.executable, "-c", COMES_IN_A_CALLBACK + of]
    done = subprocess.run(call, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.split("\n")[:2] == ["goes on", "143"]


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


def test_other_errors_are_said_as_ever() -> None:
    call = [sys.executable, "-c", OTHERS]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert "ValueError: said as ever" in done.stderr
