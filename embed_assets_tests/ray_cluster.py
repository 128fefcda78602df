"""A real Ray cluster of several nodes for tests, as processes of this machine."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from embed_assets.resources.ray_cluster import ON_THIS_MACHINE

SOON = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 2,
}
"""A lost node is noticed in a second, not in half a minute."""


@contextmanager
def two_nodes() -> Iterator[tuple[Any, list[Any]]]:
    """A head without CPUs, and two nodes with one each, for as long as the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        for name, value in ON_THIS_MACHINE.items():
            patch.setenv(name, value)
        ray = pytest.importorskip("ray", reason="ray isn't installed")
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": SOON}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        patch.setenv("RAY_ADDRESS", str(cluster.address))
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        yield cluster, nodes
        ray.shutdown()
        cluster.shutdown()


@contextmanager
def jobs_on_a_node(environment: Mapping[str, str], port: int) -> Iterator[Any]:
    """A cluster without CPUs that takes jobs at a port: a head, and a node where runs have a place.

    environment: of its nodes. Its pages and jobs need more than ray itself.
    """
    for package in ("dagster_ray", "aiohttp_cors", "opencensus"):
        pytest.importorskip(package, reason="dagster-ray or ray[default] isn't installed")
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="ray") as folder:
        for name, value in {**environment, **ON_THIS_MACHINE}.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        from ray._private.utils import write_ray_address
        from ray.cluster_utils import Cluster

        # A job finds its cluster by this folder: other tests' clusters share the usual one.
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": port}
        cluster = Cluster(initialize_head=True, head_node_args={**head, "temp_dir": folder})
        try:
            write_ray_address(str(cluster.address), folder)
            cluster.add_node(num_cpus=0, resources={"embed_assets_run": 1})
            cluster.wait_for_nodes()
            _wait_until_it_takes_jobs(f"http://127.0.0.1:{port}")
            yield cluster
        finally:
            cluster.shutdown()


def _wait_until_it_takes_jobs(server: str) -> None:
    """RuntimeError where it takes none within a minute: the head is there before its agent is."""
    from ray.job_submission import JobSubmissionClient

    deadline = time.monotonic() + 60
    while True:
        try:
            JobSubmissionClient(server).submit_job(entrypoint="true")
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return
