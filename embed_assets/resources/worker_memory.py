"""The share of a machine's memory that falls to a worker."""

from embed_assets.machine import GIB, Machine

LEAST_WORKER_MEMORY = 4 * GIB
THREAD_MEMORY = GIB // 16
"""Address space, of which much is reserved and never touched: for each thread that the layout model
starts, and it starts one for each core of the whole machine."""


def share_of_memory(machine: Machine, workers: int) -> int | None:
    """Bytes that each of so many workers may take; None where the system holds none to a share.

    Only Linux does.
    """
    if not machine.is_linux:
        return None
    least = LEAST_WORKER_MEMORY + machine.host_cores * THREAD_MEMORY
    return max(least, machine.memory_bytes // workers)
