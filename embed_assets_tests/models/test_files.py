"""A hub model that was downloaded once is usable without a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embed_assets.errors import SettingsError
from embed_assets.models import files
from embed_assets.models.card import model_card
from embed_assets.models.files import NoModelError, find_file, hub_commit
from embed_assets.models.identity import model_identity, model_shape, tokenizer_identity
from embed_assets.settings import Settings
from embed_assets_tests.models.hub_cache import COMMIT, make_hub_cache
from embed_assets_tests.tiny_model import make_tiny_model

NAME = "team/tiny"
PROMPTS = "config_sentence_transformers.json"
BERT = "sentence_bert_config.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a hub that doesn't answer."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    files._hub_file.cache_clear()
    return tmp_path / "hub"


def test_a_file_that_the_hub_lacks_is_absent_from_a_model_that_was_downloaded(cache, model):
    make_hub_cache(cache, NAME, model, without=[PROMPTS, BERT])
    card = model_card(Settings(model=NAME))
    assert (card.source, card.query_prompt, card.token_limit) == (NAME, "", 128)
    assert find_file(NAME, PROMPTS) is None


def test_a_file_that_the_hub_said_it_lacks_is_absent_before_the_weights_are_there(cache, model):
    make_hub_cache(
        cache, NAME, model, without=[PROMPTS, BERT, ".safetensors"], absent=[PROMPTS, BERT]
    )
    assert model_card(Settings(model=NAME)).token_limit == 128


def test_a_file_that_nobody_asked_the_hub_for_is_unknown(cache, model):
    make_hub_cache(cache, NAME, model, without=[PROMPTS, ".safetensors"])
    with pytest.raises(NoModelError, match="no hub model 'team/tiny'"):
        find_file(NAME, PROMPTS)


def test_a_model_that_was_never_downloaded_is_unknown_and_not_absent(cache):
    settings = Settings(model=NAME)
    with pytest.raises(SettingsError, match=r"^EMBED_ASSETS_MODEL: no folder and no hub model"):
        model_card(settings)
    assert model_shape(settings) == {"model": (NAME, "unknown")}


def test_a_hub_model_is_known_by_its_commit(cache, model):
    snapshot = make_hub_cache(cache, NAME, model)
    assert hub_commit(NAME) == COMMIT
    card = model_card(Settings(model=NAME))
    before = model_identity(card), tokenizer_identity(card)
    files._hub_file.cache_clear()
    snapshot.rename(snapshot.with_name(COMMIT[::-1]))
    (snapshot.parent.parent / "refs" / "main").write_text(COMMIT[::-1])
    assert model_identity(card) != before[0]
    assert tokenizer_identity(card) == before[1]


def test_a_hub_model_embeds_offline_in_a_process_of_its_own(tmp_path: Path, model: Path):
    make_hub_cache(tmp_path / "hub", NAME, model, without=[PROMPTS])
    program = (
        "from embed_assets.models.card import model_card\n"
        "from embed_assets.models.encoder import LocalEncoder\n"
        "from embed_assets.settings import Settings\n"
        f"card = model_card(Settings(model='{NAME}'))\n"
        "print(LocalEncoder(card, 'fp32').encode(['the pump'], 'query').shape)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(1, 32)"
