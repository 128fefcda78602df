from pathlib import Path

import pytest

from embed_assets.machine import this_machine
from embed_assets.models.encoder import load_model
from embed_assets.training.forward import forward_once
from embed_assets_tests.tiny_model import make_tiny_model

TEXTS = [" ".join(["the", "pump", "valve"][: 1 + i % 3] * (1 + 7 * (i % 4))) for i in range(30)]


def test_parts_give_the_embeddings_and_gradients_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr("embed_assets.training.forward.PART_TOKENS", 64)
    base = make_tiny_model(tmp_path, dropout=0.0)
    found = []
    for in_parts in (False, True):
        model = load_model(str(base)).train()
        if in_parts:
            forward_once(model, this_machine())
        embeddings = model(model.preprocess(TEXTS))["sentence_embedding"]
        (embeddings * torch.linspace(-1, 1, 32)).sin().mean().backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        found.append((embeddings.detach(), gradients))
    (whole, gradients), (parts, same) = found
    assert torch.allclose(whole, parts, atol=1e-5)
    assert len(gradients) == len(same) > 10
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradients, same, strict=True))


def test_a_text_that_stands_twice_is_embedded_once(tmp_path: Path) -> None:
    model = load_model(str(make_tiny_model(tmp_path, dropout=0.0))).train()
    whole = model(model.preprocess(TEXTS))["sentence_embedding"]
    rows = []
    model[0].register_forward_pre_hook(
        lambda module, inputs: rows.append(len(inputs[0]["input_ids"]))
    )
    forward_once(model, this_machine())
    embeddings = model(model.preprocess(TEXTS))["sentence_embedding"]
    assert sum(rows) == len(set(TEXTS)) < len(TEXTS)
    assert embeddings.allclose(whole, atol=1e-5)


def test_a_part_is_no_larger_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embed_assets.training.forward.PART_TOKENS", 64)
    model = load_model(str(make_tiny_model(tmp_path))).train()
    seen = []
    model[0].register_forward_pre_hook(
        lambda module, inputs: seen.append(tuple(inputs[0]["input_ids"].shape))
    )
    forward_once(model, this_machine())
    model(model.preprocess(TEXTS))
    assert sum(rows for rows, _ in seen) == len(set(TEXTS))
    assert len(seen) > 1
    assert all(rows == 1 or rows * columns <= 64 for rows, columns in seen)
