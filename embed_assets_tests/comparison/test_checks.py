"""Whether a training was worth it, as a check of the comparison."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from embed_assets.comparison.checks import better_than_base
from embed_assets.resources.ledger import UNPARTITIONED, Materialization, write_made
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import TABLES


def result_of(check: Any, *resources: object) -> dg.AssetCheckResult:
    return check(*resources)


@pytest.mark.parametrize(
    ("verdict", "passed"),
    [("better", True), ("worse", False), ("no clear difference", False)],
)
def test_a_tuned_model_that_is_not_better_than_its_base_is_a_warning(
    tmp_path: Path, verdict: str, passed: bool
):
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    row = {
        "run_id": "r",
        "model": "base",
        "split": "test_labelled",
        "metric": "ndcg",
        "k": 10,
        "dimension": 32,
        "score": 0.4,
        "tuned": 0.5,
        "difference": 0.1,
        "low": 0.0,
        "high": 0.2,
        "p_value": 0.01,
        "verdict": verdict,
        "questions": 9,
        "documents": 9,
        "resampled": "documents",
    }
    of_another_run = row | {"run_id": "before", "verdict": "better", "tuned": 0.9}
    frame = pl.DataFrame([row, of_another_run], schema=TABLES["model_comparisons"].schema)
    with warehouse.transaction() as transaction:
        transaction.replace("model_comparisons", frame)
        made = {UNPARTITIONED: Materialization("code", "inputs", "r")}
        write_made(transaction, "comparison", made, "dagster run")
    result = result_of(better_than_base, warehouse)
    assert (result.passed, result.severity.value) == (passed, "WARN")
    assert "NDCG@10 0.400 → 0.500" in str(result.description)


def test_before_any_comparison_the_check_says_that_there_is_none(tmp_path):
    result = result_of(better_than_base, Warehouse(path=str(tmp_path / "warehouse.duckdb")))
    assert not result.passed
    assert result.description == "No model has been compared yet."
