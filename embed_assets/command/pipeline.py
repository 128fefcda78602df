"""Brings the project up to date from a terminal: the plan is carried out, as Dagster runs.

What is due is decided in `automation/plan.py`; here the runs are started, one batch of documents
each, until nothing is due.
"""

import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import dagster as dg
import typer
from dagster._core.errors import DagsterExecutionInterruptedError  # Dagster doesn't export it
from dagster._utils.interrupts import capture_interrupts
from filelock import Timeout

from embed_assets.automation.everything import ASKED_BY
from embed_assets.automation.plan import EMBEDDINGS, Plan, Until, Wait, batches, to_embed
from embed_assets.automation.runs import (
    BY_COMMAND,
    INGEST,
    TRAIN,
    at_work,
    command_lock,
    end_dead_mlflow_runs,
    end_dead_runs,
    tags_over,
)
from embed_assets.automation.state import (
    add_partitions,
    check_settings,
    code_versions,
    read_state,
    recorded_state,
    sync_partitions,
)
from embed_assets.automation.take_up import take_up
from embed_assets.command import stopping
from embed_assets.command.instance import prepare_home
from embed_assets.documents.entries import FoundDocument, Rules
from embed_assets.documents.folder import survey
from embed_assets.errors import ProjectError, SettingsError, one_line
from embed_assets.graph import GRAPH, SEARCH_INDEX
from embed_assets.machine import processes_with
from embed_assets.models.registry import follow_champion
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.current_index import read_current
from embed_assets.resources.event_log import kept_open
from embed_assets.resources.patience import answering_at_once
from embed_assets.resources.run_tags import BUDGET_TAG
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.assets import code_versions as search_versions
from embed_assets.secrets import hide_secrets
from embed_assets.settings import Settings
from embed_assets.terminal import terminal_kept
from embed_assets.wording import counted

REPOSITORY = ".dagster/repository"
"""The tag by which the UI shows a run under its job."""
SETTLED = timedelta(seconds=2)
"""A file that was written to less long ago may still be written to…"""
LONGEST_WAIT = 5.0
"""… and a command waits for it so many seconds, then takes it as it is."""
MOST_NAMED = 3
"""Partitions named in a line."""


@dataclass(frozen=True)
class Done:
    """What a command did: seconds by asset, of those that it made.

    moved: documents that left the folder, or moved in it. waiting: what could not be done while
    another run is at work, or without a person's agreement.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    moved: int = 0
    waiting: tuple[Wait, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was made, or moved."""
        return bool(self.seconds or self.moved)


def bring_up_to_date(settings: Settings, *, train: bool, agreed: bool = False) -> Done:
    """Bring the documents in line with the folder and, with `train`, the model with them.

    agreed: a person agreed that documents on record are no longer in the folder, however many.
    SettingsError before any work is done if the folder, the model or the generator is wrong.
    """
    stopping.shield_children()
    warehouse = Warehouse.of(settings)
    entries = survey(settings.pdfs, Rules.of(settings))
    if not entries.pdfs and not agreed:
        odd = "".join(f" {path}: {why}." for path, why in list(entries.odd.items())[:MOST_NAMED])
        gone = " Agree with --yes if all of them are gone." if warehouse.count("raw_pdfs") else ""
        raise SettingsError(f"EMBED_ASSETS_PDFS: there are no PDFs in {settings.pdfs}.{odd}{gone}")
    check_settings(settings, warehouse)
    prepare_home(settings)
    versions = code_versions(settings)
    runs = _Runs(settings, os.environ.get(ASKED_BY) or uuid.uuid4().hex)
    asked_at = datetime.now(UTC)
    seconds: dict[str, float] = {}
    moved = 0
    read: set[str] = set()
    with _in_turn(settings), dg.DagsterInstance.get() as instance, kept_open(instance):
        take_up(warehouse, settings)
        end_dead_said(instance, settings)
        if train:  # an ingest does without MLflow, whose server may be down
            _end_dead_in_mlflow(instance, settings)
            follow_champion(warehouse, settings)
        else:
            _follow_if_unknown(warehouse, settings)
        _let_settle(settings)
        while True:
            end_dead_runs(instance, settings)
            versions |= search_versions(settings)
            state = read_state(settings, warehouse, instance, trains=train)
            # What changes again while it is ingested is taken by the next command.
            state = state.with_settling(read & state.pending.keys())
            plan = state.plan(settings, versions, asked_at=asked_at, agreed=agreed)
            if plan.refused:
                raise SettingsError(
                    f"EMBED_ASSETS_PDFS: {plan.refused} ({settings.pdfs}). Give their folder with "
                    "--pdfs, or another --home for other documents; or agree with --yes that all "
                    "of them are gone."
                )
            say_moves(plan)
            sync_partitions(instance, warehouse, settings, plan, state)
            moved += len(plan.remove) + len(plan.moved)
            if plan.changes_documents:
                order = instance.get_dynamic_partitions(DOCUMENTS)
                for step in plan.document_steps:
                    found, grouping = state.folder.found, settings.grouping
                    for batch in batches(order, step.documents, found, grouping):
                        runs.execute(instance, INGEST, step.assets, batch, seconds)
                        read.update(batch)
                continue
            if plan.index_step is not None:
                runs.execute(instance, INGEST, plan.index_step.assets, (), seconds)
                continue
            held = tuple(wait for wait in plan.waiting if wait.until is Until.RUN_ENDS)
            to_agree = tuple(wait for wait in plan.waiting if wait.until is Until.PERSON)
            if not train:
                # What waits of all documents together is no matter of an ingest.
                held = tuple(wait for wait in held if wait.what not in GRAPH)
                return Done(seconds, moved, (*to_agree, *held))
            if held:
                let_others_end(instance, settings)
                continue
            if plan.corpus_step is None:
                return Done(seconds, moved, to_agree)
            runs.execute(instance, TRAIN, plan.corpus_step.assets, (), seconds)


def prepare_search(settings: Settings) -> None:
    """Have search go by the champion: embed what it has not embedded, and make its index.

    The PDF folder is not looked at. Killed half-way, it goes on when it is called again.
    """
    stopping.shield_children()
    prepare_home(settings)
    warehouse = Warehouse.of(settings)
    runs, asked_at = _Runs(settings, uuid.uuid4().hex), datetime.now(UTC)
    grouping = settings.grouping
    seconds: dict[str, float] = {}
    with _in_turn(settings), dg.DagsterInstance.get() as instance, kept_open(instance):
        take_up(warehouse, settings)
        end_dead_said(instance, settings)
        _follow_if_unknown(warehouse, settings)
        while True:
            state, versions = recorded_state(settings, warehouse, instance), code_versions(settings)
            partitions = grouping.partitions_of(state.folder.loaded)
            if not set(partitions).issubset(state.partitions):
                add_partitions(instance, partitions, state.partitions)
                continue
            due = to_embed(state.records, versions)
            for batch in batches(state.partitions, due, grouping=grouping):
                runs.execute(instance, INGEST, [EMBEDDINGS], batch, seconds)
            plan = recorded_state(settings, warehouse, instance).plan(
                settings, versions, asked_at=asked_at
            )
            if plan.index_step is None:
                for wait in plan.waiting:
                    if wait.what == SEARCH_INDEX:
                        typer.echo(f"Search is not prepared: {wait.reason}.", err=True)
                return
            runs.execute(instance, INGEST, plan.index_step.assets, (), seconds)


def _follow_if_unknown(warehouse: Warehouse, settings: Settings) -> None:
    """Ask MLflow once for the champion of a home that an older release made, if it answers."""
    if read_current(settings.home).champion is not None:
        return
    try:
        with answering_at_once():
            follow_champion(warehouse, settings)
    except ProjectError as error:
        typer.echo(f"Search is not prepared: {error}", err=True)


def end_dead_said(instance: dg.DagsterInstance, settings: Settings) -> None:
    """End in Dagster the runs that no process is at any more, and say how many there were."""
    if ended := end_dead_runs(instance, settings):
        runs = counted(ended, "run")
        typer.echo(f"Ended in Dagster, since no process is at it any more: {runs}.", err=True)


def end_dead_if_answered(instance: dg.DagsterInstance, settings: Settings) -> bool:
    """End in MLflow what is dead. Where it doesn't answer at once: say so, and give False."""
    try:
        with answering_at_once():
            end_dead_mlflow_runs(instance, settings)
    except ProjectError as error:
        typer.echo(f"What was killed may look alive in MLflow: {error}", err=True)
        return False
    return True


def _end_dead_in_mlflow(instance: dg.DagsterInstance, settings: Settings) -> None:
    """The same for work that needs MLflow. ProjectError where it doesn't answer for minutes."""
    if not end_dead_if_answered(instance, settings):
        typer.echo("The work needs MLflow: it is asked for some minutes more.", err=True)
        end_dead_mlflow_runs(instance, settings)


def say_moves(plan: Plan) -> None:
    """Say how many documents left the folder, or moved in it, and which partitions were none."""
    left = len({*plan.remove}.difference(plan.strays))
    for count, what in ((left, "left"), (len(plan.moved), "moved in")):
        if count:
            typer.echo(f"{counted(count, 'document')} {what} the folder.", err=True)
    if plan.strays:
        strays = ", ".join(plan.strays[:MOST_NAMED])
        more = f", … ({len(plan.strays)} in all)" if len(plan.strays) > MOST_NAMED else ""
        typer.echo(f"Partitions in which no document is were removed: {strays}{more}.", err=True)


def _let_settle(settings: Settings) -> None:
    """Wait while a file in the folder is being written to, some seconds at most."""
    deadline, rules = time.monotonic() + LONGEST_WAIT, Rules.of(settings)
    while time.monotonic() < deadline:
        now = datetime.now(UTC)
        if not any(is_changing(file, now) for file in survey(settings.pdfs, rules).pdfs):
            return
        time.sleep(0.5)


def let_others_end(instance: dg.DagsterInstance, settings: Settings) -> None:
    """Wait while others are at work in the home. Says for whom, whenever that changes."""
    said: list[str] = []
    while others := at_work(instance, settings):
        if others != said:
            typer.echo(
                f"At work in this home: {', '.join(others)}. Waiting for that to end. A run can be "
                "ended in `embed-assets ui` (Runs, Terminate), a process by its id.",
                err=True,
            )
            said = others
        time.sleep(1)
        end_dead_runs(instance, settings)


def is_changing(file: FoundDocument, now: datetime) -> bool:
    """Whether a file may still be written to."""
    return abs(now - file.modified_at) < SETTLED


@contextmanager
def at_rest(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The home's Dagster instance, while nobody else is at work in the home.

    Waits for commands and runs that are at work, and says for which. SettingsError where there is
    no home.
    """
    if not Warehouse.of(settings).is_there:
        raise SettingsError(
            f"EMBED_ASSETS_HOME: there is nothing in {settings.home} yet. Give the home with "
            "--home, or fill this one with `embed-assets run`."
        )
    prepare_home(settings)
    with _in_turn(settings), dg.DagsterInstance.get() as instance:
        end_dead_said(instance, settings)
        end_dead_if_answered(instance, settings)
        let_others_end(instance, settings)
        yield instance


@contextmanager
def _in_turn(settings: Settings) -> Iterator[None]:
    """While no other command is at work in the home. Waits for that, and says for whom."""
    lock = command_lock(settings.home)
    try:
        lock.acquire(timeout=2)  # a sensor's tick holds it for a moment
    except Timeout:
        found = processes_with(Path(lock.lock_file), but=os.getpid())
        others = ", ".join(found) or "another process"
        said = f"At work in this home: an embed-assets command, {others}. Waiting for that to end."
        typer.echo(said, err=True)
        lock.acquire(timeout=-1, poll_interval=1)
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Runs:
    """Starts Dagster runs of a project. command: runs with the same share a budget."""

    settings: Settings
    command: str

    @cached_property
    def definitions(self) -> dg.Definitions:
        """The project. It is made for the first run: most commands find that none is due."""
        from embed_assets.definitions import build_definitions

        return build_definitions(self.settings)

    def execute(
        self,
        instance: dg.DagsterInstance,
        job: str,
        assets: Sequence[str],
        keys: Sequence[str],
        seconds: dict[str, float],
    ) -> None:
        """Make assets, of these documents if any; adds what each took to `seconds`."""
        batch = tags_over(keys, self.settings.grouping) if keys else {}
        what = f"{counted(len(keys), 'document')}: " if keys else ""
        typer.echo(f"{what}{', '.join(assets)}", err=True)
        run_id = str(uuid.uuid4())
        instance.add_event_listener(run_id, lambda event: _cancel_if_stopped(instance, event))
        try:
            with terminal_kept(), capture_interrupts():
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
                    run_id=run_id,
                )
        except DagsterExecutionInterruptedError:
            _cancel(instance, run_id)
            stopping.check()
            raise KeyboardInterrupt from None
        except Exception as error:
            steps = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
            said = explain(error, next((s.step_key for s in steps), None))
            raise ProjectError(f"{said} (Dagster run {run_id[:8]})") from error
        for event in result.all_events:
            if event.event_type == dg.DagsterEventType.STEP_SUCCESS and event.step_key:
                taken = event.step_success_data.duration_ms / 1000
                seconds[event.step_key] = seconds.get(event.step_key, 0.0) + taken
        stopping.check()


def _cancel(instance: dg.DagsterInstance, run_id: str) -> None:
    """Mark a run that was stopped. Before its first step Dagster calls that a failure, always."""
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status is not dg.DagsterRunStatus.CANCELED:
        instance.report_run_canceled(run)


def _cancel_if_stopped(instance: dg.DagsterInstance, event: dg.EventLogEntry) -> None:
    """Say in Dagster that a person ends the run: else it would call the run a failure."""
    said = event.dagster_event
    if said is None or not said.is_step_failure:
        return
    error = said.step_failure_data.error
    if error and error.cls_name == DagsterExecutionInterruptedError.__name__:
        run = instance.get_run_by_id(event.run_id)
        if run is not None:
            instance.report_run_canceling(run)


def explain(error: BaseException, step: str | None) -> str:
    """What a person reads of an error: what the project says of it, or its first cause and step."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    ours = next((cause for cause in causes if isinstance(cause, ProjectError | dg.Failure)), None)
    if ours is not None:
        return hide_secrets(" ".join(str(ours).split()))
    first = one_line(hide_secrets(f"{type(causes[-1]).__name__}: {causes[-1]}"))
    return f"{step}: {first}" if step else first
