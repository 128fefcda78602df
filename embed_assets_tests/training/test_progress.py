"""What a training says, and to whom."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from embed_assets.training import progress as module
from embed_assets.training.config import TrainingConfig
from embed_assets.training.progress import PipesAndMlflow, send_kept_metrics

Begin = Callable[[str], tuple[TrainingConfig, PipesAndMlflow]]
"""Gives, by the id of an MLflow run, its training and who is told of it."""


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def training(tmp_path: Path, warnings: list[str]) -> Begin:
    def begin(run_id: str) -> tuple[TrainingConfig, PipesAndMlflow]:
        config = TrainingConfig(
            folder=tmp_path,
            mlflow_run_id=run_id,
            base="",
            token_limit=1,
            query_prompt="",
            document_prompt="",
            dimensions=(1,),
            precision="fp32",
            learning_rate=1.0,
        )
        pipes = SimpleNamespace(log=SimpleNamespace(warning=warnings.append))
        return config, PipesAndMlflow(pipes, config)

    return begin


def test_a_server_that_takes_no_metrics_is_named_once_and_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
    free_port: Callable[[], int],
    training: Begin,
    warnings: list[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://bob:hunter2@127.0.0.1:{free_port()}")
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    monkeypatch.setattr(module, "SECONDS_BETWEEN_TRIES", 0.0)
    _, progress = training("run")
    progress.measure({1: {"loss": 1.0}})
    progress.measure({2: {"loss": 0.5}})
    assert len(warnings) == 1, "the client's own patience would be minutes"
    assert "training goes on" in warnings[0]
    assert "bob:" in warnings[0]
    assert "hunter2" not in warnings[0]
    progress.end()
    assert len(warnings) == 1


@pytest.mark.parametrize("back", ["in time", "when the training is recorded"])
def test_metrics_wait_until_the_server_takes_them_and_hold_no_training_up(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    training: Begin,
    warnings: list[str],
    back: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    monkeypatch.setattr(module, "METRICS_AT_ONCE", 2)
    client = mlflow.MlflowClient()
    run_id = client.create_run(client.create_experiment("a")).info.run_id
    config, progress = training(run_id)
    tries = []

    def refuse(*given: object) -> None:
        tries.append(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
        raise MlflowException("not now")

    with monkeypatch.context() as away:
        away.setattr(mlflow.MlflowClient, "log_batch", refuse)
        for step in (1, 2, 3):
            progress.measure({step: {"loss": 1 / step}})
        assert tries == ["0"], "once, without the client's own patience; not again for a while"
        if back != "in time":
            progress.end()
    assert not client.get_metric_history(run_id, "progress/loss")
    if back == "in time":
        progress.end()
    else:
        send_kept_metrics(config)
    losses = client.get_metric_history(run_id, "progress/loss")
    assert [(row.step, row.value) for row in losses] == [(n, 1 / n) for n in (1, 2, 3)]
    assert len(warnings) == 1
    assert not config.unsent.exists()
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
