"""What is to be forgotten is taken out of the cells of a Postgres database, as of files."""

from contextlib import closing
from typing import TYPE_CHECKING, Any

from embed_assets.resources.postgres import connect
from embed_assets.resources.redaction import PASSES, Traces, changes

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

AT_ONCE = 1000
"""Rows that are read together."""


def redact_postgres(address: str, traces: Traces) -> bool:
    """Redact every cell of a database's tables; whether there was anything to redact.

    What was deleted before leaves its files too. Logs and backups of Postgres are another's.
    """
    changed = False
    with closing(connect(address)) as session, session.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        tables = [name for (name,) in cursor.fetchall()]
        session.autocommit = False  # rows are read a block at a time
        for _ in range(PASSES):
            if not sum(_redact_table(session, name, traces) for name in tables):
                break
            changed = True
        session.autocommit = True
        cursor.execute("ANALYZE")  # the statistics quote values too
        cursor.execute("VACUUM FULL")
    return changed


def _redact_table(session: Any, table: str, traces: Traces) -> int:
    """Redact a table's cells; how many rows changed."""
    with session.cursor() as cursor:
        cursor.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' "
            "AND table_name = %s AND data_type IN ('text', 'character varying', 'bytea')",
            [table],
        )
        columns = [f'"{name}"' for (name,) in cursor.fetchall()]
        session.commit()
    if not columns:
        return 0
    with session, session.cursor("rows") as reader, session.cursor() as writer:
        reader.itersize = AT_ONCE
        reader.execute(f'SELECT ctid::text, {", ".join(columns)} FROM "{table}"')
        rows = (tuple(_as_bytes(cell) for cell in row) for row in reader)
        found = list(changes(rows, columns, 1, traces))
        for values, place, before in found:
            _update(writer, table, values, place, before)
    return len(found)


def _update(
    cursor: "Cursor",
    table: str,
    values: dict[str, Any],
    place: tuple[Any, ...],
    before: dict[str, Any],
) -> None:
    """Put values in the place of those before, if they still are there.

    Where the redacted row is there already, as that of another document, this one goes.
    """
    from psycopg2.errors import UniqueViolation

    where = " AND ".join(f"{column} = %s" for column in before)
    at = f"ctid = %s::tid AND {where}"
    sets = ", ".join(f"{column} = %s" for column in values)
    cursor.execute("SAVEPOINT before_row")
    try:
        parameters = [*values.values(), *place, *before.values()]
        cursor.execute(f'UPDATE "{table}" SET {sets} WHERE {at}', parameters)
    except UniqueViolation:
        cursor.execute("ROLLBACK TO SAVEPOINT before_row")
        cursor.execute(f'DELETE FROM "{table}" WHERE {at}', [*place, *before.values()])
    cursor.execute("RELEASE SAVEPOINT before_row")


def _as_bytes(cell: Any) -> Any:
    return bytes(cell) if isinstance(cell, memoryview) else cell
