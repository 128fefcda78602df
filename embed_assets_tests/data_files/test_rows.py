"""Rows of a table: the same, whatever file and shape they are in."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from embed_assets.data_files.reading import BadRow, DataFileError
from embed_assets.data_files.rows import read_rows

ROWS = [{"question": "Why?", "page": 3.0}, {"question": "How, then?", "page": None}]
FRAME = pd.DataFrame(ROWS)


def read(file: Path) -> list[Any]:
    """Content of each row; a bad one as its place and reason."""
    rows = read_rows(file, {"question"}, "A row has a question.")
    return [(row.place, row.reason) if isinstance(row, BadRow) else row[1] for row in rows]


def written(file: Path, text: str | bytes) -> list[Any]:
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read(file)


def lines(rows: list[Any]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


JSON: dict[str, Callable[[], str]] = {
    "records": lambda: json.dumps(ROWS),
    "lines": lambda: lines(ROWS),
    "lines of a Mac": lambda: lines(ROWS).replace("\n", "\r"),
    "indented": lambda: json.dumps(ROWS, indent=2),
    "columns": lambda: FRAME.to_json(orient="columns") or "",
    "index": lambda: FRAME.to_json(orient="index") or "",
    "split": lambda: FRAME.to_json(orient="split") or "",
    "table": lambda: FRAME.to_json(orient="table") or "",
    "lists": lambda: json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}),
    "under a name": lambda: json.dumps({"version": 2, "data": ROWS}),
    "rows of the hub": lambda: json.dumps(
        {"features": [{"name": "question"}], "rows": [{"row_idx": 0, "row": r} for r in ROWS]}
    ),
}


@pytest.mark.parametrize("name", ["q.json", "q.jsonl", "q.txt"])
@pytest.mark.parametrize("shape", JSON)
def test_json_is_read_by_its_shape_and_not_by_its_name(tmp_path: Path, shape: str, name: str):
    rows = written(tmp_path / name, JSON[shape]())
    assert [{column: row[column] for column in ROWS[0]} for row in rows] == ROWS


def test_tables_of_arrow_and_parquet_are_read_whatever_their_name(tmp_path: Path):
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "q.parquet")
    feather.write_feather(table, str(tmp_path / "q.feather"), compression="uncompressed")
    with pa.ipc.new_stream(str(tmp_path / "q.arrow"), table.schema) as stream:
        stream.write_table(table)
    (tmp_path / "q.data").write_bytes((tmp_path / "q.parquet").read_bytes())
    for name in ("q.parquet", "q.feather", "q.arrow", "q.data"):
        assert read(tmp_path / name) == ROWS
    torn = (tmp_path / "q.parquet").read_bytes()[:-20]
    for start in (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"):
        (tmp_path / "torn").write_bytes(start + torn[6:])
        with pytest.raises(DataFileError, match="is no file of a dataset"):
            read(tmp_path / "torn")


def test_a_text_of_arrow_that_is_no_utf_8_costs_its_row(tmp_path: Path):
    texts = pa.array([b"Why?", b"Wie l\xe4uft er?"]).cast(pa.binary()).view(pa.string())
    with pa.ipc.new_stream(str(tmp_path / "q.arrow"), pa.schema({"question": pa.string()})) as out:
        out.write_table(pa.table({"question": texts}))
    first, (place, _) = read(tmp_path / "q.arrow")
    assert (first, place) == ({"question": "Why?"}, "row 2")


def test_nan_and_infinity_are_nothing(tmp_path: Path):
    rows = written(tmp_path / "q.json", '[{"question": NaN, "page": -Infinity}]')
    assert rows == [{"question": None, "page": None}]


def test_a_bad_line_costs_itself(tmp_path: Path):
    deep = '{"question": ' + "[" * 100_000 + "]" * 100_000 + "}"
    digits = '{"question": ' + "1" * 10_000 + "}"
    text = [b'\xef\xbb\xbf{"question": "Why?"}', b"{", b"", b'{"question": "l\xe4uft"}']
    text += [deep.encode(), digits.encode(), '{"question": "a\u2028b"}'.encode()]
    rows = written(tmp_path / "q.jsonl", b"\r\n".join(text))
    assert rows[0] == {"question": "Why?"}
    assert rows[-1] == {"question": "a\u2028b"}
    assert [place for place, _ in rows[1:-1]] == ["line 2", "line 4", "line 5", "line 6"]
    assert [reason for _, reason in rows[1:-1]] == [
        "Expecting property name enclosed in double quotes (column 2)",
        "is not UTF-8 text; save it as such",
        "is nested too deeply",
        "holds a number of thousands of digits",
    ]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("q.json", '[{"question": "Why?"},\n{"question": "Ho', "is no JSON: Unterminated .*line 2"),
        ("q.json", "[" * 100_000, "is no JSON: is nested too deeply"),
        ("q.json", '{"name": "x", "files": {"a": 1}}', "holds no rows: an object with 'name', 'f"),
        ("q.json", "[3", "is no JSON"),
        (
            "q.csv",
            "Frage;Datei\nWarum?;a.pdf\n",
            "no header that is known: it begins 'Frage",
        ),
        ("q.txt", "Why should it?\nHow?\n", "no header that is known: it begins 'Why should it"),
    ],
)
def test_a_file_without_rows_says_what_is_there(
    tmp_path: Path, name: str, text: str, complaint: str
):
    with pytest.raises(DataFileError, match=complaint) as caught:
        written(tmp_path / name, text)
    assert len(str(caught.value)) < len(str(tmp_path)) + 300


# CSV.


@pytest.mark.parametrize(
    "text",
    [
        "question,page\nWhy?,3\nHow?,\n",
        "sep=;\r\nquestion;page\r\nWhy?;3\r\nHow?;\r\n",
        "\ufeffquestion|page\nWhy?|3\nHow?|\n",
        "Questions of March\n\nby A. B., reviewed\nquestion\tpage\nWhy?\t3\nHow?\t\n",
        "question,page,,\nWhy?,3,,\n,,,\n\nHow?,,,\n",
        '"question","page"\r"Why?","3"\r"How?",""',
        "question,page,question\nWhy?,3,\n,,How?\n",
    ],
    ids=["plain", "sep", "bar", "preamble", "empty columns", "old Mac", "one name twice"],
)
def test_a_csv_is_read_as_spreadsheets_write_it(tmp_path: Path, text: str):
    for name in ("q.csv", "q.tsv", "q", "q.jsonl"):
        rows = written(tmp_path / name, text)
        assert [(row["question"], row["page"]) for row in rows] == [("Why?", "3"), ("How?", "")]


def test_a_csv_of_excel_in_utf_16_is_read(tmp_path: Path):
    text = 'question\tpage\r\n"Läuft er\nnoch?"\t3\r\n'
    assert written(tmp_path / "q.csv", text.encode("utf-16")) == [
        {"question": "Läuft er\nnoch?", "page": "3"}
    ]


def test_a_bad_row_of_a_csv_costs_itself(tmp_path: Path):
    text = (
        'question,page\nWhy?,1\n"Why"x,2\nWhy?,3,and more\nquestion,page\n'
        '"How, and\nwhere?",4\n"Never closed,5\nWhen?,6\n'
    )
    assert written(tmp_path / "q.csv", text) == [
        {"question": "Why?", "page": "1"},
        ("row 3", "',' expected after '\"'"),
        ("row 4", "more cells than the header has"),
        ("row 5", "repeats the header"),
        {"question": "How, and\nwhere?", "page": "4"},
        ("row 7", "unexpected end of data"),
        {"question": "When?", "page": "6"},
    ]


def test_a_cell_may_be_longer_than_csv_readers_expect(tmp_path: Path):
    long = "word " * 100_000
    rows = written(tmp_path / "q.csv.gz", gzip.compress(f"question\n{long}\n".encode()))
    assert rows == [{"question": long}]
