"""What every asset check does around its look: it always gives a result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from embed_assets.errors import one_line
from embed_assets.secrets import hide_secrets
from embed_assets.wording import in_markdown

LISTED = 20
"""Rows of a list in the UI."""


@dataclass(frozen=True)
class Finding:
    """What a check found. said: in a sentence. shown: more of it by name, for the UI."""

    passed: bool
    said: str
    shown: Mapping[str, Any] = field(default_factory=dict)


def check_result(
    look: Callable[[], Finding], severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN
) -> dg.AssetCheckResult:
    """The result of a look, or of its failure.

    What can't be looked at fails the check as a warning that says why, and never the run.
    """
    try:
        found = look()
    except Exception as error:
        reason = one_line(hide_secrets(f"{type(error).__name__}: {error}"))
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"This could not be checked: {in_markdown(reason)}",
        )
    return dg.AssetCheckResult(
        passed=found.passed, severity=severity, description=found.said, metadata=dict(found.shown)
    )
