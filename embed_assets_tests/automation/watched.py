"""A PDF folder that sensors watch: its home, its Dagster instance, and their ticks."""

from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

import dagster as dg
from dagster._core.test_utils import create_run_for_test

from embed_assets.automation import sensors as sensors_module
from embed_assets.automation.sensors import build_sensors
from embed_assets.automation.state import code_versions
from embed_assets.definitions import build_definitions
from embed_assets.documents.folder import load_documents, scan
from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.ledger import (
    Cause,
    Failure,
    Materialization,
    Records,
    next_attempt,
    read_records,
    write_made,
    write_tried,
)
from embed_assets.resources.run_tags import BUDGET_TAG
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

KILLED = Failure(Cause.PROCESS_ENDED, "its process ended with exit code -9")


class Project:
    """A PDF folder, its home and its Dagster instance."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.pdfs = folder / "pdfs"
        self.pdfs.mkdir()
        self.settings = Settings(pdfs=self.pdfs, home=folder / "home")
        self.warehouse = Warehouse.of(self.settings)
        self.instance = instance
        self.definitions = build_definitions(self.settings)
        self.cursors: dict[str, str | None] = {}
        self.said = ""
        self.asks_for_index = False

    def put(self, *names: str, content: bytes | None = None) -> None:
        for name in names:
            file = self.pdfs / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(name.encode() if content is None else content)

    def key(self, name: str) -> str:
        return next(key for key, file in scan(self.pdfs).items() if file.path == name)

    @property
    def partitions(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions(DOCUMENTS))

    def ingest(self) -> None:
        """Say of every document in the folder that all has been made of it."""
        found = scan(self.pdfs)
        slices = load_documents(self.pdfs, list(found), "run")
        versions = dict(slices.rows.select("document_id", "sha256").iter_rows())
        with self.warehouse.transaction() as transaction:
            transaction.replace("raw_pdfs", slices.rows)
            for asset, code in code_versions(self.settings).items():
                if asset in DOCUMENT_ASSETS:
                    inputs = Records().input_version("raw_pdfs") if asset == "raw_pdfs" else None
                    made = {k: Materialization(code, inputs or v, v) for k, v in versions.items()}
                    write_made(transaction, asset, made, "run")
        self.instance.add_dynamic_partitions(DOCUMENTS, list(found))

    def lose_one_of_two(self) -> None:
        """a.pdf and b.pdf are ingested, and a.pdf leaves."""
        self.put("a.pdf", "b.pdf")
        self.ingest()
        (self.pdfs / "a.pdf").unlink()

    def fail(self, asset: str, key: str, at: datetime, failure: Failure = KILLED) -> None:
        """Say that an asset of a document was tried in vain, on what there is."""
        made_from = read_records(self.warehouse).input_version(asset, key)
        code = code_versions(self.settings)[asset]
        attempt = next_attempt(None, failure, code, made_from, at)
        with self.warehouse.transaction() as transaction:
            write_tried(transaction, asset, {key: attempt}, "run")

    def run(self, job: str, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
        """A run of a job that is on record; the plan asked for it."""
        asked = {BUDGET_TAG: "wave", **tags}
        return create_run_for_test(self.instance, job_name=job, status=status, tags=asked)

    def tick(self, sensor: str = "pdf_folder") -> list[dg.RunRequest]:
        """What a sensor asks for; `said`: why it asks for nothing."""
        sensors = {known.name: known for known in build_sensors(self.settings)}
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor),
            resources={"settings": self.settings, "warehouse": self.warehouse},
            definitions=self.definitions,
        )
        follows = nullcontext() if self.asks_for_index else patch.object(sensors_module, "_index")
        with follows as asked:
            if asked is not None:
                asked.return_value = []
            result = sensors[sensor](context)
        self.said = ""
        if isinstance(result, dg.SensorResult):
            self.cursors[sensor] = result.cursor
            if isinstance(result.skip_reason, dg.SkipReason):
                self.said = str(result.skip_reason.skip_message)
            return list(result.run_requests or [])
        assert isinstance(result, dg.SkipReason)
        self.said = str(result.skip_message)
        return []


def assets_of(request: dg.RunRequest) -> tuple[str, ...]:
    return tuple(key.to_user_string() for key in request.asset_selection or [])
