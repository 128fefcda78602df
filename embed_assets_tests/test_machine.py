"""What a machine is said to be, and what is decided by it: every branch, on any machine."""

import ctypes
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Literal

import pytest

import embed_assets
from embed_assets.definitions import MOST_WORKERS, worker_pool
from embed_assets.errors import SettingsError
from embed_assets.machine import (
    GIB,
    Gpu,
    Machine,
    cgroup_folders,
    container_memory,
    gpu_counter,
    package_counters,
    peak_memory_bytes,
    physical_memory,
    processor_of,
    share_one_arena,
    this_machine,
    usable_cores,
)
from embed_assets.models.encoder import load_model, resolved_precision
from embed_assets.resources.worker_memory import LEAST_WORKER_MEMORY, THREAD_MEMORY
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


def cgroups(folder: Path, own: str, files: dict[str, str]) -> set[Path]:
    """Folders of limits of a process with these cgroups, where these files are."""
    for name, text in {"own": own, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return cgroup_folders(folder / "cgroup", folder / "own")


VERSION_2 = "0::/\n"
IN_A_JOB = "0::/slurm/job_7/step_0\n"
VERSION_1 = "9:name=systemd:/\n4:memory:/docker/ab12\n2:cpu,cpuacct:/docker/ab12\n"


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        (VERSION_2, {"cgroup/memory.max": "2147483648\n"}, 2 * GIB),
        (VERSION_2, {"cgroup/memory.max": "max\n"}, sys.maxsize),
        (
            IN_A_JOB,
            {
                "cgroup/slurm/job_7/memory.max": "1073741824\n",
                "cgroup/slurm/job_7/step_0/memory.max": "max\n",
                "cgroup/slurm/job_8/memory.max": "1024\n",
            },
            GIB,
        ),
        (VERSION_1, {"cgroup/memory/memory.limit_in_bytes": "1073741824\n"}, GIB),
        (VERSION_1, {"cgroup/memory/docker/ab12/memory.limit_in_bytes": "5\n"}, 5),
        ("", {"cgroup/memory.max": "1024\n"}, sys.maxsize),
    ],
    ids=["2", "2, no limit", "2, around it", "1, in the container", "1, outside it", "none"],
)
def test_a_cgroup_s_limit_is_the_memory_there_is(
    tmp_path: Path, own: str, files: dict[str, str], limit: int
):
    assert container_memory(cgroups(tmp_path, own, files)) == limit


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        (VERSION_2, {"cgroup/cpu.max": "150000 100000\n"}, 2),
        (VERSION_2, {"cgroup/cpu.max": "10000 100000\n"}, 1),
        (VERSION_2, {"cgroup/cpu.max": "max 100000\n"}, 6),
        (VERSION_2, {"cgroup/cpu.max": "6400000 100000\n"}, 6),
        (IN_A_JOB, {"cgroup/slurm/cpu.max": "300000 100000\n"}, 3),
        (
            VERSION_1,
            {
                "cgroup/cpu/cpu.cfs_quota_us": "300000\n",
                "cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            VERSION_1,
            {"cgroup/cpu/cpu.cfs_quota_us": "-1\n", "cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            6,
        ),
        (VERSION_2, {}, 6),
    ],
)
@pytest.mark.parametrize("has_affinity", [True, False])
def test_cores_are_those_that_affinity_and_cgroups_leave(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: str,
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
    assert usable_cores(cgroups(tmp_path, own, files)) == cores


def test_the_memory_is_told_on_systems_without_sysconf_too(monkeypatch: pytest.MonkeyPatch):
    expected = physical_memory()
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert physical_memory() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("capabilities", "hip", "gpus", "bf16"),
    [
        ([(9, 0), (8, 0)], None, 2, True),
        ([(7, 5), (7, 5)], None, 2, False),
        ([(8, 9), (6, 1)], None, 1, True),
        ([(7, 0)], None, 0, False),
        ([(9, 0)], "6.4", 1, True),
    ],
    ids=["Hopper and Ampere", "Turing", "a new one and one too old", "Volta", "AMD's"],
)
def test_gpus_are_those_that_torch_is_built_for_and_some_only_emulate_bf16(
    monkeypatch: pytest.MonkeyPatch,
    capabilities: list[tuple[int, int]],
    hip: str | None,
    gpus: int,
    bf16: bool,
):
    import torch

    cards = [
        SimpleNamespace(name="a card", total_memory=15 * GIB, major=major, minor=minor, uuid="7")
        for major, minor in capabilities
    ]
    built_for = ["gfx942"] if hip else ["sm_75", "sm_80", "sm_90a", "compute_120"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", cards.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)
    monkeypatch.setattr(torch.version, "hip", hip)
    machine = replace(this_machine(), processor_flags=frozenset())  # looks for its GPUs anew
    assert [gpu.name for gpu in machine.gpus] == ["a card"] * gpus
    assert {gpu.uuid for gpu in machine.gpus} <= {"" if hip else "GPU-7"}
    assert machine.computes_bf16 == bf16


def test_without_cuda_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert replace(this_machine()).gpus == ()


def test_without_torch_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert replace(this_machine()).gpus == ()


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_where_another_c_library_serves_memory_is_as_it_gives_it(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
):
    def none(_: None) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", none)
    share_one_arena()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_threads_share_one_arena_once_they_are_told_to():
    program = (
        "import ctypes, sys, threading\n"
        "from embed_assets.machine import share_one_arena\n"
        "if sys.argv[1:]: share_one_arena()\n"
        "barrier = threading.Barrier(4)\n"
        "def work():\n"
        "    barrier.wait()\n"
        "    kept = [bytearray(1000) for _ in range(100)]\n"
        "    barrier.wait()\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "ctypes.CDLL(None).malloc_stats()\n"
    )
    arenas = []
    for told in ([], ["told"]):
        command = [sys.executable, "-c", program, *told]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        arenas.append(said.count("Arena "))
    assert arenas[1] == 1 < arenas[0]


def test_a_bare_python_says_what_machine_it_is():
    """Before anything is installed."""
    root = Path(embed_assets.__file__).parents[1]
    command = [sys.executable, "-S", "-P", "-m", "embed_assets.machine"]
    bare = {"PYTHONPATH": str(root), "PATH": os.environ["PATH"]}
    said = subprocess.check_output(command, env=bare, text=True)
    assert said.endswith("no torch\n")
    assert this_machine().processor in said


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
    least = LEAST_WORKER_MEMORY + 4 * THREAD_MEMORY
    assert worker_pool(Settings(), small).memory_limit_bytes == least
    in_a_pod = replace(small, host_cores=128)
    assert worker_pool(Settings(), in_a_pod).memory_limit_bytes == least + 124 * THREAD_MEMORY
    assert worker_pool(Settings(), MAC).memory_limit_bytes is None
    assert worker_pool(Settings(), WINDOWS).memory_limit_bytes is None


def test_on_ray_the_cluster_says_how_many_parse_and_each_node_what_a_parser_may_take():
    pool = worker_pool(Settings(engine="ray"), PLAIN)
    assert (pool.engine, pool.processes, pool.memory_limit_bytes) == ("ray", 0, None)
    assert worker_pool(Settings(engine="ray", workers=5), PLAIN).processes == 5
    assert worker_pool(Settings(), PLAIN).engine == "local"


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


# Energy.


def rapl(folder: Path, domain: str, name: str, **files: str) -> None:
    """A domain as Linux shows it: its name, and files of microjoules."""
    (folder / domain).mkdir(parents=True)
    for file, text in {"name": name, **files}.items():
        (folder / domain / file).write_text(f"{text}\n")


def test_the_energy_of_each_processor_is_counted_once(tmp_path: Path):
    for package in ("0", "1"):
        counted = {"energy_uj": f"{package}500000", "max_energy_range_uj": "262143328850"}
        rapl(tmp_path, f"intel-rapl:{package}", f"package-{package}", **counted)
    rapl(tmp_path, "intel-rapl:0:0", "core", energy_uj="1")
    rapl(tmp_path, "intel-rapl:2", "psys", energy_uj="1")
    rapl(tmp_path, "intel-rapl-mmio:0", "package-0", energy_uj="1")
    counters = package_counters(tmp_path)
    assert [counter.name for counter in counters] == ["package-0", "package-1"]
    assert [counter.read() for counter in counters] == [0.5, 1.5]
    assert [counter.wraps_at for counter in counters] == [262143.32885] * 2
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("700000\n")
    assert counters[0].read() == 0.7, "read anew each time"


def test_a_processor_whose_energy_may_not_be_read_has_no_counter(tmp_path: Path):
    rapl(tmp_path, "intel-rapl:0", "package-0")  # as to others than root
    rapl(tmp_path, "intel-rapl:1", "package-1", energy_uj="none")
    assert package_counters(tmp_path) == []
    assert package_counters(tmp_path / "missing") == []


class Nvml(ModuleType):
    """NVIDIA's library, of a machine with one card that counts: `GPU-7`."""

    class NVMLError(Exception):
        """What all its errors are."""

    def __init__(self, *, loads: bool = True) -> None:
        super().__init__("pynvml")
        self.loads, self.millijoules = loads, 2500

    def nvmlInit(self) -> None:
        if not self.loads:
            raise self.NVMLError("NVML Shared Library Not Found")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-7":
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self.millijoules


CARD = Gpu("a card", GIB, computes_bf16=True, uuid="GPU-7")


def test_the_energy_of_the_very_card_that_is_used_is_counted(monkeypatch: pytest.MonkeyPatch):
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    counter = gpu_counter(CARD)
    assert counter is not None
    assert (counter.name, counter.read(), counter.wraps_at) == ("a card", 2.5, None)
    nvml.loads = False
    with pytest.raises(OSError, match="a card: NVML Shared Library Not Found"):
        counter.read()


@pytest.mark.parametrize(
    ("library", "card"),
    [
        (None, CARD),
        (Nvml(loads=False), CARD),
        (Nvml(), replace(CARD, uuid="GPU-8")),
        (Nvml(), replace(CARD, uuid="")),
    ],
    ids=["not installed", "no driver", "a part of a card", "AMD's"],
)
def test_a_card_whose_energy_cannot_be_read_has_no_counter(
    monkeypatch: pytest.MonkeyPatch, library: ModuleType | None, card: Gpu
):
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert gpu_counter(card) is None
