"""Three hosts, Postgres and a bucket: the tables of one machine, whatever is lost meanwhile.

    python benchmarks/scale [--documents 2000] [--only same,node,catalogue,two,workers,encode,costs]

Needs Linux, root, `ip` (iproute2) and Postgres's server programs (apt-get install postgresql); moto
is the S3 server. The hosts are network namespaces: a Ray head with Postgres and the bucket, and two
workers. The tables of each trial are compared with those that the local engine makes of the same
PDFs, row for row. What is measured:

same: an ingest on Ray into a DuckLake. node: a host is lost with `kill -9` in the middle.
catalogue: every connection to Postgres is ended, again and again. two: two hosts ingest at once,
each from a home of its own. workers: the parsing alone, with 1, 2 and 4 workers. encode:
embeddings by one model here, and by models on the workers. costs: a
transaction in a file, in a lake of a folder and in one of a bucket, Dagster's events of a document
in files and in Postgres, and an item of each engine.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl
import pymupdf
from cluster import POSTGRES, Cluster
from hosts import WORKERS, Host, hosts
from inside import COMPARED, DOCUMENTS_AT_ONCE, WORDS, rows

from embed_assets.resources.warehouse import Warehouse

COMMAND = [sys.executable, "-m", "embed_assets.command.cli"]
SECONDS_UNTIL_LOST = 20
SECONDS_BETWEEN_CUTS = 3
TEXTS = "1536"
Meanwhile = Callable[[threading.Event], None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--only", default=",".join(TRIALS))
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # the hosts go all the same
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scale")))
        scratch.chmod(0o755)
        pdfs = scratch / "pdfs"
        make_pdfs(pdfs, given.documents)
        chosen = given.only.split(",")
        expected: dict[str, pl.DataFrame] = {}
        if not {"workers", "encode", "costs"}.issuperset(chosen):
            print(f"{given.documents} PDFs of one page; local engine, file", flush=True)
            seconds = ingest(None, pdfs, scratch / "local", {})
            print(f"  {seconds:.1f} s", flush=True)
            local = Warehouse(path=str(scratch / "local" / "warehouse.duckdb"))
            expected = {table: rows(local, table) for table in COMPARED}
        cluster = Cluster(scratch, stack.enter_context(hosts()))
        cluster.start()
        for name in chosen:
            print(name, flush=True)
            TRIALS[name](cluster, pdfs, expected)


def make_pdfs(folder: Path, count: int) -> None:
    """One-page PDFs, each of another text."""
    folder.mkdir()
    for number in range(count):
        chosen = random.Random(number)
        said = [
            f"The {a} of unit {number} holds {chosen.randint(2, 900)} bar once the {b} and the {c} "
            f"are checked by two people."
            for a, b, c in (chosen.sample(WORDS, 3) for _ in range(14))
        ]
        with pymupdf.open() as document:
            page = document.new_page()
            page.insert_text((72, 72), f"Unit {number}: {chosen.choice(WORDS)}", fontsize=18)
            page.insert_textbox((72, 100, 540, 760), " ".join(said), fontsize=11)
            document.save(folder / f"unit-{number:05}.pdf")


def ingest(
    host: Host | None,
    pdfs: Path,
    home: Path,
    environment: dict[str, str],
    meanwhile: Meanwhile | None = None,
) -> float:
    """Seconds of an ingest. meanwhile: done in a thread, told when the ingest has ended."""
    command = [*COMMAND, "ingest", "--pdfs", str(pdfs), "--home", str(home), "--json"]
    prefix = ["ip", "netns", "exec", host.name] if host else []
    began, over = time.monotonic(), threading.Event()
    with subprocess.Popen(
        [*prefix, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, **environment},
    ) as process:
        thread = threading.Thread(target=meanwhile or threading.Event.is_set, args=(over,))
        thread.start()
        out, error = process.communicate()
        over.set()
        thread.join()
    if process.returncode:
        raise SystemExit(f"the ingest failed: {error[-3000:]}")
    said = json.loads(out)
    print(f"    {said['documents']}, {said['chunks']} chunks, {said['questions']} questions")
    return time.monotonic() - began


def compare(expected: dict[str, pl.DataFrame], lake: str, cluster: Cluster) -> None:
    """Say whether each table is as the local engine made it, row for row."""
    folder = cluster.scratch / "dumped"
    shutil.rmtree(folder, ignore_errors=True)
    cluster.inside("dump", lake, str(folder))  # from there: the address is of the network
    for table, wanted in expected.items():
        found = pl.read_parquet(folder / f"{table}.parquet")
        same = found.equals(wanted)
        print(f"    {table}: {found.height} rows, {'equal' if same else 'DIFFERENT'}", flush=True)
        if not same and found.height == wanted.height:
            names = [name for name in wanted.columns if not found[name].equals(wanted[name])]
            print(f"      in {', '.join(names)}")


def on_ray(
    cluster: Cluster, pdfs: Path, name: str, lake: str, meanwhile: Meanwhile | None = None
) -> float:
    """Seconds of an ingest on the cluster into a lake, from a home of its own."""
    environment = {
        **cluster.environment,
        "EMBED_ASSETS_WAREHOUSE": lake,
        "EMBED_ASSETS_ENGINE": "ray",
    }
    return ingest(cluster.head, pdfs, cluster.scratch / name, environment, meanwhile)


def same(cluster: Cluster, pdfs: Path, expected: dict[str, pl.DataFrame]) -> None:
    lake = cluster.new_lake()
    with cluster.at_work():
        print(f"  {on_ray(cluster, pdfs, 'same', lake):.1f} s", flush=True)
    compare(expected, lake, cluster)


def node(cluster: Cluster, pdfs: Path, expected: dict[str, pl.DataFrame]) -> None:
    lake = cluster.new_lake()

    def lose_one(over: threading.Event) -> None:
        if not over.wait(SECONDS_UNTIL_LOST):
            cluster.hosts[WORKERS[0]].kill()
            print(f"    a host is lost after {SECONDS_UNTIL_LOST} s", flush=True)

    with cluster.at_work():
        print(f"  {on_ray(cluster, pdfs, 'node', lake, lose_one):.1f} s", flush=True)
    compare(expected, lake, cluster)


def catalogue(cluster: Cluster, pdfs: Path, expected: dict[str, pl.DataFrame]) -> None:
    lake = cluster.new_lake()
    cuts = 0

    def end_sessions(over: threading.Event) -> None:
        nonlocal cuts
        while not over.wait(SECONDS_BETWEEN_CUTS):
            cluster.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'lake%'"
            )
            cuts += 1

    with cluster.at_work():
        seconds = on_ray(cluster, pdfs, "catalogue", lake, end_sessions)
    print(f"  {seconds:.1f} s; all connections to Postgres were ended {cuts} times", flush=True)
    compare(expected, lake, cluster)


def two(cluster: Cluster, pdfs: Path, expected: dict[str, pl.DataFrame]) -> None:
    lake = cluster.new_lake()
    environment = {**cluster.environment, "EMBED_ASSETS_WAREHOUSE": lake}
    threads = [
        threading.Thread(
            target=ingest, args=(cluster.hosts[name], pdfs, cluster.scratch / name, environment)
        )
        for name in WORKERS
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"  {time.monotonic() - began:.1f} s", flush=True)
    compare(expected, lake, cluster)


def workers(cluster: Cluster, pdfs: Path, expected: dict[str, pl.DataFrame]) -> None:
    del expected  # the rows are not looked at
    for count in (1, 2, 4):
        print(
            f"  local, {count}: {cluster.inside('parse', str(pdfs), 'local', str(count))}", end=""
        )
        with cluster.at_work(count, WORKERS[:1]):
            said = cluster.inside("parse", str(pdfs), "ray", str(count))
        print(f"  ray, {count}: {said}", end="", flush=True)


def encode(cluster: Cluster, pdfs: Path, expected: dict[str, pl.DataFrame]) -> None:
    del pdfs, expected
    here, there = (str(cluster.scratch / f"{name}.npy") for name in ("here", "there"))
    print(f"  local: {cluster.inside('encode', 'local', TEXTS, here)}", end="", flush=True)
    for hosts_at_work in (WORKERS[:1], WORKERS):
        with cluster.at_work(1, hosts_at_work):
            said = cluster.inside("encode", "ray", TEXTS, there)
        apart = float(np.abs(np.load(here) - np.load(there)).max())
        print(f"  ray, hosts {len(hosts_at_work)}: {said}    at most {apart:.1e} apart", flush=True)


def costs(cluster: Cluster, pdfs: Path, expected: dict[str, pl.DataFrame]) -> None:
    del pdfs, expected
    for documents in (1, DOCUMENTS_AT_ONCE):
        for name, lake in (
            ("file", "file"),
            ("lake in a folder", cluster.new_lake(str(cluster.scratch / f"lake-{documents}"))),
            ("lake in a bucket", cluster.new_lake()),
        ):
            said = cluster.inside("transactions", lake, str(documents))
            print(f"  a transaction, {name}, documents {documents}: {said}", end="", flush=True)
    cluster.sql("CREATE DATABASE dagster")
    in_postgres = f"postgresql+psycopg2://postgres@{cluster.head.address}:{POSTGRES}/dagster"
    for name, address in (("files", "files"), ("Postgres", in_postgres)):
        said = cluster.inside("events", address)
        print(f"  Dagster's history in {name}: {said}", end="", flush=True)
    print(f"  local: {cluster.inside('items', 'local', '2')}", end="", flush=True)
    with cluster.at_work():
        print(f"  ray: {cluster.inside('items', 'ray', '2')}", end="", flush=True)


TRIALS = {
    "same": same,
    "node": node,
    "catalogue": catalogue,
    "two": two,
    "workers": workers,
    "encode": encode,
    "costs": costs,
}

if __name__ == "__main__":
    main()
