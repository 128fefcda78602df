"""The command that the job `everything` follows, whatever outlives whom."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from embed_assets.automation.everything import follow

LEAVES_ONE_BEHIND = """
import subprocess, sys
print("a line", file=sys.stderr)
left = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(left.pid)
sys.stderr.write("the last, unfinished")
"""
FOLLOWS = """
import os, sys
from pathlib import Path
from embed_assets.automation.everything import follow
command = [sys.executable, "-c", *sys.argv[1:]]
follow(command, os.environ, Path("said.log"), lambda line: print(line, flush=True))
"""
GOES_ON = """
import sys
from pathlib import Path
print("at work", file=sys.stderr, flush=True)
Path("killed").read_text()  # until somebody writes there
try:
    print("still at work", file=sys.stderr, flush=True)
except OSError as error:
    Path("ended").write_text(repr(error))
Path("ended").write_text("went on")
"""


def test_a_command_has_ended_though_a_process_that_it_left_still_has_its_stderr(tmp_path):
    said: list[str] = []
    log = tmp_path / "home" / "said.log"
    command = [sys.executable, "-c", LEAVES_ONE_BEHIND]
    status, printed = follow(command, dict(os.environ), log, said.append)
    os.kill(int(printed), signal.SIGKILL)  # it lives: nobody waited for it
    assert (status, said) == (0, ["a line", "the last, unfinished"])
    assert not log.exists()


def test_a_command_goes_on_though_the_job_that_followed_it_was_killed(tmp_path: Path):
    for name in ("killed", "ended"):
        os.mkfifo(tmp_path / name)
    job = subprocess.Popen(
        [sys.executable, "-c", FOLLOWS, GOES_ON], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert job.stdout is not None
    assert job.stdout.readline() == "at work\n"
    job.kill()
    job.wait()
    (tmp_path / "killed").write_text("now")
    assert (tmp_path / "ended").read_text() == "went on"
