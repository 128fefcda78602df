"""Texts are encoded in batches of like lengths, and what comes out is what the model says."""

import _thread
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Barrier, current_thread
from typing import Any, Literal

import numpy as np
import pytest
import torch

from embed_assets.models import encoder as module
from embed_assets.models.card import ModelCard, model_card
from embed_assets.models.encoder import LocalEncoder, batches, load_model
from embed_assets.settings import Settings
from embed_assets_tests.machines import H100, PLAIN, with_gpus
from embed_assets_tests.tiny_model import make_static_model, make_tiny_model

EIGHT_CORES = replace(PLAIN, cores=8)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    folder = make_tiny_model(tmp_path_factory.mktemp("model"))
    return model_card(Settings(model=str(folder), query_prompt="question: "))


def texts_of_many_lengths() -> list[str]:
    words = ["the", "pump", "pressure", "reading", "of", "a", "valve"]
    random = np.random.default_rng(0)
    return ["", *(" ".join(random.choice(words, n)) for n in random.integers(1, 200, 120))]


def test_embeddings_are_those_of_sentence_transformers_in_the_order_of_the_texts(card: ModelCard):
    texts = texts_of_many_lengths()

    ours = LocalEncoder(card, "fp32").encode(texts, "query")

    theirs = load_model(card.source).encode(texts, prompt=card.query_prompt)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.usefixtures("torch_without_gpu")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_gets_large_batches_one_after_another(
    card: ModelCard, precision: Literal["fp32", "bf16"], monkeypatch: pytest.MonkeyPatch
):
    """Its branch, taken on the CPU: torch knows of no GPU here, so the model stays where it is."""
    monkeypatch.setattr(module, "GPU_BATCH_TOKENS", 2 * module.CPU_BATCH_TOKENS)
    sizes: dict[str, list[int]] = {"cpu": [], "gpu": []}
    found = {}
    texts = texts_of_many_lengths() * 3
    for name, machine in (("cpu", EIGHT_CORES), ("gpu", with_gpus(H100))):
        encoder = LocalEncoder(card, precision, machine)
        encode, caller = encoder._model.encode, current_thread()

        def measured(batch: list[str], name=name, encode=encode, caller=caller, **options: Any):
            sizes[name].append(len(batch))
            assert name == "cpu" or current_thread() is caller
            return encode(batch, **options)

        encoder._model.encode = measured
        found[name] = encoder.encode(texts, "document")
    assert len(sizes["gpu"]) < len(sizes["cpu"])
    close = 1e-6 if precision == "fp32" else 0.05
    np.testing.assert_allclose(found["gpu"], found["cpu"], atol=close)


@pytest.fixture
def five_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("five_threads")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cpu_encodes_batches_side_by_side_and_its_threads_stay_as_they_were(
    card: ModelCard, precision: Literal["fp32", "bf16"], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MOST_BATCHES_AT_ONCE", 3)
    encoder = LocalEncoder(card, precision, EIGHT_CORES)
    texts = texts_of_many_lengths()
    encode, calls, meeting = encoder._model.encode, count(), Barrier(3)
    threads, low = [], set()

    def encode_when_three_are_there(batch: list[str], **options: Any) -> np.ndarray:
        low.add(torch.is_autocast_enabled("cpu"))
        if next(calls) < 3:
            threads.append(torch.get_num_threads())
            meeting.wait(timeout=60)
        return encode(batch, **options)

    encoder._model.encode = encode_when_three_are_there

    found = encoder.encode(texts, "query")

    whole = encode(texts, prompt=card.query_prompt)
    np.testing.assert_allclose(found, whole, atol=1e-6 if precision == "fp32" else 0.05)
    assert low == {precision == "bf16"}
    assert sorted(threads) == [1, 2, 2]
    assert torch.get_num_threads() == 5


@pytest.mark.usefixtures("five_threads")
@pytest.mark.parametrize(
    ("texts", "batches"), [(0, range(1)), (1, range(1, 2)), (9, range(1, 2)), (99, range(5, 9))]
)
def test_little_is_encoded_by_one_thread_and_more_by_all_in_batches_of_their_own(
    card: ModelCard, texts: int, batches: range
):
    encoder = LocalEncoder(card, "fp32", EIGHT_CORES)
    few = [f"the valve {n}" for n in range(texts)]
    encode, threads = encoder._model.encode, []

    def measured(batch: list[str], **options: Any) -> np.ndarray:
        threads.append(torch.get_num_threads())
        return encode(batch, **options)

    encoder._model.encode = measured
    found = encoder.encode(few, "query")

    assert len(threads) in batches
    assert set(threads) <= {1}
    assert torch.get_num_threads() == 5
    if few:
        whole = encode(few, prompt=card.query_prompt)
        np.testing.assert_allclose(found, whole, atol=1e-6)


@pytest.mark.usefixtures("five_threads")
@pytest.mark.parametrize("how", ["error", "Ctrl-C"])
def test_an_encoding_that_fails_or_is_stopped_ends_at_once(card: ModelCard, how: str):
    encoder = LocalEncoder(card, "fp32", EIGHT_CORES)
    texts = texts_of_many_lengths() * 50
    encode, calls, encoded = encoder._model.encode, count(), []

    def end_at_first(batch: list[str], **options: Any) -> np.ndarray:
        if next(calls) == 0:
            if how == "error":
                raise MemoryError("no memory left")
            _thread.interrupt_main()
        encoded.extend(batch)
        time.sleep(0.02)
        return encode(batch, **options)

    encoder._model.encode = end_at_first

    with pytest.raises(MemoryError if how == "error" else KeyboardInterrupt):
        encoder.encode(texts, "query")
    assert len(encoded) < len(texts) / 2
    assert torch.get_num_threads() == 5


def test_static_embeddings_are_a_model_as_well(tmp_path: Path):
    static = make_static_model(tmp_path)
    (static / "words").mkdir()
    for name in ("tokenizer.json", "model.safetensors"):  # as older releases put them
        (static / name).rename(static / "words" / name)
    modules = json.loads((static / "modules.json").read_text())
    modules[0]["path"] = "words"
    (static / "modules.json").write_text(json.dumps(modules))

    card = model_card(Settings(model=str(static)))

    assert card.count_tokens("the valve") == 2
    texts = ["the pump", "the valve " * 500]
    found = LocalEncoder(card, "fp32").encode(texts, "document")
    np.testing.assert_allclose(found, load_model(card.source).encode(texts), atol=1e-6)


def test_no_texts_have_no_embeddings(card: ModelCard):
    assert LocalEncoder(card, "fp32").encode([], "document").shape == (0, 32)


def test_every_text_is_in_one_batch_and_the_longest_come_first():
    lengths = np.array([3, 9, 1, 7, 7, 2])

    found = [batch.tolist() for batch in batches(lengths, batch_tokens=14)]

    assert found == [[1], [3, 4], [0, 5, 2]]


def test_a_batch_holds_no_more_tokens_than_it_may_padding_included():
    lengths = np.random.default_rng(0).integers(1, 300, 500)

    found = list(batches(lengths, batch_tokens=2048))

    assert sorted(np.concatenate(found).tolist()) == list(range(500))
    assert max(lengths[batch].max() * len(batch) for batch in found) <= 2048


def test_a_text_longer_than_a_batch_may_be_is_a_batch_of_its_own():
    assert [batch.tolist() for batch in batches(np.array([5000, 6000]), 2048)] == [[1], [0]]


def test_texts_are_ordered_by_what_the_model_reads_and_not_by_their_characters(card: ModelCard):
    unknown, known = "xqzv xqzv xqzv", "calibration calibration"
    encoder = LocalEncoder(card, "fp32")
    read: list[list[str]] = []
    encode = encoder._model.encode
    encoder._model.encode = lambda texts, **options: read.append(texts) or encode(texts, **options)

    encoder.encode([known, unknown] * 200, "document")

    assert len(known) > len(unknown)
    assert read[0][0] == unknown  # of more tokens: letter by letter
    assert {len(set(batch)) for batch in read} <= {1, 2}
    assert sum(len(set(batch)) == 2 for batch in read) <= 1


def test_a_model_that_pads_nothing_and_so_tells_no_lengths_is_encoded_too(card: ModelCard):
    texts = texts_of_many_lengths()
    encoder = LocalEncoder(card, "fp32")
    expected = encoder.encode(texts, "document")
    preprocess = encoder._model.preprocess
    answers = iter([{"input_ids": None}])  # as with flash attention: one row of all the texts
    encoder._model.preprocess = lambda *a, **k: next(answers, None) or preprocess(*a, **k)

    np.testing.assert_allclose(encoder.encode(texts, "document"), expected, atol=1e-6)
