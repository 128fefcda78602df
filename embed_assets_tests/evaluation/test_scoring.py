"""A figure knows what it was measured on, and is read back only for the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from embed_assets.evaluation import scoring
from embed_assets.evaluation.retrieval import Evaluation, evaluate_rankings
from embed_assets.evaluation.scoring import RetrievalTask, measured_by, retrieval_task
from embed_assets.resources.warehouse import Transaction, Warehouse
from embed_assets.tables import TABLES
from embed_assets_tests.rows import filled

SIZES = (4, 2)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """Two chunks, a test question about one, a training question about the other."""
    made = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    add(made, "chunks", {"document_id": "d", "chunk_index": 0, "chunk_id": "c1"})
    add(made, "chunks", {"document_id": "d", "chunk_index": 1, "chunk_id": "c2"})
    ask(made, "q1", "c1", "test_labelled")
    ask(made, "q2", "c2", "train")
    return made


def ask(warehouse: Warehouse, question: str, chunk: str, split: str, anchor: str = "") -> None:
    row = {"question_id": question, "anchor": anchor, "split": split, "document_id": "d"}
    add(warehouse, "training_pairs", row | {"relevant_chunk_ids": [chunk]})


def add(warehouse: Warehouse, table: str, values: Mapping[str, object]) -> None:
    """Add a row, or put it where one of its key is; what isn't given is empty."""
    where = {name: [values[name]] for name in TABLES[table].key}
    warehouse.replace(table, filled(table, [values]), where=where)


class Model:
    """Something that retrieves, and counts how often it is measured."""

    def __init__(self, identity: str = "m") -> None:
        self.identity, self.times = identity, 0

    def measure(self, task: RetrievalTask, dimensions: tuple[int, ...]) -> Evaluation:
        self.times += 1
        found = [
            evaluate_rankings(
                [["c2", "c1"] if dimension == 2 else ["c1"]] * len(task.queries),
                list(task.queries),
                task.relevant,
                dimension,
                task.splits,
            )
            for dimension in dimensions
        ]
        return Evaluation(
            pl.concat(one.scores for one in found), pl.concat(one.queries for one in found)
        )


def measured(
    warehouse: Warehouse,
    model: Model,
    dimensions: tuple[int, ...] | None = SIZES,
    run_id: str = "run",
) -> Evaluation:
    task = retrieval_task(warehouse)
    return measured_by(
        lambda: model.measure(task, dimensions or (4,)),
        model.identity,
        warehouse,
        task,
        dimensions,
        run_id=run_id,
        model="tuned",
    )


def rows(evaluation: Evaluation) -> tuple[set[tuple], list[dict]]:
    return set(evaluation.scores.rows()), evaluation.queries.to_dicts()


def test_what_was_measured_is_read_back_as_it_was_and_shown_by_the_new_run_too(warehouse):
    model = Model()
    first, second = measured(warehouse, model), measured(warehouse, model, run_id="another")
    assert model.times == 1
    assert rows(first) == rows(second)
    assert second.scores.schema == first.scores.schema
    assert second.queries.schema == first.queries.schema
    runs = warehouse.read("SELECT run_id, count(*) AS n FROM evaluation_results GROUP BY run_id")
    assert dict(runs.iter_rows()) == {"run": first.scores.height, "another": first.scores.height}


def test_fewer_dimensions_are_read_back_and_without_any_the_model_s_full_size(warehouse):
    model = Model()
    whole = measured(warehouse, model, (4, 2, 1))
    some = measured(warehouse, model, (4, 1), run_id="2")
    full_size = measured(warehouse, model, None, run_id="3")
    assert model.times == 1
    for found, dimensions in ((some, [4, 1]), (full_size, [4])):
        wanted = whole.scores.filter(pl.col("dimension").is_in(dimensions))
        assert set(found.scores.rows()) == set(wanted.rows())


def test_more_dimensions_than_were_measured_are_measured(warehouse):
    model = Model()
    measured(warehouse, model, None)
    measured(warehouse, model, SIZES)
    assert model.times == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda w: add(w, "chunks", {"document_id": "e", "chunk_index": 0, "chunk_id": "c3"}),
        lambda w: ask(w, "q1", "c1", "test_labelled", anchor="asked in other words"),
        lambda w: ask(w, "q1", "c2", "test_labelled"),
        lambda w: ask(w, "q1", "c1", "validation"),
        lambda w: ask(w, "q3", "c2", "test_labelled"),
    ],
    ids=["a chunk", "a text", "an answer", "a split", "a question"],
)
def test_what_changes_questions_or_corpus_is_measured_anew(warehouse, change):
    model = Model()
    measured(warehouse, model)
    change(warehouse)
    measured(warehouse, model)
    assert model.times == 2
    measured(warehouse, model)
    assert model.times == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda w: ask(w, "q3", "c1", "train"),
        lambda w: add(w, "chunks", {"document_id": "e", "chunk_index": 0, "chunk_id": "c1"}),
    ],
    ids=["a question to train on", "the same text in another document"],
)
def test_what_changes_neither_is_read_back(warehouse, change):
    model = Model()
    measured(warehouse, model)
    change(warehouse)
    measured(warehouse, model)
    assert model.times == 1


def test_another_model_or_another_evaluation_is_measured(warehouse, monkeypatch):
    measured(warehouse, Model("m"))
    other = Model("n")
    measured(warehouse, other)
    monkeypatch.setattr(scoring, "EVALUATION_VERSION", "later")
    measured(warehouse, other)
    assert other.times == 2


def test_a_run_killed_while_it_stores_leaves_no_figures_of_other_questions_to_read(
    warehouse, monkeypatch
):
    model, replace = Model(), Transaction.replace
    measured(warehouse, model)
    before = retrieval_task(warehouse)
    ask(warehouse, "q3", "c2", "test_labelled")

    def killed(self: Transaction, table: str, *rest: Any) -> None:
        if table == "query_results":
            raise KeyboardInterrupt
        replace(self, table, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            measured(warehouse, model)
    warehouse.replace(
        "training_pairs", TABLES["training_pairs"].empty(), where={"question_id": ["q3"]}
    )
    assert retrieval_task(warehouse).questions_version == before.questions_version
    assert measured(warehouse, model).queries["question_id"].to_list() == ["q1", "q1"]


def test_the_task_is_every_question_but_those_that_train_and_each_text_once(warehouse):
    add(warehouse, "chunks", {"document_id": "e", "chunk_index": 0, "chunk_id": "c1"})
    task = retrieval_task(warehouse)
    assert list(task.queries) == ["q1"]
    assert list(task.texts) == ["c1", "c2"]
    assert task.relevant == {"q1": {"c1"}}
    assert task.questions["document_id"].to_list() == ["d"]


def test_a_warehouse_without_questions_is_a_task_without_questions(tmp_path):
    task = retrieval_task(Warehouse(path=str(tmp_path / "new.duckdb")))
    assert (task.queries, task.texts, task.relevant, task.splits) == ({}, {}, {}, [])
