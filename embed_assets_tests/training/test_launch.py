"""What surrounds training processes, by the machine."""

from dataclasses import replace

import pytest

from embed_assets.machine import Machine
from embed_assets.training.launch import GPUS, training_environment
from embed_assets_tests.machines import H100, PLAIN, with_gpus


@pytest.mark.parametrize(
    ("processes", "cores", "threads"), [(1, 8, None), (2, 8, "4"), (3, 8, "2"), (4, 2, "1")]
)
def test_processes_that_train_together_share_the_cores(
    processes: int, cores: int, threads: str | None
) -> None:
    environment = training_environment(processes, replace(PLAIN, cores=cores), "")
    assert environment.get("OMP_NUM_THREADS") == threads


def test_a_process_that_trains_again_has_as_many_threads_as_the_first_had() -> None:
    assert training_environment(1, PLAIN, "", threads=3)["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("processes", "machine", "visible", "seen"),
    [
        (1, with_gpus(H100, H100), None, "0"),
        (1, with_gpus(H100, H100), "3,1", "3"),
        (2, with_gpus(H100, H100), "3,1", None),
        (1, PLAIN, None, None),
    ],
    ids=["the first", "the first of those allowed", "each its own", "no GPU"],
)
def test_a_process_that_trains_alone_sees_one_gpu(
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
    machine: Machine,
    visible: str | None,
    seen: str | None,
) -> None:
    """Where it sees several, transformers wraps the model in torch's DataParallel."""
    monkeypatch.delenv(GPUS, raising=False)
    if visible is not None:
        monkeypatch.setenv(GPUS, visible)
    assert training_environment(processes, machine, "").get(GPUS) == seen
