"""The adapter, really fitted, on embeddings of a tiny model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embed_assets.models.card import ModelCard
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.encoder import encode, load_model
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.adapter import fit_adapter
from embed_assets.training.config import TrainingConfig
from embed_assets.training.progress import Silent
from embed_assets_tests.tiny_model import make_tiny_model

SIZE = 32


@pytest.fixture
def config(tmp_path: Path) -> TrainingConfig:
    """Questions whose embeddings are those of their chunks, turned by one rotation."""
    random = np.random.default_rng(0)
    chunks = random.standard_normal((120, SIZE)).astype(np.float32)
    rotation, _ = np.linalg.qr(random.standard_normal((SIZE, SIZE)))
    questions = (chunks @ rotation).astype(np.float32)
    config = TrainingConfig(
        folder=tmp_path,
        base=str(make_tiny_model(tmp_path / "base", size=SIZE)),
        token_limit=64,
        query_prompt="q: ",
        document_prompt="d: ",
        dimensions=(SIZE, 16),
        method="adapter",
        epochs=1,
        batch_size=32,
        learning_rate=1e-2,
        seed=0,
        precision="fp32",
        mlflow_run_id="",
    )
    ids = [f"c{i}" for i in range(120)]
    texts = pl.Series([f"text {i}" for i in ids])
    pl.DataFrame(
        {
            "anchor": texts[:100],
            "positive": texts[:100],
            "chunk_id": ids[:100],
            "related_chunk_ids": [[i] for i in ids[:100]],
            "anchor_embedding": questions[:100].tolist(),
            "positive_embedding": chunks[:100].tolist(),
        }
    ).write_parquet(config.pairs)
    pl.DataFrame(
        {
            "question_id": ids[100:],
            "relevant_chunk_ids": [[i] for i in ids[100:]],
            "embedding": questions[100:].tolist(),
        }
    ).write_parquet(config.validation)
    pl.DataFrame(
        {"chunk_id": ids, "chunk_text": texts, "embedding": chunks.tolist()}
    ).write_parquet(config.corpus)
    return config


def test_a_turn_that_holds_for_all_questions_is_learnt(config: TrainingConfig) -> None:
    result = fit_adapter(config, Silent())
    assert result["best_epoch"] > 0
    assert result["best_validation_ndcg_at_10"] > 0.9
    assert fit_adapter(config, Silent())["best_epoch"] == result["best_epoch"]


def test_documents_keep_their_embeddings_and_queries_do_not(
    config: TrainingConfig, tmp_path: Path
) -> None:
    fit_adapter(config, Silent())
    adapted, base = load_model(str(config.model)), load_model(config.base)
    same = [encode(m, ["the pump"], "document", "d: ", "fp32") for m in (adapted, base)]
    turned = [encode(m, ["the pump"], "query", "q: ", "fp32") for m in (adapted, base)]
    assert np.array_equal(same[0], same[1])
    assert not np.allclose(*turned, atol=1e-3)
    assert adapted.prompts == {"query": "q: ", "document": "d: "}
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    card = ModelCard("tiny", config.base, 64, "q: ", "d: ")
    before = CachedEncoder(warehouse, card, Settings(precision="fp32"))
    after = CachedEncoder(
        warehouse, replace(card, source=str(config.model)), Settings(precision="fp32")
    )
    assert before.fingerprint("document") == after.fingerprint("document")
    assert before.fingerprint("query") != after.fingerprint("query")


def test_an_adapter_that_only_hurts_stays_the_identity(config: TrainingConfig) -> None:
    questions = pl.read_parquet(config.validation)
    chunks = pl.read_parquet(config.corpus)
    answers = chunks.filter(pl.col("chunk_id").is_in(questions["question_id"].implode()))
    questions.with_columns(embedding=answers["embedding"]).write_parquet(config.validation)
    result = fit_adapter(config, Silent())
    assert result["best_epoch"] == 0
    assert result["best_validation_ndcg_at_10"] == 1
