"""What every unpartitioned asset does around its work: versions, MLflow run, ledger, result."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from embed_assets.errors import BusyError, ProjectError, one_line
from embed_assets.graph import GRAPH
from embed_assets.resources.io_manager import column_lineage
from embed_assets.resources.ledger import (
    UNPARTITIONED,
    Attempt,
    Cause,
    Failure,
    Materialization,
    Records,
    next_attempt,
    read_records,
    write_made,
    write_tried,
)
from embed_assets.resources.openlineage import Made, Making, versions_together
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Transaction, Warehouse
from embed_assets.secrets import hide_secrets
from embed_assets.wording import counted, in_markdown


@dataclass
class Materializing:
    """An unpartitioned asset that is being made.

    warehouse: waits for others as long as it must, that no work is lost.
    input_version: of what it is made from, read before the work. run_id: its MLflow run; empty
    where it has none. made_in: an earlier MLflow run, where that one did the work.
    """

    context: dg.AssetExecutionContext
    warehouse: Warehouse
    tracking: Tracking | None
    asset: str
    code_version: str
    input_version: str
    run_id: str
    before: Attempt | None
    data_version: str = ""
    made_in: str = ""

    @contextmanager
    def storing(
        self,
        *,
        data_version: str | None = None,
        parts: Mapping[str, str] | None = None,
        incomplete: Failure | None = None,
    ) -> Iterator[Transaction]:
        """A transaction in which the asset is written, and its row in the ledger with it.

        data_version: the MLflow run's id without. parts: versions of its parts by name. incomplete:
        why it is to be made again though nothing has changed.
        """
        self.data_version = data_version or self.run_id
        made = Materialization(
            self.code_version, self.input_version, self.data_version, parts or {}
        )
        with self.warehouse.transaction() as transaction:
            yield transaction
            write_made(transaction, self.asset, {UNPARTITIONED: made}, self.context.run.run_id)
            if incomplete:
                self._write_attempt(transaction, incomplete)

    def result(self, **metadata: Any) -> dg.MaterializeResult:
        """The materialization for Dagster: the metadata in its order, then the MLflow run."""
        links = self.tracking.metadata(self.made_in or self.run_id) if self.tracking else {}
        return dg.MaterializeResult(
            data_version=dg.DataVersion(self.data_version),
            metadata={**metadata, **links, **column_lineage(self.asset)},
        )

    def record_failure(self, error: Exception) -> None:
        """Remember in the ledger that the asset could not be made, and why."""
        said = one_line(hide_secrets(f"{type(error).__name__}: {error}"))
        with self.warehouse.transaction() as transaction:
            self._write_attempt(transaction, Failure(Cause.FAILED, said))

    def _write_attempt(self, transaction: Transaction, failure: Failure) -> None:
        code, inputs, now = self.code_version, self.input_version, datetime.now(UTC)
        tried = {UNPARTITIONED: next_attempt(self.before, failure, code, inputs, now)}
        write_tried(transaction, self.asset, tried, self.context.run.run_id)


@contextmanager
def materializing(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    tracking: Tracking | None = None,
    label: str = "",
    checks: Sequence[str] = (),
) -> Iterator[Materializing]:
    """Around the work of an unpartitioned asset: what it is made from, its MLflow run, its failure.

    tracking: where its MLflow run is; without, it has none. label: says in MLflow which one it is.
    checks: names of the asset's checks, which Dagster leaves out where the asset fails.
    """
    asset = context.asset_key.path[-1]
    records = read_records(warehouse)
    try:
        _check_ingested(warehouse)
    except ProjectError as error:
        _tell_checks(context, checks, error)
        raise
    in_mlflow = tracking.run(context, f"{asset} {label}".strip()) if tracking else nullcontext("")
    told = Making(asset, context.run.run_id, context.run.job_name, context.log)
    told.start()
    with told.failing(), in_mlflow as run_id:
        made = Materializing(
            context=context,
            warehouse=warehouse.patient(context.log.warning),
            tracking=tracking,
            asset=asset,
            code_version=context.assets_def.get_asset_spec().code_version or "",
            input_version=records.input_version(asset),
            run_id=run_id,
            before=records.tried.get((asset, UNPARTITIONED)),
        )
        try:
            yield made
        except BusyError:
            raise
        except Exception as error:
            made.record_failure(error)
            _tell_checks(context, checks, error)
            raise
    told.complete(lambda: _made(made, records))


def _made(making: Materializing, records: Records) -> Made:
    """What was made from what, for OpenLineage. records: of before the work."""
    versions: dict[str, list[str]] = {name: [] for name in GRAPH[making.asset].upstream}
    for (asset, _), row in records.made.items():
        if asset in versions:
            versions[asset].append(row.data_version)
    models = "SELECT version, trained_from FROM models"
    newest = making.warehouse.read(f"{models} ORDER BY trained_at DESC LIMIT 1")
    # By the Dagster run: a training that was taken up has the MLflow run of an earlier one.
    trained = making.warehouse.read(
        f"{models} WHERE dagster_run_id = ?", [making.context.run.run_id]
    )
    if making.asset != "finetuned_model":
        trained = trained.clear()
    read = newest["version"] if "finetuned_model" in versions else trained["trained_from"]
    return Made(
        version=making.data_version,
        inputs={name: versions_together(known) for name, known in versions.items()},
        models=list(trained["version"]),
        models_read=list(read.drop_nulls()),
    )


def _check_ingested(warehouse: Warehouse) -> None:
    """ProjectError where there is no text to make anything of."""
    if warehouse.count("chunks"):
        return
    documents = warehouse.count("raw_pdfs")
    if documents:
        raise ProjectError(
            f"Of {counted(documents, 'document')} on record none has any text: there is nothing to "
            "learn from. The check document_is_readable says why, document by document."
        )
    raise ProjectError(
        "Nothing is ingested yet: launch the job `everything` (Jobs, everything, Launchpad, Launch "
        "Run), or run `embed-assets run`."
    )


def _tell_checks(
    context: dg.AssetExecutionContext, checks: Sequence[str], error: Exception
) -> None:
    """Give the results of the checks of an asset that could not be made."""
    asset = context.asset_key
    for name in checks:
        evaluation: Any = dg.AssetCheckEvaluation(  # Dagster takes it, though its types don't
            asset_key=asset,
            check_name=name,
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{asset.path[-1]} could not be made: {in_markdown(one_line(str(error)))}",
        )
        context.log_event(evaluation)
