"""A model's folder says to other servers what it was trained for."""

import json
from pathlib import Path

from sentence_transformers import SentenceTransformer

from embed_assets.models.card import version_card
from embed_assets.training.weights import save_model
from embed_assets_tests.tiny_model import make_static_model, make_tiny_model


def test_the_config_names_the_dimensions_at_which_embeddings_may_be_cut(tmp_path: Path):
    model = SentenceTransformer(str(make_tiny_model(tmp_path / "parts")))
    save_model(model, tmp_path / "v1", (32, 16, 8))
    config = json.loads((tmp_path / "v1" / "config.json").read_text())
    assert config["is_matryoshka"] is True
    assert config["matryoshka_dimensions"] == [8, 16, 32]
    card = version_card("v1", tmp_path / "v1")
    assert card.trained_dimensions("4") == (32, 16, 8), "whatever is set today"


def test_a_model_of_before_has_the_dimensions_that_are_set(tmp_path: Path):
    card = version_card("v1", make_tiny_model(tmp_path))
    assert card.trained_dimensions("16") == (32, 16)


def test_a_model_without_a_transformer_is_saved_too(tmp_path: Path):
    model = SentenceTransformer(str(make_static_model(tmp_path / "parts")))
    save_model(model, tmp_path / "v1", (32,))
    assert SentenceTransformer(str(tmp_path / "v1")).encode("the valve").shape
