"""What a machine is said to be, and what is decided by it: every branch, on any machine."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest

from embed_assets.definitions import LEAST_WORKER_MEMORY, MOST_WORKERS, worker_pool
from embed_assets.errors import SettingsError
from embed_assets.machine import (
    GIB,
    Machine,
    container_memory,
    peak_memory_bytes,
    processor_of,
    this_machine,
    usable_cores,
)
from embed_assets.resources.encoder import load_model, resolved_precision
from embed_assets.servers import serve
from embed_assets.settings import Settings
from embed_assets.training.config import process_count
from embed_assets_tests.machines import (
    H100,
    MAC,
    PLAIN,
    T4,
    WINDOWS,
    WITH_AMX,
    WITH_BF16,
    with_gpus,
)
from embed_assets_tests.tiny_model import make_tiny_model

X86 = """\
processor\t: 0
model name\t: AMD EPYC 9654 96-Core Processor
flags\t\t: fpu avx2 avx512f avx512_bf16

processor\t: 1
model name\t: another
flags\t\t: none
"""
ARM = "processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd bf16\nCPU part\t: 0xd40\n"


# What this machine is.


def test_this_machine_is_described_by_what_it_is():
    machine = this_machine()
    assert machine.platform == sys.platform
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.memory_bytes > GIB / 4
    said = str(machine)
    assert machine.processor in said
    assert f"{machine.cores} cores" in said
    assert "\n" not in said


def test_it_says_itself_in_one_line():
    said = subprocess.check_output([sys.executable, "-m", "embed_assets.machine"], text=True)
    assert said.count("\n") == 1
    assert f"Python {sys.version.split()[0]}" in said
    assert "torch 2." in said


@pytest.mark.parametrize(
    ("text", "name", "flag"),
    [(X86, "AMD EPYC 9654 96-Core Processor", "avx512_bf16"), (ARM, None, "bf16")],
    ids=["x86", "ARM, which has no name there"],
)
def test_the_first_core_speaks_for_the_processor(
    tmp_path: Path, text: str, name: str | None, flag: str
):
    file = tmp_path / "cpuinfo"
    file.write_text(text, encoding="utf-8")
    found = processor_of(file)
    assert found.get("model name") == name
    assert flag in (found.get("flags") or found["Features"]).split()


def test_a_system_without_proc_has_no_flags(tmp_path: Path):
    assert processor_of(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("file", "text", "limit"),
    [
        ("memory.max", "2147483648\n", 2 * GIB),
        ("memory.max", "max\n", sys.maxsize),
        ("memory/memory.limit_in_bytes", "1073741824\n", GIB),
        ("unrelated", "1\n", sys.maxsize),
    ],
    ids=["cgroup 2", "cgroup 2 without a limit", "cgroup 1", "no container"],
)
def test_a_container_s_limit_is_the_memory_there_is(
    tmp_path: Path, file: str, text: str, limit: int
):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert container_memory(tmp_path) == limit


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 6),
        ({"cpu.max": "6400000 100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ({}, 6),
    ],
)
@pytest.mark.parametrize("has_affinity", [True, False])
def test_cores_are_those_that_affinity_and_a_container_leave(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    cores: int,
    has_affinity: bool,
):
    if has_affinity:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: 64)
    else:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: 6)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize("major", [7, 8])
@pytest.mark.parametrize("hip", [None, "6.4"])
def test_a_gpu_that_only_emulates_bf16_does_not_compute_in_it(
    monkeypatch: pytest.MonkeyPatch, major: int, hip: str | None
):
    import torch

    card = SimpleNamespace(name="a card", total_memory=15 * GIB, major=major)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.version, "hip", hip)
    machine = replace(this_machine())  # looks for its GPUs anew
    assert [gpu.name for gpu in machine.gpus] == ["a card", "a card"]
    assert machine.computes_bf16 == (major == 8 or hip is not None)


def test_without_cuda_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert replace(this_machine()).gpus == ()


# What is decided by it.


@pytest.mark.parametrize(
    ("machine", "precision"),
    [
        (PLAIN, "fp32"),
        (WITH_BF16, "bf16"),
        (WITH_AMX, "bf16"),
        (MAC, "fp32"),
        (with_gpus(H100), "bf16"),
        (with_gpus(T4, base=WITH_AMX), "fp32"),
        (with_gpus(H100, T4), "fp32"),
    ],
    ids=["plain", "AVX512-BF16", "AMX", "no flags", "GPU", "old GPU", "one of two GPUs"],
)
def test_bf16_is_chosen_only_where_what_models_run_on_computes_in_it(
    machine: Machine, precision: str
):
    assert resolved_precision("auto", machine) == precision


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("machine", [PLAIN, WITH_BF16])
def test_a_precision_that_is_set_holds_on_every_machine(
    precision: Literal["fp32", "bf16"], machine: Machine
):
    assert resolved_precision(precision, machine) == precision


def test_the_memory_of_models_is_the_smallest_gpu_s_or_else_the_machine_s():
    assert with_gpus(H100, T4).model_memory_bytes == T4.memory_bytes
    assert PLAIN.model_memory_bytes == PLAIN.memory_bytes


@pytest.mark.parametrize(
    ("machine", "settings", "processes"),
    [
        (PLAIN, {}, 1),
        (PLAIN, {"processes": 3}, 3),
        (with_gpus(H100, H100), {}, 2),
        (with_gpus(H100, H100), {"processes": 1}, 1),
        (with_gpus(H100, H100), {"method": "adapter"}, 1),
        (MAC, {}, 1),
    ],
)
def test_a_process_trains_on_each_gpu_unless_it_is_set(
    machine: Machine, settings: dict[str, object], processes: int
):
    assert process_count(Settings.model_validate(settings), machine) == processes


@pytest.mark.parametrize(
    ("machine", "wanted", "said"),
    [
        (with_gpus(H100), 2, "2 processes need a GPU each, and this machine has 1"),
        (MAC, 2, "2 processes train together on Linux only"),
        (with_gpus(H100, H100, base=WINDOWS), 0, "2 processes train together on Linux only"),
    ],
)
def test_more_processes_than_the_machine_can_have_are_refused_in_one_line(
    machine: Machine, wanted: int, said: str
):
    with pytest.raises(SettingsError, match=f"^EMBED_ASSETS_PROCESSES: {said}"):
        process_count(Settings(processes=wanted), machine)


@pytest.mark.parametrize("cores", [1, 3, 64])
@pytest.mark.parametrize("workers", [0, 5])
def test_pdfs_are_parsed_by_a_process_per_core_up_to_a_few(cores: int, workers: int):
    pool = worker_pool(Settings(workers=workers), replace(PLAIN, cores=cores))
    assert pool.processes == (workers or min(cores, MOST_WORKERS))


def test_a_parser_may_take_its_share_of_the_memory_where_linux_holds_it_to_that():
    large = replace(PLAIN, memory_bytes=64 * GIB)
    assert worker_pool(Settings(), large).memory_limit_bytes == 16 * GIB
    small = replace(PLAIN, memory_bytes=2 * GIB)
    assert worker_pool(Settings(), small).memory_limit_bytes == LEAST_WORKER_MEMORY
    assert worker_pool(Settings(), MAC).memory_limit_bytes is None
    assert worker_pool(Settings(), WINDOWS).memory_limit_bytes is None


def test_torch_takes_no_more_threads_than_there_are_cores(tmp_path: Path):
    import torch

    source, before = str(make_tiny_model(tmp_path)), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        load_model(source, machine=replace(PLAIN, cores=2))
        assert torch.get_num_threads() == 2
        load_model(source, machine=replace(PLAIN, cores=64))
        assert torch.get_num_threads() == 2, "as OMP_NUM_THREADS or a caller wants it"
    finally:
        torch.set_num_threads(before)


def test_a_model_is_on_the_cpu_where_there_is_no_gpu_whatever_else_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str | None] = []

    class Model:
        max_seq_length = 64

        def __init__(self, source: str, device: str | None, **_: object) -> None:
            asked.append(device)

    monkeypatch.setattr("sentence_transformers.SentenceTransformer", Model)
    load_model("anything", machine=MAC)
    load_model("anything", machine=with_gpus(H100))
    assert asked == ["cpu", None], "None: sentence-transformers takes this process's GPU"


def test_the_peak_of_memory_is_told_in_each_system_s_unit(monkeypatch: pytest.MonkeyPatch):
    import resource

    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=5))
    assert peak_memory_bytes(PLAIN) == 5 * 1024
    assert peak_memory_bytes(MAC) == 5
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 7)
    assert peak_memory_bytes(with_gpus(H100)) == 7
    monkeypatch.setitem(sys.modules, "resource", None)  # Windows
    assert peak_memory_bytes(WINDOWS) == 0


def test_the_servers_say_that_they_need_process_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(SettingsError, match="ui needs Linux or macOS"):
        serve(Settings(home=tmp_path), 3000, 5000, lambda *_: None)
