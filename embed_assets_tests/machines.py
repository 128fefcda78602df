"""Machines that tests hand to what decides by the machine, so that any branch is taken on any."""

from dataclasses import replace

from embed_assets.machine import GIB, Gpu, Machine

H100 = Gpu("NVIDIA H100", 80 * GIB, computes_bf16=True)
T4 = Gpu("NVIDIA T4", 15 * GIB, computes_bf16=False)
PLAIN = Machine(
    platform="linux",
    processor="an old server",
    processor_flags=frozenset({"fpu", "sse2", "avx2"}),
    cores=4,
    host_cores=4,
    memory_bytes=16 * GIB,
)
WITH_BF16 = replace(PLAIN, processor_flags=PLAIN.processor_flags | {"avx512_bf16"})
WITH_AMX = replace(PLAIN, processor_flags=PLAIN.processor_flags | {"amx_bf16"})
SMALL = replace(PLAIN, memory_bytes=2**20)
"""Into which no batch fits, of whatever model: gradients are cached."""
NARROW = replace(PLAIN, memory_bytes=2**10)
"""Into which the activations of not even one text fit: they are computed twice."""
MAC = replace(PLAIN, platform="darwin", processor="Apple M3", processor_flags=frozenset())
WINDOWS = replace(PLAIN, platform="win32")


def with_gpus(*gpus: Gpu, base: Machine = PLAIN) -> Machine:
    """A machine with these GPUs. Models run on the CPU all the same where torch knows of none."""
    return replace(base, find_gpus=lambda: gpus)
