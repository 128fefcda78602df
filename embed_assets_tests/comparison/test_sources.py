"""What a version learned from and was tested on, as much as a page can show."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from embed_assets.comparison.sources import MOST_QUESTIONS, Sources, find_sources
from embed_assets.comparison.verdict import Comparison
from embed_assets.evaluation.significance import SIGNIFICANCE_SCHEMA
from embed_assets.resources.warehouse import Warehouse
from embed_assets.training.record import PAIR_COLUMNS
from embed_assets_tests.rows import filled


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """Three documents of two chunks; the first is asked about by a person, the last is gone."""
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    documents = [
        {"document_id": d, "path": f"{d}.pdf", "sha256": f"sha of {d}"} for d in ("a", "b")
    ]
    warehouse.replace("raw_pdfs", filled("raw_pdfs", documents))
    chunks = [
        {
            "document_id": d,
            "chunk_index": n,
            "chunk_id": f"{d}{n}",
            "page_start": n + 1,
            "chunk_text": f"{d} says {n}",
            "heading_path": f"Part {n}",
            "page_end": n + 2,
        }
        for d in ("a", "b")
        for n in (0, 1)
    ]
    warehouse.replace("chunks", filled("chunks", chunks))
    asked = [
        {
            "question_id": "q-a1",
            "anchor": "a1?",
            "split": "test_labelled",
            "document_id": "a",
            "global_chunk_id": "a1",
            "positive": "a says 1",
        }
    ]
    warehouse.replace("training_pairs", filled("training_pairs", asked))
    return warehouse


def result() -> Comparison:
    """One question of document a, which the tuned model answers better, at two dimensions."""
    queries = pl.DataFrame(
        {
            "question_id": "q-a1",
            "anchor": "a1?",
            "split": "test_labelled",
            "document_id": "a",
            "dimension": [32, 16],
            "base_ndcg_at_10": [0.5, 0.1],
            "tuned_ndcg_at_10": [1.0, 0.2],
            "base_rank": [3, 9],
            "tuned_rank": [1, 8],
        }
    )
    nothing = pl.DataFrame()
    return Comparison(nothing, nothing, SIGNIFICANCE_SCHEMA.to_frame(), queries, nothing)


def learned(folder: Path, questions: dict[str, int]) -> dict:
    """The record of a version that learned so many questions of each document's first chunk."""
    rows = [
        {
            "question_id": f"q-{d}-{n:05}",
            "anchor": f"{d} {n}?",
            "positive": f"{d} says 0",
            "chunk_id": f"{d}0",
            "relevant_chunk_ids": [f"{d}0"],
            "generator": "extractive",
            "document_id": d,
            "path": f"{d}.pdf",
            "sha256": f"sha of {d}",
            "inherited_from": None,
        }
        for d, count in questions.items()
        for n in range(count)
    ]
    file = folder / "pairs.parquet"
    pl.DataFrame(rows, schema_overrides={"inherited_from": pl.String}).select(
        PAIR_COLUMNS
    ).write_parquet(file)
    documents = [
        {"document_id": d, "path": f"{d}.pdf", "sha256": f"sha of {d}", "questions": count}
        for d, count in questions.items()
    ]
    return {"pairs": str(file), "documents": documents}


def test_a_document_has_its_chunks_with_their_questions_and_its_figures(warehouse, tmp_path):
    found = find_sources(warehouse, learned(tmp_path, {"a": 2, "gone": 1}), result())
    a, gone = found.documents

    assert (a.path, a.sha256, a.trained, a.tested) == ("a.pdf", "sha of a", 2, 1)
    assert (a.base, a.tuned) == (0.5, 1.0)
    assert [(p.heading, p.page_start, p.page_end) for p in a.passages] == [
        ("Part 0", 1, 2),
        ("Part 1", 2, 3),
    ]
    assert [q.text for q in a.passages[0].questions] == ["a 0?", "a 1?"]
    [asked] = a.passages[1].questions
    assert (asked.split, asked.base_rank, asked.tuned_rank) == ("test_labelled", 3, 1)
    assert (gone.path, gone.trained, gone.tested, gone.base) == ("gone.pdf", 1, 0, None)
    assert [(p.text, p.page_start) for p in gone.passages] == [("gone says 0", None)]
    assert (found.all_documents, found.all_questions, found.questions) == (2, 4, 4)


def test_a_document_that_moved_since_it_was_learned_is_one_document_by_its_new_name(
    warehouse, tmp_path
):
    record = learned(tmp_path, {"a": 2})
    with warehouse.transaction() as transaction:
        transaction.execute("UPDATE raw_pdfs SET sha256 = 'sha of a', path = 'b.pdf'")
        transaction.delete("raw_pdfs", {"document_id": ["a"]})
    tested = result()
    tested = replace(tested, queries=tested.queries.with_columns(document_id=pl.lit("b")))
    found = find_sources(warehouse, record, tested)
    [b] = found.documents
    assert (b.document_id, b.path, b.trained, b.tested) == ("b", "b.pdf", 2, 1)
    assert sum(len(passage.questions) for passage in b.passages) == 3


def test_a_page_holds_so_many_questions_alike_from_each_document_and_those_that_it_links_to(
    warehouse, tmp_path
):
    record = learned(tmp_path, {"a": 1_500, "b": 1_500, "gone": 10})
    found = find_sources(warehouse, record, result(), ["q-b-01499"])
    shown = {s.document_id: sum(len(p.questions) for p in s.passages) for s in found.documents}
    ids = {q.question_id for s in found.documents for p in s.passages for q in p.questions}

    assert found.all_questions == 3_011
    assert found.questions == MOST_QUESTIONS == sum(shown.values())
    assert shown["gone"] == 10
    assert abs(shown["a"] - shown["b"]) <= 1
    assert "q-b-01499" in ids


def test_a_version_of_which_no_pairs_were_kept_shows_what_tested_it(warehouse):
    found = find_sources(warehouse, {"pairs": None, "documents": []}, result())
    assert isinstance(found, Sources)
    [a] = found.documents
    assert (a.trained, a.tested, len(a.passages)) == (0, 1, 1)
