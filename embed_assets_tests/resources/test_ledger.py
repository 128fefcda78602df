"""What each slice was made from, what failed, how often, and when it is tried again."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from embed_assets.graph import GRAPH, TESTING, TRAINING
from embed_assets.resources.ledger import (
    NEVER_BY_ITSELF,
    PAUSES,
    UNPARTITIONED,
    Cause,
    Failure,
    Materialization,
    Records,
    data_version,
    input_version,
    next_attempt,
    read_records,
    slice_version,
    write_made,
    write_tried,
)
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import TABLES, TableMismatchError
from embed_assets_tests.rows import NOW, pages, question, raw_pdf

AT_NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
KILLED = Failure(Cause.PROCESS_ENDED, "its process ended with exit code -9")


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "warehouse.duckdb"))


def made(holds: str, code: str = "1", made_from: str = "i") -> Materialization:
    return Materialization(code, made_from, holds)


def record(warehouse: Warehouse, asset: str, rows: dict[str, Materialization]) -> None:
    with warehouse.transaction() as transaction:
        write_made(transaction, asset, rows, "run")


# Attempts.


def test_the_first_attempts_in_vain_are_followed_by_growing_pauses_and_the_last_by_none():
    attempt, pauses = None, []
    for _ in range(len(PAUSES) + 1):
        attempt = next_attempt(attempt, KILLED, "1", "i", AT_NOON)
        pauses.append(attempt.next_at and attempt.next_at - AT_NOON)
    assert pauses == [*PAUSES, None]
    assert list(PAUSES) == sorted(PAUSES)
    assert attempt is not None
    assert attempt.attempts == len(PAUSES) + 1


@pytest.mark.parametrize(("code", "inputs"), [("2", "i"), ("1", "other")])
def test_an_attempt_at_something_else_is_the_first(code, inputs):
    before = next_attempt(None, KILLED, "1", "i", AT_NOON)
    again = next_attempt(before, KILLED, code, inputs, AT_NOON)
    assert (again.attempts, again.next_at) == (1, AT_NOON + PAUSES[0])


@pytest.mark.parametrize("cause", sorted(NEVER_BY_ITSELF))
def test_what_would_end_the_same_is_not_tried_again_by_itself(cause):
    assert next_attempt(None, Failure(cause, "…"), "1", "i", AT_NOON).next_at is None


# What is read back.


def test_a_ledger_never_written_is_empty(warehouse):
    assert read_records(warehouse) == Records()


def test_what_is_recorded_is_read_back(warehouse):
    parts = Materialization("1", "i", "d", {TRAINING: "t", TESTING: "e"})
    record(warehouse, "training_pairs", {UNPARTITIONED: parts})
    record(warehouse, "chunks", {"a": made("v1"), "b": made("")})
    limited = Failure(Cause.TIME_LIMIT, "took longer than 600.4 s", 600.4)
    attempt = next_attempt(None, limited, "1", "i", AT_NOON)
    with warehouse.transaction() as transaction:
        write_tried(transaction, "parsed_markdown", {"a": attempt}, "run")
    assert read_records(warehouse) == Records(
        {
            ("training_pairs", UNPARTITIONED): parts,
            ("chunks", "a"): made("v1"),
            ("chunks", "b"): made(""),
        },
        {("parsed_markdown", "a"): attempt},
    )


def test_records_of_some_assets_are_those_alone(warehouse):
    record(warehouse, "chunks", {"a": made("v1")})
    record(warehouse, "raw_pdfs", {"a": made("v1")})
    assert set(read_records(warehouse, "chunks").made) == {("chunks", "a")}


def test_a_slice_has_one_record_that_of_the_last_time(warehouse):
    for holds in ("v1", "v2"):
        record(warehouse, "base_eval", {UNPARTITIONED: made(holds)})
    assert read_records(warehouse).data_version("base_eval") == "v2"
    assert warehouse.count("materializations") == 1


def try_in_vain(warehouse: Warehouse, *keys: str, cause: Cause = Cause.PROCESS_ENDED) -> None:
    attempt = next_attempt(None, Failure(cause, "…"), "1", "i", AT_NOON)
    with warehouse.transaction() as transaction:
        write_tried(transaction, "chunks", dict.fromkeys(keys, attempt), "run")


def test_what_is_made_forgets_its_own_attempt_and_no_other(warehouse):
    try_in_vain(warehouse, "a", "b")
    record(warehouse, "chunks", {"a": made("v1")})
    assert set(read_records(warehouse).tried) == {("chunks", "b")}


def test_a_slice_and_its_record_are_written_together_or_not_at_all(warehouse):
    where = {"document_id": ["a"]}

    def write(text: str, code: str | None = "1") -> None:
        with warehouse.transaction() as transaction:
            transaction.replace("parsed_markdown", pages("a", text), where)
            row = made(text, code)  # type: ignore[arg-type]
            write_made(transaction, "parsed_markdown", {"a": row}, "run")

    def known() -> tuple[str, str]:
        page = warehouse.read("SELECT markdown FROM parsed_markdown").item()
        return page, read_records(warehouse).data_version("parsed_markdown", "a")

    write("one")
    assert known() == ("one", "one")
    write("two")
    assert known() == ("two", "two")
    with pytest.raises(TableMismatchError):
        write("three", code=None)
    assert known() == ("two", "two")


# Versions.


def test_the_version_of_rows_is_what_they_say_not_when_they_were_made():
    early = question("a")
    late = early.with_columns(created_at=pl.lit(NOW + timedelta(days=1000)))
    assert data_version("synthetic_questions", early) == data_version("synthetic_questions", late)
    other = early.with_columns(question=pl.lit("Another?"))
    assert data_version("synthetic_questions", early) != data_version("synthetic_questions", other)
    two = pages("a", "one", "two")
    assert data_version("parsed_markdown", two) == data_version("parsed_markdown", two.reverse())


def test_no_rows_have_the_empty_version():
    assert data_version("chunks", TABLES["chunks"].empty()) == ""


def test_a_pdf_has_the_version_of_its_bytes_whatever_its_name():
    assert slice_version("raw_pdfs", raw_pdf("a")) == "00"
    assert slice_version("raw_pdfs", raw_pdf("b")) == "00"


def test_what_a_slice_was_made_from_is_told_apart_by_every_input():
    assert input_version(["a"]) == "a"
    assert len({input_version(v) for v in (["a", "b"], ["b", "a"], ["ab", ""], [])}) == 4


def holding(**versions: str) -> Records:
    """Records of document a, and of assets that have none."""
    return Records(
        {
            (asset, "a" if GRAPH[asset].partitioned else UNPARTITIONED): made(version)
            for asset, version in versions.items()
        }
    )


def test_a_document_is_made_from_the_slice_before_it():
    records = holding(raw_pdfs="bytes", parsed_markdown="pages")
    assert records.input_version("chunks", "a") == "pages"
    assert records.input_version("chunks", "b") == ""


def test_pairs_are_made_from_all_documents_that_hold_something():
    records = holding(chunks="c", synthetic_questions="q")
    version = records.input_version("training_pairs")
    more = {**records.made, ("chunks", "b"): made("c2")}
    assert Records(more).input_version("training_pairs") != version
    without_text = {**records.made, ("chunks", "b"): made("")}
    assert Records(without_text).input_version("training_pairs") == version


def test_a_model_is_made_from_the_pairs_that_train_and_an_evaluation_from_those_that_test():
    parts = {TRAINING: "t", TESTING: "e"}
    records = Records({("training_pairs", UNPARTITIONED): Materialization("1", "i", "d", parts)})
    assert records.input_version("finetuned_model") == "t"
    assert records.input_version("base_eval") == "e"
    assert Records().input_version("finetuned_model") == ""
