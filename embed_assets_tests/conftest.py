"""What tests of several stages share."""

import os
import socket
from collections.abc import Callable

import pytest

# Before torch is loaded: the models here are so small that threads only get in each other's way.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives a port that nothing listens on, another one each time."""
    given: set[int] = set()

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            if port not in given:
                given.add(port)
                return port

    return find
