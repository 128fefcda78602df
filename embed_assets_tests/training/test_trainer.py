"""The training process, really run on a tiny model."""

import json
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from embed_assets.training.assets import select_pairs
from embed_assets.training.trainer import TrainingConfig, _training_dataset, last_checkpoint
from embed_assets_tests.tiny_model import make_tiny_model

TOPICS = ("valve", "pump", "brine", "tape", "winch", "engine", "wing", "dose", "token", "contract")


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def make_config(folder: Path, base: Path, *, epochs: int) -> Path:
    """Write what the child reads; gives the path of its configuration."""
    import mlflow

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    run = client.create_run(client.create_experiment("test", (folder / "artifacts").as_uri()))
    config = TrainingConfig(
        folder=folder,
        base=str(base),
        token_limit=64,
        query_prompt="query: ",
        document_prompt="page: ",
        dimensions=(32, 16),
        epochs=epochs,
        batch_size=5,
        learning_rate=1e-3,
        warmup_share=0.1,
        seed=1,
        precision="fp32",
        tracking_uri=uri,
        mlflow_run_id=run.info.run_id,
    )
    pairs = [
        {"anchor": f"what is the {topic} {n}", "positive": f"the {topic} is a part of section {n}"}
        for n in range(4)
        for topic in TOPICS
    ]
    chunks = {f"c{i}": pair["positive"] for i, pair in enumerate(pairs)}
    pl.DataFrame(pairs).write_parquet(config.pairs)
    pl.DataFrame({"chunk_id": list(chunks), "chunk_text": list(chunks.values())}).write_parquet(
        config.corpus
    )
    pl.DataFrame(
        {
            "question_id": [f"q{i}" for i in range(10)],
            "anchor": [f"where is the {topic}" for topic in TOPICS],
            "relevant_chunk_ids": [[f"c{i}"] for i in range(10)],
        }
    ).write_parquet(config.validation)
    path = folder / "config.json"
    path.write_text(config.model_dump_json())
    return path


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "embed_assets.training.trainer", str(config)]


def test_the_process_leaves_a_plain_model_and_says_what_it_measured(
    tmp_path: Path, tiny_model: Path
) -> None:
    import mlflow
    from sentence_transformers import SentenceTransformer

    path = make_config(tmp_path, tiny_model, epochs=2)
    done = subprocess.run(command(path), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    config = TrainingConfig.model_validate_json(path.read_text())
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["pairs"] == 40
    assert result["steps"] == 16
    assert result["pairs_per_second"] > 0
    assert result["resumed_from"] is None
    suffixes = {file.suffix for file in config.model.rglob("*") if file.is_file()}
    assert ".safetensors" in suffixes
    assert not suffixes & {".bin", ".pt", ".pkl"}
    assert SentenceTransformer(str(config.model)).prompts["query"] == "query: "
    client = mlflow.MlflowClient(config.tracking_uri)
    losses = client.get_metric_history(config.mlflow_run_id, "loss")
    assert [metric.step for metric in losses] == list(range(1, 17))
    ndcg = "validation/dim_16_cosine_ndcg_at_10"
    assert len(client.get_metric_history(config.mlflow_run_id, ndcg)) == 2
    assert not config.checkpoints.exists()


def test_a_killed_process_goes_on_from_its_checkpoint(tmp_path: Path, tiny_model: Path) -> None:
    path = make_config(tmp_path, tiny_model, epochs=15)
    config = TrainingConfig.model_validate_json(path.read_text())
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command(path), stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while last_checkpoint(config.checkpoints) is None:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.wait()
    assert not config.model.exists()
    done = subprocess.run(command(path), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["resumed_from"].startswith("checkpoint-")
    assert result["steps"] == 120
    assert config.model.is_dir()


def test_the_anchor_comes_first_since_the_loss_goes_by_order(
    tmp_path: Path, tiny_model: Path
) -> None:
    path = make_config(tmp_path, tiny_model, epochs=1)
    config = TrainingConfig.model_validate_json(path.read_text())
    pl.read_parquet(config.pairs).select("positive", "anchor").write_parquet(config.pairs)
    assert _training_dataset(config).column_names == ["anchor", "positive"]


def test_a_limit_of_pairs_takes_one_of_each_chunk_before_a_second_of_any() -> None:
    pairs = pl.DataFrame(
        {
            "question_id": [f"{i:02d}" for i in range(9)],
            "global_chunk_id": ["a", "a", "a", "a", "b", "b", "c", "c", "c"],
        }
    )
    assert set(select_pairs(pairs, 3)["global_chunk_id"]) == {"a", "b", "c"}
    assert select_pairs(pairs, 6)["global_chunk_id"].value_counts()["count"].to_list() == [2, 2, 2]
    assert select_pairs(pairs, 0).height == 9
