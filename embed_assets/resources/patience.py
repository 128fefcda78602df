"""How long MLflow's client tries to reach its server: minutes, unless it is told otherwise.

Imported where there is no Dagster.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}


def answer_at_once() -> None:
    """Have this process ask an MLflow server once, and wait three seconds for it.

    For commands that can do without an answer.
    """
    for name, value in ONCE.items():
        os.environ.setdefault(name, value)


@contextmanager
def answering_at_once() -> Iterator[None]:
    """The same within a block: processes that are started after it try as long as ever."""
    ours = {name: value for name, value in ONCE.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
