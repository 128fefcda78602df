"""A frame either fits its table or says in one line what doesn't."""

from datetime import datetime

import duckdb
import polars as pl
import pytest

from embed_assets.questions.statuses import CORPUS_WIDE, KEPT
from embed_assets.resources.ledger import data_version
from embed_assets.tables import COLUMN_SOURCES, TABLES, TableMismatchError
from embed_assets_tests.rows import question

PAGES = TABLES["parsed_markdown"]


def page_rows(**columns) -> pl.DataFrame:
    """Two rows of parsed_markdown, with some columns replaced."""
    rows = pl.DataFrame(
        {
            "document_id": ["a-1", "a-1"],
            "page": [1, 2],
            "markdown": ["# One", "Two"],
            "parser_status": ["SUCCESS", "SUCCESS"],
            "error": [None, None],
            "parser": ["p", "p"],
            "text_share": [None, None],
            "text_source": [None, None],
        },
        schema=PAGES.schema,
    )
    return rows.with_columns(**columns)


def test_a_frame_that_fits_is_returned_as_it_is():
    assert PAGES.conform(page_rows()).equals(page_rows())


def test_a_missing_column_is_named():
    with pytest.raises(TableMismatchError, match=r"parsed_markdown: missing column markdown$"):
        PAGES.conform(page_rows().drop("markdown"))


def test_an_unknown_column_is_named():
    with pytest.raises(TableMismatchError, match=r"parsed_markdown: unknown column colour$"):
        PAGES.conform(page_rows(colour=pl.lit("red")))


def test_a_renamed_column_is_both_missing_and_unknown():
    with pytest.raises(TableMismatchError, match="missing column page; unknown column page_number"):
        PAGES.conform(page_rows().rename({"page": "page_number"}))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("page", pl.Series(["1", "2"])),
        ("page", pl.Series([1.0, 2.0])),
        ("page", pl.Series([True, False])),
        ("markdown", pl.Series([1, 2])),
        ("markdown", pl.Series([b"x", b"y"])),
    ],
)
def test_a_mistyped_column_is_named_with_both_types(column, values):
    wanted = PAGES.schema[column]
    with pytest.raises(
        TableMismatchError, match=rf"parsed_markdown\.{column}: {values.dtype} where {wanted} bel"
    ):
        PAGES.conform(page_rows(**{column: values}))


def test_a_time_without_a_zone_does_not_pass_for_one_in_utc():
    table = TABLES["models"]
    row = {name: [""] for name in table.columns} | {"trained_at": [datetime(2026, 1, 1)]}
    with pytest.raises(TableMismatchError, match=r"models\.trained_at"):
        table.conform(pl.DataFrame(row))


@pytest.mark.parametrize("nulls", [pl.Series([None, "x"]), pl.Series([None, None])])
def test_a_null_where_a_value_belongs_is_refused(nulls):
    with pytest.raises(TableMismatchError, match=r"parsed_markdown\.markdown: null where"):
        PAGES.conform(page_rows(markdown=nulls))


def test_a_nullable_column_of_nothing_but_nulls_gets_its_type():
    conformed = PAGES.conform(page_rows(error=pl.lit(None)))
    assert conformed.schema["error"] == pl.String


@pytest.mark.parametrize("dtype", [pl.Int8, pl.Int32, pl.UInt32])
def test_a_narrower_integer_widens(dtype):
    conformed = PAGES.conform(page_rows(page=pl.Series([1, 2], dtype=dtype)))
    assert conformed.schema["page"] == pl.Int64
    assert conformed["page"].to_list() == [1, 2]


def test_the_order_of_columns_is_restored():
    shuffled = page_rows().select(sorted(PAGES.columns, reverse=True))
    assert PAGES.conform(shuffled).equals(page_rows())


def test_an_empty_frame_fits():
    assert PAGES.conform(PAGES.empty()).schema == PAGES.schema


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_a_table_is_made_and_takes_its_own_types(table):
    connection = duckdb.connect()
    connection.execute(table.ddl())
    connection.execute(table.ddl())  # made again, it is left alone
    columns = connection.execute(f"DESCRIBE {table.name}").fetchall()
    assert [column[0] for column in columns] == list(table.columns)
    assert {column[0] for column in columns if column[3] == "PRI"} == set(table.key)
    connection.execute("SET TimeZone = 'UTC'")
    rows = connection.execute(f"SELECT * FROM {table.name}").pl()
    assert table.conform(rows).schema == table.schema


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_the_key_and_the_volatile_columns_are_columns_that_are_never_null(table):
    assert {*table.key, *table.volatile} <= set(table.columns)
    assert not any(table.columns[name].nullable for name in table.key)
    assert all(column.description for column in table.columns.values())


def test_duckdb_refuses_two_rows_of_one_key_and_a_null():
    connection = duckdb.connect()
    connection.execute(PAGES.ddl())
    row = page_rows().head(1)
    connection.execute("INSERT INTO parsed_markdown BY NAME SELECT * FROM row")
    with pytest.raises(duckdb.ConstraintException):
        connection.execute("INSERT INTO parsed_markdown BY NAME SELECT * FROM row")
    nameless = row.with_columns(document_id=pl.lit(None, pl.String))
    assert nameless.height == 1
    with pytest.raises(duckdb.ConstraintException):
        connection.execute("INSERT INTO parsed_markdown BY NAME SELECT * FROM nameless")


def test_column_lineage_names_only_columns_that_exist():
    for table, columns in COLUMN_SOURCES.items():
        assert set(columns) <= set(TABLES[table].columns)
        for source in (source for sources in columns.values() for source in sources):
            upstream, _, column = source.partition(".")
            assert column in TABLES[upstream].columns, source


@pytest.mark.parametrize("status", CORPUS_WIDE)
def test_what_is_decided_over_all_documents_later_changes_no_version_of_one(status):
    rows = question("a-1")
    assert TABLES["synthetic_questions"].decided_later == {"status": (KEPT, CORPUS_WIDE)}
    version = data_version("synthetic_questions", rows)
    decided = rows.with_columns(status=pl.lit(status))
    assert data_version("synthetic_questions", decided) == version
    dropped = rows.with_columns(status=pl.lit("VERBATIM"))
    assert data_version("synthetic_questions", dropped) != version
