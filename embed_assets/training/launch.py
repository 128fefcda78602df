"""How training processes are started: one, or several by torchrun, and what surrounds them.

Imported where there is neither Dagster nor a warehouse: nothing of them belongs here.
"""

import os
import sys

from embed_assets.machine import Machine
from embed_assets.settings import TRACKING_URI
from embed_assets.training.config import TrainingConfig

LOOPBACK = "127.0.0.1"
GPUS = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"


def training_command(config: TrainingConfig) -> list[str]:
    """What starts the training: one process, or as many as the config says, by torchrun."""
    module = ["-m", "embed_assets.training.trainer", str(config.path)]
    if config.processes == 1:
        return [sys.executable, *module]
    return [*torchrun(config.processes), *module]


def torchrun(processes: int) -> list[str]:
    """What starts so many processes of whatever follows.

    They meet at an address: the name of a machine need not lead to it, nor `localhost` here.
    """
    here = ["--rdzv-backend=c10d", f"--rdzv-endpoint={LOOPBACK}:0", f"--local-addr={LOOPBACK}"]
    started = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    return [*started, *here]


def training_environment(
    processes: int, machine: Machine, tracking_uri: str, threads: int | None = None
) -> dict[str, str]:
    """What so many training processes find in their environment beside what this one has.

    MLflow's address is passed in the environment because it may hold a password: a file would keep
    it, and a command line would show it to everybody on the machine.
    Several on CPUs share the cores; one alone sees one GPU, and has so many threads, if that is
    said. A file or folder of the working directory never passes for a module, though `python -m`
    looks there first.
    """
    always = {"PYTHONSAFEPATH": "1", TRACKING_URI: tracking_uri}
    if processes > 1:
        return {**always, THREADS: str(max(1, machine.cores // processes))}
    return {**always, **one_gpu(machine), **({THREADS: str(threads)} if threads else {})}


def one_gpu(machine: Machine) -> dict[str, str]:
    """What hides all GPUs but the first from a process: transformers deals batches out to all."""
    return {GPUS: (os.environ.get(GPUS) or "0").partition(",")[0]} if machine.gpus else {}
