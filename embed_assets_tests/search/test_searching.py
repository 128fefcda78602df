"""What is found, by which model, and why."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from embed_assets.errors import ProjectError, SettingsError
from embed_assets.models.encoder import LocalEncoder
from embed_assets.resources.current_index import hide_documents
from embed_assets.search.searching import Cut, NoIndexError, open_searcher
from embed_assets.search.shown import search_chunks
from embed_assets.settings import Settings
from embed_assets_tests.search.homes import TEXTS, SearchedHome

PROMPTS = {"query": "ask: ", "document": "tell: "}
QUERY = "brine pump"


def search(home: SearchedHome, query: str = QUERY, k: int = 10, **how: Any) -> list[dict[str, Any]]:
    least, reranker = how.pop("least", None), how.pop("reranker", "")
    [results] = open_searcher(home.settings).search([query], Cut(k, least, reranker), **how)
    return results


def texts(results: Sequence[dict[str, Any]]) -> set[str]:
    return {result["chunk_text"] for result in results}


def test_nothing_to_search_is_said(home: SearchedHome):
    with pytest.raises(NoIndexError, match="ingest"):
        open_searcher(home.settings)


def test_by_meaning_every_chunk_is_found_once_the_nearest_first(searched: SearchedHome):
    results = search(searched, mode="dense")
    assert texts(results) == {text for of_one in TEXTS.values() for text in of_one}
    assert len(results) == len(texts(results)), "a text in two documents is one result"
    cosines = [result["cosine"] for result in results]
    assert cosines == sorted(cosines, reverse=True)
    assert [result["dense_rank"] for result in results] == list(range(1, len(results) + 1))
    assert {result["lexical_rank"] for result in results} == {None}


def test_by_words_only_chunks_that_share_one_are_found_and_no_model_is_loaded(
    searched: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(LocalEncoder, "__init__", lambda *_: pytest.fail("a model is loaded"))
    results = search(searched, mode="lexical")
    assert texts(results) == set(TEXTS["pump"])
    assert {result["cosine"] for result in results} == {None}


def test_by_both_a_result_says_its_rank_in_each_list(searched: SearchedHome):
    results = search(searched)
    assert {result["chunk_text"] for result in results if result["lexical_rank"]} == {
        *TEXTS["pump"]
    }
    assert all(result["dense_rank"] for result in results)
    scores = [result["score"] for result in results]
    assert scores == sorted(scores, reverse=True)


def test_a_result_says_where_it_stands(searched: SearchedHome):
    [first] = search(searched, "torque of the bolt", k=1, mode="lexical")
    assert (first["path"], first["file_name"]) == ("winch.pdf", "winch.pdf")
    assert (first["page_start"], first["page_end"], first["heading_path"]) == (2, 2, "Heading")


def test_fewer_are_given_where_fewer_are_wanted(searched: SearchedHome):
    for mode in ("dense", "hybrid", "lexical"):
        assert len(search(searched, k=2, mode=mode)) == 2
        assert search(searched, k=2, mode=mode) == search(searched, mode=mode)[:2]


@pytest.mark.parametrize(("weight", "mode"), [(0.999, "dense"), (0.001, "lexical")])
def test_both_ways_count_by_the_weight_that_is_set(searched: SearchedHome, weight, mode):
    searched.settings = searched.settings.model_copy(update={"dense_weight": weight})
    alone, both = search(searched, mode=mode), search(searched, mode="hybrid")
    assert [row["chunk_id"] for row in both[: len(alone)]] == [row["chunk_id"] for row in alone]
    assert both[0]["score"] >= 0.999


def test_a_query_without_a_word_or_a_letter_is_answered(searched: SearchedHome):
    assert search(searched, "!", mode="lexical") == []
    assert search(searched, "", mode="hybrid")


def test_what_has_left_is_not_found_and_its_copy_is(searched: SearchedHome):
    hide_documents(searched.settings.home, ["winch", "pump"])
    for mode in ("dense", "hybrid", "lexical"):
        results = search(searched, "the winch float and the brine pump", mode=mode)
        assert [result["path"] for result in results] == ["copy.pdf"], mode


def test_where_all_has_left_nothing_is_found(searched: SearchedHome):
    hide_documents(searched.settings.home, list(TEXTS))
    for mode in ("dense", "hybrid", "lexical"):
        assert search(searched, mode=mode) == []


def test_a_least_cosine_leaves_out_what_is_farther(searched: SearchedHome):
    all_of_them = search(searched, mode="dense")
    least = all_of_them[1]["cosine"] - 1e-6
    assert texts(search(searched, mode="dense", least=least)) == texts(all_of_them[:2])
    assert texts(search(searched, least=least)) == texts(all_of_them[:2])


def test_too_few_questions_tell_no_cutoff(searched: SearchedHome):
    assert open_searcher(searched.settings).index.manifest.cutoff is None
    assert {result["likely"] for result in search(searched)} == {None}


def test_below_the_cutoff_lies_the_answer_of_one_question_in_twenty(home: SearchedHome):
    home.ask(40)
    home.promote(None)
    searcher = open_searcher(home.settings)
    cutoff = searcher.index.manifest.cutoff
    [first, *_] = TEXTS["winch"]
    queries = searcher.embed([f"which float {n}" for n in range(40)], "query")
    cosines = queries @ searcher.embed([first], "document")[0]
    assert cutoff == pytest.approx(np.quantile(cosines, 0.05), abs=1e-3)
    assert all(result["likely"] == (result["cosine"] >= cutoff) for result in search(home))


def prompts_used(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Prompts that stand before texts from now on."""
    encode, seen = LocalEncoder.encode, set()

    def note(self: LocalEncoder, texts: Sequence[str], task: Any, *rest: Any) -> Any:
        seen.add(self._card.prompt(task))
        return encode(self, texts, task, *rest)

    monkeypatch.setattr(LocalEncoder, "encode", note)
    return seen


@pytest.mark.parametrize("today", [{"query_prompt": "today: "}, {"model": "./another-base"}, {}])
def test_the_champion_searches_with_its_own_prompts_under_any_settings(
    home: SearchedHome, monkeypatch: pytest.MonkeyPatch, today: dict[str, str]
):
    home.train("1", PROMPTS)
    used = prompts_used(monkeypatch)
    home.settings = home.settings.model_copy(update=today)
    home.promote("1")
    search(home)
    assert used == {"ask: ", "tell: "}
    assert open_searcher(home.settings).index.manifest.called == "a base fine-tuned, version 1"


def test_the_base_searches_beside_the_champion_once_an_evaluation_has_embedded_all(
    searched: SearchedHome,
):
    by_base = search(searched)  # the base's embeddings are kept
    searched.train("1", PROMPTS)
    searched.promote("1")
    assert open_searcher(searched.settings).models == ("champion", "base")
    assert search(searched, model="base") == by_base
    assert search(searched) != by_base


def test_without_the_base_s_embeddings_it_is_said(home: SearchedHome):
    home.train("1", PROMPTS)
    home.promote("1")
    assert open_searcher(home.settings).models == ("champion",)
    with pytest.raises(ProjectError, match="embed-assets run"):
        search(home, model="base")


def test_a_champion_whose_folder_is_gone_is_said_and_its_words_are_searched(home: SearchedHome):
    home.train("1", PROMPTS)
    home.promote("1")
    shutil.rmtree(home.settings.models / "v1")
    with pytest.raises(ProjectError, match="The folder of version 1 is gone"):
        search(home)
    assert texts(search(home, mode="lexical")) == set(TEXTS["pump"])


def test_a_model_that_was_changed_in_its_folder_answers_nothing(home: SearchedHome):
    home.train("1", PROMPTS)
    home.promote("1")
    with (home.settings.models / "v1" / "tokenizer.json").open("a") as tokenizer:
        tokenizer.write(" ")
    with pytest.raises(ProjectError, match="no longer the model"):
        search(home)


def test_a_cross_encoder_puts_the_best_in_another_order(
    searched: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    class ByLength:
        def predict(self, pairs: Sequence[tuple[str, str]], **_: Any) -> list[float]:
            assert {query for query, _ in pairs} == {QUERY}
            return [float(len(text)) for _, text in pairs]

    monkeypatch.setattr("embed_assets.search.searching.load_cross_encoder", lambda name: ByLength())
    results = search(searched, k=2, reranker="any")
    longest = sorted(texts(search(searched)), key=len, reverse=True)
    assert [result["chunk_text"] for result in results] == longest[:2]
    assert results[0]["score"] == len(longest[0])


def test_a_cross_encoder_that_is_not_there_is_said(
    searched: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ProjectError, match=r"no hub model .\./nowhere"):
        search(searched, reranker="./nowhere")


def test_opening_reads_nothing_but_the_index(
    searched: SearchedHome, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("duckdb.connect", lambda *_, **__: pytest.fail("the warehouse is read"))
    assert search(searched)


OPENED = """
import sys
from pathlib import Path
from embed_assets.search.searching import Cut, open_searcher
from embed_assets.settings import Settings

[results] = open_searcher(Settings(home=Path(sys.argv[1]))).search([sys.argv[2]], Cut(2), "lexical")
assert results
print(sorted({"lancedb", "pandas", "torch"} & set(sys.modules)))
"""


def test_a_search_by_words_imports_nothing_that_takes_half_a_second(searched: SearchedHome):
    command = [sys.executable, "-c", OPENED, str(searched.settings.home), QUERY]
    assert subprocess.check_output(command, encoding="utf-8").strip() == "[]"


def test_settings_are_needed_for_the_home_alone(searched: SearchedHome):
    other = Settings(home=searched.settings.home, precision="fp32")
    [results] = open_searcher(other).search([QUERY], Cut(2))
    assert texts(results) == texts(search(searched, k=2))


def test_an_empty_text_is_a_wrong_call(searched: SearchedHome):
    searcher = open_searcher(searched.settings)
    with pytest.raises(SettingsError, match="The text is empty"):
        search_chunks(searched.settings, searcher, " \n", Cut())
