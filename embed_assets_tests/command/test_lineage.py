"""What a version's record says of its settings, whichever version of the project kept it."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from embed_assets.command.lineage import lineage_summary, lineage_text
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES


@pytest.mark.parametrize(
    ("kept", "used", "chosen"),
    [
        (
            {"set": {"epochs": 3}, "used": {"epochs": 3, "learning_rate": 6e-5}},
            {"epochs": 3, "learning_rate": 6e-5},
            "Settings other than the defaults: epochs=3",
        ),
        ({"epochs": 3}, {"epochs": 3}, None),
        (None, None, None),
    ],
)
def test_settings_that_were_set_are_told_from_what_the_others_came_to(tmp_path, kept, used, chosen):
    settings = Settings(pdfs=tmp_path, home=tmp_path / "home")
    texts = dict.fromkeys(
        ("base", "path", "input_version", "mlflow_run_id", "dagster_run_id", "code", "machine"), "x"
    )
    row = {
        **texts,
        "version": "1",
        "trained_at": datetime.now(UTC),
        "settings": kept and json.dumps(kept),
    }
    models = pl.DataFrame([row], schema=TABLES["models"].schema)
    Warehouse(path=str(settings.warehouse)).replace("models", models)
    summary = lineage_summary(settings, "1")
    assert summary["settings"] == used
    said = [line for line in lineage_text(summary).splitlines() if line.startswith("Settings")]
    assert said == ([chosen] if chosen else [])
