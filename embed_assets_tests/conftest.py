"""What tests of several stages share."""

import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine

from embed_assets.resources.tracking import Tracking

# Before torch is loaded: the models here are so small that threads only get in each other's way.
os.environ["OMP_NUM_THREADS"] = "1"


LEFT_OF_MLFLOW = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    "MLFLOW_HTTP_REQUEST_TIMEOUT",
)
"""Variables that mlflow and commands set for their own process."""


UMASK = os.umask(0)
os.umask(UMASK)

TAKE_LONG = ("e2e", "training")
"""Folders of the tests that take longest, by file."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long: at the end no process waits while another has a long file."""
    items.sort(key=lambda item: item.path.parent.name not in TAKE_LONG)


@pytest.fixture(autouse=True)
def files_for_others() -> None:
    """What a command did to its process, so that its files are private, ends with its test."""
    os.umask(UMASK)


@pytest.fixture(autouse=True)
def mlflow_in_each_home() -> Iterator[None]:
    """No test finds another's MLflow, nor how patiently that was asked."""
    for name in LEFT_OF_MLFLOW:
        os.environ.pop(name, None)
    yield
    for name in LEFT_OF_MLFLOW:
        os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def migrations_read_once() -> Iterator[None]:
    """Dagster reads its hundred files of migrations again and again for each instance that is
    opened: half of what that takes.
    """
    read, kept = ScriptDirectory.from_config, {}

    def read_once(config: Config) -> ScriptDirectory:
        location = config.get_main_option("script_location")
        if location not in kept:
            kept[location] = read(config)
        return kept[location]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", read_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def mlflow_databases_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow takes seconds to make a database by its migrations: all here are copies of one."""
    make, first = Tracking._make_database, tmp_path_factory.mktemp("mlflow") / "mlflow.db"

    def make_by_copy(tracking: Tracking) -> None:
        from mlflow.store.db import utils

        migrate = utils._initialize_tables

        def initialise(engine: Engine) -> None:
            if not first.exists():
                unfinished = first.with_suffix(".unfinished")
                migrate(create_engine(f"sqlite:///{unfinished}"))
                unfinished.replace(first)
            databases = (first, str(engine.url.database))
            with ExitStack() as stack:
                made, copy = (stack.enter_context(closing(sqlite3.connect(d))) for d in databases)
                made.backup(copy)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(utils, "_initialize_tables", initialise)
            make(tracking)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracking, "_make_database", make_by_copy)
        yield


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker pool starts no processes: two or three seconds each, in most tests for nothing."""
    from embed_assets_tests.in_process import start

    monkeypatch.setattr("embed_assets.resources.workers.WorkerPool.start", start)


@pytest.fixture
def torch_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that take a GPU's branches on the CPU, where the machine has a GPU after all."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives a port that nothing listens on, another one each time."""
    # Tests that run side by side have ports of their own, below those that systems give out.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = iter(range(20_000 + 500 * worker, 20_500 + 500 * worker))

    def find() -> int:
        for port in ports:
            with socket.socket() as probe, suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
        raise AssertionError("no port is free")

    return find
