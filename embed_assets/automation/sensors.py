"""The two sensors: both look at the plan, and ask for the part of it that is theirs.

`pdf_folder` brings the partitions in line with the PDF folder and ingests what is due; `retraining`
asks for what is made of all documents together. Neither remembers what it asked for: what is still
due at the next tick is asked for then.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import dagster as dg
from filelock import Timeout

from embed_assets.automation.plan import EMBEDDINGS, FOLDER, INGEST, Plan, batches, first_part
from embed_assets.automation.retraining import Untrained
from embed_assets.automation.runs import (
    IN_VAIN,
    TRAIN,
    command_lock,
    end_dead_mlflow_runs,
    end_dead_runs,
    tags_over,
)
from embed_assets.automation.state import (
    State,
    check_settings,
    code_versions,
    read_state,
    sync_partitions,
)
from embed_assets.automation.take_up import take_up
from embed_assets.documents.entries import FoundDocument
from embed_assets.errors import ProjectError
from embed_assets.graph import CORPUS_ASSETS, GRAPH
from embed_assets.grouping import Grouping
from embed_assets.models.registry import follow_champion
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.patience import answering_at_once
from embed_assets.resources.run_tags import BUDGET_TAG
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings
from embed_assets.wording import counted

SENSORS = ("pdf_folder", "retraining")
SECONDS = 30
"""From one tick to the next."""
DOCUMENTS_PER_TICK = 512
"""Files that a tick waits for: what bounds its cursor. Documents that it asks runs for."""
REQUESTS_PER_TICK = 16
"""Runs that a tick asks for, or fewer of more documents. What is left over is still due at a later
tick."""
PATIENCE = 20.0
"""Seconds that a tick waits for the warehouse, of the sixty that it has."""
LONGEST_WAVE = timedelta(days=1)
"""Where documents never cease to come, there is a new budget for language models so often."""
AGREED = "embed_assets/agreed"
"""Tag of any run, by which a person agrees to the loss of documents: its value says to which."""
REASON = "embed_assets/reason"
"""Tag of a run that a sensor asked for: why."""
FIRST = {"dagster/priority": "1"}
"""A training doesn't wait until all of a wave's ingests have had their turn."""


BUSY = dg.SkipReason("A command is at work; this looks again when it has ended.")


def build_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """Both sensors: on from the start where that is set, else until a person turns them on."""
    status = dg.DefaultSensorStatus.RUNNING if settings.watch else dg.DefaultSensorStatus.STOPPED
    ingests = dg.sensor(
        job_name=INGEST,
        minimum_interval_seconds=SECONDS,
        default_status=status,
        description=f"Watches {settings.pdfs}. Ingests what is due: PDFs that are new, changed or "
        "gone, once they have stopped changing, and what failed for a passing reason.",
    )
    trains = dg.sensor(
        job_name=TRAIN,
        minimum_interval_seconds=SECONDS,
        default_status=status,
        description=f"Trains again when {100 * settings.retrain_share:g} % of what trains has "
        f"changed, or {settings.retrain_wait_hours:g} h after any change, and at least "
        f"{settings.retrain_pause_hours:g} h after the last training; scores anew when questions "
        "or documents have. EMBED_ASSETS_RETRAIN_SHARE, _WAIT_HOURS and _PAUSE_HOURS set it.",
    )
    return [ingests(pdf_folder), trains(retraining)]


def pdf_folder(
    context: dg.SensorEvaluationContext,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> dg.SensorResult | dg.SkipReason:
    """Carry out the document steps of the plan."""
    try:
        return _ingest(context, _patient(warehouse), settings)
    except ProjectError as error:  # an unreadable folder is not an empty one
        return dg.SkipReason(str(error))


def retraining(
    context: dg.SensorEvaluationContext,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> dg.SensorResult | dg.SkipReason:
    """Ask for the step of the plan over all documents, or say why not."""
    try:
        return _train(context, _patient(warehouse), settings)
    except ProjectError as error:
        return dg.SkipReason(str(error))


@dataclass(frozen=True)
class _Cursor:
    """What pdf_folder knows from tick to tick.

    files: version by id of files that may still be written to. wave, began: name of the wave of
    documents whose runs share a budget, and since when. over: whether all of it was made.
    """

    files: Mapping[str, str]
    wave: str = ""
    began: str = ""
    over: bool = True

    @classmethod
    def read(cls, text: str | None) -> "_Cursor":
        known = json.loads(text or "{}")
        files = known.get("files", {})
        return cls(files, known.get("wave", ""), known.get("began", ""), known.get("over", True))

    @property
    def budget_since(self) -> datetime | None:
        return datetime.fromisoformat(self.began) if self.began else None

    def write(self) -> str:
        return json.dumps(vars(self))

    def in_wave(self, plan: Plan, now: datetime) -> "_Cursor":
        """A wave begins with the first document that is new or changed, and ends with the last.

        What is tried once more has no budget of its own.
        """
        began = self.budget_since
        old = began is None or now - began >= LONGEST_WAVE
        if any(not step.again and step.assets != (EMBEDDINGS,) for step in plan.document_steps):
            if self.over or old:
                return replace(self, wave=uuid.uuid4().hex, began=now.isoformat(), over=False)
            return self
        under_way = plan.document_steps or any(wait.what == INGEST for wait in plan.waiting)
        return self if under_way else replace(self, over=True)


def _patient(warehouse: Warehouse) -> Warehouse:
    """The warehouse, waited for no longer than a tick lasts."""
    return warehouse.model_copy(update={"lock_timeout": PATIENCE})


def _state(
    context: dg.SensorEvaluationContext, warehouse: Warehouse, settings: Settings, *, trains: bool
) -> State | dg.SkipReason:
    """The state, once dead runs are ended and the settings are known to be right."""
    dead = end_dead_runs(context.instance, settings)
    if dead is None:
        return BUSY
    if dead:
        end_dead_mlflow_runs(context.instance, settings)
    check_settings(settings, warehouse)
    take_up(warehouse, settings)
    return read_state(settings, warehouse, context.instance, trains=trains)


def _ingest(
    context: dg.SensorEvaluationContext, warehouse: Warehouse, settings: Settings
) -> dg.SensorResult | dg.SkipReason:
    instance, now = context.instance, datetime.now(UTC)
    state = _state(context, warehouse, settings, trains=False)
    if isinstance(state, dg.SkipReason):
        return state
    cursor = _Cursor.read(context.cursor)
    tried = state.records.tried
    unread = {key: f for key, f in state.pending.items() if ("raw_pdfs", key) not in tried}
    # Seen at the last tick as it is now: the file has stopped changing.
    state = state.with_settling({k for k, f in unread.items() if cursor.files.get(k) != f.version})
    looked_at = dict(list(unread.items())[:DOCUMENTS_PER_TICK])
    cursor = replace(cursor, files={key: file.version for key, file in looked_at.items()})
    versions = code_versions(settings)
    plan = state.plan(settings, versions, budget_since=cursor.budget_since)
    agreed = bool(plan.lost) and _agreed(instance, warehouse, plan.lost)
    if agreed:
        plan = state.plan(settings, versions, budget_since=cursor.budget_since, agreed=True)
    if plan.refused:
        return dg.SkipReason(
            f"{plan.refused}. Is {settings.pdfs} the right folder? If so: {_to_agree(plan.lost)}"
        )
    wave = cursor.in_wave(plan, now)
    if wave.began != cursor.began:  # a new budget: what the last one left unasked is due now
        plan = state.plan(settings, versions, budget_since=wave.budget_since, agreed=agreed)
    try:
        # A command may have come while this looked: what it does is no longer as it was seen.
        with command_lock(settings.home):
            sync_partitions(instance, warehouse, settings, first_part(plan), state)
            order = instance.get_dynamic_partitions(DOCUMENTS)
    except Timeout:
        return BUSY
    found, grouping = state.folder.found, settings.grouping
    requests = _ingests(plan, order, wave.wave, found, grouping) + _index(plan)
    if requests:
        return dg.SensorResult(run_requests=requests, cursor=wave.write())
    return dg.SensorResult(skip_reason=_nothing_due(plan, state), cursor=wave.write())


def _ingests(
    plan: Plan,
    order: Sequence[str],
    wave: str,
    found: Mapping[str, FoundDocument],
    grouping: Grouping,
) -> list[dg.RunRequest]:
    """Runs of the document steps: new documents before questions that are asked once more."""
    if any(wait.what == INGEST for wait in plan.waiting):
        return []
    requests = [
        dg.RunRequest(
            asset_selection=[dg.AssetKey(asset) for asset in step.assets],
            tags={**tags_over(batch, grouping), BUDGET_TAG: wave, REASON: step.reason},
        )
        for step in sorted(plan.document_steps, key=lambda step: -len(step.assets))
        for batch in batches(order, step.documents, found, grouping)
    ]
    return requests[: min(REQUESTS_PER_TICK, max(1, DOCUMENTS_PER_TICK // grouping.per_run))]


def _index(plan: Plan) -> list[dg.RunRequest]:
    """The run that makes the search index, if it is due."""
    step = plan.index_step
    if step is None:
        return []
    chosen = [dg.AssetKey(asset) for asset in step.assets]
    return [dg.RunRequest(asset_selection=chosen, tags={REASON: step.reason, **FIRST})]


def _nothing_due(plan: Plan, state: State) -> dg.SkipReason:
    """Why no ingest is asked for."""
    said = [wait.reason for wait in plan.waiting if wait.what == INGEST]
    said += [
        f"{wait.reason}: {_to_agree(plan.lost)}" for wait in plan.waiting if wait.what == FOLDER
    ]
    gone = len(plan.remove) + len(plan.moved)
    said += [f"removed or moved: {gone}"] if gone else []
    documents = [wait for wait in plan.waiting if wait.what not in (INGEST, FOLDER, *GRAPH)]
    if documents:
        more = ", …" if len(documents) > 1 else ""
        said.append(f"waits: {documents[0].what} ({documents[0].reason}){more}")
    return dg.SkipReason(
        "; ".join(said) or f"{counted(len(state.folder.found), 'PDF')}: nothing is due."
    )


def _agreed(instance: dg.DagsterInstance, warehouse: Warehouse, lost: Sequence[str]) -> bool:
    """Whether a person has agreed to the loss of these very documents since they were read last."""
    loaded = warehouse.read(
        "SELECT max(loaded_at) FROM raw_pdfs WHERE document_id IN (SELECT unnest(?::VARCHAR[]))",
        [list(lost)],
    )
    since = dg.RunsFilter(tags={AGREED: _code(lost)}, created_after=loaded.item())
    return bool(instance.get_runs(since, limit=1))


def _to_agree(lost: Sequence[str]) -> str:
    return (
        f"`embed-assets ingest --yes`, or launch any run here with the tag {AGREED}: {_code(lost)}"
    )


def _code(lost: Sequence[str]) -> str:
    """What stands for these documents in a tag."""
    return digest(tuple(sorted(lost)))[:8]


@dataclass(frozen=True)
class _TrainCursor:
    """What retraining knows from tick to tick.

    ended: the newest run that failed or was ended, when it was looked at. put_off_since: since when
    documents have come before it.
    """

    ended: str | None = None
    put_off_since: str | None = None

    @classmethod
    def read(cls, text: str | None) -> "_TrainCursor":
        return cls(**json.loads(text or "{}"))


def _train(
    context: dg.SensorEvaluationContext, warehouse: Warehouse, settings: Settings
) -> dg.SensorResult | dg.SkipReason:
    state = _state(context, warehouse, settings, trains=True)
    if isinstance(state, dg.SkipReason):
        return state
    _follow(context, warehouse, settings)
    cursor = _TrainCursor.read(context.cursor)
    ended = _end_in_mlflow(context, settings, cursor.ended)
    since = cursor.put_off_since
    plan = state.plan(
        settings,
        code_versions(settings),
        put_off_since=datetime.fromisoformat(since) if since else None,
        ingests=_is_on(context.instance, settings),
    )
    put_off = (since or datetime.now(UTC).isoformat()) if plan.documents_first else None
    text = json.dumps(vars(_TrainCursor(ended, put_off)))
    step = plan.corpus_step
    if plan.refused or step is None:
        why = plan.refused or _why_not(plan, state.untrained)
        return dg.SensorResult(skip_reason=dg.SkipReason(why), cursor=text)
    if end_dead_runs(context.instance, settings) is None:  # it came while this looked
        return BUSY
    reason = f"{step.assets[0]}: {step.reason}"
    if "finetuned_model" in step.assets and state.untrained.trained_at:
        reason += f" ({state.untrained})"
    context.log.info(f"Asked for {', '.join(step.assets)}. {reason}.")
    request = dg.RunRequest(
        asset_selection=[dg.AssetKey(asset) for asset in step.assets],
        tags={REASON: reason, **FIRST},
    )
    return dg.SensorResult(run_requests=[request], cursor=text)


def _follow(context: dg.SensorEvaluationContext, warehouse: Warehouse, settings: Settings) -> None:
    """Have search prepared for the champion that MLflow knows: a person may choose one there."""
    try:
        with answering_at_once():
            follow_champion(warehouse, settings)
    except ProjectError as error:
        context.log.warning(f"Search stays with the champion of before: {error}")


def _is_on(instance: dg.DagsterInstance, settings: Settings) -> bool:
    """Whether pdf_folder is on. Where it is off a person ingests, and no training waits for it."""
    states = instance.all_instigator_state()
    known = [state for state in states if state.instigator_name == pdf_folder.__name__]
    return any(state.is_running for state in known) if known else settings.watch


def _end_in_mlflow(
    context: dg.SensorEvaluationContext, settings: Settings, seen: str | None
) -> str | None:
    """End the MLflow runs of a run that was ended since the last tick; gives the newest such run.

    seen: what it was then.
    """
    in_vain = context.instance.get_runs(dg.RunsFilter(statuses=IN_VAIN), limit=1)
    last = in_vain[0].run_id if in_vain else None
    if last is not None and last != seen:
        end_dead_mlflow_runs(context.instance, settings)
    return last


def _why_not(plan: Plan, untrained: Untrained) -> str:
    """Why no training is asked for, and no comparison."""
    waits = [wait for wait in plan.waiting if wait.what in CORPUS_ASSETS]
    waits.sort(key=lambda wait: wait.what != "finetuned_model")
    by_reason = {wait.reason: wait.what for wait in reversed(waits)}
    said = [
        reason if what == "finetuned_model" else f"{what}: {reason}"
        for reason, what in reversed(by_reason.items())
    ]
    if due := sum(len(step.documents) for step in plan.document_steps):
        said.append(f"{due} to ingest")
    said += [wait.reason for wait in plan.waiting if wait.what in (INGEST, FOLDER)]
    return "; ".join(said) or (
        f"The newest version was trained on the pairs as they are "
        f"({untrained.pairs:,}), and compared on the questions and documents of now."
    )
