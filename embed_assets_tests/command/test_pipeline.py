"""What a failed run says on the command line."""

import dagster as dg
import pytest

from embed_assets.command.pipeline import _failure
from embed_assets.errors import SettingsError


def failed(error: Exception, cause: Exception | None = None) -> dg.ExecuteInProcessResult:
    @dg.asset
    def chunks() -> None:
        raise error from cause

    return dg.materialize([chunks], raise_on_error=False)


def test_what_the_project_says_is_shown_alone_whatever_caused_it():
    result = failed(SettingsError("EMBED_ASSETS_MODEL: it can't\nbe loaded."), OSError("errno 2"))
    said = str(_failure(result))
    assert said == f"EMBED_ASSETS_MODEL: it can't be loaded. (Dagster run {result.run_id[:8]})"


def test_of_other_errors_the_first_cause_is_shown_with_its_step():
    said = str(_failure(failed(RuntimeError("outer"), ValueError("inner"))))
    assert said.startswith("chunks: ValueError: inner (Dagster run ")


def test_a_run_that_was_interrupted_is_no_failure():
    with pytest.raises(KeyboardInterrupt):
        _failure(failed(RuntimeError("DagsterExecutionInterruptedError")))
