"""Brings the project up to date from a terminal: what is stale is made, as Dagster runs.

What is stale is decided in `staleness.py`, what the folder means for the partitions in
`documents/folder.py`; here the runs are started, one batch of documents each.
"""

import logging
import os
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
import typer
from filelock import Timeout

from embed_assets.automation.sensors import (
    BY_COMMAND,
    RANGE_END,
    RANGE_START,
    UNFINISHED,
    batches,
    command_lock,
    end_dead_runs,
)
from embed_assets.automation.staleness import (
    DOCUMENT_ASSETS,
    read_materializations,
    stale_document_assets,
    stale_training_assets,
)
from embed_assets.definitions import INGEST, TRAIN, build_definitions, code_versions
from embed_assets.documents.folder import (
    changed_documents,
    check_same_folder,
    partitions_to_sync,
    scan,
)
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.evaluation.baselines import check_baselines, failed_baselines
from embed_assets.models.card import embedding_size, matryoshka_dimensions, model_card
from embed_assets.partitions import DOCUMENTS
from embed_assets.questions.assets import BUDGET_TAG
from embed_assets.questions.generation import check_generator
from embed_assets.questions.labelled_files import read_labelled
from embed_assets.questions.statuses import ASK_AGAIN
from embed_assets.resources.warehouse import UNPARTITIONED, Warehouse
from embed_assets.settings import Settings
from embed_assets.terminal import terminal_kept

REPOSITORY = ".dagster/repository"
"""The tag by which the UI shows a run under its job."""

ROUNDS = 4
"""A chain settles in as many rounds as it has links that may come out unchanged."""


class RunFailedError(ProjectError):
    """A Dagster run failed; the message says which step and why."""


class Pipeline:
    """The project under some settings, with what its runs took."""

    def __init__(self, settings: Settings) -> None:
        """SettingsError before any work is done if the folder, model or generator is wrong."""
        self.settings = settings
        self.found = scan(settings.pdfs)
        if not self.found:
            raise SettingsError(f"EMBED_ASSETS_PDFS: there are no PDFs in {settings.pdfs}.")
        check_generator(settings)
        read_labelled(settings.labelled_files, settings.labelled_purpose)
        self.versions = code_versions(settings)  # looks for the model
        matryoshka_dimensions(embedding_size(model_card(settings).source), settings.dimensions)
        prepare_home(settings)
        self.warehouse = Warehouse(path=str(settings.warehouse))
        check_baselines(self.warehouse, settings)
        self.definitions = build_definitions(settings)
        self.seconds: dict[str, float] = defaultdict(float)
        self.materialized: set[str] = set()
        self.read: set[str] = set()
        self.asked: set[str] = set()
        self.command = uuid.uuid4().hex

    def ingest(self) -> None:
        """Bring the partitions in line with the folder, and every document up to its questions."""
        with self._alone(), dg.DagsterInstance.get() as instance:
            self._sync_partitions(instance)
            for _ in range(ROUNDS):
                work = self._stale_documents(instance)
                if not work:
                    return
                for assets, keys in work:
                    self._execute(instance, INGEST, assets, keys)

    def train(self) -> None:
        """Make the pairs, the evaluation, the model and the comparison, whichever are stale."""
        with self._alone(), dg.DagsterInstance.get() as instance:
            for _ in range(ROUNDS):
                made = read_materializations(self.warehouse)
                again = self._left_out()
                assets = stale_training_assets(self.warehouse, made, self.versions, again)
                if not assets:
                    return
                self._execute(instance, TRAIN, assets)

    def _left_out(self) -> tuple[str, ...]:
        """base_eval where a baseline failed the last time, once in a command: it may answer now."""
        evaluated = self.warehouse.data_versions("base_eval").get(UNPARTITIONED, "")
        if "base_eval" in self.materialized or not failed_baselines(self.warehouse, evaluated):
            return ()
        return ("base_eval",)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with command_lock(self.settings.home):
                yield
        except Timeout:
            raise ProjectError(
                f"Another embed-assets command is at work on {self.settings.home}. "
                "Wait for it to end, or give another --home."
            ) from None

    def _sync_partitions(self, instance: dg.DagsterInstance) -> None:
        existing = instance.get_dynamic_partitions(DOCUMENTS)
        check_same_folder(self.found, existing, self.settings.pdfs)
        end_dead_runs(instance, self.settings.home)
        busy = instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)) > 0
        add, delete = partitions_to_sync(list(self.found), existing, existing if busy else [])
        if delete:
            typer.echo(f"{len(delete)} documents left the folder.", err=True)
            self.warehouse.delete_documents(delete)
            for key in delete:
                instance.delete_dynamic_partition(DOCUMENTS, key)
        if add:
            instance.add_dynamic_partitions(DOCUMENTS, add)

    def _stale_documents(
        self, instance: dg.DagsterInstance
    ) -> list[tuple[tuple[str, ...], list[str]]]:
        """(assets, documents) of each run to start; those that need the same assets together."""
        made = read_materializations(self.warehouse)
        loaded = self.warehouse.read("SELECT document_id, size_bytes, modified_at FROM raw_pdfs")
        touched = set(changed_documents(self.found, loaded)) - self.read
        self.read |= touched
        unfinished = self._cut_off()
        unasked = self._unasked()
        groups: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for key in self.found:
            assets = stale_document_assets(key, made, self.versions)
            if key in unfinished:
                assets = assets or DOCUMENT_ASSETS[1:]
            if key in unasked:
                assets = assets or DOCUMENT_ASSETS[3:]
            if key in touched and assets != DOCUMENT_ASSETS:
                # Perhaps only the file's time changed: read it, and see whether its bytes did.
                assets = ("raw_pdfs",)
            if assets:
                groups[assets].add(key)
        order = instance.get_dynamic_partitions(DOCUMENTS)
        return [
            (assets, batch) for assets, keys in groups.items() for batch in batches(order, keys)
        ]

    def _cut_off(self) -> set[str]:
        """Documents whose parsing ran into a time limit that is higher now."""
        limits = self.warehouse.read(
            "SELECT document_id, regexp_extract(error, 'took longer than (\\d+) s', 1) AS limit_s "
            "FROM parsed_markdown WHERE error LIKE 'took longer than %'"
        )
        return {
            key for key, limit in limits.iter_rows() if float(limit) < self.settings.parse_timeout
        }

    def _unasked(self) -> set[str]:
        """Documents of which a chunk has no questions yet, each once in a command."""
        rows = self.warehouse.read(
            "SELECT DISTINCT document_id FROM synthetic_questions "
            "WHERE status IN (SELECT unnest(?::VARCHAR[]))",
            [list(ASK_AGAIN)],
        )
        unasked = set(rows["document_id"]) - self.asked
        self.asked = set(self.found)
        return unasked

    def _execute(
        self,
        instance: dg.DagsterInstance,
        job: str,
        assets: Sequence[str],
        keys: Sequence[str] = (),
    ) -> None:
        batch = {RANGE_START: keys[0], RANGE_END: keys[-1]} if keys else {}
        what = f"{len(keys)} documents: " if keys else ""
        typer.echo(f"{what}{', '.join(assets)}", err=True)
        with terminal_kept():
            result = self.definitions.resolve_job_def(job).execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey(asset) for asset in assets],
                tags={
                    BY_COMMAND: "true",
                    BUDGET_TAG: self.command,
                    REPOSITORY: "__repository__@embed_assets",
                    **batch,
                },
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                raise_on_error=False,
            )
        self._measure(result)
        if not result.success:
            raise _failure(result)

    def _measure(self, result: dg.ExecuteInProcessResult) -> None:
        for event in result.all_events:
            if event.event_type == dg.DagsterEventType.STEP_SUCCESS and event.step_key:
                self.seconds[event.step_key] += event.step_success_data.duration_ms / 1000
                self.materialized.add(event.step_key)


def _failure(result: dg.ExecuteInProcessResult) -> ProjectError:
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            messages = _messages(event.step_failure_data.error) or ["unknown error"]
            if any("DagsterExecutionInterruptedError" in message for message in messages):
                raise KeyboardInterrupt
            ours = filter(None, map(_said_by_this_project, messages))
            said = next(ours, f"{event.step_key}: {messages[-1]}")
            return RunFailedError(f"{said} (Dagster run {result.run_id[:8]})")
    return RunFailedError(f"Dagster run {result.run_id} failed; `embed-assets ui` shows why.")


def _messages(error: Any) -> list[str]:
    """`Class: text` of an error that Dagster kept, and of its causes, each in one line."""
    messages = []
    while error is not None:
        messages.append(" ".join(error.message.split()))
        error = error.cause
    return messages


def _said_by_this_project(message: str) -> str | None:
    """The text of an error that was written for a person to read."""
    kind, _, text = message.partition(": ")
    ours = kind.startswith("embed_assets.") and kind.rpartition(".")[2].endswith("Error")
    return text if ours else None


def prepare_home(settings: Settings) -> None:
    """Make the home folder and its Dagster instance, and point Dagster at it."""
    try:
        settings.dagster_home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"EMBED_ASSETS_HOME: {error.filename}: {error.strerror}.") from error
    for name, text in (("dagster.yaml", DAGSTER_YAML), ("workspace.yaml", WORKSPACE_YAML)):
        file = settings.dagster_home / name
        if not file.exists():
            file.write_text(text, encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


DAGSTER_YAML = """\
# Written by embed-assets, once. Dagster's telemetry stays off unless you turn it on here.
telemetry:
  enabled: false
nux:
  enabled: false
# A run that ingests has a pool of parsers of its own; a run that trains has the processor.
concurrency:
  runs:
    max_concurrent_runs: 2
run_monitoring:
  enabled: true
"""
WORKSPACE_YAML = """\
load_from:
  - python_module:
      module_name: embed_assets.definitions
      location_name: embed_assets
"""
