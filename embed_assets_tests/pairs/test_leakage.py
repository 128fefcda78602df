"""What tests a model must not train it: found by the check, and never made."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from embed_assets.pairs.arrivals import missing_downstream
from embed_assets.pairs.checks import documents_arrive, no_leakage, peoples_questions_found
from embed_assets.pairs.leakage import OCCURRENCES, find_leaks, nearly_same
from embed_assets.pairs.selection import drop_near_leaks
from embed_assets.questions.statuses import KEPT, NEAR_DUPLICATE
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets_tests.rows import filled

ASKED = "Which pressure does the brine pump hold when the winch is off?"
FAULT = "What does fault 17 of the brine pump in the long hall of the plant say to its warden?"


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "warehouse.duckdb"))


def write(warehouse: Warehouse, table: str, *rows: dict[str, Any]) -> None:
    with warehouse.transaction() as transaction:
        transaction.upsert(table, filled(table, rows))


def result_of(check: Any, *resources: object) -> dg.AssetCheckResult:
    return check(*resources)


def shown(result: dg.AssetCheckResult, table: str) -> list[Any]:
    """Rows of a table that a check shows."""
    value = result.metadata[table]
    assert isinstance(value, dg.TableMetadataValue)
    return [record.data for record in value.records]


def pair(number: int, split: str, anchor: str, positive: str = "", chunk: str = "") -> dict:
    return {
        "question_id": f"q{number}",
        "document_id": f"d{number}",
        "split": split,
        "anchor": anchor,
        "positive": positive or f"text {anchor}",
        "global_chunk_id": chunk or f"c{number}",
        "relevant_chunk_ids": [chunk or f"c{number}"],
    }


@pytest.mark.parametrize(
    "again",
    [
        ASKED,
        "which PRESSURE does the brine-pump hold, when the winch is off",
        "When the winch is off, which pressure does the brine pump hold?",
        "Which pressure does the brine pump hold when that winch is off?",
    ],
)
def test_questions_that_differ_in_case_signs_order_or_a_word_are_nearly_the_same(again):
    assert nearly_same([again], ["Why?", ASKED]) == {0: 1}
    assert nearly_same([ASKED], [again]) == {0: 0}


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("Why does it hum?", "Why does it leak?"),
        (FAULT, FAULT),
        ("How is valve A set to B?", "How is valve B set to A, and by whom, and when?"),
        ("is the pump on", "on the pump is"),
    ],
)
def test_other_questions_are_other_questions(question, other):
    assert nearly_same([question.replace("17", "18")], [other]) == {}


def test_figures_in_another_order_ask_something_else():
    question = "question {} about chunk {} of document {}"
    assert nearly_same([question.format(1, 2, 3)], [question.format(2, 3, 1)]) == {}


def test_questions_without_a_word_are_the_same_if_they_are_written_so():
    assert nearly_same(["???", "!"], ["???"]) == {0: 0}
    assert nearly_same([], ["a"]) == nearly_same(["a"], []) == {}


def test_the_index_finds_what_comparing_all_with_all_finds():
    import random

    rng = random.Random(7)
    words = [f"{a}{b}" for a in "abcdefgh" for b in "xyz"]

    def ask() -> str:
        return " ".join(rng.sample(words, rng.randint(4, 12)))

    trained = [ask() for _ in range(300)]
    tested = [ask() for _ in range(100)]
    for text in trained[:60]:
        known = text.split()
        rng.shuffle(known)
        tested.append(" ".join([*known, *rng.sample(words, rng.randint(0, 2))]))

    def near(a: set[str], b: set[str]) -> bool:
        return min(len(a), len(b)) >= 5 and len(a & b) >= 0.9 * len(a | b)

    expected = {
        place
        for place, text in enumerate(tested)
        if any(text == other or near(set(text.split()), set(other.split())) for other in trained)
    }
    assert len(expected) > 30
    assert set(nearly_same(tested, trained)) == expected


def test_a_question_on_both_sides_is_a_leak_in_train_and_in_validation(warehouse):
    for place, side in enumerate(("train", "validation")):
        write(warehouse, "training_pairs", pair(place, side, f"{ASKED} {place}"))
    write(warehouse, "training_pairs", pair(8, "test_seen_documents", f"{ASKED.upper()} 0"))
    write(warehouse, "training_pairs", pair(9, "test_labelled", f"{ASKED} 1!"))
    assert find_leaks(warehouse).questions.height == 2
    result = result_of(no_leakage, warehouse)
    assert not result.passed
    assert result.severity.value == "ERROR"


def test_a_held_out_chunk_that_trains_is_a_leak_and_so_is_its_twin(warehouse):
    write(
        warehouse,
        "split_assignments",
        {"kind": "document", "id": "out", "split": "test_unseen_documents"},
    )
    text = "Main-\ntenance: tighten BOLT 7."
    write(warehouse, "chunks", {"document_id": "out", "chunk_id": "c", "chunk_text": text})
    write(warehouse, "chunks", {"document_id": "in", "chunk_id": "x", "chunk_text": "Other."})
    pairs = [
        pair(1, "train", "a", "Maintenance: tighten bolt 7", "twin"),
        pair(2, "validation", "b", text, "c"),
        pair(3, "train", "c", "Maintenance: tighten bolt 8", "other"),
        pair(4, "test_unseen_documents", "d", text, "c"),
    ]
    write(warehouse, "training_pairs", *pairs)
    leaks = find_leaks(warehouse)
    assert leaks.chunks.rows() == [("d1", "twin"), ("d2", "c")]
    assert leaks.count == 2


def test_chunks_of_signs_alone_are_no_twins(warehouse):
    for document, text in (("a", "* * *"), ("b", "---")):
        row = {"document_id": document, "chunk_id": document, "chunk_text": text}
        write(warehouse, "chunks", row)
    assert sorted(warehouse.read(OCCURRENCES).rows()) == [("a", "a"), ("b", "b")]


def test_a_chunk_stands_in_every_document_that_has_its_twin(warehouse):
    for document, text in (("a", "Turn it off."), ("b", "TURN it  off"), ("c", "Turn it on.")):
        row = {"document_id": document, "chunk_id": f"c-{document}", "chunk_text": text}
        write(warehouse, "chunks", row)
    places = sorted(warehouse.read(OCCURRENCES).rows())
    assert places == [("c-a", "a"), ("c-a", "b"), ("c-b", "a"), ("c-b", "b"), ("c-c", "c")]


def test_people_s_questions_on_trained_chunks_are_counted_and_no_leak(warehouse):
    write(warehouse, "training_pairs", pair(1, "train", "a", chunk="c"))
    write(warehouse, "training_pairs", pair(2, "test_labelled", "b", chunk="c"))
    write(warehouse, "training_pairs", pair(3, "test_labelled", "d"))
    result = result_of(no_leakage, warehouse)
    assert result.passed
    assert result.metadata["test_labelled_on_trained_chunks"].value == 1


def test_without_pairs_nothing_leaks(warehouse):
    assert result_of(no_leakage, warehouse).passed


def test_what_can_t_be_checked_fails_as_a_warning_that_says_why(tmp_path):
    (tmp_path / "warehouse.duckdb").write_text("no database")
    result = result_of(no_leakage, Warehouse(path=str(tmp_path / "warehouse.duckdb")))
    assert not result.passed
    assert result.severity.value == "WARN"
    assert result.description is not None
    assert result.description.startswith("This could not be checked: ")


def test_pairs_are_made_without_what_would_leak():
    rows = [
        ("labelled", "test_labelled", ASKED),
        ("trains", "train", f"{ASKED} again"),
        ("tests", "test_seen_documents", "What does the warden of the long hall read at noon?"),
        ("keeps", "train", "At noon what does the warden of the long hall read?"),
        ("other", "test_unseen_documents", "How long is the hall?"),
    ]
    questions = pl.DataFrame(rows, schema=["question_id", "split", "anchor"], orient="row")
    dropped = drop_near_leaks(questions.with_columns(status=pl.lit(KEPT)))
    statuses = dict(dropped.select("question_id", "status").iter_rows())
    assert statuses == {
        "labelled": KEPT,
        "trains": NEAR_DUPLICATE,  # a person's test stays
        "tests": NEAR_DUPLICATE,  # a machine's yields to what trains
        "keeps": KEPT,
        "other": KEPT,
    }


# Documents that never arrive.


def document(warehouse: Warehouse, name: str, status: str = "SUCCESS", stage: int = 3) -> None:
    """A document that got so far: 0 pages, 1 chunks, 2 was asked about, 3 has a question."""
    write(warehouse, "raw_pdfs", {"document_id": name, "path": f"{name}.pdf"})
    write(warehouse, "parsed_markdown", {"document_id": name, "parser_status": status})
    if stage > 0:
        write(warehouse, "chunks", {"document_id": name})
    if stage > 1:
        made = {"asset": "synthetic_questions", "document_id": name}
        write(warehouse, "materializations", made)
    if stage > 2:
        asked = {"question_id": name, "document_id": name, "question": "Why?", "status": "VERBATIM"}
        write(warehouse, "synthetic_questions", asked)


def test_documents_that_never_arrive_are_listed_by_their_paths(warehouse):
    document(warehouse, "all")
    document(warehouse, "broken", status="ERROR", stage=0)
    document(warehouse, "pages", stage=0)
    document(warehouse, "chunks", stage=1)
    document(warehouse, "asked", stage=2)
    missing = missing_downstream(warehouse, Settings())
    assert missing.rows() == [
        ("asked.pdf", "no questions"),
        ("chunks.pdf", "nothing was asked about it yet"),
        ("pages.pdf", "no chunks"),
    ]
    result = result_of(documents_arrive, warehouse, Settings())
    assert not result.passed
    assert shown(result, "documents")[-1] == {"path": "pages.pdf", "missing": "no chunks"}


def test_where_nobody_asks_no_question_is_missed(warehouse):
    document(warehouse, "asked", stage=2)
    assert result_of(documents_arrive, warehouse, Settings(questions="none")).passed


def test_a_long_list_is_cut(warehouse):
    for n in range(25):
        document(warehouse, f"d{n}", stage=0)
    result = result_of(documents_arrive, warehouse, Settings())
    assert len(shown(result, "documents")) == 20
    assert result.metadata["missing"].value == 25


# People's questions.


def asked_by_people(folder: Path, *rows: dict[str, Any]) -> Settings:
    file = folder / "asked.jsonl"
    file.write_text("\n".join(json.dumps({"question": "Why?", **row}) for row in rows))
    return Settings(labelled=str(file), pdfs=folder)


def document_with(warehouse: Warehouse, text: str) -> None:
    write(warehouse, "raw_pdfs", {"document_id": "rig-1", "path": "rig.pdf"})
    chunk = {"document_id": "rig-1", "chunk_id": "c", "chunk_text": text}
    write(warehouse, "chunks", chunk | {"page_start": 1, "page_end": 1})


TEXT = "The rig may run alone for five days in a row at most, and then has to rest."


def test_people_s_questions_without_evidence_are_a_warning_that_says_why_and_what_to_do(
    warehouse, tmp_path
):
    document_with(warehouse, TEXT)
    elsewhere = "the treasurer keeps the wine of the guild in the cellar"
    rows = [{"file_name": "rig.pdf", "evidence_text": "alone for five days in a row"}]
    rows += [{"file_name": "rig.pdf", "evidence_text": elsewhere}] * 30
    rows += [{"file_name": "gone.pdf"}]
    result = result_of(peoples_questions_found, warehouse, asked_by_people(tmp_path, *rows))
    assert not result.passed
    assert result.severity.value == "WARN"
    assert result.description == (
        "31 of 32 questions that people wrote can't be used: 30 evidence not found, "
        "1 no such file in the folder."
    )
    reasons, listed = result.metadata["reasons"], result.metadata["without_evidence"]
    assert isinstance(reasons, dg.TableMetadataValue)
    assert isinstance(listed, dg.TableMetadataValue)
    assert [record.data["reason"] for record in reasons.records] == [
        "evidence not found",
        "no such file in the folder",
    ]
    assert all(record.data["what_to_do"] for record in reasons.records)
    assert len(listed.records) == 20
    assert listed.records[0].data["file_name"] == "rig.pdf"
    assert listed.records[0].data["why"] == "evidence not found"


@pytest.mark.parametrize("rows", [[], [{"file_name": "rig.pdf", "evidence_text": TEXT}]])
def test_where_all_people_s_questions_are_found_or_nobody_asked_nothing_is_wrong(
    warehouse, tmp_path, rows
):
    document_with(warehouse, TEXT)
    settings = asked_by_people(tmp_path, *rows) if rows else Settings(pdfs=tmp_path)
    assert result_of(peoples_questions_found, warehouse, settings).passed
