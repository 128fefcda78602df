"""What becomes of a training that is stopped at many moments.

    EMBED_ASSETS_MODEL=FOLDER python benchmarks/stops.py --pdfs PDFS --home HOME --stops 180

HOME holds the documents of PDFS, ingested, and no model of these settings. Each stop works on a
copy of it. Those that did not end in order within --patience seconds are printed as they end, and
counted.
"""

import argparse
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

BEGINS = "finetuned_model"
"""What `run` says before its training."""
IN_ORDER = (128 + signal.SIGTERM, "CANCELED")


@dataclass(frozen=True)
class Stop:
    """How a command ended. status: of it and of its training's run; said: its last words."""

    seconds: float
    took: float
    status: tuple[int | None, str]
    said: str


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pdfs", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--stops", type=int, default=60)
    parser.add_argument("--first", type=float, default=0.0, help="seconds after it begins")
    parser.add_argument("--last", type=float, default=6.0)
    parser.add_argument("--at-once", type=int, default=3, help="commands side by side")
    parser.add_argument("--patience", type=float, default=25.0)
    parser.add_argument("--epochs", type=int, default=2000, help="more than there is time for")
    given = parser.parse_args()
    os.environ["EMBED_ASSETS_EPOCHS"] = str(given.epochs)
    apart = (given.last - given.first) / max(1, given.stops - 1)
    moments = [given.first + number * apart for number in range(given.stops)]
    with ThreadPoolExecutor(given.at_once) as commands:
        report(
            commands.map(lambda at: stop_at(at, given.pdfs, given.home, given.patience), moments)
        )


def stop_at(seconds: float, pdfs: Path, home: Path, patience: float) -> Stop:
    """Start a training, and stop it so long after it began."""
    with tempfile.TemporaryDirectory() as scratch:
        copied = Path(shutil.copytree(home, Path(scratch) / "home"))
        where = ("--pdfs", str(pdfs.absolute()), "--home", str(copied))
        command = [sys.executable, "-m", "embed_assets.command.cli", "run", *where]
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        assert process.stderr is not None
        if not any(BEGINS in line for line in process.stderr):
            raise SystemExit("nothing is to be trained in this home")
        time.sleep(seconds)
        start = time.monotonic()
        process.terminate()
        try:
            _, said = process.communicate(timeout=patience)
            code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, said = process.communicate()
            code = None
        took = time.monotonic() - start
        return Stop(seconds, took, (code, status_in_dagster(copied)), said[-2000:])


def status_in_dagster(home: Path) -> str:
    """Of the newest training; empty where none had begun."""
    database = home / "dagster" / "history" / "runs.db"
    newest = "SELECT status FROM runs WHERE pipeline_name = 'train' ORDER BY id DESC LIMIT 1"
    with sqlite3.connect(database) as connection:
        found = connection.execute(newest).fetchone()
    return found[0] if found else ""


def report(stops: Iterable[Stop]) -> None:
    ended: Counter[bool] = Counter()
    longest = 0.0
    for stop in stops:
        in_order = stop.status in (IN_ORDER, (IN_ORDER[0], ""))
        ended[in_order] += 1
        if in_order:
            longest = max(longest, stop.took)
        else:
            code, status = stop.status
            print(f"after {stop.seconds:.2f} s: exit {code}, {status or 'no run'}\n{stop.said}\n")
    print(f"In order: {ended[True]}, the slowest in {longest:.1f} s. Otherwise: {ended[False]}.")


if __name__ == "__main__":
    main()
