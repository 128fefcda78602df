"""The machine that the program runs on, described once.

Whatever the program decides by the machine, it decides by a `Machine`, so that a test can hand it
any other. No other module looks at /proc, cgroups, `torch.cuda` or the number of cores.

`python -m embed_assets.machine` says in a line what machine this is.
"""

import ctypes
import functools
import itertools
import math
import os
import platform
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
"""On processors without one of these bf16 is computed in detours, far more slowly than fp32."""
AMPERE = 8
"""Compute capability of the first NVIDIA GPUs that compute in bf16."""
X86_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
ARM_FLAGS = ("asimd", "sve", "bf16")
"""Processor flags that say how fast a model runs."""
MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Files of a limit in bytes, in version 2 and in version 1 of cgroups."""
CPU_LIMITS = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
"""Likewise: microseconds of all cores together in each period, and the period."""
UNLIMITED = ("max", "-1", "")
"""What stands there without a limit; nothing where the file is missing."""
ARENA_MAX = -8
"""`M_ARENA_MAX` of glibc's malloc.h."""
POWER = Path("/sys/class/powercap")
PACKAGES = "intel-rapl:*"
"""Folders of Intel's and AMD's processors; `intel-rapl-mmio:*` counts the same energy again."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch can use. computes_bf16: in its own units, not emulated.

    uuid: NVIDIA's name of this very card; empty of others.
    """

    name: str
    memory_bytes: int
    computes_bf16: bool
    uuid: str = ""


@dataclass(frozen=True)
class EnergyCounter:
    """Counts the energy that a part of the machine takes, whoever has it at work.

    read: joules so far, or OSError where nothing can be said. wraps_at: joules at which it begins
    again with 0, if it does.
    """

    name: str
    read: Callable[[], float]
    wraps_at: float | None = None


@dataclass(frozen=True)
class Machine:
    """What the program knows of a machine.

    platform: as `sys.platform` has it. cores: those that this process may use. host_cores: all of
    them, which libraries count that know nothing of limits. memory_bytes: of the machine, or of the
    container around this process. find_gpus: looks for them, which loads torch.
    find_energy_counters: those of the processor and of these GPUs that can be read. called: how
    errors name it.
    """

    platform: str
    processor: str
    processor_flags: frozenset[str]
    cores: int
    host_cores: int
    memory_bytes: int
    find_gpus: Callable[[], tuple[Gpu, ...]] = tuple
    find_energy_counters: Callable[[Sequence[Gpu]], tuple[EnergyCounter, ...]] = lambda _: ()
    called: str = "this machine"

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
        flags = " ".join(flag for flag in X86_FLAGS + ARM_FLAGS if flag in self.processor_flags)
        gpus = ", ".join(f"{gpu.name} {gpu.memory_bytes / GIB:.0f} GiB" for gpu in self.gpus)
        return (
            f"{self.processor}{f' ({flags})' if flags else ''}, {self.cores} cores, "
            f"{self.memory_bytes / GIB:.1f} GiB, {gpus or 'no GPU'}, {self.platform}"
        )


@functools.cache
def this_machine() -> Machine:
    """The machine that this process runs on."""
    limits = cgroup_folders(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    processor = processor_of(Path("/proc/cpuinfo"))
    flags = processor.get("flags") or processor.get("Features", "")
    return Machine(
        platform=sys.platform,
        processor=processor.get("model name") or platform.processor() or platform.machine(),
        processor_flags=frozenset(flags.split()),
        cores=usable_cores(limits),
        host_cores=os.cpu_count() or 1,
        memory_bytes=min(physical_memory(), container_memory(limits)),
        find_gpus=_gpus,
        find_energy_counters=lambda gpus: (
            *package_counters(POWER),
            *(counter for gpu in gpus if (counter := gpu_counter(gpu))),
        ),
    )


def address_space_taken() -> int:
    """Bytes of address space that this process has, used or not."""
    import psutil

    return psutil.Process().memory_info().vms


def processor_of(file: Path) -> dict[str, str]:
    """What Linux says of the first core: name and value. Empty where there is no such file."""
    first, _, _ = _text(file).partition("\n\n")
    fields = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in fields}


def cgroup_folders(mount: Path, own: Path) -> set[Path]:
    """Folders in which limits of this process stand: of its cgroups, and of those around them.

    own: a line for each hierarchy, `number:controllers:path`; version 2 has but one, without
    controllers. A container sees paths of the machine around it, or starts at the mount itself.
    """
    folders: set[Path] = set()
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            top = mount / controller
            deepest = top / path.strip("/")
            around = [deepest, *deepest.parents]
            folders |= {folder for folder in around if folder.is_relative_to(top)}
    return folders


def container_memory(folders: Collection[Path]) -> int:
    """Bytes that a process in these cgroups may take; without a limit, more than there are."""
    limits = [_text(folder / name).strip() for folder in folders for name in MEMORY_LIMITS]
    return min((int(limit) for limit in limits if limit not in UNLIMITED), default=sys.maxsize)


def usable_cores(folders: Collection[Path]) -> int:
    """Cores that this process may use: those it is bound to, or fewer by the quotas of cgroups.

    joblib counts so too, but takes a machine without shared memory to have one core.
    """
    bound = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    cores = len(bound(0))
    for folder, names in itertools.product(folders, CPU_LIMITS):
        quota = [word for name in names for word in _text(folder / name).split()]
        if len(quota) == 2 and quota[0] not in UNLIMITED:
            cores = min(cores, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, cores)


def physical_memory() -> int:
    """Bytes of the machine."""
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import psutil  # Windows

    return psutil.virtual_memory().total


def package_counters(folder: Path) -> list[EnergyCounter]:
    """RAPL's counters of whole processors, of those that may be read: often by root alone.

    folder: Linux's, with a folder for each domain: its `name`, `energy_uj` and
    `max_energy_range_uj` in microjoules. What lies inside of a package is in its count.
    """
    found = []
    for domain in sorted(folder.glob(PACKAGES)):
        name, most = _text(domain / "name").strip(), _text(domain / "max_energy_range_uj").strip()
        counter = EnergyCounter(
            name,
            lambda file=domain / "energy_uj": int(file.read_text(encoding="ascii")) / 1e6,
            int(most) / 1e6 if most else None,
        )
        if name.startswith("package") and _can_be_read(counter):
            found.append(counter)
    return found


def gpu_counter(gpu: Gpu) -> EnergyCounter | None:
    """The counter of an NVIDIA GPU (Volta or later), from its driver; none where it has none."""
    try:
        import pynvml
    except ImportError:
        return None

    def read() -> float:
        try:
            pynvml.nvmlInit()  # counts how often: the library stays loaded
            handle = pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        except pynvml.NVMLError as error:
            raise OSError(f"{gpu.name}: {error}") from error

    counter = EnergyCounter(gpu.name, read)
    return counter if gpu.uuid and _can_be_read(counter) else None


def _can_be_read(counter: EnergyCounter) -> bool:
    try:
        counter.read()
    except (OSError, ValueError):
        return False
    return True


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


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
    try:
        import torch
    except ImportError:
        return ()
    if not torch.cuda.is_available():
        return ()
    cards = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    # Empty of AMD's, all of which compute in bf16.
    built_for = [int(name[3:].rstrip("af")) for name in torch.cuda.get_arch_list() if "sm_" in name]
    oldest, is_amd = min(built_for, default=0), torch.version.hip is not None
    # torch counts cards that are too old for its build, and calls bf16 supported where it is
    # emulated, which is slow. It has the fastest first: what comes after one too old isn't used.
    usable = itertools.takewhile(lambda card: 10 * card.major + card.minor >= oldest, cards)
    return tuple(
        Gpu(c.name, c.total_memory, is_amd or c.major >= AMPERE, "" if is_amd else f"GPU-{c.uuid}")
        for c in usable
    )


def main() -> None:
    """Say what machine this is, and what runs there."""
    try:
        import torch
    except ImportError:
        build = "no torch"
    else:
        build = f"torch {torch.__version__} (CUDA: {torch.version.cuda or 'none'})"
    print(f"{this_machine()}; Python {platform.python_version()}, {build}")  # noqa: T201


def processes_with(file: Path, but: int | None = None) -> list[str]:
    """Names and ids of the processes that have a file open, of those that may be looked at.

    but: the id of one that is left out.
    """
    import psutil

    path = str(file.resolve())
    return [
        f"{process.info['name']} (process {process.info['pid']})"
        for process in psutil.process_iter(["name", "pid", "open_files"])
        if process.info["pid"] != but
        and any(opened.path == path for opened in process.info["open_files"] or ())
    ]


def share_one_arena() -> None:
    """Have all threads of this process take memory from one place, where glibc's malloc serves.

    By itself it gives each thread an arena, and keeps in it what the thread has freed: a server
    whose threads come and go grows for hours.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)


if __name__ == "__main__":
    main()
