"""A project that the command ingests: real runs, and a reader in place of the parser."""

import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from embed_assets.command.pipeline import Done, bring_up_to_date
from embed_assets.command.status import status_summary
from embed_assets.command.summary import ingest_summary
from embed_assets.resources.warehouse import Warehouse
from embed_assets.resources.workers import WorkerPool
from embed_assets.settings import Settings
from embed_assets_tests.in_process import start
from embed_assets_tests.readers import READ, read
from embed_assets_tests.tiny_model import make_tiny_model

START = WorkerPool.start
SENTENCES = (
    "The valve opens when the pressure of the brine reaches four bar at the sensor.",
    "A winch lifts the float in two days where the heat of the engine allows it.",
    "The warranty covers every bolt of the pump that is tightened with the torque shown.",
    "Calibration takes the temperature of the salt as a value for each section of the table.",
)


class Project:
    """A folder of files that a reader reads, and its home."""

    def __init__(self, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pdfs = folder / "pdfs"
        self.pdfs.mkdir()
        self.settings = Settings(pdfs=self.pdfs, home=folder / "home", model=str(model), workers=1)
        self.warehouse = Warehouse.of(self.settings)
        self.log = folder / "read"
        self.monkeypatch = monkeypatch
        monkeypatch.setenv(READ, str(self.log))
        self.read_with(read)

    def read_with(self, reader: Any, *, in_processes: bool = False) -> None:
        """in_processes: in worker processes, two or three seconds each, as it is outside tests."""
        self.monkeypatch.setattr("embed_assets.documents.parsing.parse_pages", reader)
        self.monkeypatch.setattr(WorkerPool, "start", START if in_processes else start)

    def put(self, *names: str, says: str = "") -> None:
        """Files with a text of their own that have been there for a while. says: what it begins
        with.
        """
        for name in names:
            file = self.pdfs / name
            file.parent.mkdir(parents=True, exist_ok=True)
            stem = file.stem
            text = "\n\n".join(f"{sentence} So says the {stem}." for sentence in SENTENCES)
            file.write_text(f"{says or stem} {text}")
            os.utime(file, (1_700_000_000, 1_700_000_000 + len(says)))

    def ingest(self, **settings: Any) -> Done:
        agreed = settings.pop("agreed", False)
        chosen = self.settings.model_copy(update=settings)
        return bring_up_to_date(chosen, train=False, agreed=agreed)

    def summary(self, done: Done) -> dict[str, Any]:
        return ingest_summary(self.settings, done)

    def status(self, **settings: Any) -> dict[str, Any]:
        return status_summary(self.settings.model_copy(update=settings))

    @property
    def times_read(self) -> list[str]:
        """First word of each file that was read, in order."""
        return self.log.read_text().split() if self.log.exists() else []

    @property
    def contents(self) -> dict[str, list[tuple]]:
        """What was made of the documents, without their ids and names."""
        columns = {
            "parsed_markdown": "page, markdown",
            "chunks": "chunk_index, chunk_id, chunk_text",
            "synthetic_questions": "question_id, chunk_id, question, status",
        }
        return {
            table: self.warehouse.read(f"SELECT {named} FROM {table} ORDER BY ALL").rows()
            for table, named in columns.items()
        }

    def chunks_of(self, name: str) -> list[str]:
        sql = (
            "SELECT chunk_text FROM chunks JOIN raw_pdfs USING (document_id) WHERE path = ? "
            "ORDER BY chunk_index"
        )
        return self.warehouse.read(sql, [name])["chunk_text"].to_list()

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.get()


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def project(tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", "")  # the command sets it: it must not outlive the test
    monkeypatch.setattr("embed_assets.command.pipeline.LONGEST_WAIT", 0.0)
    return Project(tmp_path, small_model, monkeypatch)
