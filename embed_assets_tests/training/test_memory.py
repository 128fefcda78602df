"""How many texts fit, by the memory of a machine that is made up."""

import sys
from pathlib import Path
from typing import Any

import pytest

from embed_assets.machine import GIB
from embed_assets.models.encoder import load_model
from embed_assets.training.memory import Room, room_for
from embed_assets_tests.tiny_model import make_static_model, make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(str(make_tiny_model(tmp_path_factory.mktemp("model"), layers=3)))


def room(model: Any, *, memory: int = GIB, bf16: bool = False) -> Room:
    return room_for(model, 64, memory_bytes=memory, bf16=bf16)


def test_twice_the_memory_holds_twice_the_texts(model: Any) -> None:
    twice = room(model, memory=2 * GIB)
    assert twice.texts == pytest.approx(2 * room(model).texts, rel=0.01)
    assert not twice.checkpointing


def test_numbers_of_half_the_size_let_twice_the_texts_fit(model: Any) -> None:
    assert room(model, bf16=True).texts == pytest.approx(2 * room(model).texts, rel=0.01)


def test_activations_are_computed_again_only_where_one_text_s_do_not_fit(model: Any) -> None:
    rooms = [room(model, memory=step * 2**14) for step in range(1, 200)]
    needed = [found.checkpointing for found in rooms]
    assert needed == sorted(needed, reverse=True), "from some memory on it is not needed"
    assert len(set(needed)) == 2
    assert rooms[needed.index(False)] == Room(1)
    assert rooms[needed.index(False) - 1].texts > 1, "they take much less room"


def test_one_text_is_tried_however_little_memory_there_is(model: Any) -> None:
    assert room(model, memory=1) == Room(1, checkpointing=True)


def test_texts_of_a_model_without_activations_all_fit(tmp_path: Path) -> None:
    static = load_model(str(make_static_model(tmp_path)))
    assert room(static, memory=1) == Room(sys.maxsize)
