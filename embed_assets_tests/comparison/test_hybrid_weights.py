"""Which weight does best in hybrid search on people's questions, and when that is believed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embed_assets.comparison.hybrid_weights import (
    CHOSEN,
    WEIGHTS,
    best_weight,
    measure_weights,
    no_weights,
    store_weights,
    stored_weights,
    weight_points,
    weight_sentence,
    weights_table,
)
from embed_assets.evaluation.hybrid import score_hybrid
from embed_assets.evaluation.scoring import RetrievalTask
from embed_assets.resources.warehouse import Warehouse

DOCUMENTS = 12
TEXTS = [f"word{n} thing{n} matter{n}" for n in range(DOCUMENTS)]
PEOPLES, MACHINES = "test_labelled", "test_seen_documents"
RIGHT, WRONG = "dense is right", "bm25 is right"


class OneHot:
    """A model that finds one chunk first and another nearly as well."""

    identity = "one hot"

    def __init__(self, found: Mapping[str, tuple[int, int]]) -> None:
        """found: the best chunk of each query, and the next."""
        self._found = found

    def encode_queries(self, texts: Sequence[str], progress: str | None = None) -> np.ndarray:
        embeddings = np.zeros((len(texts), DOCUMENTS), np.float32)
        for row, text in enumerate(texts):
            first, second = self._found[text]
            embeddings[row, first], embeddings[row, second] = 1.0, 0.8
        return embeddings

    def encode_documents(self, texts: Sequence[str], progress: str | None = None) -> np.ndarray:
        return np.eye(DOCUMENTS, dtype=np.float32)[[TEXTS.index(text) for text in texts]]


def asked(kinds: Sequence[str], split: str = PEOPLES, each: int = 1) -> tuple[pl.DataFrame, OneHot]:
    """So many questions for each document, and the model that they are put to.

    BM25 finds the chunk after the one that the model finds: which of them answers says the kind.
    """
    rows, found = [], {}
    for number, kind in enumerate([kind for kind in kinds for _ in range(each)]):
        place = number // each
        other = (place + 1) % DOCUMENTS
        anchor = f"{TEXTS[other]} {split} {number % each} {place}"
        answer = place if kind == RIGHT else other
        rows.append((f"{split}-{number}", anchor, [f"c{answer:02}"], split, f"d{place:02}"))
        found[anchor] = place, other
    schema = ["question_id", "anchor", "relevant_chunk_ids", "split", "document_id"]
    return pl.DataFrame(rows, schema=schema, orient="row"), OneHot(found)


def task_of(questions: pl.DataFrame) -> RetrievalTask:
    chunks = [(f"c{n:02}", text) for n, text in enumerate(TEXTS)]
    return RetrievalTask(
        questions, pl.DataFrame(chunks, schema=["chunk_id", "chunk_text"], orient="row")
    )


def test_a_weight_that_is_clearly_better_is_named_with_what_it_gains_on_other_documents():
    questions, model = asked([RIGHT] * DOCUMENTS)
    weights = measure_weights(task_of(questions), model, 0.5)
    points = {point["weight"]: point["ndcg_at_10"] for point in weight_points(weights)}
    assert tuple(points) == WEIGHTS
    for weight, score in points.items():
        expected = score_hybrid(task_of(questions), model, weight).queries["ndcg_at_10"].mean()
        assert score == pytest.approx(expected)
    assert points[0.9] == 1.0
    assert points[0.5] == pytest.approx(1 / np.log2(3))
    assert best_weight(weights) == 0.9
    sentence = weight_sentence(weights)
    assert sentence.startswith(
        "Hybrid search does better with EMBED_ASSETS_DENSE_WEIGHT=0.9 than with 0.5 on people's "
        "questions: weights chosen on other documents change NDCG@10 by +0.369 (95 %: +0.369"
    )
    assert "| chosen on other documents | 1.0000 | +0.369" in weights_table(weights)


def test_the_one_that_is_set_is_beside_the_others():
    questions, model = asked([RIGHT] * DOCUMENTS)
    weights = measure_weights(task_of(questions), model, 0.95)
    assert [point["weight"] for point in weight_points(weights)] == [*WEIGHTS, 0.95]
    assert set(weights["set_weight"]) == {0.95}
    assert best_weight(weights) is None
    close = measure_weights(task_of(questions), model, 0.3 + 1e-9)
    assert close["weight"].n_unique() == close.height, "each has a row of its own"


@pytest.mark.parametrize(
    ("kinds", "machines"),
    [
        ([WRONG] * DOCUMENTS, [RIGHT] * DOCUMENTS),  # the others' wish counts for nothing
        ([RIGHT] * 3 + [WRONG] * 9, []),
        ([RIGHT] * 6 + [WRONG] * 6, []),
    ],
)
def test_without_a_clear_gain_on_people_s_questions_none_is_named(kinds, machines):
    questions, model = asked(kinds)
    others, _ = asked(machines, MACHINES)
    of_all = OneHot(
        {
            anchor: (int(place), (int(place) + 1) % DOCUMENTS)
            for anchor in pl.concat([questions["anchor"], others["anchor"].cast(pl.String)])
            for place in [anchor.rpartition(" ")[2]]
        }
    )
    together = pl.concat([questions, others.cast(questions.schema)]) if machines else questions
    weights = measure_weights(task_of(together), of_all, 0.5)
    assert best_weight(weights) is None
    assert weight_sentence(weights).startswith(
        "No other weight than 0.5 (EMBED_ASSETS_DENSE_WEIGHT) is worth setting"
    )
    alone = measure_weights(task_of(questions), model, 0.5)
    assert weights.equals(alone)


def test_few_documents_don_t_tell_and_that_is_said():
    questions, model = asked([RIGHT] * 3)
    weights = measure_weights(task_of(questions), model, 0.5)
    assert best_weight(weights) is None
    assert weight_sentence(weights) == (
        "People's questions on 3 documents are too few to tell which weight is best in hybrid "
        "search."
    )


@pytest.mark.parametrize("row", [CHOSEN, "0.9"])
@pytest.mark.parametrize("changed", [{"difference": 0.009}, {"verdict": "no clear difference"}])
def test_a_gain_is_clear_and_large_enough_of_the_choice_and_of_what_is_chosen(row, changed):
    questions, model = asked([RIGHT] * DOCUMENTS)
    weights = measure_weights(task_of(questions), model, 0.5)
    assert best_weight(weights) == 0.9
    less = weights.with_columns(
        pl.when(weight=row).then(pl.lit(value)).otherwise(name).alias(name)
        for name, value in changed.items()
    )
    assert best_weight(less) is None
    assert "is worth setting" in weight_sentence(less)


@pytest.mark.parametrize("each", [1, 3])
def test_the_best_of_several_is_believed_only_on_documents_that_did_not_choose_it(each):
    """One document more wants the model: without that one, the others don't."""
    questions, model = asked([RIGHT] * 7 + [WRONG] * 5, each=each)
    weights = measure_weights(task_of(questions), model, 0.5)
    score = dict(weights.select("weight", "score").iter_rows())
    assert score[CHOSEN] < score["0.5"] < score["0.9"]
    assert best_weight(weights) is None


def test_where_no_people_ask_nothing_is_known(tmp_path: Path):
    machines, model = asked([RIGHT] * DOCUMENTS, MACHINES)
    alone, _ = asked([RIGHT])
    for questions in (machines, alone):
        weights = measure_weights(task_of(questions), model, 0.5)
        assert weights.is_empty()
        assert weights.schema == no_weights().schema
    assert weight_sentence(no_weights()) == ""
    assert best_weight(no_weights()) is None
    assert weight_points(no_weights()) == []


def test_what_is_stored_is_read_back(tmp_path: Path):
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    questions, model = asked([RIGHT] * DOCUMENTS)
    weights = measure_weights(task_of(questions), model, 0.5)
    with warehouse.transaction() as transaction:
        store_weights(transaction, weights, "run")
        store_weights(transaction, no_weights(), "another")
    assert stored_weights(warehouse, "run").equals(weights.sort("weight"))
    assert stored_weights(warehouse, "another").is_empty()
