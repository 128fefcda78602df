"""The Ray cluster that this process works with."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from embed_assets.errors import ProjectError, hide_password, one_line
from embed_assets.machine import this_machine
from embed_assets.secrets import DOTENV
from embed_assets.terminal import TERMINAL

ADDRESS = "RAY_ADDRESS"
"""Ray's own variable: `HOST:PORT` of a cluster's head, or `auto` for the one on this machine."""
ENGINE = "EMBED_ASSETS_ENGINE"
NAMESPACE = "embed_assets"
ON_THIS_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Ray's environment of a cluster that this process starts. The first has its ports listen on the
loopback interface alone, as they do by default on Windows and macOS; the second has it tell nobody
that it is there."""
CPUS_OF_MODEL = 4
"""Of a model where there is no GPU: with more of them it gains less, with fewer it is in memory
more often."""
SECONDS_TO_ANSWER = 10.0
"""Within which a cluster's head takes a connection."""

_connecting = threading.Lock()


def connect(processes: int) -> None:
    """Be connected with the cluster at RAY_ADDRESS, or with one on this machine if there is none.

    One on this machine has room for so many processes, and ends with this one. A process is
    connected once: later calls find it so. ProjectError where Ray isn't installed, or where no
    cluster answers within SECONDS_TO_ANSWER.
    """
    address = os.environ.get(ADDRESS)
    with _connecting:
        if not address:
            for name, value in ON_THIS_MACHINE.items():  # read when ray is imported
                os.environ.setdefault(name, value)
        try:
            import ray
            from ray._private import worker as driver
            from ray.exceptions import RayError
        except ModuleNotFoundError:
            said = "'ray' needs the package ray: pip install 'embed_assets[ray]'."
            raise ProjectError(said, ENGINE) from None
        if ray.is_initialized():
            return
        try:
            if address:
                _knock(address)
            cores = None if address else max(processes, this_machine().cores)
            with _signals_kept():
                ray.init(
                    address=address or "local",
                    num_cpus=cores,
                    include_dashboard=None if address else False,
                    namespace=NAMESPACE,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except (OSError, ValueError, RuntimeError, RayError) as error:
            raise _not_reached(address, error) from error
        # What it says of dead workers goes to stdout, where a command prints its one object.
        driver._worker_logs_enabled = False


def cpus() -> int:
    """CPUs of all nodes together that are alive, at least one."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 0)))


def places_of_models() -> tuple[int, int, int]:
    """Models that have room side by side, and the CPUs and GPUs of each.

    One on each GPU, which waits for no CPU that parses; where there is none, one on every
    CPUS_OF_MODEL of a node, or on as many as the largest has.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if gpus:
        return gpus, 0, 1
    cpus = [count for node in nodes if (count := int(node.get("CPU", 0)))]
    each = min(CPUS_OF_MODEL, max(cpus, default=1))
    return max(1, sum(count // each for count in cpus)), each, 0


def most(resource: str) -> int:
    """The most of it, `CPU` or `GPU`, that one node has of those that are alive."""
    import ray

    return max(int(n["Resources"].get(resource, 0)) for n in ray.nodes() if n["Alive"])


def this_node() -> tuple[str, str]:
    """The id and the address of the node that this process is on."""
    import ray

    return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()


def travelling(beginnings: tuple[str, ...]) -> dict[str, str]:
    """Variables of this process, and of its `.env`, whose names begin so: for another node."""
    from dotenv import dotenv_values

    here = {**dotenv_values(DOTENV, encoding="utf-8"), **os.environ}
    return {
        name: value
        for name, value in here.items()
        if value is not None and name.startswith(beginnings) and name != TERMINAL
    }


def is_alive(node_id: str) -> bool:
    """Whether the cluster counts this node among those that are there."""
    import ray

    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def _knock(address: str) -> None:
    """OSError where nobody listens: Ray itself would wait two minutes, and end the process."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), SECONDS_TO_ANSWER).close()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """In the block Ray may put a handler of its own in the place of SIGTERM's: it is put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _not_reached(address: str | None, error: Exception) -> ProjectError:
    if not address:
        return ProjectError(one_line(f"A Ray cluster can't be started here: {error}"))
    what = hide_password(f"no Ray cluster answers at '{address}' ({error}).", address)
    todo = (
        f"Start one there, give this process its token (RAY_AUTH_TOKEN) if it has one, or unset "
        f"{ADDRESS}: then one is started on this machine."
    )
    return ProjectError(f"{one_line(what)} {todo}", ADDRESS)
