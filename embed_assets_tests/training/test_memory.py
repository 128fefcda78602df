"""How many texts fit, by the memory of a machine that is made up."""

import sys
from pathlib import Path
from typing import Any

import pytest

from embed_assets.machine import GIB
from embed_assets.models.encoder import load_model
from embed_assets.training.memory import texts_that_fit
from embed_assets_tests.tiny_model import make_static_model, make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(str(make_tiny_model(tmp_path_factory.mktemp("model"), layers=3)))


def fit(model: Any, *, memory: int = GIB, bf16: bool = False, checkpointing: bool = False) -> int:
    return texts_that_fit(model, 64, memory_bytes=memory, bf16=bf16, checkpointing=checkpointing)


def test_twice_the_memory_holds_twice_the_texts(model: Any) -> None:
    assert fit(model, memory=2 * GIB) == pytest.approx(2 * fit(model), rel=0.01)


def test_numbers_of_half_the_size_let_twice_the_texts_fit(model: Any) -> None:
    assert fit(model, bf16=True) == pytest.approx(2 * fit(model), rel=0.01)


def test_activations_that_are_computed_again_take_no_room(model: Any) -> None:
    assert fit(model, checkpointing=True) > fit(model)


def test_one_text_is_tried_however_little_memory_there_is(model: Any) -> None:
    assert fit(model, memory=1) == 1


def test_texts_of_a_model_without_activations_all_fit(tmp_path: Path) -> None:
    assert fit(load_model(str(make_static_model(tmp_path))), memory=1) == sys.maxsize
