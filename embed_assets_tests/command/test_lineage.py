"""What a version's record says of its settings, whichever version of the project kept it."""

import json

import pytest

from embed_assets.command.lineage import lineage_text
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.lineage import version_lineage
from embed_assets_tests.rows import model


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
    row = model("1", settings=kept and json.dumps(kept))
    Warehouse(path=str(settings.warehouse)).replace("models", row)
    summary = version_lineage(settings, "1")
    assert summary["settings"] == used
    said = [line for line in lineage_text(summary).splitlines() if line.startswith("Settings")]
    assert said == ([chosen] if chosen else [])
