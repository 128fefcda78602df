"""PDFs that come and go at every phase of what the sensors ask for: none is lost, none stays."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from embed_assets.automation.plan import INGEST
from embed_assets.automation.runs import TRAIN
from embed_assets.definitions import build_definitions, build_resources
from embed_assets.models.registry import newest_model
from embed_assets.pairs.splits import TRAIN as TRAINS
from embed_assets.resources.tracking import Tracking
from embed_assets.settings import Settings
from embed_assets.training.preparation import pairs_to_train, read_pairs
from embed_assets_tests.automation.watched import Project
from embed_assets_tests.readers import ENOUGH, READ, read, write_documents
from embed_assets_tests.tiny_model import make_tiny_model

pytestmark = pytest.mark.usefixtures("in_process")
AT: dict[str, Callable[[], None]] = {}
"""What happens, once, when an asset begins to be made."""


class Eventful(Tracking):
    """Where runs are tracked; something happens in the folder meanwhile."""

    @contextmanager
    def run(self, context: dg.AssetExecutionContext, name: str) -> Iterator[str]:
        with super().run(context, name) as run_id:
            happens = AT.pop(context.asset_key.path[-1], None)
            if happens:
                happens()
            yield run_id


class Living(Project):
    """A folder whose sensors are listened to: what they ask for is carried out."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        super().__init__(folder, instance)
        model = make_tiny_model(folder / "model")
        self.settings = Settings(
            pdfs=self.pdfs,
            home=folder / "home",
            model=str(model),
            workers=1,
            epochs=1,
            filters="none",
            retrain_share=0.0,
            retrain_pause_hours=0.0,
        )
        tracking = Eventful(**build_resources(self.settings)["tracking"].model_dump())
        self.definitions = build_definitions(self.settings, {"tracking": tracking})

    def carry_out(self, job: str, request: dg.RunRequest) -> None:
        self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            asset_selection=list(request.asset_selection or ()),
            tags=dict(request.tags),
        )

    def ingest(self) -> None:
        """What pdf_folder asks for until it asks for nothing."""
        quiet = 0
        while quiet < 2:
            requests = self.tick()
            quiet = 0 if requests else quiet + 1
            for request in requests:
                self.carry_out(INGEST, request)

    def ingest_meanwhile(self, name: str) -> None:
        """One more document, brought up to date in the midst of another run."""
        write_documents(self.pdfs, name)
        thread = threading.Thread(target=self.ingest)
        thread.start()
        thread.join()

    def live(self) -> list[tuple[str, ...]]:
        """Carry out what both ask for until neither asks; what was made of all documents."""
        made = []
        while True:
            self.ingest()
            requests = self.tick("retraining")
            if not requests:
                return made
            for request in requests:
                made.append(tuple(key.path[-1] for key in request.asset_selection or ()))
                self.carry_out(TRAIN, request)

    def trained_on_what_is_there(self) -> bool:
        model = newest_model(self.warehouse)
        kept = pl.read_parquet(Path(model["path"]) / "pairs.parquet")
        pairs = pairs_to_train(read_pairs(self.warehouse).filter(split=TRAINS), self.settings)
        return set(kept["question_id"]) == set(pairs["question_id"])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Living]:
    monkeypatch.setenv(READ, str(tmp_path / "read"))
    monkeypatch.setattr("embed_assets.documents.parsing.parse_pages", read)
    with dg.instance_for_test() as instance:
        yield Living(tmp_path, instance)
    AT.clear()


def test_no_document_is_lost_whenever_it_comes_or_goes(project):
    write_documents(project.pdfs, *ENOUGH)
    AT["base_eval"] = lambda: write_documents(project.pdfs, "while-it-scored")
    AT["finetuned_model"] = lambda: project.ingest_meanwhile("while-it-trained")
    AT["comparison"] = lambda: os.unlink(project.pdfs / "alder.pdf")
    made = project.live()
    assert made, project.said
    first, *later = made
    assert first == ("training_pairs", "base_eval", "finetuned_model", "comparison")
    assert later == [("training_pairs",), ("base_eval", "finetuned_model", "comparison")]
    paths = set(project.warehouse.paths().values())
    assert paths == {file.name for file in project.pdfs.iterdir()}
    assert len(paths) == 7
    assert set(project.partitions) == set(project.warehouse.paths())
    assert newest_model(project.warehouse)["version"] == "2"
    assert project.trained_on_what_is_there()
    assert project.said.startswith("The newest version was trained on the ")
