"""Of every row of people's questions it is said whether it matched, how well, and why not."""

from pathlib import Path

import polars as pl

from embed_assets.data_files.reading import BadRow
from embed_assets.questions.labelled.report import (
    match_report,
    match_table,
    row_statuses,
    unmatched,
    unused_line,
)
from embed_assets.questions.statuses import AMBIGUOUS_FILE, NO_SUCH_FILE
from embed_assets_tests.questions.labelled.test_evidence import RIG, asked

PATHS = {"rig-1": "rig.pdf"}
HALF = "the rig may run alone for five days in spring or whenever else it is wanted"
QUESTIONS = [
    asked(evidence_text="alone for five days in a row"),
    asked(evidence_text=HALF, question="Half?"),
    asked(page=3),
    asked(evidence_text="the treasurer keeps the wine in the cellar"),
    asked(file_name="gone.pdf", source="other.csv"),
    asked(file_name=None, chunk_texts=("wine is kept in the cellar",), source="other.csv"),
    asked(answerable=False, source="other.csv"),
    asked(dropped="REJECTED_BY_REVIEWER", source="other.csv"),
    asked(purpose="train", source="other.csv"),
]


def test_every_row_is_reported_once_in_its_order_with_what_became_of_it():
    report = match_report(QUESTIONS, [RIG], PATHS)
    assert report.select("match", "reason").rows() == [
        ("exact", None),
        ("weak", None),
        ("by place", None),
        (None, "EVIDENCE_NOT_FOUND"),
        (None, NO_SUCH_FILE),
        (None, "EVIDENCE_NOT_FOUND"),
        ("by place", "UNANSWERABLE"),
        ("by place", "REJECTED_BY_REVIEWER"),
        ("by place", "TOO_VAGUE_TO_TRAIN_ON"),
    ]
    assert report["source"].to_list() == ["q.jsonl"] * 4 + ["other.csv"] * 5
    assert report["chunk_text"][0] == RIG["chunk_text"][0]


def test_a_bad_row_and_an_ambiguous_name_are_reported_with_what_is_wrong():
    bad = [BadRow(Path("/q/q.csv"), "row 7", "lacks 'question'")]
    paths = {"rig-1": "a/rig.pdf", "rig-2": "b/rig.pdf"}
    report = match_report([asked(file_name="RIG", page=3)], [RIG], paths, bad)
    assert report.height == 2
    assert [unused_line(row) for row in unmatched(report).to_dicts()] == [
        "q.csv, row 7: lacks 'question'",
        f"RIG: {asked().question} (several files of the folder could be meant: a/rig.pdf, "
        "b/rig.pdf)",
    ]
    questions = pl.DataFrame(
        schema=dict.fromkeys(("document_id", "kind", "purpose", "question", "status"), pl.String)
    )
    assert row_statuses(report, questions) == ["BAD_ROW", AMBIGUOUS_FILE]


def test_a_row_that_stands_in_the_file_twice_is_reported_twice():
    lost = asked(evidence_text="the treasurer keeps the wine in the cellar")
    assert (
        match_report([lost, lost], [RIG], PATHS)["reason"].to_list() == ["EVIDENCE_NOT_FOUND"] * 2
    )


def test_every_row_ends_as_a_status_whatever_the_table_of_questions_lacks():
    again, trains = asked(evidence_text=HALF, question="Half?"), asked(page=3, purpose="train")
    report = match_report([*QUESTIONS, again, trains], [RIG], PATHS)
    in_table = [
        ("other-2", "labelled", "test", "Half?", "EVIDENCE_NOT_FOUND"),
        ("rig-1", "labelled", "test", "Half?", "KEPT"),
        ("rig-1", "labelled", "train", trains.question, "NEAR_DUPLICATE"),
        ("rig-1", "question", "test", QUESTIONS[0].question, "DUPLICATE"),
    ]
    schema = ["document_id", "kind", "purpose", "question", "status"]
    questions = pl.DataFrame(in_table, schema, orient="row")
    assert row_statuses(report, questions) == [
        "KEPT",
        "KEPT",
        "KEPT",
        "EVIDENCE_NOT_FOUND",
        NO_SUCH_FILE,
        "EVIDENCE_NOT_FOUND",
        "UNANSWERABLE",
        "REJECTED_BY_REVIEWER",
        "TOO_VAGUE_TO_TRAIN_ON",
        "DUPLICATE",
        "DUPLICATE",
    ]


def test_of_a_question_that_is_asked_of_two_files_each_row_has_its_own_verdict():
    paths = {"rig-1": "rig.pdf", "copy-2": "copy.pdf"}
    words = "alone for five days in a row"
    rows = [asked(evidence_text=words, file_name=name) for name in ("rig.pdf", "copy.pdf")]
    elsewhere = RIG.with_columns(
        document_id=pl.lit("copy-2"), chunk_text=pl.col("chunk_text") + " It rests in port."
    )
    report = match_report(rows, [RIG, elsewhere], paths)
    questions = pl.DataFrame(
        {
            "document_id": ["rig-1", "copy-2"],
            "kind": "labelled",
            "purpose": "test",
            "question": rows[0].question,
            "status": ["KEPT", "DUPLICATE"],
        }
    )
    assert row_statuses(report, questions) == ["KEPT", "DUPLICATE"]


def test_a_row_found_in_one_of_two_documents_has_matched():
    paths = {"empty-2": "sub/rig.pdf", **PATHS}
    report = match_report([asked(evidence_text="alone for five days in a row")], [RIG], paths)
    assert report.select("match", "reason").rows() == [("exact", None)]


def test_the_table_counts_by_source_and_shows_the_worst_that_matched():
    lines = match_table(match_report(QUESTIONS, [RIG], PATHS)).splitlines()
    assert lines[0] == ("| source | came | matched | exact | good | weak | by place | failed |")
    assert lines[2:4] == [
        "| q.jsonl | 4 | 3 | 1 | 0 | 1 | 1 | 1 |",
        "| other.csv | 5 | 0 | 0 | 0 | 0 | 0 | 5 |",
    ]
    assert "Half?" in lines[-1]
    assert HALF in lines[-1]


def test_without_questions_there_is_nothing_to_report():
    report = match_report([], [RIG], PATHS)
    assert report.is_empty()
    assert report.schema["score"] == pl.Float64
    assert "came" in match_table(report)
