"""`search`, `promote` and others make a home ready to be searched, whatever it was before."""

from pathlib import Path

import dagster as dg
import pytest

from embed_assets.command.cli import _least, _searcher
from embed_assets.command.instance import prepare_home
from embed_assets.command.pipeline import prepare_search
from embed_assets.errors import SettingsError
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.current_index import note_champion
from embed_assets.search.searching import NoIndexError, open_searcher
from embed_assets.settings import Settings
from embed_assets_tests.search.homes import TEXTS, SearchedHome, searched_home
from embed_assets_tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def home(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> SearchedHome:
    """A home of a release before: documents on record, and nothing prepared for search."""
    monkeypatch.setenv("EMBED_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EMBED_ASSETS_MODEL", str(tiny_model))
    monkeypatch.setenv("EMBED_ASSETS_PRECISION", "fp32")
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setattr("embed_assets.command.stopping.shield_children", lambda: None)
    made = searched_home(tmp_path, tiny_model)
    prepare_home(made.settings)
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(DOCUMENTS, list(TEXTS))
    return made


def paths(home: SearchedHome) -> set[str]:
    index = open_searcher(home.settings).index
    return {index.place(row)["path"] for row in range(len(index.vectors))}


def test_a_home_that_was_never_searched_is_made_ready_and_then_only_read(
    home: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    searcher = _searcher(home.settings)
    assert len(searcher.index.vectors) == 4
    made = home.warehouse.read("SELECT asset, document_id FROM materializations ORDER BY ALL")
    embedded = [key for asset, key in made.iter_rows() if asset == "chunk_embeddings"]
    assert embedded == sorted(TEXTS)
    monkeypatch.setattr(
        "embed_assets.command.pipeline.prepare_search", lambda _: pytest.fail("made again")
    )
    assert _searcher(home.settings).index.folder == searcher.index.folder


def test_another_champion_is_prepared_and_the_one_before_stays_until_then(home: SearchedHome):
    prepare_search(home.settings)
    before = open_searcher(home.settings).index.manifest
    home.train("1", {"query": "ask: ", "document": "tell: "})
    note_champion(home.settings.home, "1")
    assert open_searcher(home.settings).index.manifest == before
    prepare_search(home.settings)
    assert open_searcher(home.settings).index.manifest.version == "1"


def test_where_no_model_can_be_looked_at_nothing_is_prepared_and_it_is_said(home: SearchedHome):
    note_champion(home.settings.home, "7")
    with pytest.raises(NoIndexError):
        _searcher(home.settings)


def test_a_home_that_is_not_there_is_not_made(tmp_path: Path):
    with pytest.raises(NoIndexError):
        _searcher(Settings(home=tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("given", "cutoff", "least"), [(None, 0.3, None), ("auto", 0.3, 0.3), (".5", None, 0.5)]
)
def test_the_least_cosine_is_a_number_or_the_cutoff(given, cutoff, least):
    assert _least(given, cutoff) == least


@pytest.mark.parametrize("given", ["auto", "some", "3", "nan"])
def test_a_least_cosine_that_can_t_be_told_is_a_wrong_call(given: str):
    with pytest.raises(SettingsError, match="--min-cosine"):
        _least(given, None)
