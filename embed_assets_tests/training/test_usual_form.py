"""A version's files say what they say in the form that others read, and mean the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embed_assets.models.card import version_card
from embed_assets.training.usual_form import write_usual_form
from embed_assets.training.weights import save_model
from embed_assets_tests.tiny_model import make_static_model, make_tiny_model

TEXTS = ["the pump", "what is the pressure of the valve when the winch is on"]


def with_pooling(folder: Path, mode: Any) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    transformer: Any = SentenceTransformer(str(make_tiny_model(folder)), device="cpu")[0]
    size = transformer.get_embedding_dimension()
    return SentenceTransformer(modules=[transformer, Pooling(size, mode), Normalize()])


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def loaded(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("mode", "key"),
    [
        ("mean", "pooling_mode_mean_tokens"),
        ("cls", "pooling_mode_cls_token"),
        ("lasttoken", "pooling_mode_lasttoken"),
    ],
)
def test_pooling_names_and_limit_stand_where_others_look_for_them(tmp_path, mode, key):
    model = with_pooling(tmp_path / "base", mode)
    save_model(model, tmp_path / "v1", [32])
    kinds = [row["type"] for row in read(tmp_path / "v1" / "modules.json")]
    assert kinds == [
        f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Normalize")
    ]
    pooling = read(tmp_path / "v1" / "1_Pooling" / "config.json")
    assert pooling["word_embedding_dimension"] == 32
    assert [name for name, value in pooling.items() if value is True] == [key, "include_prompt"]
    assert read(tmp_path / "v1" / "sentence_bert_config.json") == {
        "max_seq_length": 128,
        "do_lower_case": False,
    }
    again = loaded(tmp_path / "v1")
    assert again.max_seq_length == 128
    assert np.allclose(again.encode(TEXTS), model.encode(TEXTS), atol=1e-6)


def test_several_ways_of_pooling_stay_as_they_are(tmp_path):
    model = with_pooling(tmp_path / "base", ("max", "cls"))
    save_model(model, tmp_path / "v1", [64])
    assert np.allclose(loaded(tmp_path / "v1").encode(TEXTS), model.encode(TEXTS), atol=1e-6)


def test_both_ways_of_a_router_have_the_usual_names(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Router

    base = list(with_pooling(tmp_path / "base", "mean"))
    router: Any = Router.for_query_document([*base, Dense(32, 32)], base)
    model = SentenceTransformer(modules=[router])
    save_model(model, tmp_path / "v1", [32])
    kinds = read(tmp_path / "v1" / "router_config.json")["types"].values()
    assert {kind.rpartition(".")[0] for kind in kinds} == {"sentence_transformers.models"}
    again = loaded(tmp_path / "v1")
    assert np.allclose(again.encode_query(TEXTS), model.encode_query(TEXTS), atol=1e-6)
    assert np.allclose(again.encode_document(TEXTS), model.encode_document(TEXTS), atol=1e-6)


def test_a_model_that_reads_whole_texts_gets_no_limit(tmp_path):
    model = loaded(make_static_model(tmp_path / "base"))
    save_model(model, tmp_path / "v1", [32])
    assert read(tmp_path / "v1" / "modules.json")[0]["type"].endswith("models.StaticEmbedding")
    assert not list((tmp_path / "v1").rglob("sentence_bert_config.json"))
    assert np.allclose(loaded(tmp_path / "v1").encode(TEXTS), model.encode(TEXTS), atol=1e-6)


def test_another_reading_of_the_transformer_and_another_s_module_stay(tmp_path):
    folder = tmp_path / "v1"
    folder.mkdir()
    modules = [{"idx": 0, "name": "0", "path": "", "type": "custom_st.Transformer"}]
    said = {"transformer_task": "fill-mask", "module_output_name": "token_embeddings"}
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text(json.dumps(said), encoding="utf-8")
    write_usual_form(folder, 512)
    assert read(folder / "modules.json") == modules
    assert read(folder / "sentence_bert_config.json") == {
        "max_seq_length": 512,
        "do_lower_case": False,
        **said,
    }


def test_the_usual_form_stays_as_it_is(tmp_path):
    save_model(with_pooling(tmp_path / "base", "mean"), tmp_path / "v1", [32])
    files = list((tmp_path / "v1").rglob("*.json"))
    before = [file.read_bytes() for file in files]
    write_usual_form(tmp_path / "v1", version_card("v1", tmp_path / "v1").token_limit)
    assert [file.read_bytes() for file in files] == before
