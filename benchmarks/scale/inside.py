"""What is measured on a host: `python inside.py WHAT …`, in the environment of the cluster."""

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from embed_assets.automation.runs import RANGE_END, RANGE_START
from embed_assets.command.instance import prepare_home
from embed_assets.documents.parsing import parse_documents
from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.models.card import model_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.partitions import BATCHES, DOCUMENTS, documents
from embed_assets.resources.event_log import kept_open
from embed_assets.resources.ledger import Materialization, write_made
from embed_assets.resources.warehouse import Warehouse
from embed_assets.resources.workers import WorkerPool
from embed_assets.settings import Engine, Settings
from embed_assets.tables import TABLES
from embed_assets_tests.rows import pages, raw_pdf

COMPARED = (*DOCUMENT_ASSETS, "materializations")
SAID_BY_RUN = {"materializations": {"dagster_run_id", "materialized_at"}}
"""Columns that differ from run to run, beside those that a table says."""
DOCUMENTS_AT_ONCE = 32
WORDS = (
    *("valve", "pump", "seal", "bearing", "filter", "pressure", "torque", "flange", "gasket"),
    *("shaft", "rotor", "housing", "coupling", "sensor", "relay", "breaker", "conduit", "bolt"),
)


def dump(lake: str, folder: str) -> None:
    """Write the tables of a lake as Parquet."""
    Path(folder).mkdir(parents=True)
    for table in COMPARED:
        rows(Warehouse(path="none", lake=lake), table).write_parquet(f"{folder}/{table}.parquet")


def rows(warehouse: Warehouse, table: str) -> pl.DataFrame:
    """What a table holds, whoever wrote it and when."""
    volatile = TABLES[table].volatile | SAID_BY_RUN.get(table, set())
    columns = ", ".join(f'"{name}"' for name in TABLES[table].columns if name not in volatile)
    order = ", ".join(TABLES[table].key)
    return warehouse.read(f"SELECT {columns} FROM {table} ORDER BY {order}")


def parse(folder: str, engine: Engine, processes: str) -> None:
    """Seconds of parsing all PDFs of a folder."""
    contents = [file.read_bytes() for file in sorted(Path(folder).glob("*.pdf"))]
    found = pl.concat([raw_pdf(f"d{n:05}", content) for n, content in enumerate(contents)])
    found = found.with_columns(sha256="document_id")  # what is the same is parsed once
    pool = WorkerPool(engine=engine, processes=int(processes), timeout=300)
    warm = found.head(2 * max(1, int(processes)))
    parse_documents(warm, warm["document_id"].to_list(), pool)
    began = time.monotonic()
    made = parse_documents(found, found["document_id"].to_list(), pool)
    seconds = time.monotonic() - began
    assert made.rows["parser_status"].unique().to_list() == ["SUCCESS"]
    print(f"{seconds:.1f} s, {len(contents) / seconds:.2f} documents/s, workers started included")


def double(number: int) -> int:
    return 2 * number


def items(engine: Engine, processes: str) -> None:
    """Milliseconds of an item that does nothing."""
    pool = WorkerPool(engine=engine, processes=int(processes), timeout=300)
    with pool.start(int(processes)) as workers:
        list(workers.map(double, range(50)))
        began = time.monotonic()
        list(workers.map(double, range(2000)))
    print(f"{(time.monotonic() - began) / 2:.2f} ms an item")


def encode(engine: Engine, texts: str, file: str) -> None:
    """Embed so many texts of some hundred tokens by the base model; the matrix goes to a file."""
    import numpy as np

    chosen = random.Random(1)
    given = [f"Unit {n}: {' '.join(chosen.choices(WORDS, k=150))}" for n in range(int(texts))]
    settings = Settings(engine=engine, precision="fp32")
    with tempfile.TemporaryDirectory() as scratch:
        warehouse = Warehouse(path=f"{scratch}/w.duckdb")
        encoder = CachedEncoder(warehouse, model_card(settings), settings)
        began = time.monotonic()
        matrix = encoder.encode_documents(given)
        seconds = time.monotonic() - began
    np.save(file, matrix)
    print(f"{seconds:.1f} s, {len(given) / seconds:.1f} texts/s, models loaded and rows kept")


def transactions(lake: str, documents: str) -> None:
    """Milliseconds of a transaction that replaces slices of pages and their rows in the ledger.

    lake: `file` for a DuckDB file. documents: whose slices are replaced together.
    """
    with tempfile.TemporaryDirectory() as scratch:
        address = "" if lake == "file" else lake
        warehouse = Warehouse(path=f"{scratch}/w.duckdb", lake=address)
        taken = []
        for number in range(40):
            keys = [f"d{number:03}-{n:03}" for n in range(int(documents))]
            slices = pl.concat([pages(key, "x" * 3000) for key in keys])
            records = {key: Materialization("1", "in", "out") for key in keys}
            began = time.monotonic()
            with warehouse.transaction() as transaction:
                transaction.replace("parsed_markdown", slices, {"document_id": keys})
                write_made(transaction, "parsed_markdown", records, "run")
            taken.append(time.monotonic() - began)
        began = time.monotonic()
        for _ in range(20):
            warehouse.read("SELECT count(*), max(length(markdown)) FROM parsed_markdown")
        read = (time.monotonic() - began) / 20
    taken.sort()
    print(f"{1000 * taken[len(taken) // 2]:.0f} ms, a read of all of it {1000 * read:.0f} ms")


def events(address: str) -> None:
    """Milliseconds that Dagster takes for each document of a run, beside the work.

    address: of the history in Postgres; `files` for SQLite's.
    """
    with tempfile.TemporaryDirectory() as scratch:
        storage = "" if address == "files" else address
        prepare_home(Settings(home=Path(scratch), dagster_storage=storage))

        @dg.asset(partitions_def=documents, backfill_policy=BATCHES)
        def made() -> None:
            return None

        keys = [f"d{number:03}" for number in range(4 * DOCUMENTS_AT_ONCE)]
        taken = []
        with dg.DagsterInstance.get() as instance, kept_open(instance):
            instance.add_dynamic_partitions(DOCUMENTS, keys)
            for start in range(0, len(keys), DOCUMENTS_AT_ONCE):
                batch = keys[start : start + DOCUMENTS_AT_ONCE]
                began = time.monotonic()
                dg.materialize(
                    [made],
                    instance=instance,
                    tags={RANGE_START: batch[0], RANGE_END: batch[-1]},
                    run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                )
                taken.append((time.monotonic() - began) / len(batch))
    print(f"{1000 * sorted(taken)[len(taken) // 2]:.1f} ms a document and asset")


if __name__ == "__main__":
    measures: list[Any] = [dump, parse, encode, items, transactions, events]
    {measure.__name__: measure for measure in measures}[sys.argv[1]](*sys.argv[2:])
