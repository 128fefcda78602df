"""The DuckDB warehouse: everything that touches storage goes through here.

The stock IO manager of dagster-duckdb deletes and then inserts outside a transaction, inserts by
position, makes no table for an empty frame and opens every connection for writing. Here a slice is
replaced in one transaction, by column name, in a table made from `tables.py`; and what a slice was
made from is recorded in that same transaction, so that no crash can part the two.

DuckDB lets either one process write or several read. All take turns through a lock file, with
connections as short as the statement; a program outside (a shell that holds the file open) is
waited for until the same deadline.
"""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
from dagster._core.storage.db_io_manager import DbIOManager
from dagster_duckdb import DuckDBIOManager
from dagster_duckdb.io_manager import DuckDbClient
from dagster_duckdb_polars import DuckDBPolarsTypeHandler
from filelock import FileLock, Timeout

from embed_assets.errors import ProjectError
from embed_assets.tables import COLUMN_SOURCES, TABLES, Table

LOCK_TIMEOUT = 120.0
_LOCK_HOLDER = re.compile(r"lock is held in (.+ \(PID \d+\))")
UNPARTITIONED = ""


class WarehouseBusyError(ProjectError):
    """Another program held the warehouse for longer than the deadline."""


class Warehouse(dg.ConfigurableResource):
    """Reads with SQL, replaces slices of tables, and remembers what each was made from."""

    path: str
    lock_timeout: float = LOCK_TIMEOUT

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Result of a query. Opened read-only; a table never written is empty, a column null."""
        if not Path(self.path).exists():
            self._create_tables()
        try:
            return self._query(sql, parameters)
        except (duckdb.CatalogException, duckdb.BinderException):
            # A table is missing, where the first write was killed half-way, or a column, where an
            # older version made the table.
            self._create_tables()
            return self._query(sql, parameters)

    def _query(self, sql: str, parameters: Sequence[Any]) -> pl.DataFrame:
        with self._connection(read_only=True) as connection:
            return connection.execute(sql, list(parameters)).pl()

    def corpus(self) -> pl.DataFrame:
        """What is searched: chunk_id and chunk_text of each distinct text, by chunk_id."""
        return self.read(
            "SELECT chunk_id, any_value(chunk_text) AS chunk_text FROM chunks "
            "GROUP BY chunk_id ORDER BY chunk_id"
        )

    def count(self, table: str) -> int:
        """Rows in a table."""
        return int(self.read(f"SELECT count(*) AS n FROM {TABLES[table].name}")["n"][0])

    def replace(
        self,
        table_name: str,
        frame: pl.DataFrame,
        where: Mapping[str, Sequence[Any]] | None = None,
        materialized: pl.DataFrame | None = None,
    ) -> None:
        """Replace the rows in which every `where` column has one of its values; all without it.

        `materialized`: rows for the table of materializations, written in the same transaction.
        Raises TableMismatchError before anything is touched if the frame doesn't fit its table.
        """
        table = TABLES[table_name]
        rows = table.conform(frame)
        with self._transaction() as connection:
            _delete(connection, table, where or {})
            _insert(connection, table, rows)
            if materialized is not None:
                _upsert(connection, TABLES["materializations"], materialized)

    def update(self, table_name: str, frame: pl.DataFrame) -> None:
        """Change columns of rows that are there. frame: the table's key, and those columns."""
        table = TABLES[table_name]
        changed = [name for name in frame.columns if name not in table.key]
        assignments = ", ".join(f'"{name}" = new_rows."{name}"' for name in changed)
        same = " AND ".join(f'old."{name}" = new_rows."{name}"' for name in table.key)
        with self._transaction() as connection:
            connection.register("new_rows", frame.to_arrow())
            connection.execute(
                f"UPDATE {table.name} AS old SET {assignments} FROM new_rows WHERE {same}"
            )

    def delete_documents(self, document_ids: Sequence[str]) -> None:
        """Remove every trace of documents that left the folder, in one transaction.

        Splits once given stay on record (a document that comes back must land where it was), and
        so does what past models were trained on.
        """
        tables = (
            "raw_pdfs",
            "parsed_markdown",
            "chunks",
            "synthetic_questions",
            "materializations",
        )
        with self._transaction() as connection:
            for name in tables:
                _delete(connection, TABLES[name], {"document_id": document_ids})

    def record(
        self, asset: str, *, code_version: str, input_version: str, data_version: str, run_id: str
    ) -> None:
        """Remember what an unpartitioned asset was made from."""
        row = materialization_rows(
            asset, {UNPARTITIONED: (input_version, data_version)}, code_version, run_id
        )
        with self._transaction() as connection:
            _upsert(connection, TABLES["materializations"], row)

    def data_versions(
        self, asset: str, document_ids: Sequence[str] | None = None
    ) -> dict[str, str]:
        """Data version by document_id of an asset's partitions; '' is the unpartitioned one."""
        sql = "SELECT document_id, data_version FROM materializations WHERE asset = ?"
        parameters: list[Any] = [asset]
        if document_ids is not None:
            sql += " AND document_id IN (SELECT unnest(?::VARCHAR[]))"
            parameters.append(list(document_ids))
        return dict(self.read(sql, parameters).iter_rows())

    def version_of(self, *assets: str) -> str:
        """One version for everything that these assets hold together; empty slices hold nothing."""
        rows = self.read(
            "SELECT asset, document_id, data_version FROM materializations "
            "WHERE asset IN (SELECT unnest(?::VARCHAR[])) AND data_version <> '' ORDER BY ALL",
            [list(assets)],
        )
        return digest(rows.rows())

    def file_names(self, document_ids: Sequence[str]) -> dict[str, str]:
        """File name by document_id."""
        return {k: p.rpartition("/")[2] for k, p in self.paths(document_ids).items()}

    def paths(self, document_ids: Sequence[str] | None = None) -> dict[str, str]:
        """Path relative to the PDF folder by document_id; of all documents without ids."""
        sql = "SELECT document_id, path FROM raw_pdfs"
        if document_ids is None:
            return dict(self.read(f"{sql} ORDER BY path").iter_rows())
        sql += " WHERE document_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY path"
        return dict(self.read(sql, [list(document_ids)]).iter_rows())

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._connection(read_only=False) as connection:
            connection.begin()
            try:
                for table in TABLES.values():
                    connection.execute(table.ddl)
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextmanager
    def _connection(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self.lock_timeout
        try:
            with FileLock(f"{path}.lock", timeout=self.lock_timeout):
                connection = _connect(path, read_only, deadline)
                try:
                    connection.execute("SET TimeZone = 'UTC'")
                    yield connection
                finally:
                    connection.close()
        except Timeout:
            raise WarehouseBusyError(
                f"{path}: other runs held the warehouse for {self.lock_timeout:.0f} s. "
                "Wait for them to end, or stop them, and try again."
            ) from None

    def _create_tables(self) -> None:
        with self._transaction():
            pass


def _connect(path: Path, read_only: bool, deadline: float) -> duckdb.DuckDBPyConnection:
    while True:
        try:
            return duckdb.connect(path, read_only=read_only)
        except duckdb.IOException as error:
            if "Could not set lock on file" not in str(error):
                raise
            if time.monotonic() > deadline:
                holder = _LOCK_HOLDER.search(str(error))
                raise WarehouseBusyError(
                    f"{path}: another program has the warehouse open "
                    f"({holder[1] if holder else 'unknown'}). "
                    "Close it and try again."
                ) from None
            time.sleep(0.1)


def _delete(
    connection: duckdb.DuckDBPyConnection, table: Table, where: Mapping[str, Sequence[Any]]
) -> None:
    conditions = " AND ".join(f'"{column}" IN (SELECT unnest(?))' for column in where)
    sql = f"DELETE FROM {table.name}" + (f" WHERE {conditions}" if conditions else "")
    connection.execute(sql, [list(values) for values in where.values()])


def _insert(connection: duckdb.DuckDBPyConnection, table: Table, rows: pl.DataFrame) -> None:
    if rows.is_empty():
        return
    connection.register("new_rows", rows.to_arrow())
    connection.execute(f"INSERT INTO {table.name} BY NAME SELECT * FROM new_rows")
    connection.unregister("new_rows")


def _upsert(connection: duckdb.DuckDBPyConnection, table: Table, frame: pl.DataFrame) -> None:
    connection.register("new_rows", table.conform(frame).to_arrow())
    connection.execute(f"INSERT OR REPLACE INTO {table.name} BY NAME SELECT * FROM new_rows")
    connection.unregister("new_rows")


def digest(value: Any) -> str:
    """Sixteen hex digits of the sha256 of a value's representation."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def data_version(table_name: str, rows: pl.DataFrame) -> str:
    """Version of what rows say, whenever and by whom they were made."""
    table = TABLES[table_name]
    lasting = [name for name in table.columns if name not in table.volatile]
    ordered = rows.select(lasting).sort(table.key)
    return hashlib.sha256(ordered.write_ndjson().encode()).hexdigest()[:16]


def materialization_rows(
    asset: str, versions: Mapping[str, tuple[str, str]], code_version: str, run_id: str
) -> pl.DataFrame:
    """Rows for the table of materializations. versions: document_id -> (input, data) version."""
    now = datetime.now(UTC)
    return pl.DataFrame(
        {
            "asset": asset,
            "document_id": list(versions),
            "code_version": code_version,
            "input_version": [input_version for input_version, _ in versions.values()],
            "data_version": [version for _, version in versions.values()],
            "dagster_run_id": run_id,
            "materialized_at": now,
        },
        schema=TABLES["materializations"].schema,
    )


def record_materialization(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    *,
    input_version: str,
    data_version: str,
) -> None:
    """Remember what the unpartitioned asset that is being made is made from."""
    warehouse.record(
        context.asset_key.to_user_string(),
        code_version=context.assets_def.get_asset_spec().code_version or "",
        input_version=input_version,
        data_version=data_version,
        run_id=context.run.run_id,
    )


def column_lineage(table_name: str) -> dict[str, dg.TableColumnLineage]:
    """Metadata that says from which columns upstream an asset's columns come."""
    sources = COLUMN_SOURCES.get(table_name)
    if not sources:
        return {}
    deps = {
        column: [
            dg.TableColumnDep(asset_key=dg.AssetKey(table), column_name=name)
            for table, _, name in (path.partition(".") for path in upstream)
        ]
        for column, upstream in sources.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps)}


class DocumentsIOManager(DuckDBIOManager):
    """Stores the document-partitioned assets: one slice per document in the asset's table."""

    warehouse: dg.ResourceDependency[Warehouse]

    @staticmethod
    def type_handlers() -> Sequence[DuckDBPolarsTypeHandler]:
        """Frames are polars frames."""
        return [DuckDBPolarsTypeHandler()]

    def create_io_manager(self, context: dg.InitResourceContext) -> "_DocumentsIOManager":
        """The IO manager of one run."""
        return _DocumentsIOManager(
            self.warehouse,
            db_client=DuckDbClient(),
            database=self.database,
            schema="main",
            type_handlers=self.type_handlers(),
        )


class _DocumentsIOManager(DbIOManager):
    """Replaces the stock reading and writing of slices; what a slice is stays Dagster's."""

    def __init__(self, warehouse: Warehouse, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._warehouse = warehouse
        self._versions_read: dict[tuple[str, str], dict[str, str]] = {}

    def load_input(self, context: dg.InputContext) -> pl.DataFrame:
        upstream = context.asset_key.path[-1]
        keys = list(context.asset_partition_keys)
        # Versions are read before the rows: should a run change the rows in between, the slice
        # made from them counts as stale rather than as fresh.
        versions = self._warehouse.data_versions(upstream, keys)
        self._versions_read[context.op_def.name, upstream] = versions
        table = TABLES[upstream]
        order = ", ".join(f'"{name}"' for name in table.key)
        rows = self._warehouse.read(
            f"SELECT * FROM {upstream} WHERE document_id IN (SELECT unnest(?::VARCHAR[])) "
            f"ORDER BY {order}",
            [keys],
        )
        return table.conform(rows)

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        if not isinstance(obj, pl.DataFrame):
            raise TypeError(
                f"{context.asset_key.path[-1]}: {type(obj)} where a polars frame belongs"
            )
        asset = context.asset_key.path[-1]
        keys = list(context.asset_partition_keys)
        rows = TABLES[asset].conform(obj)
        stray = sorted(set(rows["document_id"]) - set(keys))
        if stray:
            raise ValueError(f"{asset}: rows of documents outside this run: {', '.join(stray)}")
        by_document = {
            str(key[0]): part
            for key, part in rows.partition_by("document_id", as_dict=True).items()
        }
        parts = {key: by_document.get(key, rows.clear()) for key in keys}
        versions = {
            key: (self._input_version(asset, key), _slice_version(asset, part))
            for key, part in parts.items()
        }
        code_version = context.asset_spec.code_version or ""
        self._warehouse.replace(
            asset,
            rows,
            where={"document_id": keys},
            materialized=materialization_rows(asset, versions, code_version, context.run_id),
        )
        self._add_metadata(context, asset, parts)

    def _input_version(self, asset: str, key: str) -> str:
        read = {up: v for (down, up), v in self._versions_read.items() if down == asset}
        return input_version([versions.get(key, "") for _, versions in sorted(read.items())])

    def _add_metadata(
        self, context: dg.OutputContext, asset: str, parts: Mapping[str, pl.DataFrame]
    ) -> None:
        step = context.step_context
        for key, part in parts.items():
            step.add_asset_metadata(
                {"dagster/partition_row_count": part.height},
                asset_key=context.asset_key,
                partition_key=key,
            )
        context.add_output_metadata(
            {"dagster/table_name": f"main.{asset}", **column_lineage(asset)}
        )


def _slice_version(asset: str, rows: pl.DataFrame) -> str:
    """A PDF's version is its sha256; of everything else, what its rows say; '' of no rows."""
    if rows.is_empty():
        return ""
    if asset == "raw_pdfs":
        return str(rows["sha256"][0])
    return data_version(asset, rows)


def input_version(versions: Sequence[str]) -> str:
    """Version of what a slice is made from: that of its input, or of its inputs together."""
    return versions[0] if len(versions) == 1 else digest(tuple(versions))
