"""The guard knows the port that Dagster's webserver will listen to."""

import pytest
from dagster_webserver.cli import dagster_webserver

from embed_assets.command.guarded import _port


@pytest.mark.parametrize(
    "said",
    [
        "--port 8000",
        "--port=8000",
        "-p 8000",
        "-p8000",
        "-p 1 --port 8000",
        "--module-name x --host 0.0.0.0 --port 8000 --read-only",
    ],
)
def test_the_guard_reads_the_port_as_dagster_reads_it(said: str) -> None:
    taken = dagster_webserver.make_context("dagster-webserver", said.split()).params
    assert _port(said.split()) == taken["port"] == 8000


def test_without_a_port_the_guard_answers_to_the_usual_one() -> None:
    assert _port([]) == 3000
