"""Trainings of a second on a tiny model: what they read, and ways to run, kill and compare them."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import psutil

from embed_assets.machine import Machine
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import TABLES
from embed_assets.training.config import TrainingConfig
from embed_assets.training.launch import training_environment
from embed_assets.training.progress import Progress, Silent
from embed_assets.training.trainer import last_checkpoint, train
from embed_assets_tests.machines import PLAIN

TOPICS = ("valve", "pump", "brine", "tape", "winch", "engine", "wing", "dose", "token", "contract")


PARTS = TOPICS[:8]

WAY = {"batch_size": 5, "learning_rate": 1e-3, "precision": "fp32", "frozen_share": 0.0}


def tracking_of(folder: Path) -> str:
    """Where MLflow is for a training in this folder."""
    return f"sqlite:///{folder / 'mlflow.db'}"


def make_config(
    folder: Path, base: Path, *, epochs: int, negatives: int = 0, **options: Any
) -> Path:
    """Write what the child reads; gives the path of its configuration."""
    import mlflow

    client = mlflow.MlflowClient(tracking_of(folder))
    run = client.create_run(client.create_experiment("test", (folder / "artifacts").as_uri()))
    config = TrainingConfig(
        folder=folder,
        base=str(base),
        token_limit=64,
        query_prompt="query: ",
        document_prompt="page: ",
        dimensions=(32, 16),
        epochs=epochs,
        **WAY | options,
        seed=1,
        mlflow_run_id=run.info.run_id,
    )
    asked = [
        (f"{topic} {n}", f"the {topic} is a part of section {n}")
        for n in range(4)
        for topic in TOPICS
    ]
    chunks = {f"c{i}": text for i, (_, text) in enumerate(asked)}
    pairs = [
        {
            "anchor": f"what is the {about}",
            "positive": text,
            "chunk_id": f"c{i}",
            "related_chunk_ids": [f"c{i}"],
            "extractive": i % 4 != 0,
            "negative_ids": [f"c{(i + 7) % 40}"] * negatives,
            "negatives": [chunks[f"c{(i + 7) % 40}"]] * negatives,
        }
        for i, (about, text) in enumerate(asked)
    ]
    strings = pl.List(pl.String)
    schema = {"negative_ids": strings, "negatives": strings}
    pl.DataFrame(pairs, schema_overrides=schema).write_parquet(config.pairs)
    pl.DataFrame({"chunk_id": list(chunks), "chunk_text": list(chunks.values())}).write_parquet(
        config.corpus
    )
    pl.DataFrame(
        {
            "question_id": [f"q{i}" for i in range(len(asked))],
            "anchor": [f"where is the {about}" for about, _ in asked],
            "relevant_chunk_ids": [[chunk_id] for chunk_id in chunks],
        }
    ).write_parquet(config.validation)
    config.path.write_text(config.model_dump_json(), encoding="utf-8")
    return config.path


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "embed_assets.training.trainer", str(config)]


def run_process(command: list[str], config: TrainingConfig) -> subprocess.CompletedProcess[str]:
    """A training process, from its start to its end."""
    return subprocess.run(
        command,
        env=environment(config),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def environment(config: TrainingConfig) -> dict[str, str]:
    """That of a training process."""
    return {**os.environ, **training_environment(1, PLAIN, tracking_of(config.folder))}


class Measured(Silent):
    """Keeps the loss of each step, and what is said."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def measure(self, metrics: Mapping[int, Mapping[str, float]]) -> None:
        self.losses |= {step: row["loss"] for step, row in metrics.items() if "loss" in row}


def step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def kill_at(command: list[str], config: TrainingConfig, step: int) -> None:
    """Start a training, and kill all its processes once it has a checkpoint of this step."""
    log_path = config.folder / "killed.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=environment(config), stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while step_of(last_checkpoint(config)) < step:
            assert process.poll() is None, log_path.read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # torchrun's processes have sessions of their own: a signal to a group misses them.
        started = psutil.Process(process.pid)
        for each in [started, *started.children(recursive=True)]:
            each.kill()
        process.wait()


def train_here(
    folder: Path,
    base: Path,
    *,
    progress: Progress | None = None,
    machine: Machine | None = None,
    **options: Any,
) -> tuple[TrainingConfig, dict[str, Any]]:
    """Train in this process; gives the configuration and what the training says."""
    folder.mkdir(exist_ok=True)
    path = make_config(folder, base, **{"epochs": 2} | options)
    config = TrainingConfig.model_validate_json(path.read_text(encoding="utf-8"))
    return config, train(config, progress or Silent(), machine)


def weights_of(config: TrainingConfig) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    return dict(SentenceTransformer(str(config.model)).named_parameters())


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).detach().abs().max()) for name in one)


def pdfs(*document_ids: str) -> pl.DataFrame:
    """Rows of raw_pdfs."""
    empty = dict.fromkeys(TABLES["raw_pdfs"].columns, "")
    empty |= dict.fromkeys(["modified_at", "loaded_at"], datetime.now(UTC))
    empty |= {"content": b"", "size_bytes": 0, "sha256": "5a"}
    rows = [empty | {"document_id": name, "path": f"{name}.pdf"} for name in document_ids]
    return pl.DataFrame(rows, schema=TABLES["raw_pdfs"].schema)


def fill(warehouse: Warehouse, names: Sequence[str] = ("one", "two")) -> None:
    """Documents of eight chunks, each with a question; the last of each validates."""
    rows = [
        (name, index, f"{name} says how the {topic} is read")
        for name in names
        for index, topic in enumerate(PARTS)
    ]
    sha256 = pl.concat_str(pl.lit("sha256 of "), "document_id")
    warehouse.replace("raw_pdfs", pdfs(*names).with_columns(sha256=sha256))
    same = dict.fromkeys(("page_start", "page_end", "token_count"), 1) | {"heading_path": ""}
    chunks = [
        {
            **same,
            "document_id": name,
            "chunk_index": index,
            "chunk_id": f"{name}-{index}",
            "chunk_text": text,
            "file_name": f"{name}.pdf",
        }
        for name, index, text in rows
    ]
    warehouse.replace("chunks", pl.DataFrame(chunks, schema=TABLES["chunks"].schema))
    pairs = [
        {
            "question_id": f"q-{name}-{index}",
            "anchor": f"how is the {PARTS[index]} of {name} read",
            "positive": text,
            "global_chunk_id": f"{name}-{index}",
            "relevant_chunk_ids": [f"{name}-{index}"],
            "document_id": name,
            "generator": "openai:any",
            "split": "train" if index < 7 else "validation",
        }
        for name, index, text in rows
    ]
    warehouse.replace("training_pairs", pl.DataFrame(pairs, schema=TABLES["training_pairs"].schema))
