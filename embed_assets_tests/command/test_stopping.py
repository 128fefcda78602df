"""Which signals end a command."""

import signal
import subprocess
import sys

import pytest

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
