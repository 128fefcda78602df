"""Whose embeddings stay in the warehouse."""

from collections.abc import Mapping
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from embed_assets.models.embeddings import cached_embeddings, forget_embeddings
from embed_assets.resources.warehouse import Warehouse
from embed_assets_tests.rows import model


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "warehouse.duckdb"))


def embed(warehouse: Warehouse, *fingerprints: str) -> None:
    for name in fingerprints:
        cached_embeddings(warehouse, name, ["a text"], lambda *_: iter([([0], np.ones((1, 2)))]))


def add_versions(warehouse: Warehouse, fingerprints: Mapping[str, list[str] | None]) -> None:
    models = [model(version, fingerprints=kept) for version, kept in fingerprints.items()]
    warehouse.replace("models", pl.concat(models))


def kept(warehouse: Warehouse) -> set[str]:
    return set(warehouse.read("SELECT DISTINCT model FROM embeddings")["model"])


def test_only_the_embeddings_of_other_versions_are_deleted(warehouse):
    add_versions(warehouse, {"1": ["q1", "d1"], "2": ["q2", "d2"], "3": ["q3", "d3"]})
    embed(warehouse, "base", "hosted", "q1", "d1", "q2", "d2", "q3", "d3")
    forget_embeddings(warehouse, ["1", "3"], in_use=[])
    assert kept(warehouse) == {"base", "hosted", "q1", "d1", "q3", "d3"}


def test_what_an_adapter_shares_with_its_base_or_with_another_version_stays(warehouse):
    add_versions(warehouse, {"1": ["q1", "base"], "2": ["q2", "former base"], "3": ["q3", "base"]})
    embed(warehouse, "base", "former base", "q1", "q2", "q3")
    forget_embeddings(warehouse, ["3"], in_use=[])
    assert kept(warehouse) == {"base", "q3"}
    forget_embeddings(warehouse, [], in_use=["base"])
    assert kept(warehouse) == {"base"}


def test_versions_of_a_home_that_did_not_say_are_left_alone(warehouse):
    add_versions(warehouse, {"1": None, "2": ["q2", "d2"]})
    embed(warehouse, "q1", "d1", "q2", "d2")
    forget_embeddings(warehouse, ["2"], in_use=[])
    assert kept(warehouse) == {"q1", "d1", "q2", "d2"}


def test_a_home_whose_models_lack_the_column_is_left_alone(warehouse):
    embed(warehouse, "q1", "d1")
    with duckdb.connect(warehouse.path) as connection:
        connection.execute("ALTER TABLE models DROP COLUMN fingerprints")
    forget_embeddings(warehouse, [], in_use=[])
    assert kept(warehouse) == {"q1", "d1"}
