"""What a training takes, by counters made up for it."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Event

import mlflow
import pytest

from embed_assets.machine import EnergyCounter, Machine, this_machine
from embed_assets.training import trainer
from embed_assets.training.config import TrainingConfig
from embed_assets.training.cost import Cost, counted_cost
from embed_assets_tests.tiny_model import make_tiny_model
from embed_assets_tests.training.trainings import make_config, tracking_of


def counting(
    *joules: float, wraps_at: float | None = None, name: str = "package-0"
) -> EnergyCounter:
    """A counter that shows these, one after another, and can't be read after the last."""
    shown = iter(joules)

    def read() -> float:
        try:
            return next(shown)
        except StopIteration:
            raise OSError("gone") from None

    return EnergyCounter(name, read, wraps_at)


@pytest.mark.parametrize(
    ("counters", "watt_hours"),
    [
        ([counting(3600, 5400, 7200)], 1.0),
        ([counting(0, 1800, 3600), counting(100, 3600, 3700)], 2.0),
        ([counting(3000, 600, 3000, wraps_at=3600)], 1.0),
        ([counting(9000, 1800, 3600)], 1.0),
    ],
    ids=["one", "two", "begins again at its end", "set back by its driver"],
)
def test_what_counters_count_is_told_in_watt_hours(
    counters: list[EnergyCounter], watt_hours: float, tmp_path: Path
) -> None:
    cost = Cost(counters, tmp_path / "cost.json")
    cost.read()
    cost.read()
    assert cost.watt_hours == watt_hours
    assert cost.parts == ", ".join(["package-0"] * len(counters))


@pytest.mark.parametrize(
    "counters",
    [[], [counting()], [counting(1)], [counting(1, 2), counting(1)]],
    ids=["no counter", "never read", "read no more", "one of two read no more"],
)
def test_energy_that_is_known_in_part_alone_is_not_told(
    counters: list[EnergyCounter], tmp_path: Path
) -> None:
    cost = Cost(counters, tmp_path / "cost.json")
    cost.read()
    assert cost.watt_hours is None
    assert cost.parts is None


def test_a_counter_that_begins_again_many_times_is_read_in_between(tmp_path: Path) -> None:
    read_often, turns = Event(), count()

    def read() -> float:
        turn = next(turns)
        if turn == 9:
            read_often.set()
        return turn * 60 % 100

    counter, file = EnergyCounter("package-0", read, 100.0), tmp_path / "cost.json"
    with counted_cost([counter], file, pause=0.0) as cost:
        assert read_often.wait(60)
    readings = next(turns) - 1
    assert cost.watt_hours == pytest.approx(readings * 60 / 3600, abs=1e-6)


def test_what_a_killed_part_took_counts_too(tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    killed = Cost([counting(0, 3600)], file)
    killed.read()  # and nothing more: no kill asks for a last reading
    cost = Cost([counting(70, 3670)], file)
    cost.read()
    assert cost.watt_hours == 2.0
    assert cost.seconds > killed.seconds > 0


def test_a_reading_that_can_not_be_kept_for_a_moment_counts_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "cost.json"  # there is no folder yet
    cost = Cost([counting(0, 1800, 3600)], file)
    cost.read()
    file.parent.mkdir()
    cost.read()
    assert cost.watt_hours == 1.0
    assert Cost([counting(0)], file).watt_hours == 1.0


@pytest.mark.parametrize("parts", [([], [counting(0, 1)]), ([counting(0, 1)], [])])
def test_energy_of_a_part_alone_is_not_told(
    parts: tuple[list[EnergyCounter], list[EnergyCounter]], tmp_path: Path
) -> None:
    killed, taken_up = parts
    Cost(killed, tmp_path / "cost.json").read()
    cost = Cost(taken_up, tmp_path / "cost.json")
    cost.read()
    assert cost.watt_hours is None
    assert cost.parts is None


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], dict]:
    """Runs the entry point of a training process on a machine; gives what it returned."""
    path = make_config(tmp_path, make_tiny_model(tmp_path / "model"), epochs=1)
    config = TrainingConfig.model_validate_json(path.read_text(encoding="utf-8"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_of(tmp_path))
    mlflow.set_tracking_uri(tracking_of(tmp_path))  # another test's would be asked before it
    monkeypatch.setattr(sys, "argv", ["trainer", str(path)])

    def train_on(machine: Machine) -> dict:
        monkeypatch.setattr(trainer, "this_machine", lambda: machine)
        trainer.main()
        return json.loads(config.result.read_text(encoding="utf-8"))

    return train_on


def test_a_training_says_what_it_took_of_the_parts_that_can_be_read(trained) -> None:
    joules = count(0, 36)
    counter = EnergyCounter("package-0", lambda: float(next(joules)))
    machine = replace(this_machine(), find_energy_counters=lambda _: (counter,))
    result = trained(machine)
    assert result["energy_wh"] == pytest.approx((next(joules) - 36) / 3600, abs=1e-6)
    assert result["energy_wh"] > 0
    assert result["energy_of"] == "package-0"


def test_a_training_says_nothing_of_energy_where_nothing_can_be_read(trained) -> None:
    result = trained(replace(this_machine(), find_energy_counters=lambda _: ()))
    assert result["energy_wh"] is None
    assert result["energy_of"] is None
    assert result["seconds"] > 0
