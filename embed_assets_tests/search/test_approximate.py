"""From a size on LanceDB gives candidates, and what is found is as if all had been looked at."""

import logging
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embed_assets.resources.current_index import hide_documents, read_current, search_folder
from embed_assets.search import approximate, index
from embed_assets.search.approximate import ApproximateIndex, write_approximate
from embed_assets.search.building import forget_indexes
from embed_assets.search.following import IndexFollower
from embed_assets.search.searching import Cut, NoIndexError, Searcher, open_searcher
from embed_assets_tests.search.homes import SearchedHome

pytest.importorskip("lancedb")
MODES = ("dense", "lexical", "hybrid")
QUERY = "the winch float and the brine pump"
INSTALL = r"embed_assets\[lance\]"


def found(searcher: Searcher, mode: Any = "dense") -> list[dict[str, Any]]:
    [results] = searcher.search([QUERY], Cut(10), mode)
    return results


def made_from(home: SearchedHome, lance_from: int) -> Searcher:
    """The home's index, as it is made with LanceDB from so many chunks on."""
    home.settings = home.settings.model_copy(update={"lance_from": lance_from})
    home.index()
    return open_searcher(home.settings)


def folder_of(home: SearchedHome) -> Path:
    name = read_current(home.settings.home).index
    assert name is not None
    return search_folder(home.settings.home) / name


@pytest.fixture
def exact(searched: SearchedHome) -> Searcher:
    return open_searcher(searched.settings)


@pytest.fixture
def approximately(searched: SearchedHome, exact: Searcher) -> SearchedHome:
    """The home that is searched with LanceDB, whatever its size."""
    made_from(searched, 1)
    return searched


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What LanceDB answers from now on."""
    candidates, answers = ApproximateIndex.candidates, []

    def noted(*given: Any) -> Any:
        answers.append(candidates(*given))
        return answers[-1]

    monkeypatch.setattr(ApproximateIndex, "candidates", noted)
    return answers


def without_lancedb(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "lancedb"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lancedb", None)


def warnings(caplog: pytest.LogCaptureFixture) -> Sequence[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize("size", [64, 36], ids=["in eights", "not in eights"])
def test_the_nearest_are_among_the_candidates(tmp_path: Path, size: int):
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((50, size))
    vectors = np.repeat(centres, 200, axis=0) + generator.standard_normal((10_000, size))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    write_approximate(tmp_path / "lance", vectors)
    opened = ApproximateIndex(tmp_path / "lance", len(vectors))
    shares = []
    for query in vectors[::500]:
        rows = opened.candidates(query, 10)
        assert rows is not None
        assert len(rows) == 10 * approximate.CANDIDATES_PER_RESULT
        assert (np.diff(rows) > 0).all()
        shares.append(np.isin(np.argsort(-(vectors @ query))[:10], rows).mean())
    assert np.mean(shares) >= 0.95


def test_a_disk_that_is_full_is_an_error_of_the_disk(tmp_path: Path, monkeypatch: Any):
    import lancedb.table

    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("lance error: LanceError(IO): No space left on device (os error 28)")

    monkeypatch.setattr(lancedb.table.LanceTable, "create_index", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_approximate(tmp_path / "lance", np.eye(8, dtype=np.float32))
    assert error.value.filename == str(tmp_path / "lance")


def test_what_is_found_is_as_if_all_were_looked_at(
    exact: Searcher, approximately: SearchedHome, asked: list[Any]
):
    searcher = open_searcher(approximately.settings)
    for mode in MODES:
        assert found(searcher, mode) == found(exact, mode)
    assert [rows.tolist() for rows in asked] == [[0, 1, 2, 3]] * 2, "and LanceDB was asked"


@pytest.mark.parametrize(("lance_from", "there"), [(0, False), (3, True), (4, True), (5, False)])
def test_the_setting_says_from_how_many_chunks_on(
    searched: SearchedHome, lance_from: int, there: bool
):
    searcher = made_from(searched, lance_from)
    assert (searcher.index.approximate is not None) == there
    assert (folder_of(searched) / "lance").is_dir() == there


def test_another_value_makes_another_index_where_it_matters(approximately: SearchedHome):
    assert not approximately.index().built
    approximately.settings = approximately.settings.model_copy(update={"lance_from": 4})
    assert not approximately.index().built
    approximately.settings = approximately.settings.model_copy(update={"lance_from": 0})
    assert approximately.index().built
    assert not (folder_of(approximately) / "lance").exists()


def test_what_has_left_is_no_candidate_s_loss(approximately: SearchedHome, asked: list[Any]):
    hide_documents(approximately.settings.home, ["winch", "pump"])
    results = found(open_searcher(approximately.settings))
    assert [result["path"] for result in results] == ["copy.pdf"]
    assert asked[0] is not None
    hide_documents(approximately.settings.home, ["copy"])
    assert found(open_searcher(approximately.settings)) == []


def test_for_very_many_results_all_is_looked_at(
    exact: Searcher,
    approximately: SearchedHome,
    asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(approximate, "MOST_CANDIDATES", 15)
    assert found(open_searcher(approximately.settings)) == found(exact)
    assert asked == [None]


def test_without_the_package_an_index_is_made_exact_and_what_to_install_is_said(
    searched: SearchedHome, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        without_lancedb(patch)
        searcher = made_from(searched, 1)
        assert searcher.index.approximate is None
        assert found(searcher)
        [warning] = warnings(caplog)
    assert "An index of 4 chunks" in warning
    assert "pip install 'embed_assets[lance]'" in warning
    assert searched.index().built, "once it is installed"
    assert open_searcher(searched.settings).index.approximate is not None


def test_without_the_package_an_approximate_index_is_searched_exactly(
    exact: Searcher,
    approximately: SearchedHome,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    without_lancedb(monkeypatch)
    assert found(open_searcher(approximately.settings)) == found(exact)
    [warning] = warnings(caplog)
    assert "pip install 'embed_assets[lance]'" in warning


@pytest.mark.parametrize("used", [False, True])
def test_an_open_index_is_read_to_its_end_though_its_folder_is_gone(
    exact: Searcher, approximately: SearchedHome, used: bool
):
    searcher = open_searcher(approximately.settings)
    if used:
        found(searcher)
    forget_indexes(approximately.settings)
    for mode in MODES:
        assert found(searcher, mode) == found(exact, mode)
    search = search_folder(approximately.settings.home)
    assert not any(f.is_dir() for f in search.iterdir()), "nothing of it comes back"


def test_where_lance_s_files_are_gone_that_is_said_once(
    exact: Searcher, approximately: SearchedHome, caplog: pytest.LogCaptureFixture
):
    searcher = open_searcher(approximately.settings)
    for file in (folder_of(approximately) / "lance").rglob("*.idx"):
        file.unlink()
    assert found(searcher) == found(searcher) == found(exact)
    [warning] = warnings(caplog)
    assert "all is searched exactly" in warning


@pytest.mark.parametrize("left", [b"", b"damaged", None])
def test_a_damaged_approximate_index_is_made_anew(approximately: SearchedHome, left: bytes | None):
    for file in (folder_of(approximately) / "lance").rglob("*.idx"):
        file.unlink() if left is None else file.write_bytes(left)
    with pytest.raises(NoIndexError):
        open_searcher(approximately.settings)
    assert approximately.index().built
    assert open_searcher(approximately.settings).index.approximate is not None


def test_it_is_taken_over_where_the_embeddings_are_the_same(
    approximately: SearchedHome, asked: list[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index, "write_approximate", lambda *_: pytest.fail("made again"))
    approximately.ask(40)  # which brings a cut-off
    assert approximately.index().built
    assert found(open_searcher(approximately.settings))
    assert asked[0] is not None


def test_another_model_s_is_not_taken_over(approximately: SearchedHome, asked: list[Any]):
    approximately.train("1", {"query": "ask: ", "document": "tell: "})
    approximately.promote("1")
    searcher = open_searcher(approximately.settings)
    assert found(searcher)
    folders = search_folder(approximately.settings.home).glob("*/lance")
    assert len({f.name for folder in folders for f in folder.rglob("*.lance")}) > 2
    [results] = searcher.search([QUERY], Cut(10), "dense", "base")
    assert results
    assert len(asked) == 1, "the base beside a champion is searched exactly"


def test_the_server_answers_while_its_index_is_replaced(
    searched: SearchedHome, approximately: SearchedHome
):
    follower = IndexFollower(approximately.settings)
    ended, wrong, answers = threading.Event(), [], []

    def ask() -> None:
        while not ended.is_set():
            try:
                [results] = follower.current().search([QUERY], 10, "dense")
                answers.append(len(results))
            except Exception as error:
                wrong.append(error)
                return

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    for number in range(4):
        approximately.put("new", f"A tape of {number}.")
        approximately.embed()
        approximately.index()
        for other in search_folder(approximately.settings.home).glob("*/lance"):
            if number % 2:
                shutil.rmtree(other)
    ended.set()
    for thread in asking:
        thread.join()
    follower.close()
    assert wrong == []
    assert set(answers) >= {4}
