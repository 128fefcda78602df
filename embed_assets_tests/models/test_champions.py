"""The champion's history: who was it, what a rollback returns to, and what never comes back."""

import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from embed_assets.errors import ProjectError
from embed_assets.models.registry import (
    Decision,
    champion_version,
    make_challenger,
    make_champion,
    roll_back,
    why_withdrawn,
    withdraw,
)
from embed_assets.resources.tracking import MADE_CHAMPION, REPLACED, WITHDRAWN, Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets_tests.decisions import BY_TEST


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def tracking(home: Path) -> Tracking:
    """A registry with the versions 1 to 4, and no champion."""
    made = Tracking(home=str(home))
    client, name = made.client(), made.connect()
    if client.search_registered_models():
        client.delete_registered_model(name)
    client.create_registered_model(name)
    for _ in range(4):
        client.create_model_version(name, str(home))
    return made


def tags(tracking: Tracking, version: str) -> dict[str, str]:
    return tracking.client().get_model_version(tracking.name, version).tags


def crown(tracking: Tracking, *versions: str) -> None:
    for version in versions:
        make_champion(tracking, version, BY_TEST)


def test_aliases_are_read_without_mlflow(tracking: Tracking) -> None:
    crown(tracking, "2")
    code = (
        "import sys; from embed_assets.resources.tracking import Tracking; "
        f"assert Tracking(home={tracking.home!r}).aliases() == {{'champion': '2'}}; "
        "assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_aliases_that_the_database_does_not_give_are_asked_of_mlflow(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(tracking, "2")

    def fail(_: Tracking) -> dict[str, str]:
        raise sqlite3.OperationalError("no such table: registered_model_aliases")

    monkeypatch.setattr(Tracking, "_aliases_in_home", fail)
    assert tracking.aliases() == {"champion": "2"}


def test_previous_follows_each_promotion_and_each_rollback(tracking):
    crown(tracking, "1")
    assert tracking.aliases() == {"champion": "1"}
    crown(tracking, "2", "3")
    assert tracking.aliases() == {"champion": "3", "previous": "2"}
    assert roll_back(tracking, BY_TEST) == "2"
    assert tracking.aliases() == {"champion": "2", "previous": "1"}
    assert roll_back(tracking, BY_TEST) == "1"
    assert tracking.aliases() == {"champion": "1"}
    assert roll_back(tracking, BY_TEST) is None
    assert tracking.aliases() == {}
    with pytest.raises(ProjectError, match="no champion to roll back from"):
        roll_back(tracking, BY_TEST)


def test_who_decided_when_and_why_is_on_the_version(tracking):
    make_champion(tracking, "1", Decision("ann@desk", "it reads\nbetter"))
    roll_back(tracking, Decision("bob@desk", "it does not"))
    assert tags(tracking, "1")[MADE_CHAMPION].endswith(" UTC, ann@desk: it reads better")
    assert tags(tracking, "1")[WITHDRAWN].endswith(" UTC, bob@desk: it does not")


def test_a_rollback_passes_over_what_was_withdrawn_before(tracking):
    crown(tracking, "1", "2", "3")
    tracking.client().set_model_version_tag(tracking.name, "2", WITHDRAWN, "it must go")
    assert roll_back(tracking, BY_TEST) == "1"


def test_a_rollback_passes_over_a_version_that_mlflow_has_no_more(tracking):
    crown(tracking, "1", "2", "3")
    tracking.client().delete_model_version(tracking.name, "2")
    assert roll_back(tracking, BY_TEST) is None  # what 2 replaced went with it


def test_versions_that_replaced_each_other_are_no_endless_way_back(tracking):
    crown(tracking, "1", "2", "1")
    assert tracking.aliases() == {"champion": "1", "previous": "2"}
    assert roll_back(tracking, BY_TEST) == "2"
    assert roll_back(tracking, BY_TEST) is None


def test_a_withdrawn_version_that_a_person_promotes_is_withdrawn_no_more(tracking):
    crown(tracking, "1", "2")
    roll_back(tracking, BY_TEST)
    crown(tracking, "2")
    assert WITHDRAWN not in tags(tracking, "2")
    assert tracking.aliases() == {"champion": "2", "previous": "1"}


def test_a_champion_after_the_base_model_replaced_nobody(tracking):
    crown(tracking, "1", "2")
    tracking.client().delete_registered_model_alias(tracking.name, "champion")
    crown(tracking, "2")
    assert REPLACED not in tags(tracking, "2")
    assert tracking.aliases() == {"champion": "2"}


@pytest.mark.parametrize("calls", range(1, 5))
def test_a_rollback_that_was_killed_half_way_is_finished_by_the_next(
    tracking, monkeypatch, calls: int
):
    """The process ends before the n-th change of the registry."""
    crown(tracking, "1", "2", "3")
    with monkeypatch.context() as patch:
        dies_at(patch, calls)
        with suppress(KeyboardInterrupt):
            roll_back(tracking, BY_TEST)
    if champion_version(tracking) == "3":
        roll_back(tracking, BY_TEST)
    assert tracking.aliases() == {"champion": "2", "previous": "1"}
    assert WITHDRAWN in tags(tracking, "3")


@pytest.mark.parametrize("calls", range(1, 5))
def test_a_promotion_that_was_killed_half_way_is_finished_by_the_next(
    tracking, monkeypatch, calls: int
):
    crown(tracking, "1", "2")
    with monkeypatch.context() as patch:
        dies_at(patch, calls)
        with suppress(KeyboardInterrupt):
            crown(tracking, "3")
    crown(tracking, "3")
    assert tracking.aliases() == {"champion": "3", "previous": "2"}
    assert MADE_CHAMPION in tags(tracking, "3")
    assert tags(tracking, "3")[REPLACED] == "2"


@pytest.mark.parametrize("calls", range(1, 5))
def test_a_withdrawal_that_was_killed_half_way_is_finished_by_the_next(
    tracking, monkeypatch, calls: int
):
    crown(tracking, "1", "2", "3")
    with monkeypatch.context() as patch:
        dies_at(patch, calls)
        with suppress(KeyboardInterrupt):
            withdraw(tracking, ["3"], BY_TEST)
    withdraw(tracking, ["3"], BY_TEST)
    assert tracking.aliases() == {"champion": "2", "previous": "1"}
    assert WITHDRAWN in tags(tracking, "3")


def dies_at(patch: pytest.MonkeyPatch, call: int) -> None:
    from mlflow import MlflowClient

    left = iter(range(call - 1, -1, -1))

    def dying(method):
        def change(*args, **kwargs):
            if next(left, 1) == 0:
                raise KeyboardInterrupt
            return method(*args, **kwargs)

        return change

    for name in ("set_model_version_tag", "set_registered_model_alias"):
        patch.setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))


def test_the_challenger_is_the_newest_that_was_judged(tracking):
    make_challenger(tracking, "1")
    make_challenger(tracking, "4")
    assert tracking.aliases() == {"challenger": "4"}


def test_a_version_trained_on_a_forgotten_document_counts_as_withdrawn(tracking, tmp_path):
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    assert why_withdrawn(warehouse, tracking, "2") is None
    with warehouse.transaction() as transaction:
        transaction.execute(
            "INSERT INTO forgotten BY NAME SELECT 'a.pdf' AS path, 'x' AS sha256, 'a' AS "
            "document_id, ['2'] AS versions, TIMESTAMPTZ '2026-11-26 10:00:00Z' AS forgotten_at, "
            "'ann, forget' AS command"
        )
    assert why_withdrawn(warehouse, tracking, "2") == "trained on a.pdf, forgotten on 2026-11-26"
    assert why_withdrawn(warehouse, tracking, "3") is None
