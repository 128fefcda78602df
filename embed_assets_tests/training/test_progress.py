"""What a training says, and to whom."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from embed_assets.training.config import TrainingConfig
from embed_assets.training.progress import PipesAndMlflow


def test_a_server_that_takes_no_metrics_is_named_once_and_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://bob:hunter2@127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    config = TrainingConfig(
        folder=tmp_path,
        mlflow_run_id="run",
        base="",
        token_limit=1,
        query_prompt="",
        document_prompt="",
        dimensions=(1,),
        precision="fp32",
        learning_rate=1.0,
    )
    warnings: list[str] = []
    pipes = SimpleNamespace(log=SimpleNamespace(warning=warnings.append))
    progress = PipesAndMlflow(pipes, config)
    progress.measure({1: {"loss": 1.0}})
    progress.measure({2: {"loss": 0.5}})
    assert len(warnings) == 1
    assert "training goes on" in warnings[0]
    assert "bob:" in warnings[0]
    assert "hunter2" not in warnings[0]
