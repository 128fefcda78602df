"""An OpenLineage receiver hears which asset is made, from what, and how that ended."""

import json
import os
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from logging import getLogger
from typing import Any

import dagster as dg
import polars as pl
import pytest

from embed_assets.partitions import DOCUMENTS, asset
from embed_assets.resources import openlineage
from embed_assets.resources.io_manager import DocumentsIOManager, Slices
from embed_assets.resources.materializing import materializing
from embed_assets.resources.openlineage import LISTED, Made, Making, Sender, current_sender
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import COLUMN_SOURCES, TABLES
from embed_assets_tests.rows import chunk, model, pages, raw_pdf

PATIENCE = 20
KEYS = ("a", "b")


class Receiver(ThreadingHTTPServer):
    """Takes events over HTTP. may_answer: no request is answered before it is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.path_asked = ""
        self.authorization = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take(self, count: int) -> list[dict[str, Any]]:
        """The next events, as they come."""
        return [self.events.get(timeout=PATIENCE) for _ in range(count)]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.path_asked = self.path
        self.server.authorization = self.headers.get("Authorization", "")
        self.server.events.put(json.loads(body))
        self.server.may_answer.wait(PATIENCE)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.may_answer.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch, tmp_path) -> Iterator[None]:
    """No variable of OpenLineage, neither before a test nor left by its client after it."""
    for name in os.environ:
        if name.startswith(("OPENLINEAGE", "EMBED_ASSETS")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EMBED_ASSETS_PROJECT", "reading-room")
    monkeypatch.chdir(tmp_path)
    current_sender.cache_clear()
    yield
    for name in [name for name in os.environ if name.startswith("OPENLINEAGE")]:
        del os.environ[name]
    current_sender.cache_clear()


@pytest.fixture
def told(receiver, monkeypatch) -> Receiver:
    """A receiver that the environment names."""
    monkeypatch.setenv("OPENLINEAGE_URL", receiver.url)
    return receiver


def fail() -> None:
    raise ValueError("the secret of /home/somebody/file")


class House:
    """The assets of the project with bodies that a test decides; and what Dagster logged."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.instance = dg.DagsterInstance.ephemeral()
        self.result: dg.ExecuteInProcessResult | None = None

    def run(self, *assets: dg.AssetsDefinition, keys: Sequence[str] = ()) -> bool:
        """Materialize assets, of these documents if any; whether it went well."""
        batch = {}
        if keys:
            self.instance.add_dynamic_partitions(DOCUMENTS, list(keys))
            names = ("start", "end")
            batch = {
                f"dagster/asset_partition_range_{name}": key
                for name, key in zip(names, (keys[0], keys[-1]), strict=True)
            }
        self.result = dg.materialize(
            list(assets),
            instance=self.instance,
            resources={
                "io_manager": DocumentsIOManager(
                    database=self.warehouse.path, warehouse=self.warehouse
                ),
                "warehouse": self.warehouse,
            },
            tags=batch,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        return self.result.success

    @property
    def run_id(self) -> str:
        assert self.result
        return self.result.run_id

    @property
    def warnings(self) -> list[str]:
        logged = self.instance.all_logs(self.run_id)
        return [e.user_message for e in logged if "OpenLineage" in e.user_message]


@pytest.fixture
def house(tmp_path) -> House:
    """A house in which there is a text to learn from."""
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    warehouse.replace("chunks", chunk("there", "text"))
    return House(warehouse)


def pdfs(*keys: str) -> dg.AssetsDefinition:
    @asset("raw_pdfs", kinds={"pdf"})
    def raw_pdfs(context: dg.AssetExecutionContext) -> Slices:
        return Slices(pl.concat([raw_pdf(key) for key in keys]))

    return raw_pdfs


def markdown(then: Callable[[], None] = lambda: None) -> dg.AssetsDefinition:
    @asset("parsed_markdown", kinds={"python"})
    def parsed_markdown(context: dg.AssetExecutionContext, raw_pdfs: pl.DataFrame) -> pl.DataFrame:
        then()
        return pl.concat([pages(key, "text") for key in raw_pdfs["document_id"]])

    return parsed_markdown


def pieces() -> dg.AssetsDefinition:
    @asset("chunks", kinds={"python"})
    def chunks(context: dg.AssetExecutionContext, parsed_markdown: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([chunk(key, key) for key in parsed_markdown["document_id"]])

    return chunks


def training(then: Callable[[], None] = lambda: None) -> dg.AssetsDefinition:
    @asset("finetuned_model", kinds={"pytorch"})
    def finetuned_model(
        context: dg.AssetExecutionContext, warehouse: Warehouse
    ) -> dg.MaterializeResult:
        with materializing(context, warehouse) as making:
            then()
            with making.storing(data_version="m-run") as transaction:
                made = {"dagster_run_id": context.run.run_id, "trained_from": "2"}
                taken_up = model("3", mlflow_run_id="an earlier run", **made)
                transaction.replace("models", taken_up)
        return making.result()

    return finetuned_model


def comparing() -> dg.AssetsDefinition:
    @asset("comparison", kinds={"python"})
    def comparison(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        with (
            materializing(context, warehouse) as making,
            making.storing(data_version="compared"),
        ):
            pass
        return making.result()

    return comparison


def datasets(event: dict[str, Any], side: str) -> dict[str, dict[str, Any]]:
    assert {each["namespace"] for each in event[side]} == {"reading-room"}
    return {each["name"]: each for each in event[side]}


def test_a_partitioned_asset_is_told_at_its_start_and_once_it_is_stored(house, told):
    assert house.run(pdfs(*KEYS), keys=KEYS)
    start, done = told.take(2)
    assert told.path_asked == "/api/v1/lineage"
    assert (start["eventType"], done["eventType"]) == ("START", "COMPLETE")
    assert start["eventTime"] < done["eventTime"]
    for event in (start, done):
        assert (event["job"]["namespace"], event["job"]["name"]) == ("reading-room", "raw_pdfs")
        assert event["job"]["facets"]["jobType"]["processingType"] == "BATCH"
        assert event["run"]["runId"] == start["run"]["runId"]
        assert uuid.UUID(event["run"]["runId"]) != uuid.UUID(house.run_id)
        parent = event["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == house.run_id
        assert parent["job"]["namespace"] == "reading-room"
        assert event["schemaURL"].startswith("https://openlineage.io/spec/")


def test_the_pdfs_are_the_inputs_of_raw_pdfs(house, told):
    house.run(pdfs(*KEYS), keys=KEYS)
    _, done = told.take(2)
    files = datasets(done, "inputs")
    assert {n: d["facets"]["version"]["datasetVersion"] for n, d in files.items()} == {
        "pdfs/folder/a.pdf": "00",
        "pdfs/folder/b.pdf": "00",
    }


def test_a_table_is_told_with_its_columns_where_they_come_from_and_its_version(house, told):
    house.run(pdfs(*KEYS), markdown(), pieces(), keys=KEYS)
    done = {
        event["job"]["name"]: event for event in told.take(6) if event["eventType"] == "COMPLETE"
    }
    table = datasets(done["chunks"], "outputs")["main.chunks"]
    columns = {(row["name"], row["type"]) for row in table["facets"]["schema"]["fields"]}
    assert columns == {(name, c.sql) for name, c in TABLES["chunks"].columns.items()}
    fields = table["facets"]["columnLineage"]["fields"]
    assert set(fields) == set(COLUMN_SOURCES["chunks"])
    assert [
        (each["namespace"], each["name"], each["field"])
        for each in fields["chunk_text"]["inputFields"]
    ] == [("reading-room", "main.parsed_markdown", "markdown")]
    assert table["outputFacets"]["outputStatistics"]["rowCount"] == 2
    read = datasets(done["chunks"], "inputs")["main.parsed_markdown"]["facets"]["version"]
    made = datasets(done["parsed_markdown"], "outputs")["main.parsed_markdown"]["facets"]["version"]
    assert read["datasetVersion"] == made["datasetVersion"]


def test_the_version_of_one_document_is_that_of_the_ledger(house, told):
    house.run(pdfs("a"), markdown(), keys=["a"])
    done = told.take(4)[-1]
    known = house.warehouse.read(
        "SELECT data_version FROM materializations WHERE asset = 'parsed_markdown'"
    ).item()
    table = datasets(done, "outputs")["main.parsed_markdown"]
    assert table["facets"]["version"]["datasetVersion"] == known


def test_the_documents_of_a_run_are_named_up_to_a_number_and_counted_beyond(told):
    keys = [f"d{n:03}" for n in range(LISTED + 1)]
    files = {f"{key}.pdf": "00" for key in keys}
    making = Making("raw_pdfs", str(uuid.uuid4()), "ingest", getLogger(), keys)
    making.complete(lambda: Made("1", {}, files=files))
    [done] = told.take(1)
    subset = datasets(done, "outputs")["main.raw_pdfs"]["outputFacets"]["subset"]
    named = [each["dimensions"] for each in subset["outputCondition"]["partitions"]]
    assert named[0] == {"document_id": "d000"}
    assert named[LISTED:] == [{"documents": LISTED + 1}]
    assert len(done["inputs"]) == LISTED


def test_a_model_is_told_as_what_the_training_made_and_the_comparison_reads(house, told):
    assert house.run(training())
    assert house.run(comparing())
    _, trained, _, compared = told.take(4)
    of_training = {"main.training_pairs", "main.chunks", "models/v2"}
    assert set(datasets(trained, "inputs")) == of_training, "it went on from version 2"
    made = datasets(trained, "outputs")
    assert set(made) == {"main.models", "models/v3"}
    assert made["models/v3"]["facets"]["version"]["datasetVersion"] == "3"
    assert made["main.models"]["facets"]["version"]["datasetVersion"] == "m-run"
    read = datasets(compared, "inputs")
    assert read["main.models"]["facets"]["version"]["datasetVersion"] == "m-run"
    assert "models/v3" in read


def test_a_failure_is_told_by_its_kind_and_not_by_its_message(house, told):
    assert not house.run(pdfs("a"), markdown(fail), keys=["a"])
    assert not house.run(training(fail))
    of_pages, of_training = (e for e in told.take(6) if e["eventType"] == "FAIL")
    assert (of_pages["job"]["name"], of_training["job"]["name"]) == (
        "parsed_markdown",
        "finetuned_model",
    )
    for event in (of_pages, of_training):
        assert event["run"]["facets"]["errorMessage"]["message"].startswith("ValueError. ")


def test_what_cannot_be_stored_is_told_as_failed(house, told):
    @asset("raw_pdfs", kinds={"pdf"})
    def raw_pdfs(context: dg.AssetExecutionContext) -> Slices:
        return Slices(raw_pdf("of another run"))

    assert not house.run(raw_pdfs, keys=["a"])
    assert [event["eventType"] for event in told.take(2)] == ["START", "FAIL"]


def test_work_that_is_interrupted_is_told_as_aborted(house, told):
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert not house.run(pdfs("a"), markdown(interrupt), keys=["a"])
    assert [event["eventType"] for event in told.take(4)][-1] == "ABORT"


def test_no_secret_and_no_folder_of_this_machine_is_told(house, told, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "a-secret-key")
    house.run(pdfs("a"), markdown(fail), keys=["a"])
    house.run(training())
    said = json.dumps(told.take(6))
    assert told.authorization == "Bearer a-secret-key"
    assert "a-secret-key" not in said
    assert str(tmp_path) not in said
    assert "/home/somebody" not in said


def test_a_receiver_that_does_not_answer_does_not_hold_up_the_work(house, told, monkeypatch):
    monkeypatch.delenv("OPENLINEAGE_URL")
    for name, value in (("TYPE", "http"), ("URL", told.url), ("TIMEOUT", "600")):
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{name}", value)
    told.may_answer.clear()
    assert house.run(pdfs("a"), markdown(), keys=["a"])
    first = told.take(1)
    assert (first[0]["eventType"], told.events.empty()) == ("START", True)
    told.may_answer.set()
    assert len(told.take(3)) == 3


def test_a_receiver_that_is_gone_is_warned_of_once_without_its_password(
    house, free_port, monkeypatch
):
    url = f"http://me:passw0rd@127.0.0.1:{free_port()}"
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", url)
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 0}')
    assert house.run(training())
    said = house.warnings
    wait_for_trouble(current_sender())
    for _ in range(2):
        assert house.run(training())
        said += house.warnings
    assert len(said) == 1
    assert "ConnectionError" in said[0]
    assert "passw0rd" not in said[0]


def test_events_that_a_receiver_has_not_taken_at_the_end_are_counted_once(
    house, told, monkeypatch, caplog
):
    """The client tries for longer than the process waits: it has no error to tell yet."""
    monkeypatch.setenv("OPENLINEAGE_URL", told.url.replace("//", "//me:passw0rd@") + "/?key=s3cret")
    told.may_answer.clear()
    assert house.run(pdfs("a"), markdown(), keys=["a"])
    told.take(1)
    for _ in range(2):
        current_sender().finish(0)
    [said] = warned(caplog)
    assert f"4 events could not be sent to {told.url}/. It has not answered yet." in said
    assert "passw0rd" not in said
    assert "s3cret" not in said


def test_events_that_failed_unnoticed_are_counted_at_the_end_with_the_error(
    house, free_port, monkeypatch, caplog
):
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", url := f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 0}')
    making = Making("chunks", str(uuid.uuid4()), "documents", getLogger("nobody"))
    current_sender().send(openlineage._event(making, "START", None, ""))
    wait_for_trouble(current_sender())
    current_sender().finish(0)
    assert warned(caplog) == [
        f"OpenLineage was not told everything: 1 event could not be sent to {url}. "
        "The error: ConnectionError."
    ]


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was warned of when the process ended; the client logs its own troubles."""
    ours = openlineage.__name__
    return [record.message for record in caplog.records if record.name == ours]


def wait_for_trouble(sender: Sender) -> None:
    deadline = time.monotonic() + PATIENCE
    while sender.trouble is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_where_no_receiver_is_named_the_client_is_not_imported(house, monkeypatch):
    monkeypatch.setitem(sys.modules, "openlineage", None)
    assert house.run(pdfs("a"), markdown(), keys=["a"])
    assert house.warnings == []


def test_where_it_is_disabled_nothing_is_told(house, told, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    monkeypatch.setitem(sys.modules, "openlineage", None)
    assert house.run(pdfs("a"), keys=["a"])
    assert house.warnings == []


def test_a_client_that_is_not_installed_is_said_once(house, told, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "openlineage"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openlineage", None)
    assert house.run(pdfs("a"), markdown(), keys=["a"])
    assert len(house.warnings) == 1
    assert "pip install" in house.warnings[0]


def test_a_process_waits_at_its_end_for_events_that_are_under_way(house, told):
    house.run(pdfs("a"), keys=["a"])
    current_sender().finish(PATIENCE)
    assert told.events.qsize() == 2
