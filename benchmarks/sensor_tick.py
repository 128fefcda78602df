"""How long a tick of the folder's sensor takes, and what a summary needs, with many documents.

    python benchmarks/sensor_tick.py --documents 10000

Files of a few bytes, and rows of the ledger as an ingest leaves them. Nothing is parsed.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from embed_assets.automation.sensors import build_sensors
from embed_assets.automation.state import code_versions
from embed_assets.command.pipeline import Done
from embed_assets.command.status import status_summary
from embed_assets.command.summary import ingest_summary
from embed_assets.definitions import build_definitions
from embed_assets.documents.folder import load_documents, scan
from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.ledger import Materialization, Records, write_made
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

PAGES, PAGE_BYTES = 10, 3000
"""Of each document: what a summary must not read."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=10_000)
    count = parser.parse_args().documents
    with tempfile.TemporaryDirectory() as scratch, dg.DagsterInstance.ephemeral() as instance:
        folder = Path(scratch)
        pdfs = folder / "pdfs"
        pdfs.mkdir()
        settings = Settings(pdfs=pdfs, home=folder / "home")
        warehouse = Warehouse.of(settings)
        for number in range(count):
            (pdfs / f"{number:06}.pdf").write_bytes(f"{number}".encode())
        tick = Ticks(settings, warehouse, instance)
        rows = [("all new, seen first", *tick()), ("all new, asked for", *tick())]
        ingest(settings, warehouse, instance)
        tick.cursor = None
        rows += [("nothing to do", *tick()), ("nothing to do, again", *tick())]
        add = [pdfs / f"new-{number}.pdf" for number in range(10)]
        for file in add:
            file.write_bytes(file.name.encode())
        rows += [("ten new, seen first", *tick()), ("ten new, asked for", *tick())]
        for file in [*pdfs.glob("00000?.pdf"), *add]:
            file.unlink()
        rows += [("ten gone", *tick())]
        for name, seconds, said in rows:
            print(f"{name:<24} {seconds:6.2f} s   {said}")
        print(f"{'ingest summary':<24} {measure(lambda: ingest_summary(settings, Done()))}")
        print(f"{'status':<24} {measure(lambda: status_summary(settings))}")


class Ticks:
    """Ticks of the sensor, one after the other."""

    def __init__(
        self, settings: Settings, warehouse: Warehouse, instance: dg.DagsterInstance
    ) -> None:
        self.settings, self.warehouse, self.instance = settings, warehouse, instance
        self.definitions = build_definitions(settings)
        self.cursor: str | None = None

    def __call__(self) -> tuple[float, str]:
        """Seconds of a tick, and what it asked for."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"settings": self.settings, "warehouse": self.warehouse},
            definitions=self.definitions,
        )
        start = time.perf_counter()
        result = build_sensors(self.settings)[0](context)
        seconds = time.perf_counter() - start
        assert isinstance(result, dg.SensorResult), result
        self.cursor = result.cursor
        asked = f"{len(result.run_requests or [])} runs"
        return seconds, f"{asked}, cursor of {len(json.dumps(self.cursor)) / 1024:.1f} KB"


def ingest(settings: Settings, warehouse: Warehouse, instance: dg.DagsterInstance) -> None:
    """Write what an ingest leaves, but for the questions."""
    found = scan(settings.pdfs)
    raw = load_documents(settings.pdfs, list(found), "run").rows
    texts = pl.DataFrame({"page": list(range(1, PAGES + 1)), "markdown": "x" * PAGE_BYTES})
    pages = raw.select("document_id").join(texts, how="cross")
    pages = pages.with_columns(
        parser_status=pl.lit("SUCCESS"),
        error=pl.lit(None, pl.String),
        text_share=pl.lit(1.0),
        text_source=pl.lit("pdf"),
        parser=pl.lit("p"),
    )
    versions = dict(raw.select("document_id", "sha256").iter_rows())
    first = Records().input_version("raw_pdfs")
    with warehouse.transaction() as transaction:
        transaction.replace("raw_pdfs", raw)
        transaction.replace("parsed_markdown", pages)
        for asset, code in code_versions(settings).items():
            if asset in DOCUMENT_ASSETS:
                inputs = {k: first if asset == "raw_pdfs" else v for k, v in versions.items()}
                made = {k: Materialization(code, inputs[k], v) for k, v in versions.items()}
                write_made(transaction, asset, made, "run")
    known = set(instance.get_dynamic_partitions(DOCUMENTS))
    instance.add_dynamic_partitions(DOCUMENTS, [key for key in found if key not in known])


def measure(call: Callable[[], Any]) -> str:
    """Seconds of a call, and by how much the most memory that the process ever had grew in it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return f"{seconds:6.2f} s   {grown / 1024:.0f} MB more at its peak"


if __name__ == "__main__":
    main()
