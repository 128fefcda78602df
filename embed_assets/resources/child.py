"""A process that this one started, and how it is ended."""

import subprocess

SECONDS_TO_END = 10.0


def end_process(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to end, and make it after SECONDS_TO_END."""
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
