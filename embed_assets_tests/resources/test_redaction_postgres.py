"""What is to be forgotten leaves the cells of a Postgres database too."""

import zlib
from contextlib import closing
from pathlib import Path

import psycopg2

from embed_assets.resources.redaction import Traces
from embed_assets.resources.redaction_postgres import redact_postgres
from embed_assets_tests.postgres import sql

NAME = "secret-report-0a1b2c3d"
TRACES = Traces({NAME: "forgotten-1"})


def test_names_leave_texts_and_compressed_cells_of_every_table(database):
    body = zlib.compress(f'{{"step": "{NAME}"}}'.encode())
    with closing(psycopg2.connect(database)) as session, session, session.cursor() as cursor:
        cursor.execute("CREATE TABLE event_logs (id BIGINT, partition TEXT, body BYTEA, n FLOAT)")
        cursor.execute("CREATE TABLE counts (id BIGINT)")
        cursor.execute("INSERT INTO event_logs VALUES (1, %s, %s, 2.5)", [NAME, body])
        cursor.execute("INSERT INTO event_logs VALUES (2, 'another', NULL, NULL)")
        cursor.execute("INSERT INTO counts VALUES (7)")
    assert redact_postgres(database, TRACES)
    [(_, partition, cell, n), other] = sql(database, "SELECT * FROM event_logs ORDER BY id")
    assert (partition, n) == ("forgotten-1", 2.5)
    assert zlib.decompress(cell) == b'{"step": "forgotten-1"}'
    assert other == (2, "another", None, None)
    assert not redact_postgres(database, TRACES)


def test_of_rows_that_become_the_same_one_stays(database):
    sql(database, "CREATE TABLE dynamic_partitions (partition TEXT PRIMARY KEY)")
    sql(database, f"INSERT INTO dynamic_partitions VALUES ('{NAME}'), ('forgotten-1'), ('kept')")
    assert redact_postgres(database, TRACES)
    left = sql(database, "SELECT partition FROM dynamic_partitions ORDER BY 1")
    assert left == [("forgotten-1",), ("kept",)]


def test_no_byte_of_it_stays_in_the_files_of_the_database(database):
    sql(database, "CREATE TABLE event_logs (event TEXT)")
    sql(database, f"INSERT INTO event_logs SELECT '{NAME} ' || i FROM generate_series(1, 50) i")
    sql(database, "ANALYZE")
    redact_postgres(database, TRACES)
    [(heap,)] = sql(database, "SHOW data_directory")
    [(number,)] = sql(database, "SELECT oid FROM pg_database WHERE datname = current_database()")
    sql(database, "CHECKPOINT")
    files = [file for file in (Path(heap) / "base" / str(number)).iterdir() if file.is_file()]
    assert files
    assert not [file for file in files if NAME.encode() in file.read_bytes()]
