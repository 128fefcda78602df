"""What goes on inside a worker on Ray. Imports nothing heavy: each worker that starts pays for it.

What starts and ends them is in `ray_workers.py`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from embed_assets.errors import ProjectError, one_line
from embed_assets.machine import address_space_taken, this_machine
from embed_assets.resources.causes import Cause
from embed_assets.resources.ray_cluster import this_node
from embed_assets.resources.worker import Broken, Item, Result, call, initialise
from embed_assets.resources.worker_memory import share_of_memory

NO_LIMIT = 0
"""Of memory: a GPU's driver takes far more addresses than memory."""
LOOKS = "looks"
"""The concurrency group of methods that answer while an item is at work."""


class RayWorker:
    """An actor that carries out one item after the other."""

    def __init__(self, memory_limit_bytes: int | None, told: Mapping[str, str]) -> None:
        """memory_limit_bytes: beside what Ray itself takes; None: the share of this node's memory
        that falls to one of its CPUs; NO_LIMIT: as much as there is. told: variables for its
        environment.
        """
        os.environ.update(told)
        self._done = [0]
        limit = memory_limit_bytes
        if limit is None:
            limit = share_of_memory(this_machine(), _cpus_of_node())
        # Ray's processes map the whole of the node's object store, and reserve more than they use.
        initialise(limit + address_space_taken() if limit else None, self._done)

    def node(self) -> tuple[str, str]:
        """The id and the address of the node that it is on."""
        return this_node()

    def carry_out(
        self, function: Callable[[Item], Result], item: Item
    ) -> tuple[Result, None] | tuple[None, Broken]:
        """As `call`."""
        try:
            return call(function, item, 0)
        finally:
            self._done[0] = 0

    def done(self) -> int:
        """What was reported of the item at work; of LOOKS."""
        return self._done[0]


@dataclass(frozen=True)
class BytesInStore:
    """Bytes in the object stores of a cluster's nodes. reference: of Ray's."""

    reference: Any

    def read(self) -> bytes:
        """The bytes, brought to this node once; LostBytesError where they can't be."""
        import ray
        from ray.exceptions import RayError

        try:
            return ray.get(self.reference)
        except RayError as error:
            raise LostBytesError(one_line(f"its bytes didn't reach the node: {error}")) from error


class LostBytesError(ProjectError):
    """Bytes can't be had on a node: it says nothing of the file that they are of."""

    cause = Cause.PROCESS_ENDED


def _cpus_of_node() -> int:
    """CPUs that Ray gives to actors of this node."""
    import ray

    here, _ = this_node()
    [cpus] = [node["Resources"].get("CPU", 1) for node in ray.nodes() if node["NodeID"] == here]
    return max(1, int(cpus))
