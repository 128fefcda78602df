"""The server follows the champion: another index, its model, and what left."""

import shutil
import threading
from contextlib import closing
from typing import Any

import pytest

from embed_assets.resources.current_index import hide_documents
from embed_assets.search import following
from embed_assets.search.building import forget_indexes, switch_to
from embed_assets.search.following import IndexFollower, ServedIndex
from embed_assets_tests.search.homes import SearchedHome

PROMPTS = {"query": "ask: ", "document": "tell: "}


def paths(served: ServedIndex, mode: Any = "hybrid") -> set[str]:
    [results] = served.search(["winch float and brine pump"], 10, mode)
    return {result["path"] for result in results}


def after_loading(follower: IndexFollower) -> ServedIndex:
    """The set once a model that is being loaded is there."""
    follower.current()
    follower.close()
    return follower.current()


def test_the_set_stays_the_same_while_nothing_changes(searched: SearchedHome):
    follower = IndexFollower(searched.settings)
    assert follower.current() is follower.current()
    assert follower.current().identity == searched.wanted().identity


def test_what_left_is_left_out_of_the_next_answer(searched: SearchedHome):
    follower = IndexFollower(searched.settings)
    hide_documents(searched.settings.home, ["pump"])
    assert paths(follower.current()) == {"winch.pdf", "copy.pdf"}


def test_as_many_as_asked_are_likely_and_what_nobody_can_tell_of_is_not_left_out(
    searched: SearchedHome,
):
    served = IndexFollower(searched.settings).current()
    query = "brine pump"
    [every] = served.search([query], 10, "hybrid")
    served.cutoff = sorted(result["cosine"] for result in every)[-2] - 1e-6
    likely = [result for result in every if result["cosine"] >= served.cutoff]
    [found] = served.search([query], 2, "hybrid", only_likely=True)
    assert len(found) == len(likely) == 2
    assert [result["chunk_id"] for result in found] == [r["chunk_id"] for r in likely]
    by_words = served.search([query], 10, "lexical")
    assert served.search([query], 10, "lexical", only_likely=True) == by_words


def test_another_champion_answers_once_it_is_prepared(searched: SearchedHome):
    follower = IndexFollower(searched.settings)
    by_base = follower.current()
    searched.train("1", PROMPTS)
    switch_to(searched.settings, searched.warehouse, "1")
    assert after_loading(follower).name == by_base.name
    searched.promote("1")
    assert after_loading(follower).name == "v1"
    assert follower.current().models == ("champion", "base")
    assert by_base.search(["winch"], 2, "dense"), "who holds a set may go on with it"


def test_until_the_model_is_loaded_the_one_before_answers(
    searched: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    follower = IndexFollower(searched.settings)
    searched.train("1", PROMPTS)
    searched.promote("1")
    names: list[str] = []
    load = following._loaded

    def load_slowly(searcher: Any) -> Any:
        names.append(follower.current().name)
        return load(searcher)

    monkeypatch.setattr(following, "_loaded", load_slowly)
    assert after_loading(follower).name == "v1"
    assert names == [searched.wanted().card.name] or "v1" not in names


def test_a_champion_that_can_t_be_loaded_leaves_the_one_before(
    searched: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    follower = IndexFollower(searched.settings)
    before = follower.current().name
    searched.train("1", PROMPTS)
    searched.promote("1")
    kept = shutil.move(searched.settings.models / "v1", searched.settings.home / "kept")
    assert after_loading(follower).name == before
    shutil.move(kept, searched.settings.models / "v1")
    monkeypatch.setattr(following, "AGAIN", -1.0)
    assert after_loading(follower).name == "v1"


def test_where_all_indexes_were_removed_nothing_is_answered_until_there_is_one(
    searched: SearchedHome,
):
    follower = IndexFollower(searched.settings)
    hide_documents(searched.settings.home, ["pump"])
    forget_indexes(searched.settings)
    assert paths(follower.current()) == set(), "what was forgotten must not be shown"
    searched.index()
    assert "pump.pdf" in paths(after_loading(follower))


def test_a_pdf_is_given_by_its_path_and_none_of_one_that_left(searched: SearchedHome):
    served = IndexFollower(searched.settings).current()
    assert served.pdf("pump.pdf") == b"%PDF"
    assert served.pdf("../pump.pdf") is None


def test_the_served_vectors_are_those_of_the_index(searched: SearchedHome):
    served = IndexFollower(searched.settings).current()
    index = served.searcher.index
    texts = [index.place(row)["chunk_text"] for row in range(served.chunks)]
    assert abs(served.embed(texts, "document") - index.vectors).max() < 1e-5
    assert served.count_tokens("winch float") == 2


def test_a_change_is_seen_though_nobody_asks(
    searched: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(following, "LOOKS", 0.01)
    switched = threading.Event()
    load = IndexFollower._load

    def note(self: IndexFollower, searcher: Any) -> None:
        load(self, searcher)
        switched.set()

    monkeypatch.setattr(IndexFollower, "_load", note)
    with closing(IndexFollower(searched.settings).watch()) as follower:
        searched.train("1", PROMPTS)
        searched.promote("1")
        assert switched.wait(60)
        assert follower._served.name == "v1"
    assert follower._watching is not None
    assert not follower._watching.is_alive()


def test_a_look_that_failed_is_made_again(searched: SearchedHome, monkeypatch: pytest.MonkeyPatch):
    follower = IndexFollower(searched.settings)
    hide_documents(searched.settings.home, ["pump"])
    read = following.read_current

    def broken(_: Any) -> Any:
        raise OSError("too many open files")

    monkeypatch.setattr(following, "read_current", broken)
    with pytest.raises(OSError, match="too many"):
        follower.current()
    monkeypatch.setattr(following, "read_current", read)
    assert paths(follower.current()) == {"winch.pdf", "copy.pdf"}
