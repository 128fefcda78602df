"""Search asks the champion in its own words, whatever the settings say today."""

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from embed_assets.errors import ProjectError
from embed_assets.models.encoder import LocalEncoder
from embed_assets.models.registry import make_champion
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.dense import search_chunks
from embed_assets.settings import Settings
from embed_assets_tests.decisions import BY_TEST
from embed_assets_tests.rows import filled
from embed_assets_tests.tiny_model import make_tiny_model

TEXTS = ("The winch float is orange.", "The brine pump hums.")


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> Settings:
    """A home with two chunks, and a champion that was trained with prompts of its own."""
    settings = Settings(home=tmp_path / "home", model=str(tiny_model), precision="fp32")
    version = shutil.copytree(tiny_model, settings.models / "v1")
    prompts = {"prompts": {"query": "ask: ", "document": "tell: "}}
    (version / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    write(
        settings,
        "chunks",
        [
            {"chunk_id": f"c{n}", "document_id": "d", "chunk_index": n, "chunk_text": text}
            for n, text in enumerate(TEXTS)
        ],
    )
    write(
        settings,
        "models",
        [{"version": "1", "base": "a base", "path": str(version), "trained_at": datetime.now(UTC)}],
    )
    tracking = Tracking(home=str(settings.home))
    tracking.client().create_registered_model(tracking.connect())
    tracking.client().create_model_version(tracking.name, str(version))
    make_champion(tracking, "1", BY_TEST)
    return settings


def write(settings: Settings, table: str, values: list[dict[str, Any]]) -> None:
    Warehouse(path=str(settings.warehouse)).replace(table, filled(table, values))


def prompts_used(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Prompts that stand before texts from now on."""
    encode, seen = LocalEncoder.encode, set()

    def note(self: LocalEncoder, texts: Sequence[str], task: Any, *rest: Any) -> Any:
        seen.add(self._card.prompt(task))
        return encode(self, texts, task, *rest)

    monkeypatch.setattr(LocalEncoder, "encode", note)
    return seen


@pytest.mark.parametrize("today", [{"query_prompt": "today: "}, {"model": "./another-base"}, {}])
def test_the_champion_searches_with_its_own_prompts_under_any_settings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, today: dict[str, str]
):
    used = prompts_used(monkeypatch)
    found = search_chunks(settings.model_copy(update=today), "orange float", k=1)
    assert found["model"] == "a base fine-tuned, version 1"
    assert used == {"ask: ", "tell: "}
    assert len(found["results"]) == 1


def test_a_champion_whose_folder_is_gone_is_said(settings: Settings):
    shutil.rmtree(settings.models / "v1")
    with pytest.raises(ProjectError, match="The folder of version 1 is gone"):
        search_chunks(settings, "orange float", k=1)
