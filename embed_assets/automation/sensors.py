"""pdf_folder: brings the partitions in line with the PDF folder and ingests what is due."""

import json
from dataclasses import replace
from itertools import islice

import dagster as dg

from embed_assets.automation.plan import batches
from embed_assets.automation.runs import (
    INGEST,
    RANGE_END,
    RANGE_START,
    end_dead_mlflow_runs,
    end_dead_runs,
)
from embed_assets.automation.state import check_settings, code_versions, read_state, sync_partitions
from embed_assets.automation.take_up import take_up
from embed_assets.errors import ProjectError
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

DOCUMENTS_PER_TICK = 512
"""Files that a tick waits for: what bounds its cursor."""
REQUESTS_PER_TICK = 16
"""Runs that a tick asks for. What is left over is still due at a later tick."""
MOVES_PER_TICK = 128
"""Moved documents of a tick: Dagster takes .05 s for each asset of each, and a tick has sixty."""
PATIENCE = 20.0
"""Seconds that a tick waits for the warehouse, of the sixty that it has."""


@dg.sensor(
    job_name=INGEST,
    minimum_interval_seconds=30,
    description="Ingests what is due: PDFs that are new, changed or gone, once they have stopped "
    "changing, and what failed for a passing reason.",
)
def pdf_folder(
    context: dg.SensorEvaluationContext,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> dg.SensorResult | dg.SkipReason:
    """Carry out the document steps of the plan."""
    warehouse = warehouse.model_copy(update={"lock_timeout": PATIENCE})
    try:
        return _tick(context, warehouse, settings)
    except ProjectError as error:  # an unreadable folder is not an empty one
        return dg.SkipReason(str(error))


def _tick(
    context: dg.SensorEvaluationContext, warehouse: Warehouse, settings: Settings
) -> dg.SensorResult | dg.SkipReason:
    instance = context.instance
    dead = end_dead_runs(instance, settings.home)
    if dead is None:
        return dg.SkipReason("A command is at work; the folder is looked at when it has ended.")
    if dead:
        end_dead_mlflow_runs(instance, settings)
    check_settings(settings, warehouse)
    take_up(warehouse, settings)
    state = read_state(settings, warehouse, instance)
    # Seen at the last tick as it is now: the file has stopped changing.
    seen = json.loads(context.cursor or "{}")
    tried = state.records.tried
    unread = {key: f for key, f in state.pending.items() if ("raw_pdfs", key) not in tried}
    settling = {key for key, file in unread.items() if seen.get(key) != file.version}
    looked_at = list(unread.items())[:DOCUMENTS_PER_TICK]
    cursor = json.dumps({key: file.version for key, file in looked_at})
    plan = state.with_settling(settling).plan(settings, code_versions(settings))
    if plan.refused:
        return dg.SkipReason(
            f"{plan.refused}. Is {settings.pdfs} the right folder? If so: embed-assets ingest --yes"
        )
    moved = dict(islice(plan.moved.items(), MOVES_PER_TICK))
    sync_partitions(instance, warehouse, replace(plan, moved=moved), state)
    held = next((wait.reason for wait in plan.waiting if wait.what == INGEST), None)
    if held:
        return dg.SensorResult(skip_reason=dg.SkipReason(held), cursor=cursor)
    order = instance.get_dynamic_partitions(DOCUMENTS)
    requests = [
        dg.RunRequest(
            asset_selection=[dg.AssetKey(asset) for asset in step.assets],
            tags={RANGE_START: batch[0], RANGE_END: batch[-1]},
        )
        for step in plan.document_steps
        for batch in batches(order, step.documents)
    ]
    return dg.SensorResult(run_requests=requests[:REQUESTS_PER_TICK], cursor=cursor)
