"""Training in bf16 on a CPU, by every way to train: it runs anywhere, only slowly on some CPUs."""

import json
import math
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest

from embed_assets.machine import Machine
from embed_assets.models.card import ModelCard
from embed_assets.models.encoder import LocalEncoder, load_model
from embed_assets.models.files import Task
from embed_assets.training.adapter import fit_adapter
from embed_assets.training.config import TrainingConfig
from embed_assets.training.launch import training_command
from embed_assets.training.trainer import last_checkpoint, train
from embed_assets_tests.machines import H100, NARROW, PLAIN, SMALL, WITH_BF16, with_gpus
from embed_assets_tests.tiny_model import make_tiny_model
from embed_assets_tests.training.trainings import (
    Measured,
    command,
    kill_at,
    largest_difference,
    make_config,
    run_process,
    step_of,
    tracking_of,
    train_here,
    weights_of,
)

NDCG = "best_validation_ndcg_at_10"
UNTIL_LEARNT: dict[str, Any] = {"epochs": 25, "batch_size": 8}
"""Before that a rounding here or there decides which of two texts comes first."""
NAMELESS = [
    "unshare",
    "--uts",
    "--map-root-user",
    "sh",
    "-c",
    'hostname no.such.name; exec "$0" "$@"',
]
"""Runs a command as on a machine that no name server knows."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), dropout=0.0)


@pytest.fixture
def computed_in(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the layers of models in training gave out numbers of which type."""
    import torch

    types: Counter[str] = Counter()

    def load(*args: Any, **options: Any) -> Any:
        model = load_model(*args, **options)
        for layer in model.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.register_forward_hook(lambda _, __, out: types.update([str(out.dtype)]))
        return model

    monkeypatch.setattr("embed_assets.training.trainer.load_model", load)
    return types


@pytest.mark.parametrize(
    ("options", "machine"),
    [
        pytest.param({}, WITH_BF16, id="full"),
        pytest.param({"method": "lora", "learning_rate": 2e-3, "epochs": 40}, WITH_BF16, id="lora"),
        pytest.param(
            {},
            replace(NARROW, processor_flags=WITH_BF16.processor_flags),
            marks=pytest.mark.long,
            id="checkpointing",
        ),
        pytest.param({"loss": "cached_mnrl"}, WITH_BF16, marks=pytest.mark.long, id="cached"),
        pytest.param(
            {},
            replace(SMALL, processor_flags=WITH_BF16.processor_flags),
            marks=pytest.mark.long,
            id="cached for lack of memory",
        ),
    ],
)
def test_what_is_trained_in_bf16_is_as_good_as_in_fp32(
    tmp_path: Path,
    base: Path,
    computed_in: Counter[str],
    options: dict[str, Any],
    machine: Machine,
) -> None:
    """`auto` takes either branch, by the machine that it is given."""
    measured, shared = Measured(), {"precision": "auto", **UNTIL_LEARNT, **options}
    _, low = train_here(tmp_path / "bf16", base, progress=measured, machine=machine, **shared)
    assert (low["precision"], set(computed_in)) == ("bf16", {"torch.bfloat16"})
    assert len(measured.losses) == low["steps"] > 20
    assert all(map(math.isfinite, measured.losses.values()))

    computed_in.clear()
    plain = replace(machine, processor_flags=PLAIN.processor_flags)
    _, full = train_here(tmp_path / "fp32", base, machine=plain, **shared)
    assert (full["precision"], set(computed_in)) == ("fp32", {"torch.float32"})
    assert full["steps"] == low["steps"]
    assert low[NDCG] == pytest.approx(full[NDCG], abs=0.01)
    assert full[NDCG] > 0.95


def test_an_adapter_on_embeddings_in_bf16_is_as_good_as_on_those_in_fp32(
    tmp_path: Path, base: Path
) -> None:
    scores = {}
    for precision in ("bf16", "fp32"):
        folder = tmp_path / precision
        folder.mkdir()
        config = adapter_config(folder, base, precision)
        result = fit_adapter(config, measured := Measured())
        assert result["best_epoch"] > 0
        assert all(map(math.isfinite, measured.losses.values()))
        scores[precision] = result[NDCG]
    assert scores["bf16"] == pytest.approx(scores["fp32"], abs=0.01)


def adapter_config(folder: Path, base: Path, precision: Literal["bf16", "fp32"]) -> TrainingConfig:
    """What an adapter is fitted to, embedded in a precision."""
    path = make_config(folder, base, epochs=1, learning_rate=1e-2, precision=precision)
    config = TrainingConfig.model_validate_json(path.read_text(encoding="utf-8"))
    encoder = LocalEncoder(ModelCard("tiny", config.base, 64, "query: ", ""), precision)

    def embed(frame: Path, task: Task, **columns: str) -> None:
        rows = pl.read_parquet(frame)
        added = {
            name: encoder.encode(rows[text].to_list(), task).tolist()
            for name, text in columns.items()
        }
        rows.with_columns(**{n: pl.Series(v) for n, v in added.items()}).write_parquet(frame)

    embed(config.pairs, "query", anchor_embedding="anchor")
    embed(config.pairs, "document", positive_embedding="positive")
    embed(config.validation, "query", embedding="anchor")
    embed(config.corpus, "document", embedding="chunk_text")
    return config


@pytest.mark.long
def test_a_training_in_bf16_that_was_killed_ends_as_an_unbroken_one(
    tmp_path: Path, base: Path
) -> None:
    options = {"precision": "bf16", **UNTIL_LEARNT}
    unbroken, said = train_here(tmp_path / "unbroken", base, **options)
    _, full = train_here(tmp_path / "fp32", base, **UNTIL_LEARNT)
    (tmp_path / "killed").mkdir()
    path = make_config(tmp_path / "killed", base, **options, seconds_between_checkpoints=0)
    config = TrainingConfig.model_validate_json(path.read_text(encoding="utf-8"))
    kill_at(command(path), config, step=10)
    assert step_of(last_checkpoint(config)) < said["steps"], "killed too late to show anything"
    result = train(config, measured := Measured())
    assert result["resumed_from"].startswith("checkpoint-")
    assert sorted(measured.losses) == list(range(1, said["steps"] + 1))
    assert all(map(math.isfinite, measured.losses.values()))
    assert largest_difference(weights_of(config), weights_of(unbroken)) < 1e-6
    assert result[NDCG] == pytest.approx(full[NDCG], abs=0.01)


@pytest.mark.long
def test_two_processes_train_in_bf16_as_one_does_in_fp32(tmp_path: Path, base: Path) -> None:
    import mlflow

    _, full = train_here(tmp_path / "alone", base, **UNTIL_LEARNT)
    (tmp_path / "shared").mkdir()
    path = make_config(tmp_path / "shared", base, **UNTIL_LEARNT, processes=2, precision="bf16")
    config = TrainingConfig.model_validate_json(path.read_text(encoding="utf-8"))
    done = run_process(training_command(config), config)
    assert done.returncode == 0, done.stderr
    result = json.loads(config.result.read_text(encoding="utf-8"))
    assert (result["precision"], result["steps"]) == ("bf16", full["steps"])
    assert result[NDCG] == pytest.approx(full[NDCG], abs=0.01)
    client = mlflow.MlflowClient(tracking_of(config.folder))
    losses = client.get_metric_history(config.mlflow_run_id, "progress/loss")
    assert len(losses) == result["steps"]
    assert all(math.isfinite(loss.value) for loss in losses)


def can_be_nameless() -> bool:
    if shutil.which("unshare") is None:
        return False
    return not subprocess.run([*NAMELESS, "true"], capture_output=True, check=False).returncode


@pytest.mark.skipif(not can_be_nameless(), reason="a process can't have another host name here")
def test_processes_find_each_other_on_a_machine_whose_name_leads_nowhere(
    tmp_path: Path, base: Path
) -> None:
    path = make_config(tmp_path, base, epochs=1, batch_size=8, processes=2)
    config = TrainingConfig.model_validate_json(path.read_text(encoding="utf-8"))
    done = run_process([*NAMELESS, *training_command(config)], config)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("torch_without_gpu")
def test_what_a_gpu_s_branches_train_is_what_a_cpu_s_do(tmp_path: Path, base: Path) -> None:
    """Batches whole, pinned memory, no word of a CPU to transformers; torch knows of no GPU."""
    on_cpu, _ = train_here(tmp_path / "cpu", base, batch_size=8, machine=PLAIN)
    measured = Measured()
    on_gpu, said = train_here(
        tmp_path / "gpu", base, batch_size=8, progress=measured, machine=with_gpus(H100)
    )
    assert len(measured.losses) == said["steps"]
    assert largest_difference(weights_of(on_gpu), weights_of(on_cpu)) < 1e-5


def test_a_training_says_what_it_runs_on(tmp_path: Path, base: Path) -> None:
    measured = Measured()
    train_here(tmp_path / "a", base, epochs=1, progress=measured, machine=PLAIN)
    assert measured.said[0] == f"Training in fp32 on {PLAIN}"
