"""A model's identity changes with everything that decides its vectors, and with nothing else."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embed_assets.models.card import embedding_size, model_card, version_card
from embed_assets.models.identity import (
    model_identity,
    note_same,
    task_identity,
    tokenizer_identity,
)
from embed_assets.settings import Settings
from embed_assets_tests.tiny_model import make_static_model, make_tiny_model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "model")


def identity(model: Path, **settings: Any) -> str:
    return model_identity(model_card(Settings(model=str(model), **settings)))


def tokenizer(model: Path, **settings: Any) -> str:
    return tokenizer_identity(model_card(Settings(model=str(model), **settings)))


def edit(file: Path, **changes: Any) -> None:
    said = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(said | changes), encoding="utf-8")


def rewrite_weights(model: Path, change: Callable[[Any], Any]) -> None:
    """As another program would write them: with a note of its own."""
    from safetensors.torch import load_file, save_file

    weights = {name: change(tensor) for name, tensor in load_file(model / WEIGHTS).items()}
    save_file(weights, model / WEIGHTS, metadata={"written_by": "another program"})


WEIGHTS = "model.safetensors"


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "cls"}),
        ("config.json", {"layer_norm_eps": 1e-6}),
        ("tokenizer_config.json", {"model_max_length": 64}),
        ("tokenizer.json", {"normalizer": None}),
        ("config_sentence_transformers.json", {"prompts": {"query": "find: "}}),
    ],
)
def test_another_pooling_tokenizer_limit_or_prompt_is_another_model(model, file, changes):
    before = identity(model)
    edit(model / file, **changes)
    assert identity(model) != before


def test_other_weights_in_the_same_folder_are_another_model(model):
    before = identity(model), tokenizer(model)
    rewrite_weights(model, lambda tensor: tensor + 1)
    assert identity(model) != before[0]
    assert tokenizer(model) == before[1]


def test_the_same_model_elsewhere_is_the_same_whoever_wrote_its_files(model, tmp_path):
    before = identity(model)
    moved = shutil.copytree(model, tmp_path / "moved")
    rewrite_weights(moved, lambda tensor: tensor)
    (moved / "README.md").write_text("My model.")
    edit(moved / "config_sentence_transformers.json", __version__={"pytorch": "9"})
    assert identity(moved) == before


def test_prompts_and_limit_of_the_settings_are_part_of_the_base_model(model):
    identities = {
        identity(model),
        identity(model, query_prompt="find: "),
        identity(model, document_prompt="find: "),
        identity(model, max_chunk_tokens=64),
    }
    assert len(identities) == 4


def test_chunks_depend_on_the_tokenizer_and_the_limit(model):
    before = tokenizer(model)
    assert tokenizer(model, query_prompt="find: ") == before
    assert tokenizer(model, max_chunk_tokens=64) != before
    edit(model / "tokenizer.json", normalizer=None)
    assert tokenizer(model) != before


def test_what_was_read_is_not_read_again(model, monkeypatch):
    before = identity(model)
    monkeypatch.setattr("embed_assets.models.identity._tensors", None)
    assert identity(model) == before


def test_documents_of_an_adapter_are_its_base_s_until_somebody_changes_them(model, tmp_path):
    base = version_card("base", model)
    adapter = shutil.copytree(model, tmp_path / "adapter")
    edit(adapter / "1_Pooling" / "config.json", written_by="a later release")
    card = version_card("adapter", adapter)
    assert task_identity(card, "document") != task_identity(base, "document")
    note_same(adapter, "document", str(model))
    assert task_identity(card, "document") == task_identity(base, "document")
    assert task_identity(card, "query") != task_identity(base, "query")
    rewrite_weights(adapter, lambda tensor: tensor + 1)
    assert task_identity(card, "document") != task_identity(base, "document")


def test_a_version_has_its_own_prompts_and_limit(model):
    from sentence_transformers import SentenceTransformer

    trained: Any = SentenceTransformer(str(model), device="cpu")
    trained.prompts, trained.max_seq_length = {"query": "ask: ", "document": "tell: "}, 48
    folder = model.with_name("v1")
    trained.save_pretrained(str(folder))
    card = version_card("v1", folder)
    assert (card.query_prompt, card.document_prompt, card.token_limit) == ("ask: ", "tell: ", 48)
    assert model_identity(card) == model_identity(replace(card, name="another name"))


def test_the_length_of_embeddings_is_read_from_the_files(model, tmp_path):
    assert embedding_size(str(model)) == 32
    old = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    pooling = model / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(old | {"pooling_mode_mean_tokens": True}), encoding="utf-8")
    assert embedding_size(str(model)) == 64
    assert embedding_size(str(make_static_model(tmp_path / "static"))) == 32


def test_no_model_is_loaded_to_know_what_it_is():
    program = (
        "import sys\n"
        "from embed_assets.models.identity import model_shape\n"
        "from embed_assets.settings import Settings\n"
        "model_shape(Settings())\n"
        "print({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_model_s_card_says_the_settings_prompts_first(model):
    edit(model / "config_sentence_transformers.json", prompts={"query": "find: ", "passage": "p: "})
    card = model_card(Settings(model=str(model), query_prompt=""))
    assert (card.query_prompt, card.document_prompt) == ("", "p: ")
