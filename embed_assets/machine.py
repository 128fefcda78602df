"""The machine that the program runs on, described once.

Whatever the program decides by the machine, it decides by a `Machine`, so that a test can hand it
any other. No other module looks at /proc, cgroups, `torch.cuda` or the number of cores.

`python -m embed_assets.machine` says in a line what machine this is.
"""

import functools
import math
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

GIB = 2**30
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
"""On processors without one of these bf16 is computed in detours, far more slowly than fp32."""
AMPERE = 8
"""Compute capability of the first NVIDIA GPUs that compute in bf16."""
TELLING_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "asimd",
    "sve",
    "bf16",
)
"""Processor flags that say how fast a model runs; the last three are those of ARM."""
PROCESSOR = Path("/proc/cpuinfo")
CGROUP = Path("/sys/fs/cgroup")
MEMORY_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""Where a container's limit is, in version 2 and in version 1 of cgroups."""
CPU_LIMITS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Likewise: microseconds of all cores together in each period, and the period."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch can use. computes_bf16: in its own units, not emulated."""

    name: str
    memory_bytes: int
    computes_bf16: bool


@dataclass(frozen=True)
class Machine:
    """What the program knows of a machine.

    platform: as `sys.platform` has it. cores: those that this process may use. memory_bytes: of the
    machine, or of the container around this process. find_gpus: looks for them, which loads torch.
    """

    platform: str
    processor: str
    processor_flags: frozenset[str]
    cores: int
    memory_bytes: int
    find_gpus: Callable[[], tuple[Gpu, ...]] = tuple

    @functools.cached_property
    def gpus(self) -> tuple[Gpu, ...]:
        """GPUs that torch can use, in its order."""
        return self.find_gpus()

    @property
    def computes_bf16(self) -> bool:
        """Whether what models run on, all GPUs or else the processor, computes in bf16."""
        if self.gpus:
            return all(gpu.computes_bf16 for gpu in self.gpus)
        return bool(self.processor_flags & BF16_FLAGS)

    @property
    def model_memory_bytes(self) -> int:
        """Memory of what models run on: of the smallest GPU, or else of the machine."""
        return min((gpu.memory_bytes for gpu in self.gpus), default=self.memory_bytes)

    @property
    def is_linux(self) -> bool:
        """Whether this is Linux, the only system that the project is tested on."""
        return self.platform == "linux"

    def __str__(self) -> str:
        """One line for a person."""
        flags = " ".join(flag for flag in TELLING_FLAGS if flag in self.processor_flags)
        gpus = ", ".join(f"{gpu.name} {gpu.memory_bytes / GIB:.0f} GiB" for gpu in self.gpus)
        return (
            f"{self.processor}{f' ({flags})' if flags else ''}, {self.cores} cores, "
            f"{self.memory_bytes / GIB:.1f} GiB, {gpus or 'no GPU'}, {self.platform}"
        )


@functools.cache
def this_machine() -> Machine:
    """The machine that this process runs on."""
    import psutil

    processor = processor_of(PROCESSOR)
    flags = processor.get("flags") or processor.get("Features", "")
    return Machine(
        platform=sys.platform,
        processor=processor.get("model name") or platform.processor() or platform.machine(),
        processor_flags=frozenset(flags.split()),
        cores=usable_cores(CGROUP),
        memory_bytes=min(psutil.virtual_memory().total, container_memory(CGROUP)),
        find_gpus=_gpus,
    )


def processor_of(file: Path) -> dict[str, str]:
    """What Linux says of the first core: name and value. Empty where there is no such file."""
    try:
        first, _, _ = file.read_text(encoding="utf-8", errors="replace").partition("\n\n")
    except OSError:
        return {}
    fields = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in fields}


def container_memory(cgroup: Path) -> int:
    """Bytes that a container may take; more than any machine has, without a limit."""
    for name in MEMORY_LIMITS:
        limit = _words(cgroup / name)
        if limit:
            return sys.maxsize if limit == ["max"] else int(limit[0])
    return sys.maxsize


def usable_cores(cgroup: Path) -> int:
    """Cores that this process may use: those it is bound to, or fewer by a container's quota.

    joblib counts so too, but takes a machine without shared memory to have one core.
    """
    bound = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    cores = len(bound(0))
    for names in CPU_LIMITS:
        limit = [word for name in names for word in _words(cgroup / name)]
        if len(limit) == 2 and limit[0] not in ("max", "-1"):
            return max(1, min(cores, math.ceil(int(limit[0]) / int(limit[1]))))
    return cores


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:
        return []


def peak_memory_bytes(machine: Machine) -> int:
    """The most that this process has held of what models run on; 0 where nothing tells."""
    if machine.gpus:
        import torch

        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if machine.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _gpus() -> tuple[Gpu, ...]:
    import torch

    if not torch.cuda.is_available():
        return ()
    # torch calls bf16 supported where it is emulated (Turing, such as the T4), which is slow.
    return tuple(
        Gpu(gpu.name, gpu.total_memory, torch.version.hip is not None or gpu.major >= AMPERE)
        for gpu in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    )


def main() -> None:
    """Say what machine this is, and what runs there."""
    try:
        torch = f"torch {version('torch')}"
    except PackageNotFoundError:
        torch = "no torch"
    print(f"{this_machine()}; Python {platform.python_version()}, {torch}")  # noqa: T201


if __name__ == "__main__":
    main()
