"""Dagster's IO manager of the document-partitioned assets: one slice per document in a table.

The stock IO manager of dagster-duckdb deletes and then inserts outside a transaction, inserts by
position, makes no table for an empty frame and opens every connection for writing. Here a slice is
replaced in one transaction, by column name, in a table made from `tables.py`, together with its
row in the ledger.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.storage.db_io_manager import DbIOManager
from dagster_duckdb import DuckDBIOManager
from dagster_duckdb.io_manager import DuckDbClient
from dagster_duckdb_polars import DuckDBPolarsTypeHandler

from embed_assets.errors import ProjectError
from embed_assets.grouping import Grouping
from embed_assets.resources.explaining import explained
from embed_assets.resources.kept_pages import drop_kept_pages
from embed_assets.resources.ledger import (
    Attempt,
    Materialization,
    Records,
    Slices,
    documents_on_record,
    input_version,
    next_attempt,
    read_records,
    slice_version,
    write_made,
    write_tried,
)
from embed_assets.resources.openlineage import Made, Making, versions_together
from embed_assets.resources.previews import shown_of_partitions, shown_of_slices
from embed_assets.resources.run_tags import BUDGET_TAG
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import COLUMN_SOURCES, TABLES
from embed_assets.wording import printable


class DocumentsIOManager(DuckDBIOManager):
    """Stores the document-partitioned assets: one slice per document in the asset's table.

    partitions: as in Grouping.
    """

    warehouse: dg.ResourceDependency[Warehouse]
    partitions: int = 0

    @staticmethod
    def type_handlers() -> Sequence[DuckDBPolarsTypeHandler]:
        """Frames are polars frames."""
        return [DuckDBPolarsTypeHandler()]

    def create_io_manager(self, context: dg.InitResourceContext) -> "_DocumentsIOManager":
        """The IO manager of one run."""
        return _DocumentsIOManager(
            self.warehouse,
            Grouping(self.partitions),
            db_client=DuckDbClient(),
            database=self.database,
            schema="main",
            type_handlers=self.type_handlers(),
        )


class _DocumentsIOManager(DbIOManager):
    """Replaces the stock reading and writing of slices; what a slice is stays Dagster's."""

    def __init__(self, warehouse: Warehouse, grouping: Grouping, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._warehouse = warehouse
        self._grouping = grouping
        self._versions_read: dict[tuple[str, str], dict[str, str]] = {}

    def load_input(self, context: dg.InputContext) -> pl.DataFrame:
        with explained(context.log):
            return self._load(context)

    def _load(self, context: dg.InputContext) -> pl.DataFrame:
        upstream = context.asset_key.path[-1]
        run = context.step_context.dagster_run
        with self._warehouse.at_once() as warehouse:
            known = partial(documents_on_record, warehouse, upstream)
            keys = documents_of_run(run, context.asset_partition_keys, self._grouping, known)
            return self._load_at_once(context, warehouse, upstream, keys)

    def _load_at_once(
        self, context: dg.InputContext, warehouse: Warehouse, upstream: str, keys: Sequence[str]
    ) -> pl.DataFrame:
        # Versions are read before the rows: should a run change the rows in between, the slice
        # made from them counts as stale rather than as fresh.
        records = read_records(warehouse, upstream, documents=keys)
        if BUDGET_TAG not in context.step_context.dagster_run.tags:  # a person chose the documents
            _check_made(records, upstream, keys)
        versions = {key: records.data_version(upstream, key) for key in keys}
        self._versions_read[context.op_def.name, upstream] = versions
        table = TABLES[upstream]
        columns, order = (
            ", ".join(f'"{name}"' for name in names) for names in (table.columns, table.key)
        )
        rows = warehouse.read(
            f"SELECT {columns} FROM {upstream} WHERE document_id IN (SELECT unnest(?::VARCHAR[])) "
            f"ORDER BY {order}",
            [list(keys)],
        )
        rows = table.conform(rows)
        return warehouse.with_contents(rows) if upstream == "raw_pdfs" else rows

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        with explained(context.log):
            self._tell_and_store(context, obj)

    def _tell_and_store(self, context: dg.OutputContext, obj: object) -> None:
        asset, run = context.asset_key.path[-1], context.step_context.dagster_run
        keys = self._documents(context, asset, obj)
        making = Making(asset, run.run_id, run.job_name, context.step_context.log, keys)
        with making.failing():
            rows, records = self._store(context, asset, keys, obj)
        making.complete(lambda: self._made(asset, rows, records))

    def documents_read(self, asset: str) -> list[str]:
        """Documents of which the step that makes an asset has read slices upstream.

        Others may have been stored in its partitions since.
        """
        read = (versions for (down, _), versions in self._versions_read.items() if down == asset)
        return list(next(read, ()))  # of all that it reads they are the same

    def _documents(self, context: dg.OutputContext, asset: str, obj: object) -> list[str]:
        """Documents of which a step made slices: those that it read, if it reads any."""
        made = [*obj.rows["document_id"], *obj.not_made] if isinstance(obj, Slices) else []
        known, run = self.documents_read(asset) or made, context.step_context.dagster_run
        return self._grouping.documents_of(context.asset_partition_keys, run.tags, lambda: known)

    def _store(
        self, context: dg.OutputContext, asset: str, keys: Sequence[str], obj: object
    ) -> tuple[pl.DataFrame, dict[str, Materialization]]:
        """Write slices and their rows in the ledger; gives both."""
        made = Slices(obj) if isinstance(obj, pl.DataFrame) else obj
        if not isinstance(made, Slices):
            raise TypeError(f"{asset}: {type(obj)} where a polars frame belongs")
        rows = TABLES[asset].conform(made.rows)
        stray = sorted({*rows["document_id"], *made.not_made, *made.incomplete} - set(keys))
        if stray:
            raise ValueError(f"{asset}: rows of documents outside this run: {', '.join(stray)}")
        parts = {key: rows.filter(document_id=key) for key in keys if key not in made.not_made}
        code = made.code_version or context.asset_spec.code_version or ""
        records = {
            key: Materialization(
                code, self._input_version(asset, key), slice_version(asset, part), made.parts
            )
            for key, part in parts.items()
        }
        warehouse = self._warehouse.patient(context.log.warning)  # the work is done
        attempts = self._attempts(warehouse, asset, made, code)
        if asset == "raw_pdfs":
            rows = warehouse.keep_contents(rows)
        with warehouse.transaction() as transaction:
            written = rows.filter(pl.col("document_id").is_in(list(parts)))
            transaction.replace(asset, written, where={"document_id": list(parts)})
            if asset == "parsed_markdown":
                drop_kept_pages(transaction, sorted(records.keys() - made.incomplete.keys()), code)
            write_made(transaction, asset, records, context.run_id)
            write_tried(transaction, asset, attempts, context.run_id)
        self._add_metadata(context, asset, shown_of_slices(warehouse, asset, keys))
        return written, records

    def _made(self, asset: str, rows: pl.DataFrame, records: Mapping[str, Materialization]) -> Made:
        """What was made from what, for OpenLineage."""
        read = {up: v for (down, up), v in self._versions_read.items() if down == asset}
        files = dict(rows.select("path", "sha256").iter_rows()) if asset == "raw_pdfs" else {}
        return Made(
            version=versions_together(record.data_version for record in records.values()),
            inputs={upstream: versions_together(v.values()) for upstream, v in read.items()},
            rows=rows.height,
            files=files,
        )

    def _attempts(
        self, warehouse: Warehouse, asset: str, made: Slices, code: str
    ) -> dict[str, Attempt]:
        failures = {**made.incomplete, **made.not_made}
        if not failures:
            return {}
        before = read_records(warehouse, asset, documents=list(failures)).tried
        now = datetime.now(UTC)
        return {
            key: next_attempt(
                before.get((asset, key)),
                failure,
                code,
                made.looked_at.get(key) or self._input_version(asset, key),
                now,
            )
            for key, failure in failures.items()
        }

    def _input_version(self, asset: str, key: str) -> str:
        read = {up: v for (down, up), v in self._versions_read.items() if down == asset}
        return input_version([versions.get(key, "") for _, versions in sorted(read.items())])

    def _add_metadata(
        self, context: dg.OutputContext, asset: str, shown_of: Mapping[str, Mapping[str, Any]]
    ) -> None:
        add_partition_metadata(context.step_context, context.asset_key, shown_of, self._grouping)
        context.add_output_metadata(column_lineage(asset))


def _check_made(records: Records, upstream: str, keys: Sequence[str]) -> None:
    """ProjectError where nothing is on record of a document: nothing made of it would be green."""
    known = {key for name, key in (*records.made, *records.tried) if name == upstream}
    if missing := [key for key in keys if key not in known]:
        named = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ProjectError(f"{upstream} of {named} is not made yet. Materialize that first.")


def documents_of_run(
    run: dg.DagsterRun,
    partitions: Sequence[str],
    grouping: Grouping,
    known: Callable[[], Collection[str]],
) -> list[str]:
    """Documents that a run makes of those that are known.

    ProjectError where a person chose partitions in which there are none: nothing would show that.
    """
    found = grouping.documents_of(partitions, run.tags, known)
    if not found and BUDGET_TAG not in run.tags:
        raise ProjectError(
            f"There is nothing to make {', '.join(partitions[:3])} of: no PDF in the folder is in "
            "it, or what comes first is not made yet. Materialize that, or press `everything`."
        )
    return found


def documents_read(context: dg.AssetExecutionContext) -> list[str]:
    """Documents of which an asset was given the slices upstream, to make its own of them."""
    return context.resources.io_manager.documents_read(context.asset_key.path[-1])


def add_partition_metadata(
    step: Any, asset: dg.AssetKey, shown_of: Mapping[str, Mapping[str, Any]], grouping: Grouping
) -> None:
    """Add metadata of documents to partitions of a step, as `add_asset_metadata` does for one.

    Dagster reads all keys of the project for each of them, to see whether the run has it.
    """
    metadata = step._metadata_accumulator
    for key, shown in shown_of_partitions(shown_of, grouping).items():
        metadata = metadata.with_additional_asset_metadata(
            asset_key=asset, metadata=shown, partition_key=key
        )
    step._metadata_accumulator = metadata


def warn_of_failures(context: dg.AssetExecutionContext, slices: Slices) -> None:
    """Say in the log why documents are to be tried again."""
    for key, failure in {**slices.incomplete, **slices.not_made}.items():
        context.log.warning(printable(f"{key}: {failure.error}"))


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
