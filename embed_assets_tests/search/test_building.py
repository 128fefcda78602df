"""An index is made beside the one that is searched, and search switches in one step."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from embed_assets.errors import ProjectError
from embed_assets.models.encoder import LocalEncoder
from embed_assets.resources.current_index import (
    FILE,
    hide_documents,
    read_current,
    search_folder,
)
from embed_assets.search.building import (
    drop_kept_indexes,
    forget_indexes,
    searched_manifest,
    switch_to,
)
from embed_assets.search.index import MANIFEST
from embed_assets.search.searching import Cut, NoIndexError, open_searcher
from embed_assets_tests.search.homes import SearchedHome

PROMPTS = {"query": "ask: ", "document": "tell: "}


def found(home: SearchedHome, query: str = "winch float") -> list[dict[str, Any]]:
    [results] = open_searcher(home.settings).search([query], Cut(10), "dense")
    return results


def paths(home: SearchedHome) -> set[str]:
    return {result["path"] for result in found(home)}


def index_folders(home: SearchedHome) -> set[str]:
    return {f.name for f in search_folder(home.settings.home).iterdir() if f.is_dir()}


def no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalEncoder, "encode", lambda *_: pytest.fail("a text is encoded"))


def leave(home: SearchedHome, document: str) -> None:
    """A PDF left: what removes documents hides them first."""
    hide_documents(home.settings.home, [document])
    with home.warehouse.transaction() as transaction:
        for table in ("chunks", "raw_pdfs", "chunk_embeddings", "materializations"):
            transaction.delete(table, {"document_id": [document]})


def test_what_was_made_already_is_switched_to_and_not_made_again(searched: SearchedHome):
    before = searched.index()
    assert not before.built
    searched.put("new", "A tape of 12.")
    searched.embed()
    assert searched.index().built
    assert "new.pdf" in paths(searched)


def test_an_index_of_nothing_is_refused(home: SearchedHome):
    with pytest.raises(ProjectError, match="nothing to search"):
        home.index()


def test_until_a_champion_is_prepared_search_answers_with_the_one_before(searched: SearchedHome):
    before = found(searched)
    searched.train("1", PROMPTS)
    switch_to(searched.settings, searched.warehouse, "1")
    assert found(searched) == before
    searched.embed()
    assert found(searched) == before
    searched.index()
    assert found(searched) != before


def test_a_champion_that_was_evaluated_is_prepared_without_encoding(
    searched: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    searched.train("1", PROMPTS)
    searched.promote("1")
    searched.promote(None)
    no_encoding(monkeypatch)
    searched.promote("1")


def test_a_rollback_switches_at_once_without_encoding(
    searched: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    by_base = found(searched)
    searched.train("1", PROMPTS)
    searched.promote("1")
    with monkeypatch.context() as patch:
        no_encoding(patch)
        switch_to(searched.settings, searched.warehouse, None)
    assert found(searched) == by_base


def test_a_rollback_shows_nothing_that_left_or_changed_since(searched: SearchedHome):
    searched.train("1", PROMPTS)
    searched.promote("1")
    leave(searched, "winch")
    searched.put("pump", "The pump is another one.")
    searched.embed()
    searched.index()
    switch_to(searched.settings, searched.warehouse, None)
    assert paths(searched) == {"copy.pdf"}


def test_what_left_stays_hidden_in_an_index_that_was_begun_before(
    searched: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    searched.put("new", "A tape of 12.")
    searched.embed()
    from embed_assets.search import building

    write = building.write_index

    def leave_meanwhile(*arguments: Any) -> None:
        write(*arguments)
        leave(searched, "winch")

    monkeypatch.setattr(building, "write_index", leave_meanwhile)
    searched.index()
    assert paths(searched) == {"copy.pdf", "pump.pdf", "new.pdf"}


def test_what_came_back_is_found_again(searched: SearchedHome):
    hide_documents(searched.settings.home, ["pump"])
    assert "pump.pdf" not in paths(searched)
    searched.index()
    assert "pump.pdf" in paths(searched)


def test_chunks_that_leave_while_an_index_is_made_begin_it_anew(
    searched: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    from embed_assets.search import building

    blocks, calls = building._blocks, []

    def leave_first(*arguments: Any) -> Any:
        if not calls:
            leave(searched, "pump")
        calls.append(1)
        return blocks(*arguments)

    searched.put("new", "A tape of 12.")
    searched.embed()
    monkeypatch.setattr(building, "_blocks", leave_first)
    searched.index()
    assert paths(searched) == {"copy.pdf", "winch.pdf", "new.pdf"}


def test_the_index_of_one_other_model_is_kept_to_go_back_to(searched: SearchedHome):
    for version in ("1", "2"):
        searched.train(version, {"query": f"ask {version}: "})
        searched.promote(version)
    assert len(index_folders(searched)) == 2
    searched.put("new", "A tape of 12.")
    searched.embed()
    searched.index()
    assert len(index_folders(searched)) == 2


def test_words_are_taken_over_where_the_chunks_are_the_same(
    searched: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    searched.train("1", PROMPTS)
    from embed_assets.search import index

    monkeypatch.setattr(index.LexicalIndex, "of", lambda _: pytest.fail("indexed again"))
    searched.promote("1")
    [by_words] = open_searcher(searched.settings).search(["brine"], Cut(5), "lexical")
    assert {row["path"] for row in by_words} == {"pump.pdf"}


def test_once_documents_left_no_other_index_keeps_their_text(searched: SearchedHome):
    searched.train("1", PROMPTS)
    searched.promote("1")
    assert len(index_folders(searched)) == 2
    drop_kept_indexes(searched.settings)
    assert index_folders(searched) == {read_current(searched.settings.home).index}


def test_an_open_index_is_read_to_its_end_though_its_folder_is_gone(searched: SearchedHome):
    searcher = open_searcher(searched.settings)
    forget_indexes(searched.settings)
    for mode in ("dense", "lexical", "hybrid"):
        [results] = searcher.search(["brine pump"], Cut(5), mode)
        assert results


def test_forgetting_leaves_no_index(searched: SearchedHome):
    forget_indexes(searched.settings)
    assert index_folders(searched) == set()
    with pytest.raises(NoIndexError):
        found(searched)
    searched.index()
    assert paths(searched)


@pytest.mark.parametrize("damage", ["", "{", '{"index": 1, "other": 2}', "[]"])
def test_a_damaged_file_is_as_none(searched: SearchedHome, damage: str):
    file = search_folder(searched.settings.home) / FILE
    file.write_text(damage)
    with pytest.raises(NoIndexError):
        found(searched)
    searched.index()
    assert paths(searched)


@pytest.mark.parametrize("file", [MANIFEST, "vectors.npy", "places.arrow", "lexical/about.json"])
@pytest.mark.parametrize("left", [b"", b"{", None])
def test_a_damaged_index_is_as_none(searched: SearchedHome, file: str, left: bytes | None):
    [folder] = index_folders(searched)
    damaged = search_folder(searched.settings.home) / folder / file
    damaged.unlink() if left is None else damaged.write_bytes(left)
    with pytest.raises(NoIndexError):
        found(searched)
    assert searched_manifest(searched.settings) is None, "the plan sees it"
    assert searched.index().built
    assert paths(searched)


KILLED = """
import os, signal, sys
import lancedb.index
from pathlib import Path
from embed_assets.search import building, index
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.wanted import wanted_model
from embed_assets.settings import Settings

settings = Settings(home=Path(sys.argv[1]), model=sys.argv[2], precision="fp32", lance_from=1)
where = {
    "words": (index.LexicalIndex, "save"),
    "approximate": (lancedb.index, "IvfRq"),
    "switch": (building, "point_at"),
}[sys.argv[3]]
setattr(*where, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
building.make_index(settings, Warehouse.of(settings), wanted_model(settings))
"""


@pytest.mark.parametrize("where", ["words", "approximate", "switch"])
def test_killed_at_any_time_search_answers_as_before_and_the_next_try_is_whole(
    searched: SearchedHome, where: str, tiny_model: Path
):
    before = found(searched)
    searched.train("1", PROMPTS)
    switch_to(searched.settings, searched.warehouse, "1")
    searched.put("new", "A tape of 12.")
    searched.embed()
    home = str(searched.settings.home)
    child = subprocess.run([sys.executable, "-c", KILLED, home, str(tiny_model), where])
    assert child.returncode == -signal.SIGKILL
    assert found(searched) == before
    searched.index()
    assert open_searcher(searched.settings).index.manifest.version == "1"
    assert not any(name.startswith(".") for name in index_folders(searched))


def test_queries_through_promotions_rollbacks_and_removals_are_never_mixed(
    searched: SearchedHome,
):
    searched.train("1", PROMPTS)
    searched.promote("1")
    expected = {"1": found(searched)}
    switch_to(searched.settings, searched.warehouse, None)
    expected["None"] = found(searched)
    ended, seen, wrong = threading.Event(), [], []

    def ask() -> None:
        searcher = open_searcher(searched.settings)
        while not ended.is_set():
            try:
                if not searcher.is_current():
                    searcher = open_searcher(searched.settings)
                [results] = searcher.search(["winch float"], Cut(10), "dense")
            except Exception as error:
                wrong.append(error)
                return
            version = str(searcher.index.manifest.version)
            hidden = set(searcher.current.hidden)
            should = [row for row in expected[version] if row["document_id"] not in hidden]
            if [r["chunk_id"] for r in results] != [r["chunk_id"] for r in should]:
                wrong.append((version, results))
            seen.append(version)

    asking = threading.Thread(target=ask)
    asking.start()
    for version in ("1", None) * 4:
        searched.promote(version)
    hide_documents(searched.settings.home, ["pump"])
    ended.set()
    asking.join()
    assert wrong == []
    assert seen
    assert "pump.pdf" not in paths(searched)


def test_another_champion_is_noted_for_whoever_searches(searched: SearchedHome):
    searched.train("1", PROMPTS)
    switch_to(searched.settings, searched.warehouse, "1")
    said = json.loads((search_folder(searched.settings.home) / FILE).read_text())
    assert said["champion"] == "1" == read_current(searched.settings.home).champion


def test_the_first_version_leaves_the_base_as_it_is_until_one_is_champion(searched: SearchedHome):
    searched.index()
    searched.train("1", PROMPTS)
    assert searched.wanted().version is None
