"""`embed-assets retrain VERSION --check`: could a version be trained again from its record?"""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from embed_assets.errors import SettingsError
from embed_assets.models.card import model_card
from embed_assets.models.files import NoModelError
from embed_assets.models.identity import model_identity
from embed_assets.models.registry import newest_model
from embed_assets.resources.redaction import FORGOTTEN
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.record import this_code

OF_BASE = ("query_prompt", "document_prompt", "max_chunk_tokens")
"""Settings that are part of what the base model was."""


def check_retraining(settings: Settings, version: str) -> dict[str, Any]:
    """What `retrain VERSION --check --json` prints. ProjectError if there is no such version."""
    warehouse = Warehouse(path=str(settings.warehouse))
    model = newest_model(warehouse, version)
    pairs = _pairs(settings, model)
    missing = warehouse.read(
        "SELECT path, sha256 FROM model_documents WHERE version = ? "
        "AND sha256 NOT IN (SELECT sha256 FROM raw_pdfs) ORDER BY path",
        [model["version"]],
    ).to_dicts()
    base, now = _base_is_same(settings, model), this_code()
    reasons = {
        "its pairs were not kept": pairs is None,
        f"{pairs and pairs['redacted']} of its pairs are redacted: what they quoted is forgotten": (
            pairs is not None and pairs["redacted"] > 0
        ),
        f"{len(missing)} of its documents are no longer on record as they were": bool(missing),
        f"its base {model['base']} is another model today, or gone": base is False,
        "it was not kept what its base was": base is None,
        f"it was trained by {model['code'] or 'an older version'}, and this is {now}": (
            model["code"] != now
        ),
    }
    against = [reason for reason, holds in reasons.items() if holds]
    return {
        "version": model["version"],
        "possible": not against,
        "reasons": against,
        "pairs": pairs,
        "documents": {"missing": missing},
        "base": {"name": model["base"], "same": base},
        "code": {"then": model["code"], "now": now},
    }


def check_text(summary: Mapping[str, Any]) -> str:
    """The same for a person."""
    can = "can" if summary["possible"] else "can't"
    first = f"Version {summary['version']} {can} be trained again from its record."
    return "\n".join([first, *(f"- {reason}." for reason in summary["reasons"])])


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
