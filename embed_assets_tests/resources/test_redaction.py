"""What files say of a forgotten document goes; all else in them stays, and stays readable."""

import json
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster import deserialize_value, serialize_value

from embed_assets.errors import BusyError
from embed_assets.resources.redaction import (
    FORGOTTEN,
    Traces,
    files_below,
    redact_file,
    redact_sqlite,
)

TEXT = "The brass valve of the lower boiler opens at four bar and closes at three."
QUESTION = "Who opens the valve?"
NAMES = {"in/secret.pdf": "gone-1", "in-secret-0a1b2c3d": "gone-1", "secret.pdf": "gone-1"}


@pytest.fixture
def traces() -> Traces:
    return Traces(NAMES, [TEXT, QUESTION, "Yes"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ingest of in/secret.pdf failed", "ingest of gone-1 failed"),
        ("IN-SECRET-0A1B2C3D and more", "gone-1 and more"),
        ("GET /pdfs/in%2Fsecret.pdf", "GET /pdfs/gone-1"),
        ("reading in/secr…", "reading gone-1…"),
        ("secretary", "secretary"),
        ("Yes, that is so.", "Yes, that is so."),
    ],
)
def test_a_name_gives_way_to_another_and_the_rest_of_the_line_stays(traces, before, after):
    assert traces.redact(before) == after


@pytest.mark.parametrize("form", ["{}", "a log\nof {}\nand more", '["{}", 1]', "# {}\n"])
def test_a_name_that_goes_over_two_lines_gives_way_whole(form):
    traces = Traces({"new\nline name.pdf": "gone-1", "new-line-name-0a1b2c3d": "gone-1"}, [TEXT])
    name = "new\nline name.pdf" if form[0] != "[" else "new\\nline name.pdf"
    assert traces.redact(form.format(name)) == form.format("gone-1")


@pytest.mark.parametrize("name", [" .pdf", "\n.pdf", "\t .pdf"])
def test_a_name_of_hardly_anything_takes_nothing_from_others(name):
    said = "read b.pdf and\tc.pdf"
    assert Traces({name: "forgotten-1"}).redact(said) == said


@pytest.mark.parametrize(
    "line",
    [
        TEXT,
        "> THE BRASS *valve* of the lower boiler opens at four … (cut)",
        f"no match: '{QUESTION}' (any file)",
        "which says: lower boiler opens at four bar and closes, or so",
    ],
)
def test_a_line_that_quotes_goes_whole_and_its_neighbours_stay(traces, line):
    assert traces.redact(f"before\n{line}\nafter") == f"before\n{FORGOTTEN}\nafter"


def test_a_quotation_that_goes_on_in_the_next_line_goes(traces):
    text = "one\nthe lower boiler opens at\nfour bar and closes\nfour"
    assert traces.redact(text) == f"one\n{FORGOTTEN}\n{FORGOTTEN}\nfour"


def test_seven_words_in_a_row_are_no_quotation_yet(traces):
    assert traces.redact("lower boiler opens at four bar and then") == (
        "lower boiler opens at four bar and then"
    )


def test_a_row_of_a_table_stays_a_row(traces):
    table = f"| a | b |\n| --- | --- |\n| {QUESTION} | {TEXT} |\n| c | d |"
    assert traces.redact(table) == f"| a | b |\n| --- | --- |\n| {FORGOTTEN} |\n| c | d |"


def test_json_stays_json_however_deep_it_lies(traces):
    inner = json.dumps({"in-secret-0a1b2c3d": "10 bytes", "n": 1})
    event = {"cursor": inner, "set": ["x", "in-secret-0a1b2c3d"], "log": f"a\n{TEXT}", "n": 2}
    redacted = json.loads(traces.redact(json.dumps(event)))
    assert json.loads(redacted.pop("cursor")) == {"gone-1": "10 bytes", "n": 1}
    assert redacted == {"set": ["x", "gone-1"], "log": f"a\n{FORGOTTEN}", "n": 2}


def test_what_says_nothing_of_it_stays_as_it_is_to_the_byte(traces):
    text = '{"b":  1,\n "a": "the valve"}'
    assert traces.redact(text) == text


def test_a_name_that_contains_it_and_a_text_that_another_document_has_too_stay():
    traces = Traces({"a.pdf": "gone-1"}, [TEXT, QUESTION], ["data.pdf"], [TEXT])
    assert traces.redact("a.pdf data.pdf x/a.pdf") == "gone-1 data.pdf x/gone-1"
    assert traces.redact(TEXT) == TEXT
    assert traces.redact(QUESTION) == FORGOTTEN


@pytest.mark.parametrize(
    "text",
    [
        '{"asset_key": ["parsed_markdown"], "description": "says Parsed markdown, and more"}',
        "[ab12](http://127.0.0.1:5000/#/runs/ab12?workflowType=machine_learning)",
        "Other manual: table of contents, page 2",
        "read parsed_markdown\nparsed_markdown",
    ],
)
def test_a_short_text_is_no_part_of_an_address_nor_of_a_line_that_says_more(text):
    short = ["Parsed markdown", "Machine learning", "Table of contents"]
    assert Traces(NAMES, short).redact(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a\n- **Table of Contents**\nb", f"a\n{FORGOTTEN}\nb"),
        ("| x | Table of contents |", f"| {FORGOTTEN} |"),
        ("no match: “Table of contents” (a.pdf)", FORGOTTEN),
        ("<td>Table of contents</td>", FORGOTTEN),
        ('["Table of contents", 1]', f'["{FORGOTTEN}", 1]'),
        ("Table of\ncontents", f"{FORGOTTEN}\n{FORGOTTEN}"),
    ],
)
def test_a_short_text_goes_where_it_is_a_whole_piece(text, left):
    assert Traces(NAMES, ["Table of contents"]).redact(text) == left


def test_what_is_written_without_spaces_is_no_address():
    text = "阀门在四巴的压力下打开并在三巴关闭"
    assert Traces(NAMES, [text]).redact(f"他说{text}") == FORGOTTEN


def test_a_sentence_that_another_document_has_too_is_no_quotation():
    shared = "The warranty lasts two years from the date of delivery of the goods."
    traces = Traces(
        NAMES, [f"Of A. {shared} Only A.", "See annex four"], [], [f"B: {shared}\nSee annex four"]
    )
    assert not traces.quotes(f'["How long?"] {shared}')
    assert not traces.quotes("See annex four")
    assert traces.quotes(f"Of A. {shared}")


@pytest.mark.parametrize("label", ["preview", "labelled_matches", "matches", "without_evidence"])
def test_a_preview_of_texts_goes_whatever_it_says_and_dagster_still_reads_the_event(traces, label):
    shown = {label: dg.MetadataValue.md("| Nobody knows this any more |"), "n": 1}
    event = dg.AssetMaterialization("training_pairs", metadata=shown)
    check = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("training_pairs"), check_name="c", passed=True, metadata=shown
    )
    for said in (event, check):
        redacted = deserialize_value(traces.redact(serialize_value(said)), type(said))
        assert redacted.metadata == {
            label: dg.MetadataValue.md(FORGOTTEN),
            "n": dg.IntMetadataValue(1),
        }


@pytest.mark.parametrize(("partition", "left"), [("gone-1", 0), ("stays-2", 1)])
def test_a_preview_on_a_partition_goes_with_its_document_alone(partition, left):
    table = dg.MetadataValue.table(
        [dg.TableRecord({"page": 1, "text": "Nobody knows this any more"})],
        dg.TableSchema([dg.TableColumn("page", "int"), dg.TableColumn("text")]),
    )
    event = dg.AssetMaterialization("chunks", partition=partition, metadata={"preview": table})
    logged = json.dumps({"dagster_event": {"data": json.loads(serialize_value(event))}})
    redacted = json.loads(Traces({"gone-1": "forgotten-1"}).redact(logged))
    read = deserialize_value(json.dumps(redacted["dagster_event"]["data"]), dg.AssetMaterialization)
    preview = read.metadata["preview"]
    assert isinstance(preview, dg.TableMetadataValue)
    assert len(preview.records) == left


@pytest.mark.parametrize(
    "shown",
    [
        '<h4 dir="auto">What is the pump&#39;s highest pressure?</h4><p>x</p>',
        "<li>&#34;et la venderesse d&#39;<b>Acme</b>\nont sign&eacute; l&#39;an dernier&#34;</li>",
        "<i>&Uuml;ber.pdf</i>",
    ],
)
def test_a_page_goes_whatever_signs_and_tags_stand_in_what_it_quotes(tmp_path, shown):
    asked = "What is the pump's highest pressure?"
    long = "Seuls l'acheteur et la venderesse d'Acme ont signé l'an dernier"
    traces = Traces({"Über.pdf": "gone-1"}, [asked, long])
    page, other = tmp_path / "page.html", tmp_path / "other.html"
    page.write_text(f"<html><body>{shown}</body></html>")
    other.write_text("<p>What is the pump&#39;s lowest pressure?</p>")
    assert redact_file(page, traces)
    assert not page.exists()
    assert not redact_file(other, traces)
    assert other.exists()


def test_a_link_to_a_file_that_is_gone_is_nothing_to_redact(tmp_path, traces):
    link = tmp_path / "latest.log"
    link.symlink_to("gone.log")
    assert files_below(tmp_path) == [link]
    assert not redact_file(link, traces)


def cells(file: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def database(tmp_path) -> Path:
    """Events that quote it, in every kind of column, with what was deleted before."""
    file = tmp_path / "events.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, body TEXT, packed BLOB)")
        connection.execute("CREATE TABLE tags (k TEXT, v TEXT, PRIMARY KEY (k, v)) WITHOUT ROWID")
        packed = zlib.compress(json.dumps({"said": TEXT}).encode())
        rows = [(1, json.dumps({"text": TEXT}), packed), (2, "stays", b"\x00\x01")]
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        connection.executemany("INSERT INTO tags VALUES (?, ?)", [("from", "in/secret.pdf")])
        connection.execute("CREATE TABLE old (body TEXT)")
        connection.execute("INSERT INTO old VALUES (?)", (TEXT * 50,))
        connection.execute("DELETE FROM old")
    return file


def test_every_cell_of_a_database_is_redacted_and_no_free_page_remembers(database, traces):
    assert redact_sqlite(database, traces)
    assert cells(database, "SELECT id, body FROM events") == [
        (1, json.dumps({"text": FORGOTTEN})),
        (2, "stays"),
    ]
    ((packed,), (other,)) = cells(database, "SELECT packed FROM events ORDER BY id")
    assert json.loads(zlib.decompress(packed)) == {"said": FORGOTTEN}
    assert other == b"\x00\x01"
    assert cells(database, "SELECT k, v FROM tags") == [("from", "gone-1")]
    for file in database.parent.iterdir():
        assert b"brass" not in file.read_bytes()
    assert not redact_sqlite(database, traces)


def test_a_database_that_is_held_is_not_given_up_in_silence(database, traces):
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyError, match=r"events\.db: held for 0 s by .*process \d+"):
            redact_sqlite(database, traces, patience=0.1)
        other.execute("ROLLBACK")
    assert redact_sqlite(database, traces)


def test_a_report_goes_a_log_keeps_its_length_and_other_files_are_written_anew(tmp_path, traces):
    report, log, table = tmp_path / "r.html", tmp_path / "server.log", tmp_path / "t.parquet"
    report.write_text(f"<p>{TEXT}</p>")
    log.write_text(f"begin\n{TEXT}\nend\n")
    pl.DataFrame({"text": [TEXT, "x"], "ids": [["in/secret.pdf"], []], "n": [1, 2]}).write_parquet(
        table
    )
    size = log.stat().st_size
    assert all(redact_file(file, traces) for file in (report, log, table))
    assert not report.exists()
    assert log.stat().st_size == size
    assert log.read_text().rstrip("\n") == f"begin\n{FORGOTTEN}\nend"
    assert pl.read_parquet(table).rows() == [(FORGOTTEN, ["gone-1"], 1), ("x", [], 2)]
    assert not any(redact_file(file, traces) for file in (log, table))


def test_a_log_that_is_written_to_meanwhile_loses_nothing(tmp_path, traces):
    log = tmp_path / "server.log"
    with log.open("w") as server:
        server.write(f"{TEXT}\n")
        server.flush()
        redact_file(log, traces)
        server.write("later\n")
    assert log.read_text().split() == [FORGOTTEN, "later"]


def test_a_models_files_are_left_alone_but_for_what_people_read(tmp_path):
    model = tmp_path / "models" / "v1"
    (model / "1_Pooling").mkdir(parents=True)
    for name in ("modules.json", "tokenizer.json", "README.md", "1_Pooling/config.json"):
        (model / name).touch()
    for name in ("a.txt", "x.lock", "y.db-wal"):
        (tmp_path / name).touch()
    assert files_below(tmp_path) == [tmp_path / "a.txt", model / "README.md"]
