"""Models on a Ray cluster: the same embeddings, in the order of the texts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embed_assets.errors import ProjectError
from embed_assets.models.card import ModelCard
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.identity import model_identity
from embed_assets.models.spread import Part, encode_part
from embed_assets.resources.causes import Cause
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets_tests.in_turn import InTurn
from embed_assets_tests.tiny_model import make_tiny_model

RAY_MODELS = "embed_assets.resources.ray_workers.ray_models"
TEXTS = [f"page {number} of the valve" + " and pump" * number for number in range(11)]


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    return ModelCard("tiny", str(make_tiny_model(tmp_path / "model")), 64, "q: ", "d: ")


def encoder(folder: Path, card: ModelCard, engine: str) -> CachedEncoder:
    settings = Settings(precision="fp32").changed({"engine": engine})
    return CachedEncoder(Warehouse(path=str(folder / f"{engine}.duckdb")), card, settings)


def sizes(workers: InTurn) -> list[int]:
    return [len(part.texts) for part in workers.items]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embed_assets.models.spread.PART", 2)
    monkeypatch.setattr("embed_assets.models.embeddings.PART", 2)


def test_embeddings_are_the_same_wherever_they_are_made(tmp_path, card, few, monkeypatch):
    workers = InTurn()
    monkeypatch.setattr(RAY_MODELS, workers)
    here, there = (encoder(tmp_path, card, engine) for engine in ("local", "ray"))
    for one, other in (
        (here.encode_queries(TEXTS), there.encode_queries(TEXTS)),
        (here.encode_documents(TEXTS), there.encode_documents(TEXTS)),
    ):
        assert one.shape == (11, 32)
        assert np.allclose(one, other, atol=1e-5)
    assert sizes(workers) == 2 * [2, 2, 2, 2, 2, 1]
    assert workers.most_items == 6
    there.encode_documents(TEXTS)
    assert len(workers.items) == 12, "those that were kept are not made again"


def test_a_few_texts_are_encoded_here(tmp_path, card, monkeypatch):
    monkeypatch.setattr(RAY_MODELS, None)
    assert encoder(tmp_path, card, "ray").encode_queries(TEXTS).shape == (11, 32)


def test_a_part_whose_process_ended_is_begun_once_more(tmp_path, card, few, monkeypatch):
    there = encoder(tmp_path, card, "ray")
    loses = InTurn(lambda number: Cause.PROCESS_ENDED if number in (0, 3) else None)
    monkeypatch.setattr(RAY_MODELS, loses)
    found, wanted = there.encode_queries(TEXTS), encoder(tmp_path, card, "local")
    assert np.allclose(found, wanted.encode_queries(TEXTS), atol=1e-5)
    assert len(loses.items) == 8
    for workers in (InTurn(lambda _: Cause.PROCESS_ENDED), InTurn(lambda _: Cause.FAILED)):
        monkeypatch.setattr(RAY_MODELS, workers)
        with pytest.raises(ProjectError, match=r"failed: it says so\. Each node needs the model"):
            there.encode_documents(TEXTS)


def test_a_node_with_another_model_of_that_name_is_an_error(card, tmp_path):
    identity = model_identity(card)
    part = Part(card, identity, "fp32", "query", TEXTS, 0)
    assert encode_part(part).shape == (11, 32)
    other = replace(card, source=str(make_tiny_model(tmp_path / "other", size=64)))
    with pytest.raises(ProjectError, match="is another model on this node"):
        encode_part(replace(part, card=other))


def test_what_was_encoded_before_an_error_is_kept(tmp_path, card, few, monkeypatch):
    there = encoder(tmp_path, card, "ray")
    breaks, goes_on = InTurn(lambda number: Cause.FAILED if number == 5 else None), InTurn()
    monkeypatch.setattr(RAY_MODELS, breaks)
    with pytest.raises(ProjectError):
        there.encode_documents(TEXTS)
    monkeypatch.setattr(RAY_MODELS, goes_on)
    assert there.encode_documents(TEXTS).shape == (11, 32)
    assert sizes(goes_on) == [2, 1], "four parts are kept together"


def test_a_worker_loads_a_model_once_and_keeps_one(card, monkeypatch):
    loaded = []

    class Model:
        def __init__(self, card: ModelCard, precision: str) -> None:
            loaded.append((card.name, precision))

        def encode(self, texts: list[str], task: str) -> np.ndarray:
            return np.zeros((len(texts), 2), dtype=np.float32)

    monkeypatch.setattr("embed_assets.models.spread.LocalEncoder", Model)
    for precision in ("fp32", "fp32", "bf16", "bf16", "fp32"):
        encode_part(Part(card, model_identity(card), precision, "query", ["a"], 0))
    assert loaded == [("tiny", "fp32"), ("tiny", "bf16"), ("tiny", "fp32")]
