"""What changes the version of the pairs that train, and what only that of those that test."""

import polars as pl
import pytest

from embed_assets.documents.folder import FoundDocument, move_documents
from embed_assets.graph import TESTING, TRAINING
from embed_assets.pairs.parts import adjacent, part_versions
from embed_assets.pairs.selection import make_pairs
from embed_assets.pairs.splits import HELD_OUT_DOCUMENTS, TRAIN, UNSEEN, VALIDATION, position
from embed_assets.resources.warehouse import Warehouse
from embed_assets_tests.pairs.test_splits import Corpus, keep_all, sha, stock
from embed_assets_tests.rows import NOW

CORPUS = Corpus.of(documents=12, chunks=10)
HELD_OUT = next(
    f"report-{n}" for n in range(100) if position(sha(f"report-{n}")) < HELD_OUT_DOCUMENTS
)
NOT_HELD_OUT = next(
    f"report-{n}" for n in range(100) if position(sha(f"report-{n}")) > HELD_OUT_DOCUMENTS
)


class Project:
    """A warehouse whose pairs are made anew when its documents change."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse

    def make(self) -> pl.DataFrame:
        """Make the pairs of what the warehouse holds, as training_pairs does."""
        made = make_pairs(self.warehouse, keep_all)
        with self.warehouse.transaction() as transaction:
            transaction.replace("split_assignments", made.assignments)
            transaction.replace("training_pairs", made.pairs)
        return made.pairs

    def versions(self, pairs: pl.DataFrame | None = None) -> dict[str, str]:
        places = self.warehouse.read("SELECT document_id, chunk_index, chunk_id FROM chunks")
        return part_versions(self.make() if pairs is None else pairs, places)

    def changed(self, before: dict[str, str]) -> set[str]:
        """Parts whose versions are others than before."""
        return {part for part, version in self.versions().items() if before[part] != version}


@pytest.fixture
def project(tmp_path) -> Project:
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    stock(warehouse, CORPUS)
    return Project(warehouse)


def test_pairs_made_again_of_the_same_have_the_same_versions(project):
    assert project.changed(project.versions()) == set()


def test_the_order_of_rows_changes_nothing(project):
    pairs = project.make()
    assert project.versions(pairs) == project.versions(pairs.reverse())


def test_a_new_test_question_trains_nothing(project):
    before = project.versions()
    corpus = Corpus(CORPUS.documents)
    corpus.labelled = [("document-0", "chunk 0 of document 0")]
    stock(project.warehouse, corpus)
    assert project.changed(before) == {TESTING}


def test_a_held_out_pdf_trains_nothing(project):
    before = project.versions()
    stock(project.warehouse, CORPUS.with_documents({HELD_OUT: ["a text of its own", "another"]}))
    pairs = project.make()
    assert set(pairs.filter(document_id=HELD_OUT)["split"]) == {UNSEEN}
    assert project.changed(before) == {TESTING}


def test_a_pdf_that_is_not_held_out_trains(project):
    before = project.versions()
    texts = [f"text {n} of the report" for n in range(10)]
    stock(project.warehouse, CORPUS.with_documents({NOT_HELD_OUT: texts}))
    assert project.changed(before) == {TRAINING, TESTING}


def test_a_held_out_pdf_that_holds_a_text_trained_on_takes_it_out_of_the_training(project):
    before = project.versions()
    trained = project.make().filter(split=TRAIN)["positive"][0]
    stock(project.warehouse, CORPUS.with_documents({HELD_OUT: [trained, "another"]}))
    assert project.changed(before) == {TRAINING, TESTING}


def test_a_rename_trains_and_scores_nothing(project):
    before = project.versions()
    found = {"sub-document-3": FoundDocument("sub-document-3", "sub/document-3.pdf", 0, NOW)}
    move_documents(project.warehouse, {"sub-document-3": "document-3"}, found)
    assert "sub-document-3" in set(project.make()["document_id"])
    assert project.changed(before) == set()


def test_a_pdf_without_questions_changes_the_corpus_alone(project):
    before = project.versions()
    silent = Corpus(CORPUS.with_documents({NOT_HELD_OUT: ["a text of its own"]}).documents)
    stock(project.warehouse, silent)
    pairs = project.make().filter(pl.col("document_id") != NOT_HELD_OUT)
    after = project.versions(pairs)
    assert {part for part in after if after[part] != before[part]} == {TESTING}


@pytest.mark.parametrize(
    ("split", "expected"),
    [(TRAIN, {TRAINING}), (VALIDATION, {TRAINING, TESTING})],
)
def test_another_question_of_a_split_changes_the_parts_that_read_it(project, split, expected):
    pairs = project.make()
    before = project.versions(pairs)
    [other, *_] = pairs.filter(split=split)["question_id"]
    text = pl.when(question_id=other).then(pl.lit("In other words?")).otherwise("anchor")
    after = project.versions(pairs.with_columns(anchor=text))
    assert {part for part in after if after[part] != before[part]} == expected


def test_who_wrote_a_question_that_trains_counts_for_it_decides_how_much_is_mixed(project):
    pairs = project.make()
    after = project.versions(pairs.with_columns(generator=pl.lit("openai:m")))
    before = project.versions(pairs)
    assert {part for part in after if after[part] != before[part]} == {TRAINING}


def test_neighbours_are_chunks_that_follow_each_other_both_trained_on():
    places = pl.DataFrame(
        {
            "document_id": ["x", "x", "x", "x", "y", "y"],
            "chunk_index": [0, 1, 2, 3, 0, 1],
            "chunk_id": ["a", "b", "c", "d", "a", "b"],
        }
    )
    assert adjacent(places, pl.Series(["a", "b", "d"])).rows() == [("a", "b")]
    assert adjacent(places, pl.Series(["b", "c", "d"])).rows() == [("b", "c"), ("c", "d")]
