"""What many documents cost that are there and unchanged: a sensor's tick, `status`, a run, the UI.

A markdown table, a column for each number of documents; seconds, where nothing else is said.

    python -m benchmarks.partitions 1000 10000 50000 [--partitions 500] [--pages] [--keep FOLDER]

Files of a few bytes. What an ingest leaves of each (ten pages, ten chunks, ten questions, the
ledger, Dagster's partition, its events and its runs) is written in bulk: nothing is parsed, and
Dagster's own way to the events would take .05 s for each. --partitions: that the documents share;
0: each has its own. --pages opens pages of the UI too, in a headless Chromium with an empty cache.
--keep: where the homes stay, to be taken up by a later call.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from embed_assets.automation.plan import EMBEDDINGS, INGEST
from embed_assets.automation.runs import RANGE_END, RANGE_START
from embed_assets.automation.sensors import build_sensors
from embed_assets.automation.state import code_versions, list_documents
from embed_assets.command.instance import prepare_home
from embed_assets.definitions import build_definitions
from embed_assets.documents.checks import ASSET, NAME
from embed_assets.documents.folder import scan
from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.grouping import DOCUMENTS_PER_RUN
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.ledger import Materialization, Records, write_made
from embed_assets.resources.pages import graph_path
from embed_assets.resources.run_tags import BUDGET_TAG
from embed_assets.resources.warehouse import Transaction, Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES

PARTS = 10
"""Pages, chunks and questions of each document."""
WORDS = "The valve opens when the pressure of the brine reaches four bar at the sensor. " * 8
FILES_PER_FOLDER = 500
NEW, NEW_IN_A_RUN = 2_500, 32
"""Documents that come while a sensor watches, and of one ingest by command."""
KEY = "the-key-of-a-document"
"""Stands for it in what is copied for each."""
PAGE_TIMEOUT = 120
QUERIES_END = 12
"""Seconds after which the queries of a page that a person sees have ended."""
ASKED = """return performance.getEntriesByType('resource')
    .filter(entry => entry.name.includes('/graphql'))
    .map(entry => [new URL(entry.name).searchParams.get('op') || 'graphql', entry.duration,
                   entry.decodedBodySize])"""
"""Of a page: names of its queries, their milliseconds and bytes."""
MADE = "made"
"""File that says that a home is complete."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("documents", type=int, nargs="+")
    parser.add_argument("--partitions", type=int, default=0)
    parser.add_argument("--pages", action="store_true")
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    os.environ["EMBED_ASSETS_PARTITIONS"] = str(arguments.partitions)  # of the commands too
    columns: dict[int, dict[str, str]] = {}
    for count in arguments.documents:
        kept = arguments.keep and arguments.keep / f"{count}-{arguments.partitions}"
        with nullcontext(kept) if kept else tempfile.TemporaryDirectory() as folder:
            columns[count] = _measure(Path(folder), count, pages=arguments.pages)
    _print(columns)


def _measure(folder: Path, count: int, *, pages: bool) -> dict[str, str]:
    """What is found with so many documents, by what was done."""
    settings = Settings(pdfs=folder / "pdfs", home=folder / "home")
    found: dict[str, str] = {}
    if not (folder / MADE).exists():
        found["the UI's start lists them all"] = _make_home(settings, count)
        (folder / MADE).touch()
    prepare_home(settings)
    with dg.DagsterInstance.get() as instance:
        found["read the partitions"] = _timed(lambda: instance.get_dynamic_partitions(DOCUMENTS))
        ticks = _Ticks(settings, instance)
        found["a tick, nothing new"] = ticks()
        found["the same again"] = ticks()
        found["`status`"] = _timed(lambda: _command(settings, "status"))
        if pages:
            found |= _pages(settings)
        new = _put(settings, f"of-a-run-{time.time_ns()}", NEW_IN_A_RUN)
        said = _timed(lambda: _command(settings, "ingest"))
        found[f"`ingest` of {len(new)} that are no PDFs"] = said
        new = _put(settings, f"new-{time.time_ns()}", NEW)
        before = len(instance.get_dynamic_partitions(DOCUMENTS))
        found[f"a tick, {NEW:,} new, seen first"] = ticks()
        found["the next, that asks for them"] = ticks()
        added = len(instance.get_dynamic_partitions(DOCUMENTS)) - before
        found["partitions that it added"] = f"{added:,}"
        found["the next, that asks again"] = ticks()
        for file in new:
            file.unlink()
        found["a tick, that removes them"] = ticks()
    return found


def _print(columns: Mapping[int, Mapping[str, str]]) -> None:
    print("| | " + " | ".join(f"{count:,}" for count in columns) + " |")
    print("| --- " * (len(columns) + 1) + "|")
    for name in dict.fromkeys(name for column in columns.values() for name in column):
        print(f"| {name} | " + " | ".join(c.get(name, "") for c in columns.values()) + " |")


def _timed(call: Callable[[], object]) -> str:
    start = time.perf_counter()
    call()
    return f"{time.perf_counter() - start:.2f}"


def _command(settings: Settings, name: str) -> dict[str, Any]:
    where = ["--pdfs", str(settings.pdfs), "--home", str(settings.home), "--json"]
    command = [sys.executable, "-m", "embed_assets.command.cli", name, *where]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


class _Ticks:
    """Ticks of the folder's sensor, one after the other."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self._settings, self._instance = settings, instance
        self._definitions = build_definitions(settings)
        self._cursor: str | None = None

    def __call__(self) -> str:
        """Seconds of a tick, and how many runs it asked for."""
        warehouse = Warehouse.of(self._settings)
        context = dg.build_sensor_context(
            instance=self._instance,
            cursor=self._cursor,
            resources={"settings": self._settings, "warehouse": warehouse},
            definitions=self._definitions,
        )
        start = time.perf_counter()
        result = build_sensors(self._settings)[0](context)
        seconds = time.perf_counter() - start
        assert isinstance(result, dg.SensorResult), result
        self._cursor = result.cursor
        runs = len(result.run_requests or [])
        return f"{seconds:.2f}" + (f" ({runs} runs)" if runs else "")


def _put(settings: Settings, folder: str, count: int) -> list[Path]:
    """Files that have long stopped changing."""
    pdfs, files = Path(str(settings.pdfs)), list[Path]()
    for number in range(count):
        file = pdfs / f"{folder}-{number // FILES_PER_FOLDER}" / f"{number:06}.pdf"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(str(file).encode())
        os.utime(file, (1.7e9, 1.7e9))
        files.append(file)
    return files


def _make_home(settings: Settings, count: int) -> str:
    """A home in which so many documents are ingested; gives the seconds that the UI's listing took.

    They were no partitions before.
    """
    _put(settings, "folder", count)
    prepare_home(settings)
    warehouse = Warehouse.of(settings)
    with dg.DagsterInstance.get() as instance:
        listed = _timed(lambda: list_documents(instance, warehouse, settings))
        keys = list(instance.get_dynamic_partitions(DOCUMENTS))
        documents = [file.document_id for file in scan(settings.pdfs).values()]
        assert sorted(keys) == sorted(settings.grouping.partitions_of(documents))
        with warehouse.transaction() as transaction:
            _write_rows(transaction, settings)
        _write_events(instance, _made_in_runs(instance, settings, documents))
    return listed


def _write_rows(transaction: Transaction, settings: Settings) -> None:
    """What an ingest leaves in the warehouse."""
    now = pl.lit(datetime.now(UTC))
    found = scan(settings.pdfs).values()
    raw = pl.DataFrame(
        {
            "document_id": [file.document_id for file in found],
            "path": [file.path for file in found],
            "size_bytes": [file.size_bytes for file in found],
            "modified_at": [file.modified_at for file in found],
        },
        schema_overrides={"modified_at": pl.Datetime("us", "UTC")},
    ).with_columns(
        file_name="path",
        content=pl.col("path").cast(pl.Binary),
        sha256="document_id",
        etag=pl.lit(None, pl.String),
        loaded_at=now,
        loaded_by=pl.lit("run"),
    )
    parts = raw.select("document_id", "file_name").join(
        pl.DataFrame({"part": range(PARTS)}), how="cross"
    )
    name = pl.format("{}-{}", "document_id", "part")
    pages = parts.with_columns(
        page=pl.col("part") + 1,
        markdown=pl.lit(WORDS),
        parser_status=pl.lit("SUCCESS"),
        error=pl.lit(None, pl.String),
        parser=pl.lit("p"),
        text_share=pl.lit(1.0),
        text_source=pl.lit("pdf"),
    )
    chunks = parts.with_columns(
        chunk_index="part",
        chunk_id=name,
        chunk_text=pl.format("{} {}", name, pl.lit(WORDS)),
        heading_path=pl.lit(""),
        page_start=pl.lit(1),
        page_end=pl.lit(1),
        token_count=pl.lit(100),
    )
    questions = parts.with_columns(
        question_id=name,
        chunk_id=name,
        relevant_chunk_ids=pl.concat_list(name),
        question=pl.format("What opens at four bar in {}?", name),
        answer=pl.lit(None, pl.String),
        kind=pl.lit("question"),
        purpose=pl.lit("train"),
        generator=pl.lit("extractive"),
        prompt_version=pl.lit("1"),
        status=pl.lit("KEPT"),
        reason=pl.lit(None, pl.String),
        score=pl.lit(1.0),
        input_tokens=pl.lit(0),
        output_tokens=pl.lit(0),
        created_at=now,
    )
    frames = (raw, pages, chunks, questions)
    tables = ("raw_pdfs", "parsed_markdown", "chunks", "synthetic_questions")
    for table, rows in zip(tables, frames, strict=True):
        transaction.replace(table, rows.select(list(TABLES[table].columns)))
    first = Records().input_version("raw_pdfs")
    for asset, code in code_versions(settings).items():
        if asset in DOCUMENT_ASSETS:
            inputs = {key: first if asset == "raw_pdfs" else key for key in raw["document_id"]}
            # Without embeddings there is no search index to make.
            made = {
                key: Materialization(code, inputs[key], "" if asset == EMBEDDINGS else key)
                for key in inputs
            }
            write_made(transaction, asset, made, "run")


def _made_in_runs(
    instance: dg.DagsterInstance, settings: Settings, documents: list[str]
) -> list[tuple[str, str]]:
    """Partitions and runs on record that made documents of them."""
    grouping, made = settings.grouping, list[tuple[str, str]]()
    if grouping.partitions:  # as an ingest has them: neighbours are made together
        documents = sorted(documents, key=grouping.partition_of)
    for start in range(0, len(documents), DOCUMENTS_PER_RUN):
        batch = documents[start : start + DOCUMENTS_PER_RUN]
        keys = grouping.partitions_of(batch)
        tags = {RANGE_START: keys[0], RANGE_END: keys[-1], BUDGET_TAG: "wave"}
        tags |= grouping.tags(batch)
        run = dg.DagsterRun(job_name=INGEST, tags=tags, status=dg.DagsterRunStatus.SUCCESS)
        run_id = instance.run_storage.add_run(run).run_id
        made += [(key, run_id) for key in keys]
    return made


def _write_events(instance: dg.DagsterInstance, made_by: list[tuple[str, str]]) -> None:
    """Materializations and checks of all documents: one of each by Dagster, the others copied."""
    from dagster._core.storage.event_log.schema import (  # Dagster doesn't export them
        AssetCheckExecutionsTable,
        SqlEventLogStorageTable,
    )

    for asset in DOCUMENT_ASSETS:
        shown = {"preview": dg.MetadataValue.md(WORDS), "dagster/partition_row_count": PARTS}
        made = dg.AssetMaterialization(asset, partition=KEY, metadata=shown)
        instance.report_runless_asset_event(made)
        _copy(instance, SqlEventLogStorageTable, made_by)
        # What Dagster keeps of each asset's last one must be of one that is there.
        made = dg.AssetMaterialization(asset, partition=made_by[-1][0], metadata=shown)
        instance.report_runless_asset_event(made)
    judged = dg.AssetCheckEvaluation(
        asset_key=ASSET, check_name=NAME, passed=True, metadata={"pages": PARTS}, partition=KEY
    )
    instance.report_runless_asset_event(judged)
    _copy(instance, AssetCheckExecutionsTable, made_by)
    _drop(instance, SqlEventLogStorageTable)


def _copy(instance: dg.DagsterInstance, table: Any, made_by: list[tuple[str, str]]) -> None:
    """Put a row for each partition of a run in place of the one that stands for them all."""
    log: Any = instance.event_log_storage
    with log.index_connection() as connection:
        chosen = table.select().where(table.c.partition == KEY)
        row = dict(connection.execute(chosen).mappings().one())
    _drop(instance, table)
    del row["id"]
    texts = {name: text for name, text in row.items() if isinstance(text, str) and KEY in text}
    rows = [
        {**row, **{name: text.replace(KEY, key) for name, text in texts.items()}, "run_id": run_id}
        for key, run_id in made_by
    ]
    with log.index_connection() as connection:
        connection.execute(table.insert(), rows)


def _drop(instance: dg.DagsterInstance, table: Any) -> None:
    log: Any = instance.event_log_storage
    with log.index_connection() as connection:
        connection.execute(table.delete().where(table.c.partition == KEY))


def _pages(settings: Settings) -> dict[str, str]:
    """Pages of the UI: seconds until what is looked for is seen, and the slowest of its queries."""
    [key] = settings.grouping.partitions_of([next(iter(scan(settings.pdfs)))])
    asset = "/assets/parsed_markdown"
    pages = {
        "the graph": (graph_path(), "comparison"),
        "an asset": (f"{asset}?view=overview", "parsed_markdown"),
        "its partitions": (f"{asset}?view=partitions", key),
        "one partition": (f"{asset}?view=partitions&partition={key}", key),
    }
    found: dict[str, str] = {}
    start = time.perf_counter()
    with _ui(settings) as address:
        found["`ui` until its pages are there"] = f"{time.perf_counter() - start:.1f}"
        for name, (path, text) in pages.items():
            found[f"page: {name}"] = _page(f"{address}{path}", text)
    return found


@contextmanager
def _ui(settings: Settings) -> Iterator[str]:
    """Dagster's pages of a home; gives their address."""
    ports = [_free_port(), _free_port()]
    where = ["--pdfs", str(settings.pdfs), "--home", str(settings.home), "--json"]
    options = [*where, "--port", str(ports[0]), "--mlflow-port", str(ports[1])]
    command = [sys.executable, "-m", "embed_assets.command.cli", "ui", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        try:
            while line := process.stdout.readline():
                if f'"http://127.0.0.1:{ports[0]}"' in line:
                    break
            yield f"http://127.0.0.1:{ports[0]}"
        finally:
            process.send_signal(signal.SIGINT)
            process.stdout.read()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _page(address: str, text: str) -> str:
    """Seconds until a text is seen and no query is under way any more, and the slowest queries."""
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    options = webdriver.ChromeOptions()
    for option in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1600,1200"):
        options.add_argument(f"--{option}")
    browser = webdriver.Chrome(options=options)
    try:
        browser.set_page_load_timeout(PAGE_TIMEOUT)
        start = time.perf_counter()
        browser.get(address)
        seen = f"//*[not(*)][contains(normalize-space(), '{text}')]"
        WebDriverWait(browser, PAGE_TIMEOUT, poll_frequency=0.1).until(
            lambda b: any(one.is_displayed() for one in b.find_elements(By.XPATH, seen))
        )
        seconds = time.perf_counter() - start
        time.sleep(QUERIES_END)
        asked = browser.execute_script(ASKED)
        slowest = ", ".join(
            f"{op} {took / 1000:.1f} ({size / 1e6:.1f} MB)"
            for op, took, size in sorted(asked, key=lambda one: -one[1])[:2]
        )
        return f"{seconds:.1f}; {slowest}"
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
