"""`embed-assets retrain VERSION --check`: is a version, trained again from its record, the same?"""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import polars as pl
import typer

from embed_assets.command.pipeline import at_rest
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.evaluation.scoring import retrieval_task
from embed_assets.machine import this_machine
from embed_assets.models.card import model_card, model_source
from embed_assets.models.files import NoModelError
from embed_assets.models.identity import model_identity
from embed_assets.models.registry import newest_model, trained_version
from embed_assets.resources.processes import process_client
from embed_assets.resources.redaction import FORGOTTEN
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.again import (
    figures_of,
    folder_again,
    largest_difference,
    prepare_again,
    same_figures,
    train_again,
)
from embed_assets.training.claims import FolderClaimedError, claimed, delete_training
from embed_assets.training.config import TrainingConfig
from embed_assets.training.kept import count_redacted, kept_result, kept_training, libraries
from embed_assets.training.record import this_code
from embed_assets.wording import in_lines

OF_BASE = ("query_prompt", "document_prompt", "max_chunk_tokens")
"""Settings that are part of what the base model was."""
VALIDATED = "best_validation_ndcg_at_10"
DOUBTS = {
    "code": "it was trained by {then}, and this is {now}",
    "machine": "it was trained on {then}, and this is {now}",
    "libraries": "it was trained with {then}, and these are {now}",
}
"""What is said of each thing that decides the last digits, where it is another."""
ON_GPU = "a GPU adds up in an order that changes"


def retrain_and_compare(settings: Settings, version: str) -> dict[str, Any]:
    """What `retrain VERSION --check --json` prints. ProjectError if there is no such version.

    Interrupted, the same call goes on. Others who work in the home are waited for; then they may
    go on, but for who forgets documents.
    """
    newest_model(Warehouse.of(settings), version)
    begun = time.monotonic()
    with ExitStack() as held:
        with at_rest(settings):  # nobody forgets or removes what is copied
            summary = check_retraining(settings, version)
            if not summary["possible"]:
                return summary
            for reason in summary["reasons"]:
                typer.echo(f"It may not come out the same: {reason}.", err=True)
            training = _prepare(settings, summary, held)
        compared = _train_and_compare(settings, summary, training)
    with suppress(FolderClaimedError):  # by the same call, once more
        delete_training(training.folder)
    return {**summary, **compared, "seconds": round(time.monotonic() - begun, 1)}


def retrain_text(summary: Mapping[str, Any]) -> str:
    """The same for a person."""
    version, reasons = summary["version"], summary["reasons"]
    if not summary["possible"]:
        lines = [f"Version {version} can't be trained again from its record."]
    else:
        lines = [f"Version {version} was trained again from its record: {_outcome(summary)}."]
    lines += [f"- {reason}." for reason in reasons]
    if missing := len(summary["documents"]["missing"]):
        lines.append(
            f"{missing} of its documents are no longer on record as they were. The record of the "
            "training holds their texts."
        )
    if summary["figures"] and summary["same"] != "weights":
        then, now = summary["figures"]["then"], summary["figures"]["now"]
        lines += ["", f"{'NDCG@10':<48} {'then':>9} {'now':>9}"]
        lines += [f"{name:<48} {then[name]:9.6f} {now[name]:9.6f}" for name in then]
    return in_lines(lines)


def _outcome(summary: Mapping[str, Any]) -> str:
    difference = summary["largest_difference"]
    between = "tensors of other shapes" if difference is None else f"up to {difference:.1e} apart"
    return {
        "weights": "the same weights",
        "figures": f"other weights, {between}, and the same figures to 1e-6",
        None: f"NOT the same model. Its weights are {between}",
    }[summary["same"]]


def check_retraining(settings: Settings, version: str) -> dict[str, Any]:
    """What can be said before a training. ProjectError if there is no such version.

    reasons: why it isn't possible, or else why it may not come out the same.
    """
    warehouse = Warehouse.of(settings)
    model = newest_model(warehouse, version)
    training, pairs = kept_training(Path(model["path"])), _pairs(settings, model)
    missing = warehouse.read(
        "SELECT path, sha256 FROM model_documents WHERE version = ? "
        "AND sha256 NOT IN (SELECT sha256 FROM raw_pdfs) ORDER BY path",
        [model["version"]],
    ).to_dicts()
    base, start = _base_is_same(settings, model), _start_is_same(warehouse, model)
    redacted = training and count_redacted(training, FORGOTTEN)
    impossible = {
        "its pairs were not kept": pairs is None,
        "what its training read was not kept, or as another release keeps it": training is None,
        f"{pairs and pairs['redacted']} of its pairs are redacted: what they quoted is forgotten": (
            pairs is not None and pairs["redacted"] > 0
        ),
        f"{redacted} of the questions and chunks that its training read are redacted": bool(
            redacted
        ),
        f"its base {model['base']} is another model today, or gone": base is False,
        "it was not kept what its base was": base is None,
        f"version {model['trained_from']}, from which it was trained, is another, or gone": (
            not start
        ),
    }
    against = [reason for reason, holds in impossible.items() if holds]
    on_gpu = not against and bool(process_client(settings.engine).machine().gpus)
    then = kept_result(training) if training else {}
    differences = {
        "code": {"then": model["code"], "now": this_code()},
        # Of a cluster it is known once one of its nodes has trained.
        "machine": {
            "then": model["machine"],
            "now": str(this_machine()) if settings.engine == "local" else None,
        },
        "libraries": {"then": then.get("libraries"), "now": libraries()},
    }
    return {
        "version": model["version"],
        "possible": not against,
        "reasons": against or _doubts(differences, on_gpu=on_gpu),
        "same": None,
        "largest_difference": None,
        "figures": None,
        "seconds": None,
        "pairs": pairs,
        "documents": {"missing": missing},
        "base": {"name": model["base"], "same": base},
        **differences,
    }


def _doubts(differences: Mapping[str, Mapping[str, str | None]], *, on_gpu: bool) -> list[str]:
    """Why what is possible may not come out the same, or may not have."""
    doubts = [
        DOUBTS[name].format(then=found["then"] or "an older version", now=found["now"])
        for name, found in differences.items()
        if found["now"] not in (None, found["then"])
    ]
    return [*doubts, ON_GPU] if on_gpu else doubts


def _prepare(settings: Settings, summary: Mapping[str, Any], held: ExitStack) -> TrainingConfig:
    """The training to do again, in a folder of its own that is held."""
    warehouse = Warehouse.of(settings)
    model = newest_model(warehouse, summary["version"])
    kept = _kept(model)
    made_with = (kept.told, *(summary[name]["now"] for name in DOUBTS))
    folder = folder_again(settings.models, model["version"], made_with)
    settings.models.mkdir(exist_ok=True)
    held.enter_context(claimed(folder))
    start = _start(warehouse, model)
    return prepare_again(kept, model_source(model["base"]), start, folder)


def _train_and_compare(
    settings: Settings, summary: Mapping[str, Any], training: TrainingConfig
) -> dict[str, Any]:
    """Train, and say what came out beside what there is, and what it came out of."""
    warehouse = Warehouse.of(settings)
    model = newest_model(warehouse, summary["version"])
    folder, before = trained_version(model).folder, kept_result(_kept(model))
    after = train_again(training, before["threads"], settings.engine)
    differences = {
        name: {**summary[name], "now": after.get(name, summary[name]["now"])} for name in DOUBTS
    }
    difference = largest_difference(folder, training.model)
    figures = {"then": {VALIDATED: before[VALIDATED]}, "now": {VALIDATED: after[VALIDATED]}}
    same = "weights" if difference == 0 else None
    if difference != 0:
        task = retrieval_task(warehouse)
        figures = {
            "then": figures_of(folder, training, task),
            "now": figures_of(training.model, training, task),
        }
        same = "figures" if same_figures(figures["then"], figures["now"]) else None
    return {
        "reasons": _doubts(differences, on_gpu=ON_GPU in summary["reasons"]),
        "same": same,
        "largest_difference": difference,
        "figures": figures,
        **differences,
    }


def _kept(model: Mapping[str, Any]) -> TrainingConfig:
    """The training of a version, as it is kept. ProjectError where it went since it was there."""
    kept = kept_training(Path(model["path"]))
    if kept is None:
        raise ProjectError(f"The training kept with version {model['version']} has gone.")
    return kept


def _pairs(settings: Settings, model: Mapping[str, Any]) -> dict[str, int] | None:
    """How many pairs were kept of a version, and how many of them are redacted."""
    file = settings.home / (model["pairs"] or "")
    if not file.is_file():
        return None
    asked = pl.read_parquet(file, columns=["anchor"])["anchor"]
    return {"rows": asked.len(), "redacted": int((asked == FORGOTTEN).sum())}


def _base_is_same(settings: Settings, model: Mapping[str, Any]) -> bool | None:
    """Whether the base model is what it was; None where it was not kept what it was."""
    if not model["base_identity"]:
        return None
    kept = json.loads(model["settings"] or "{}")
    used = kept.get("used", kept)
    of_then = {name: used[name] for name in OF_BASE if name in used}
    try:
        card = model_card(settings.changed({**of_then, "model": model["base"]}))
        return model_identity(card) == model["base_identity"]
    except (NoModelError, SettingsError):
        return False


def _start(warehouse: Warehouse, model: Mapping[str, Any]) -> Path | None:
    """Folder of the version that a version was trained from; None: the base."""
    if model["trained_from"] is None:
        return None
    return trained_version(newest_model(warehouse, model["trained_from"])).folder


def _start_is_same(warehouse: Warehouse, model: Mapping[str, Any]) -> bool:
    """Whether the version that a version was trained from, if any, is there as it was."""
    if model["trained_from"] is None:
        return True
    try:
        row = newest_model(warehouse, model["trained_from"])
        return model_identity(trained_version(row).card) == row["identity"]
    except ProjectError:
        return False
