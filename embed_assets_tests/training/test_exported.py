"""A version's network for other runtimes ranks as the version does, or nothing goes out."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Router, Transformer
from transformers import (
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
)

from embed_assets.errors import ProjectError, SettingsError
from embed_assets.evaluation.scoring import retrieval_task
from embed_assets.models import network
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training import exported
from embed_assets.training.publishing import publish_text, publish_version
from embed_assets_tests.rows import filled
from embed_assets_tests.tiny_model import WORDS, make_static_model, make_tiny_model

QUESTIONS = 24


def home_with(folder: Path, model: Path, questions: int) -> Settings:
    """A home whose version 1 is this model, and whose questions share words with their chunks."""
    settings = Settings(home=folder / "home")
    settings.models.mkdir(parents=True)
    shutil.copytree(model, settings.models / "v1")
    (settings.models / "v1" / "README.md").write_text("# A card\n", encoding="utf-8")
    warehouse = Warehouse.of(settings)
    warehouse.replace("models", filled("models", [{"version": "1", "path": "models/v1"}]))
    random, words = np.random.default_rng(0), WORDS.split()
    texts = [" ".join(random.choice(words, random.integers(5, 40))) for _ in range(60)]
    chunks = [
        {"chunk_id": f"c{i}", "chunk_text": text, "document_id": "d", "chunk_index": i}
        for i, text in enumerate(texts)
    ]
    warehouse.replace("chunks", filled("chunks", chunks))
    asked = [
        {
            "question_id": f"q{i}",
            "anchor": " ".join(texts[i].split()[:4]),
            "relevant_chunk_ids": [f"c{i}"],
            "split": "test_labelled",
        }
        for i in range(questions)
    ]
    warehouse.replace("training_pairs", filled("training_pairs", asked))
    return settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home_with(tmp_path, make_tiny_model(tmp_path / "parts"), QUESTIONS)


def run_onnx(file: Path) -> Any:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_outputs()] == ["last_hidden_state"]
    return lambda inputs: session.run(None, inputs)[0]


def run_openvino(file: Path) -> Any:
    # By itself it computes in bf16 on processors that do.
    exactly = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = network.imported("openvino").Core().compile_model(file, "CPU", exactly)
    assert [given.get_any_name() for given in compiled.outputs] == ["last_hidden_state"]
    return lambda inputs: compiled(inputs)[0]


@pytest.mark.parametrize(
    ("form", "file", "load"),
    [
        ("onnx", "onnx/model.onnx", run_onnx),
        ("openvino", "openvino/openvino_model.xml", run_openvino),
    ],
)
def test_the_network_lies_where_others_look_and_reads_any_batch(
    settings: Settings, tmp_path: Path, form: Any, file: str, load: Any, capfd
):
    summary = publish_version(settings, "1", str(tmp_path / "out"), form=form)
    said = capfd.readouterr()
    assert file in summary["files"]
    model: Any = SentenceTransformer(str(tmp_path / "out"))
    run = load(tmp_path / "out" / file)
    for texts in (["valve"], ["pump " * 90, "salt", "the wing"]):
        features = model.preprocess(texts)
        names = ("input_ids", "attention_mask", "token_type_ids")
        hidden = run({name: features[name].numpy() for name in names})
        wanted = model[0](dict(features))["token_embeddings"].detach().numpy()
        assert hidden == pytest.approx(wanted, abs=1e-4)
    check = summary["exported"]
    assert check["ndcg_at_10"]["pytorch"] == pytest.approx(check["ndcg_at_10"][form], rel=0.005)
    assert 0 < check["ndcg_at_10"]["pytorch"] < 1
    assert (check["questions"], check["chunks"]) == (QUESTIONS, 60)
    assert check["least_cosine"] > 0.9999
    assert json.loads(json.dumps(summary)) == summary
    assert f"{check['ndcg_at_10'][form]:.4f}, and" in publish_text(summary)
    assert f'backend="{form}"' in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert not said.out
    assert not [word for word in ("Warning", "torchvision") if word in said.err]


def test_it_quotes_neither_a_path_of_this_machine_nor_its_code(settings: Settings, tmp_path: Path):
    publish_version(settings, "1", str(tmp_path / "out"), form="onnx")
    written = (tmp_path / "out/onnx/model.onnx").read_bytes()
    assert b".py" not in written
    assert str(Path(__file__).parents[2]).encode() not in written


def broken(write: Any) -> Any:
    """An exporter that loses the weights of the word embeddings."""

    def write_other_weights(model: Any, *rest: Any) -> None:
        other = copy.deepcopy(model)
        torch.nn.init.normal_(other.model.get_input_embeddings().weight)
        write(other, *rest)

    return write_other_weights


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_network_that_ranks_otherwise_is_refused_and_nothing_written(
    settings: Settings, tmp_path: Path, monkeypatch, form: Any
):
    monkeypatch.setattr(network, f"_write_{form}", broken(getattr(network, f"_write_{form}")))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ProjectError, match=r"NDCG@10 is 0\.\d{4}, and 0\.\d{4} in PyTorch"):
        publish_version(settings, "1", str(tmp_path / "out"), form=form, with_data=True)
    assert sorted(tmp_path.iterdir()) == before


def test_with_few_questions_the_vectors_decide(tmp_path: Path, monkeypatch):
    settings = home_with(tmp_path, make_tiny_model(tmp_path / "parts"), questions=0)
    summary = publish_version(settings, "1", str(tmp_path / "out"), form="onnx")
    assert summary["exported"]["ndcg_at_10"] is None
    assert "too few questions" in publish_text(summary)
    monkeypatch.setattr(network, "_write_onnx", broken(network._write_onnx))
    with pytest.raises(ProjectError, match=r"a cosine of -?0\."):
        publish_version(settings, "1", str(tmp_path / "other"), form="onnx")
    assert not (tmp_path / "other").exists()


def test_a_network_that_gives_no_numbers_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch
):
    def run_to_nothing(file: Path) -> Any:
        return lambda inputs: np.full((*inputs["input_ids"].shape, 32), np.nan, dtype=np.float32)

    monkeypatch.setattr(network, "_onnx_session", run_to_nothing)
    with pytest.raises(ProjectError, match="no finite numbers"):
        publish_version(settings, "1", str(tmp_path / "out"), form="onnx")


def test_numbers_that_are_none_are_found_in_chunks_alone(
    settings: Settings, tmp_path: Path, monkeypatch
):
    encode, tasks = exported.encode, []

    def broken_at_last(model: Any, texts: Any, task: Any, *rest: Any, **named: Any) -> np.ndarray:
        tasks.append(task)
        vectors = encode(model, texts, task, *rest, **named)
        if tasks == ["query", "document", "query", "document"]:
            vectors[-1] = np.nan
        return vectors

    monkeypatch.setattr(exported, "encode", broken_at_last)
    with pytest.raises(ProjectError, match="no finite numbers"):
        publish_version(settings, "1", str(tmp_path / "out"), form="onnx")
    assert len(tasks) == 4


def test_of_many_questions_and_chunks_some_are_drawn_with_all_answers(
    settings: Settings, monkeypatch
):
    monkeypatch.setattr(exported, "MOST_QUESTIONS", 10)
    monkeypatch.setattr(exported, "MOST_CHUNKS", 30)
    task = retrieval_task(Warehouse.of(settings))
    drawn = exported._drawn(task)
    assert (drawn.questions.height, drawn.corpus.height) == (10, 30)
    assert {c for ids in drawn.relevant.values() for c in ids} <= set(drawn.texts)
    assert drawn.texts == exported._drawn(task).texts


@pytest.mark.parametrize(("form", "package"), [("onnx", "onnxscript"), ("openvino", "openvino")])
def test_a_missing_package_is_named_with_what_installs_it(
    settings: Settings, tmp_path: Path, monkeypatch, form: Any, package: str
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=rf"--format: .*embed_assets\[{form}\]"):
        publish_version(settings, "1", str(tmp_path / "out"), form=form)
    assert not (tmp_path / "out").exists()


def test_openvino_tells_its_makers_nothing():
    """In a process of its own: whoever imported OpenVINO first has decided it."""
    said = (
        "from embed_assets.models.network import imported; imported('openvino');"
        "from openvino.tools.ovc import telemetry_utils; print(telemetry_utils.tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert "stub" in done.stdout


def with_adapter(model: Path, folder: Path) -> Path:
    """A version as the query adapter writes it."""
    base: Any = SentenceTransformer(str(model))
    adapter = Dense(32, 32, bias=False, activation_function=torch.nn.Identity())
    routes = Router.for_query_document([*base, adapter], list(base))
    SentenceTransformer(modules=[routes]).save_pretrained(str(folder))
    return folder


def test_a_query_adapter_keeps_its_route_through_one_network(tmp_path: Path):
    model = with_adapter(make_tiny_model(tmp_path / "parts"), tmp_path / "adapter")
    settings = home_with(tmp_path, model, QUESTIONS)
    summary = publish_version(settings, "1", str(tmp_path / "out"), form="onnx")
    assert summary["exported"]["file"] == "query_0_Transformer/onnx/model.onnx"
    assert summary["exported"]["least_cosine"] > 0.9999


def test_weights_of_a_large_network_lie_beside_it(settings: Settings, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(network, "WHOLE_FILE_BYTES", 0)
    summary = publish_version(settings, "1", str(tmp_path / "out"), form="onnx")
    assert {"onnx/model.onnx", "onnx/model.onnx_data"} <= set(summary["files"])


def modernbert(folder: Path) -> Path:
    config = ModernBertConfig(
        vocab_size=500,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        local_attention=8,
        pad_token_id=0,
    )
    return model_of(ModernBertModel(config), folder)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_window_that_holds_padding_alone_gives_numbers(tmp_path: Path, form: Any):
    model: Any = SentenceTransformer(str(modernbert(tmp_path)))
    texts = ["valve", "the pump of the winch " * 8]
    wanted = model.encode(texts)
    network.run_by(model, form, network.export_network(model, form, tmp_path / "out"))
    assert model.encode(texts) == pytest.approx(wanted, abs=1e-4)


def decoder(folder: Path) -> Path:
    config = Qwen3Config(
        vocab_size=500,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=0,
    )
    return model_of(Qwen3Model(config), folder)


def model_of(transformer: Any, folder: Path) -> Path:
    """A sentence-transformers model of this network and the tiny model's words."""
    words: Any = SentenceTransformer(str(make_tiny_model(folder / "words")))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words.tokenizer.backend_tokenizer, pad_token="[PAD]", model_max_length=128
    )
    tokenizer.save_pretrained(folder / "network")
    transformer.save_pretrained(folder / "network")
    modules = [Transformer(str(folder / "network")), Pooling(32)]
    SentenceTransformer(modules=modules).save_pretrained(str(folder / "model"))
    return folder / "model"


def with_code(folder: Path) -> Path:
    model = make_tiny_model(folder)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModel": "modeling.Own"}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return model


def with_two_networks(folder: Path) -> Path:
    one: Any = SentenceTransformer(str(make_tiny_model(folder / "one")))
    other: Any = SentenceTransformer(str(make_tiny_model(folder / "other")))
    routes = Router.for_query_document(list(one), list(other))
    SentenceTransformer(modules=[routes]).save_pretrained(str(folder / "two"))
    return folder / "two"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (make_static_model, "begins with StaticEmbedding"),
        (decoder, "is a decoder"),
        (with_code, "runs code that comes with it"),
        (with_two_networks, "pass through different transformers"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_written(
    tmp_path: Path, make: Any, why: str
):
    settings = home_with(tmp_path, make(tmp_path / "parts"), QUESTIONS)
    with pytest.raises(SettingsError, match=f"--format: .*{why}"):
        publish_version(settings, "1", str(tmp_path / "out"), form="onnx")
    assert not (tmp_path / "out").exists()
