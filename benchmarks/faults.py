"""What becomes of a home whose storage is broken in many ways.

    python benchmarks/faults.py --pdfs PDFS --home HOME [--only full-disk …]

HOME is one that `run` has filled from PDFS. Each fault works on a copy of it. A command survives it
where it does its work, or says in one line what is wrong, and where no row is lost that can still
be read. Those that mount a disk need root, and are left out without. Prints what fell, and counts.
"""

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

READING = (("status",), ("search", "valve"), ("lineage",), ("export", "{out}/q.jsonl"), ("check",))
DAMAGED = "The home is damaged."
WORKING = (("ingest",), ("run",))
Broken = Iterator[Path]


@dataclass(frozen=True)
class Fault:
    """A way to break a home. breaks: gives the folder to use as home. commands: tried in turn.

    works: whether the commands must do their work, in spite of it. healed: whether the home is
    whole again afterwards.
    """

    breaks: Callable[[Path], Broken]
    commands: tuple[tuple[str, ...], ...]
    works: bool = False
    healed: bool = False


def warehouse(home: Path) -> Path:
    return home / "warehouse.duckdb"


def flipped(home: Path, name: str, offset: int) -> Broken:
    """Bytes of a file turned over from an offset on."""
    with (home / name).open("r+b") as file:
        file.seek(offset)
        found = file.read(64)
        file.seek(offset)
        file.write(bytes(255 - byte for byte in found))
    yield home


def overwritten(home: Path, name: str, content: bytes) -> Broken:
    (home / name).write_bytes(content)
    yield home


def halved(home: Path, name: str) -> Broken:
    os.truncate(home / name, (home / name).stat().st_size // 2)
    yield home


def folder_instead(home: Path, name: str) -> Broken:
    (home / name).unlink()
    (home / name).mkdir()
    yield home


def without(home: Path, *names: str) -> Broken:
    for name in names:
        path = home / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    yield home


def statement(home: Path, sql: str) -> Broken:
    with duckdb.connect(str(warehouse(home))) as connection:
        connection.execute(sql)
    yield home


def moved(home: Path) -> Broken:
    yield home.rename(home.with_name("moved"))


def read_only(home: Path) -> Broken:
    """The home on a disk that may only be read."""
    subprocess.run(["mount", "--bind", home, home], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", home], check=True)
        yield home
    finally:
        subprocess.run(["umount", home], check=True)


def full(home: Path, left: int) -> Broken:
    """The home on a disk that has so many bytes left."""
    size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
    disk = home.with_name("disk")
    disk.mkdir()
    room = f"size={2 * size + (64 << 20)}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", room, "tmpfs", disk], check=True)
    try:
        shutil.copytree(home, disk / "home")
        free = shutil.disk_usage(disk).free
        with (disk / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, free - left)
        yield disk / "home"
        (disk / "filler").unlink()
        shutil.rmtree(home)
        shutil.copytree(disk / "home", home)
    finally:
        subprocess.run(["umount", disk], check=True)


def mlflow_locked(home: Path) -> Broken:
    """Another program holds MLflow's database for writing."""
    with closing(sqlite3.connect(home / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield home


def warehouse_held(home: Path) -> Broken:
    """Another program has the warehouse open, for seven seconds."""
    program = (
        "import duckdb, sys, time\n"
        f"with duckdb.connect({str(warehouse(home))!r}):\n    print(flush=True); time.sleep(7)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield home


def killed_while_writing(home: Path) -> Broken:
    """A writer was killed in a transaction that its log held in part."""
    program = (
        "import duckdb, os, signal\n"
        f"c = duckdb.connect({str(warehouse(home))!r})\n"
        "c.execute(\"PRAGMA disable_checkpoint_on_shutdown; SET wal_autocheckpoint='1GB'\")\n"
        "c.execute(\"INSERT INTO former_paths VALUES ('kept.pdf', 'kept-00000000')\")\n"
        "c.begin(); c.execute(\"INSERT INTO former_paths VALUES ('lost.pdf', 'lost-00000000')\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    yield home


def locks_left(home: Path) -> Broken:
    """Lock files of processes that are gone."""
    for name in ("command.lock", "warehouse.duckdb.lock", "mlflow.db.lock", "daemon.lock"):
        (home / name).touch()
    yield home


DATABASES = {
    "warehouse": "warehouse.duckdb",
    "mlflow": "mlflow.db",
    "dagster-runs": "dagster/history/runs.db",
    "dagster-index": "dagster/history/runs/index.db",
    "dagster-schedules": "dagster/schedules/schedules.db",
}
FAULTS: dict[str, Fault] = {
    **{
        f"{name}-{how}": Fault(breaks, (("status",), ("run",), ("check",)))
        for name, file in DATABASES.items()
        for how, breaks in {
            "header": lambda home, file=file: flipped(home, file, 0),
            "flipped": lambda home, file=file: flipped(home, file, 4200),
            "truncated": lambda home, file=file: halved(home, file),
            "empty": lambda home, file=file: overwritten(home, file, b""),
            "of-another-kind": lambda home, file=file: overwritten(home, file, b"%PDF-1.7\n" * 900),
            "folder": lambda home, file=file: folder_instead(home, file),
        }.items()
    },
    "column-missing": Fault(
        lambda home: statement(home, "ALTER TABLE chunks DROP COLUMN heading_path"),
        (("status",), ("run",), ("check",)),
    ),
    "column-nullable-missing": Fault(
        lambda home: statement(home, "ALTER TABLE parsed_markdown DROP COLUMN error"),
        (("check",), ("run",), ("check",)),
    ),
    "column-extra": Fault(
        lambda home: statement(home, "ALTER TABLE chunks ADD COLUMN mine VARCHAR"),
        (("status",), ("run",), ("check",)),
        works=True,
    ),
    "column-of-another-type": Fault(
        lambda home: statement(home, "ALTER TABLE chunks ALTER token_count TYPE VARCHAR"),
        (("status",), ("run",), ("check",)),
    ),
    "table-missing": Fault(
        lambda home: statement(home, "DROP TABLE chunks"), (("status",), ("check",), ("run",))
    ),
    "rows-missing": Fault(
        lambda home: statement(home, "DELETE FROM chunks WHERE chunk_index > 3"),
        (("status",), ("check",), ("run",)),
    ),
    "model-folder-missing": Fault(
        lambda home: without(home, "models/v1"),
        (("status",), ("search", "valve"), ("check",), ("run",)),
    ),
    "artifacts-missing": Fault(
        lambda home: without(home, "mlartifacts"), (("status",), ("check",), ("run",))
    ),
    "mlflow-missing": Fault(
        lambda home: without(home, "mlflow.db"), (("status",), ("check",), ("run",))
    ),
    "dagster-missing": Fault(
        lambda home: without(home, "dagster"), (("status",), ("check",), ("run",)), works=True
    ),
    "warehouse-missing": Fault(
        lambda home: without(home, "warehouse.duckdb"), (("status",), ("check",))
    ),
    "moved": Fault(moved, (*READING, *WORKING), works=True),
    "read-only": Fault(read_only, READING, works=True, healed=True),
    "read-only-work": Fault(read_only, (*WORKING, ("promote", "1")), healed=True),
    "full-0": Fault(lambda home: full(home, 0), (*READING, *WORKING), healed=True),
    "full-300K": Fault(lambda home: full(home, 300_000), WORKING, healed=True),
    "mlflow-locked": Fault(mlflow_locked, (("status",), ("lineage",), ("check",)), healed=True),
    "warehouse-held": Fault(warehouse_held, (("status",), ("check",)), works=True, healed=True),
    "killed-writer": Fault(killed_while_writing, (("status",), ("check",), ("run",)), works=True),
    "locks-left": Fault(locks_left, (("check",), ("run",)), works=True),
}
NEED_ROOT = ("read-only", "full")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pdfs", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[], help="faults whose names begin so")
    parser.add_argument("--details", action="store_true", help="print what every command said")
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    for name, fault in FAULTS.items():
        if given.only and not any(name.startswith(begin) for begin in given.only):
            continue
        if name.startswith(NEED_ROOT) and os.geteuid() != 0:
            counts["left out"] += 1
            continue
        counts += try_fault(name, fault, given.pdfs.absolute(), given.home, given.details)
    print(", ".join(f"{number} {what}" for what, number in counts.items()))


def try_fault(name: str, fault: Fault, pdfs: Path, home: Path, details: bool) -> Counter[str]:
    """Counts of commands that were tried, survived and fell; of faults that lost rows."""
    counts: Counter[str] = Counter()
    before = rows_of(home)
    with tempfile.TemporaryDirectory() as scratch:
        copied = Path(shutil.copytree(home, Path(scratch) / "home"))
        with contextmanager(fault.breaks)(copied) as used:
            for command in fault.commands:
                counts["tried"] += 1
                words = [word.format(out=scratch) for word in command]
                start = time.monotonic()
                status, said = call(words, pdfs, used)
                fell = why_fallen(status, said, fault)
                counts["fell" if fell else "survived"] += 1
                if fell or details:
                    took = time.monotonic() - start
                    called = f"{name}: {' '.join(command)}"
                    print(f"{called}: {fell or 'well'}, exit {status}, {took:.0f} s")
                    print("    " + "\n    ".join(said.splitlines()[-6:]), flush=True)
        if fault.healed and rows_of(copied) != before:
            counts["lost"] += 1
            print(f"{name}: rows were lost", flush=True)
    return counts


def call(words: list[str], pdfs: Path, home: Path) -> tuple[int | None, str]:
    """Exit status of a command, None where it was given up on, and what it said."""
    command = [sys.executable, "-m", "embed_assets.command.cli", *words]
    where = ["--pdfs", str(pdfs), "--home", str(home)]
    try:
        done = subprocess.run(
            [*command, *where],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=400,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return None, str(error.stdout)
    return done.returncode, done.stdout


def why_fallen(status: int | None, said: str, fault: Fault) -> str:
    """What is wrong with how a command ended; empty where nothing is."""
    if status not in (0, 1, 2):
        return "no status of ours"
    if "Traceback" in said:
        return f"a traceback of {len(said.splitlines())} lines"
    if status and fault.works:
        return "it should have worked"
    if (
        status
        and "damaged" not in said
        and sum(line.startswith("embed-assets: ") for line in said.splitlines()) != 1
    ):
        return "it doesn't say why"
    return ""


def rows_of(home: Path) -> dict[str, int]:
    """Rows of every table of a home."""
    with duckdb.connect(str(warehouse(home)), read_only=True) as connection:
        tables = [row[0] for row in connection.execute("SHOW TABLES").fetchall()]
        counted = {t: connection.execute(f"SELECT count(*) FROM {t}").fetchone() for t in tables}
        return {name: row[0] if row else 0 for name, row in counted.items()}


if __name__ == "__main__":
    main()
