"""Homes that are searched."""

from pathlib import Path

import pytest

from embed_assets_tests.search.homes import SearchedHome, searched_home
from embed_assets_tests.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def home(tmp_path: Path, tiny_model: Path) -> SearchedHome:
    """Documents on record, of which nothing is prepared for search."""
    return searched_home(tmp_path, tiny_model)


@pytest.fixture
def searched(home: SearchedHome) -> SearchedHome:
    """The same, searched by the base model."""
    home.promote(None)
    return home
