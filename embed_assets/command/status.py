"""What `status` prints: what is due, what waits, what failed, which models there are.

Reads only: it changes nothing and starts nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from embed_assets.automation.plan import FORGOTTEN, Plan, Wait
from embed_assets.automation.retraining import Untrained
from embed_assets.automation.runs import INGEST
from embed_assets.automation.state import State, check_settings, code_versions, read_state
from embed_assets.automation.take_up import taken_up
from embed_assets.command.instance import point_dagster_at
from embed_assets.command.pipeline import is_changing
from embed_assets.command.summary import failures, partly, partly_line, without_text
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.models.registry import ALIASES, aliases
from embed_assets.resources.patience import answer_at_once
from embed_assets.resources.tracking import MODELS
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.storage import is_writable
from embed_assets.wording import counted, in_lines

LISTED = 5


def status_summary(settings: Settings) -> dict[str, Any]:
    """What `status --json` prints. SettingsError where the folder can't be read."""
    warehouse = Warehouse.of(settings)
    state = _state(settings, warehouse)
    changing = {k for k, file in state.pending.items() if is_changing(file, datetime.now(UTC))}
    state = state.with_settling(changing)
    plan = _plan(settings, warehouse, state)
    models, silent = _models(settings, warehouse)
    folder, pending = state.folder, state.pending
    return {
        "folder": {
            "documents": len(folder.found),
            "new": sum(key not in folder.loaded for key in pending if key not in folder.moved),
            "changed": sum(key in folder.loaded for key in pending if key not in folder.moved),
            "moved": len(folder.moved),
            "gone": len(folder.gone),
            "settling": len(folder.settling),
        },
        "due": [
            *(
                {"asset": "raw_pdfs", "documents": len(keys), "reason": reason}
                for keys, reason in ((plan.remove, "gone"), (plan.moved, "moved"))
                if keys
            ),
            *(
                {"asset": asset, "documents": len(step.documents), "reason": step.reason}
                for step in plan.steps
                for asset in step.assets
            ),
        ],
        "waiting": [
            {"what": wait.what, "reason": wait.reason} for wait in (*plan.waiting, *silent)
        ],
        "failed": list(failures(settings, warehouse, state.entries).values()),
        "empty": without_text(warehouse),
        "partly": partly(warehouse),
        "models": models,
        "retraining": _retraining(plan, state.untrained),
    }


def _state(settings: Settings, warehouse: Warehouse) -> State:
    """The state; without Dagster's runs where there are none, or the home may only be read."""
    # Dagster writes to its databases whenever it opens them.
    if not is_writable(settings.dagster_home / "dagster.yaml"):
        return read_state(settings, warehouse, None)
    point_dagster_at(settings)
    with dg.DagsterInstance.get() as instance:
        return read_state(settings, warehouse, instance)


def _models(
    settings: Settings, warehouse: Warehouse
) -> tuple[dict[str, str | None], tuple[Wait, ...]]:
    """Versions by alias; where MLflow doesn't answer at once, none of them, and what it said."""
    answer_at_once()
    try:
        found = aliases(warehouse, settings)
        known = any(found.values()) or not warehouse.count("models")
        said = "MLflow has lost all versions: `embed-assets check` says what can be done"
        return found, () if known else (Wait(MODELS, said),)
    except ProjectError as error:
        return dict.fromkeys(ALIASES), (Wait(MODELS, str(error)),)


def _plan(settings: Settings, warehouse: Warehouse, state: State) -> Plan:
    """The plan, or the one wait for a person: to agree, or to mend a setting that `run` refuses."""
    try:
        check_settings(settings, warehouse)
        state = replace(state, records=taken_up(state.records, warehouse, settings))
        plan = state.plan(settings, code_versions(settings))
    except SettingsError as error:
        return Plan(waiting=(Wait(INGEST, str(error)),))
    if plan.refused:
        return Plan(waiting=(Wait(INGEST, f"{plan.refused}: --yes agrees"),))
    return plan


def _retraining(plan: Plan, untrained: Untrained) -> dict[str, Any]:
    """Whether a training is due, why, and how its pairs differ from those of the newest version."""
    step = plan.corpus_step
    due = untrained.forgotten or (step is not None and "finetuned_model" in step.assets)
    held = ("finetuned_model", INGEST, "training_pairs")
    waits = {wait.what: wait.reason for wait in reversed(plan.waiting)}
    waiting = next((waits[what] for what in held if what in waits), None)
    if untrained.forgotten:
        reason = FORGOTTEN
    elif step is not None and due:
        reason = step.reason
    elif step is not None and "training_pairs" in step.assets:
        reason = "new training_pairs will tell"
    else:
        reason = waiting or "the newest model was trained on the pairs as they are"
    return {
        "due": due,
        "reason": reason,
        "new_pairs": untrained.new + untrained.changed,
        "removed_pairs": untrained.removed,
        "new_share": round(untrained.share, 4),
    }


def status_text(summary: Mapping[str, Any], *, details: bool = False) -> str:
    """The status for a person. details: everything that waits or failed, not the first few."""
    folder, models = summary["folder"], summary["models"]
    found = ", ".join(f"{folder[name]} {name}" for name in folder if name != "documents")
    lines = [f"{counted(folder['documents'], 'document')} in the folder: {found}.", ""]
    if summary["due"]:
        lines.append("Due:")
    elif not summary["waiting"]:
        lines.append("Nothing is due.")
    for row in summary["due"]:
        documents = f" ({counted(row['documents'], 'document')})" if row["documents"] else ""
        lines.append(f"  {row['asset']}{documents}: {row['reason']}")
    for title, rows in (
        ("Waits", [f"{row['what']}: {row['reason']}" for row in summary["waiting"]]),
        ("Failed", [f"{row['path']}: {row['error']}" for row in summary["failed"]]),
        ("Without text", [f"{row['path']}: {row['error']}" for row in summary["empty"]]),
        ("Read in part", [partly_line(row) for row in summary["partly"]]),
    ):
        lines += [f"{title}:"] if rows else []
        lines += [f"  {row}" for row in (rows if details else rows[:LISTED])]
        if len(rows) > LISTED and not details:
            lines.append(f"  … and {len(rows) - LISTED:,} more: --details lists all")
    named = [f"{name} v{version}" for name, version in models.items() if version]
    unknown = any(row["what"] == MODELS for row in summary["waiting"])
    none = "unknown" if unknown else "none is trained yet"
    base = "" if unknown or models["champion"] else " No champion: the base model serves."
    lines += ["", f"Models: {', '.join(named) or none}.{base}"]
    retraining = summary["retraining"]
    due = "due, " if retraining["due"] else ""
    lines.append(f"Training: {due}{retraining['reason'].rstrip('.')}.")
    return in_lines(lines)
