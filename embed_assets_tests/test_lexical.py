"""An index of words on disk, and what of a question stands in a text."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from embed_assets.lexical import LexicalIndex, share_of_words
from embed_assets_tests.evaluation.test_bm25 import LANGUAGES

CHINESE, JAPANESE = "打开外壳之前，请先拧松排气塞。", "筐体を開ける前に、排気栓を緩めてください。"


def saved_and_loaded(texts: Sequence[str], folder: Path) -> tuple[LexicalIndex, LexicalIndex]:
    built = LexicalIndex.of(texts)
    built.save(folder / "index")
    return built, LexicalIndex.load(folder / "index")


def test_a_loaded_index_finds_what_the_built_one_finds_in_every_language(tmp_path: Path):
    texts = [text for text, _ in LANGUAGES.values()] + [CHINESE, JAPANESE, ""]
    built, loaded = saved_and_loaded(texts, tmp_path)
    queries = [query for _, query in LANGUAGES.values()] + ["排气塞在哪里", "排気栓とは", "", "the"]
    for row, query in enumerate(queries):
        (rows, scores), (same_rows, same_scores) = built.top(query, 3), loaded.top(query, 3)
        assert rows.tolist()[:1] == ([row] if row < len(texts) - 1 else [])
        assert (rows.tolist(), scores.tolist()) == (same_rows.tolist(), same_scores.tolist())
        assert (rows.dtype, scores.dtype) == (np.int64, np.float32)


def test_a_loaded_index_holds_its_vocabulary_alone_in_memory(tmp_path: Path):
    _, loaded = saved_and_loaded(["salt water", "water"], tmp_path)
    assert loaded.words is not None
    arrays = [loaded.language_of, *(loaded.words.scores[a] for a in ("data", "indices", "indptr"))]
    assert all(isinstance(array, np.memmap) for array in arrays)


def test_equal_scores_stand_in_the_order_of_the_rows_also_where_they_are_cut_off(tmp_path: Path):
    built, loaded = saved_and_loaded(["sea", *["salt water"] * 5, "salt water salt"], tmp_path)
    for index in (built, loaded):
        assert index.top("salt", 3)[0].tolist() == [6, 1, 2]
        assert index.top("salt", 99)[0].tolist() == [6, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("texts", [[], ["", "the of"], ["–"]])
def test_an_index_without_words_is_saved_too_and_finds_nothing(texts: list[str], tmp_path: Path):
    for index in saved_and_loaded(texts, tmp_path):
        rows, scores = index.top("salt", 3)
        assert (rows.tolist(), scores.tolist()) == ([], [])


@pytest.mark.parametrize(
    ("query", "share"),
    [
        ("Opens the valves?", 2 / 2),
        ("opening a winch", 1 / 2),
        ("valve, valve, winch, crane", 1 / 3),
        ("the of", None),
        ("", None),
    ],
)
def test_words_are_shared_as_they_are_searched_in_any_form_each_once(query, share):
    text = "The valve was opened in the morning and that is that."
    assert share_of_words(query, text, "english") == share


def test_words_are_shared_in_the_language_of_the_text():
    german, query = LANGUAGES["german"][0], "Pumpe"
    index = LexicalIndex.of(["The valves of the pump are opened, and that is all.", german])
    assert share_of_words(query, german, index.language(1)) == 1
    assert share_of_words(query, german, index.language(0)) == 0


def test_an_index_of_other_rules_or_with_a_damaged_file_is_not_loaded(tmp_path: Path):
    saved_and_loaded(["salt water"], tmp_path)
    data = next((tmp_path / "index").glob("data*"))
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ValueError, match="length"):
        LexicalIndex.load(tmp_path / "index")
    about = tmp_path / "index" / "about.json"
    said = json.loads(about.read_text(encoding="utf-8")) | {"identity": "bm25 1"}
    about.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ValueError, match="bm25 1"):
        LexicalIndex.load(tmp_path / "index")
    about.unlink()
    with pytest.raises(FileNotFoundError):
        LexicalIndex.load(tmp_path / "index")
