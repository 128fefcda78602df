"""What is left of `run`, `watch` and `ui` once one of their processes was killed (kill -9).

    EMBED_ASSETS_MODEL=FOLDER python benchmarks/kills.py --pdfs PDFS --kills 50

Each kill begins with an empty home and a moment drawn at random from the time that an unbroken run
takes. Then `run` is called again, and its home is compared with the unbroken one: rows of all
tables, weights of the newest model, runs left at work in Dagster and MLflow, files and folders.
What differs is printed, and counted.
"""

import argparse
import hashlib
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psutil

from embed_assets.tables import TABLES

COMMAND = [sys.executable, "-m", "embed_assets.command.cli"]
VICTIMS: Mapping[str, tuple[str, str]] = {
    # name: the command at work, and words of the command line of the process that is killed
    "command": ("run", "embed_assets.command.cli run"),
    "everything at once": ("run", ""),
    "worker": ("run", "multiprocessing.spawn"),
    "training": ("run", "embed_assets.training.trainer"),
    "daemon": ("watch", "dagster._daemon"),
    "code server": ("watch", "dagster._cli api grpc|dagster api grpc|code-server"),
    "run of a sensor": ("watch", "execute_run"),
}
NAMED_BY_CHANCE = re.compile(r"[0-9a-f]{32}|[0-9a-f-]{36}|m-[0-9a-f]{32}|\d{10,}|-wal$|-shm$")
LEFT_BY_WATCH = ("dagster", "daemon.lock", "daemon-server.log")
"""What `watch` leaves in a home and `run` doesn't, or not the same; the lock is nobody's."""
AT_WORK = ("STARTED", "STARTING", "QUEUED", "CANCELING", "NOT_STARTED")
VOLATILE = {"code", "run_id", "dagster_run_id", "mlflow_run_id", "materialized_at", "seconds"}
"""Columns that differ between two runs, beside those that `tables.py` calls volatile."""


@dataclass(frozen=True)
class Kill:
    """What was killed when, and what the home was like after the next run, beside the unbroken."""

    victim: str
    seconds: float
    hit: bool
    faults: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pdfs", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--at-once", type=int, default=1, help="trials side by side")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    pdfs = given.pdfs.absolute()
    with tempfile.TemporaryDirectory() as scratch:
        unbroken = Path(scratch) / "unbroken"
        start = time.monotonic()
        if error := run(pdfs, unbroken):
            raise SystemExit(f"The unbroken run failed:\n{error}")
        took = time.monotonic() - start
        print(f"An unbroken run takes {took:.0f} s.", flush=True)
        wanted = state(unbroken)
        chance = random.Random(given.seed)
        trials = [
            (given.victims[number % len(given.victims)], chance.uniform(0, took))
            for number in range(given.kills)
        ]
        with ThreadPoolExecutor(given.at_once) as side_by_side:
            report(side_by_side.map(lambda trial: kill(trial[0], trial[1], pdfs, wanted), trials))


def run(pdfs: Path, home: Path) -> str:
    """Run to the end; the last words if it failed."""
    ended = subprocess.run(
        [*COMMAND, "run", "--pdfs", str(pdfs), "--home", str(home)],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if ended.returncode == 0 else f"exit {ended.returncode}: {ended.stderr[-1500:]}"


def kill(victim: str, seconds: float, pdfs: Path, wanted: Mapping[str, Any]) -> Kill:
    """Kill one process so long after the command began, run again, and compare."""
    command, words = VICTIMS[victim]
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        hit = kill_one(command, words, seconds, pdfs, home)
        faults = []
        if error := run(pdfs, home):
            faults.append(f"the next run failed, {error}")
        faults += differences(wanted, state(home))
        faults += [f"left at work: {said}" for said in end_those_left(home)]
        return Kill(victim, seconds, hit, tuple(faults))


def kill_one(command: str, words: str, seconds: float, pdfs: Path, home: Path) -> bool:
    """Whether there was such a process, at that moment or later, before the command ended."""
    process = psutil.Popen(
        [*COMMAND, command, "--pdfs", str(pdfs), "--home", str(home)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(seconds)
    found: list[psutil.Process] = []
    patience = time.monotonic() + 120
    while not found and process.poll() is None and time.monotonic() < patience:
        with suppress(psutil.NoSuchProcess):
            all_of_it = [process, *process.children(recursive=True)]
            found = [one for one in all_of_it if matches(one, words)]
            if words:
                found = found[:1]
        time.sleep(0.05)
    for one in found:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    if command == "watch":  # it goes on without the killed one, or ends; then a person stops it
        time.sleep(5)
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    process.wait()
    return bool(found)


def end_those_left(home: Path) -> list[str]:
    """Processes that still work on a home: how each was called."""
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            called = " ".join(process.cmdline())
            if str(home) in called or str(home) in process.environ().get("DAGSTER_HOME", ""):
                left.append(called[:200])
                process.kill()
    return left


def matches(process: psutil.Process, words: str) -> bool:
    with suppress(psutil.Error):
        return bool(re.search(words, " ".join(process.cmdline())))
    return False


def state(home: Path) -> dict[str, Any]:
    """What two homes must have in common."""
    found: dict[str, Any] = {}
    with suppress(duckdb.Error), duckdb.connect(home / "warehouse.duckdb", read_only=True) as open_:
        for name, table in TABLES.items():
            left_out = {*table.volatile, *VOLATILE}
            columns = [
                column
                for column, known in table.columns.items()
                if column not in left_out and "TIMESTAMP" not in known.sql.upper()
            ]
            listed = ", ".join(f'"{column}"' for column in columns)
            with suppress(duckdb.CatalogException):
                # A run that was killed keeps the figures it measured, as its own record.
                once = "DISTINCT " if "run_id" in table.key else ""
                # What is made of all documents is named after its run.
                which = "WHERE document_id <> ''" if name == "materializations" else ""
                sql = f"SELECT {once}{listed} FROM {name} {which} ORDER BY ALL"
                found[f"rows of {name}"] = list(map(repr, open_.execute(sql).fetchall()))
    for weights in sorted(home.glob("models/v*/model.safetensors")):
        content = weights.read_bytes()
        found[f"weights {weights.parent.name}"] = hashlib.sha256(content).hexdigest()
    at_work = ", ".join(f"'{status}'" for status in AT_WORK)
    found["runs at work in Dagster"] = rows_of(
        home / "dagster/history/runs.db",
        f"SELECT pipeline_name, status FROM runs WHERE status IN ({at_work})",
    )
    found["runs at work in MLflow"] = rows_of(
        home / "mlflow.db",
        "SELECT name, status FROM runs WHERE status NOT IN ('FINISHED','FAILED','KILLED')",
    )
    found["files and folders"] = sorted(
        Counter(
            NAMED_BY_CHANCE.sub("…", path.relative_to(home).as_posix())
            for path in home.rglob("*")
            if path.relative_to(home).parts[0] not in LEFT_BY_WATCH
        ).items()
    )
    return found


def rows_of(database: Path, sql: str) -> list[Any]:
    if not database.exists():
        return []
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    said = []
    for key in sorted({*wanted, *found}):
        before, after = wanted.get(key), found.get(key)
        if before == after:
            continue
        if isinstance(before, list) and isinstance(after, list):
            gone, more = Counter(before) - Counter(after), Counter(after) - Counter(before)
            said.append(f"{key}: without {list(gone)[:3]!s:.300}, with {list(more)[:3]!s:.300}")
        else:
            said.append(f"{key}: {str(after)[:80]} instead of {str(before)[:80]}")
    return said


def report(kills: Any) -> None:
    ended: Counter[str] = Counter()
    for one in kills:
        hit = "" if one.hit else " (there was none, or the run had ended)"
        what = "as unbroken" if not one.faults else "\n  ".join(["differs:", *one.faults])
        print(f"{one.victim}, {one.seconds:.1f} s{hit}: {what}", flush=True)
        ended["as unbroken" if not one.faults else "otherwise"] += 1
    print(f"As unbroken: {ended['as unbroken']}. Otherwise: {ended['otherwise']}.")


if __name__ == "__main__":
    main()
