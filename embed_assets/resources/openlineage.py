"""Tells an OpenLineage receiver which asset is made, from what, and how that ended.

Only where OpenLineage's own environment variables name a receiver; nothing is imported elsewhere.
Events are sent by a thread of their own: a receiver that is slow or gone costs the work nothing
but a wait of seconds when the process ends, and one warning. An event names tables, columns,
versions, and documents by their paths in the PDF folder: no text, no folder of this machine, no
message of an error.

https://openlineage.io/docs/spec/object-model
"""

import atexit
import functools
import os
import queue
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from logging import Logger, getLogger
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from embed_assets.graph import GRAPH
from embed_assets.resources.tracking import without_password
from embed_assets.resources.warehouse import digest
from embed_assets.settings import Settings
from embed_assets.tables import COLUMN_SOURCES, TABLES
from embed_assets.wording import counted

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

PRODUCER = "urn:embed-assets"
URL = "OPENLINEAGE_URL"
LISTED = 100
"""Documents that one event names; more are counted."""
MOST_WAITING = 1000
"""Events that wait for a slow receiver; those after them are lost."""
LAST_WAIT = 3.0
"""Seconds that a process waits at its end for what was not sent yet."""


@dataclass(frozen=True)
class Made:
    """What an asset was made from and what came of it.

    inputs: version of each asset upstream, by name. rows: of its table, where they are counted.
    files: sha256 of the PDFs that were read, by path. models: versions of models that it made;
    models_read: those that it was made from.
    """

    version: str
    inputs: Mapping[str, str]
    rows: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    models: Sequence[str] = ()
    models_read: Sequence[str] = ()


@dataclass(frozen=True)
class Making:
    """The making of an asset by a Dagster run, as it is told.

    documents: ids of those that are made, where they are known.
    """

    asset: str
    run_id: str
    job: str
    log: Logger
    documents: Sequence[str] = ()

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Tell of an error in the block, and let it go on."""
        try:
            yield
        except Exception as error:
            self.fail(error)
            raise
        except BaseException:  # Ctrl-C, a signal, Dagster's interruption
            self._tell("ABORT", None)
            raise

    def start(self) -> None:
        """Tell that the work begins."""
        self._tell("START", None)

    def complete(self, made: Callable[[], Made]) -> None:
        """Tell that the work is done. made: asked only where somebody is told."""
        self._tell("COMPLETE", made)

    def fail(self, error: Exception) -> None:
        """Tell that the work failed: the kind of error, as its message may hold anything."""
        self._tell("FAIL", None, type(error).__name__)

    def _tell(self, state: str, made: Callable[[], Made] | None, error: str = "") -> None:
        if not is_configured():
            return
        sender = current_sender()
        try:
            sender.send(_event(self, state, made and made(), error))
        except Exception as failure:  # whatever can't be told, the work goes on
            sender.trouble = sender.trouble or failure
        if said := sender.say_trouble():
            self.log.warning(said)


def is_configured() -> bool:
    """Whether OpenLineage's own environment variables name a receiver."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    return any(
        value and (name in {URL, "OPENLINEAGE_CONFIG"} or name.startswith("OPENLINEAGE__TRANSPORT"))
        for name, value in os.environ.items()
    )


def versions_together(versions: Iterable[str]) -> str:
    """Version of slices together; empty of none."""
    known = sorted(filter(None, versions))
    return known[0] if len(known) == 1 else digest(known) if known else ""


def _sentence(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            "OpenLineage is told nothing: its client is not installed. `pip install "
            "'embed_assets[openlineage]'` brings it; OPENLINEAGE_DISABLED=true ends this warning."
        )
    return f"OpenLineage was not told everything; the work goes on. The error: {_kind(error)}."


def _kind(error: Exception) -> str:
    """The kind of an error: its message may hold an address with a password, of any setting."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"{type(error).__name__}{f', HTTP status {status}' if status else ''}"


def _shown(client: "OpenLineageClient | None") -> str:
    """Where a client sends to, without a password; the kind of receiver where it has no address."""
    transport = client and client.transport
    address = getattr(transport, "url", None)
    if isinstance(address, str):
        return without_password(urlsplit(address)._replace(query="", fragment="").geturl())
    return f"the receiver ({transport.kind})" if transport else "the receiver"


class Sender:
    """Sends events in their order, in a thread of its own.

    trouble: the first thing that went wrong.
    """

    def __init__(self) -> None:
        self._events: queue.Queue[RunEvent] = queue.Queue(MOST_WAITING)
        self.trouble: Exception | None = None
        self._is_said = False
        self._taken = self._sent = 0
        self._client: OpenLineageClient | None = None
        threading.Thread(target=self._work, name="openlineage", daemon=True).start()
        atexit.register(self.finish)

    def send(self, event: "RunEvent") -> None:
        """Take an event, to be sent when those before it are."""
        self._taken += 1
        try:
            self._events.put_nowait(event)
        except queue.Full as error:
            self.trouble = self.trouble or error

    def say_trouble(self) -> str | None:
        """What went wrong, in a sentence; once."""
        if self.trouble is None or self._is_said:
            return None
        self._is_said = True
        return _sentence(self.trouble)

    def finish(self, seconds: float = LAST_WAIT) -> None:
        """Wait for what was not sent yet, but not long, and not for a receiver in trouble.

        The client may be trying still: what it has not sent by then is lost, and counted.
        """
        waiting = self._events.all_tasks_done
        with waiting:
            waiting.wait_for(
                lambda: not self._events.unfinished_tasks, 0 if self.trouble else seconds
            )
            unsent = self._taken - self._sent
        if unsent and not self._is_said:
            self._is_said = True
            why = f"The error: {_kind(self.trouble)}" if self.trouble else "It has not answered yet"
            getLogger(__name__).warning(
                f"OpenLineage was not told everything: {counted(unsent, 'event')} could not be "
                f"sent to {_shown(self._client)}. {why}."
            )

    def _work(self) -> None:
        while True:
            event = self._events.get()
            try:
                # Whoever made the event has imported it: two threads at once would lock.
                from openlineage.client import OpenLineageClient

                self._client = self._client or OpenLineageClient()
                self._client.emit(event)
                self._sent += 1
            except Exception as error:  # of any transport; said by whoever tells next
                self.trouble = self.trouble or error
            finally:
                self._events.task_done()


@functools.cache
def current_sender() -> Sender:
    """The one sender of this process."""
    return Sender()


def _event(making: Making, state: str, made: Made | None, error: str) -> "RunEvent":
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState, set_producer
    from openlineage.client.facet_v2 import (
        error_message_run,
        job_type_job,
        parent_run,
        processing_engine_run,
    )

    set_producer(PRODUCER)
    namespace = os.environ.get("OPENLINEAGE_NAMESPACE") or Settings().project
    parent = parent_run.ParentRunFacet(
        run=parent_run.Run(runId=making.run_id),
        job=parent_run.Job(namespace=namespace, name=making.job),
    )
    engine = processing_engine_run.ProcessingEngineRunFacet(
        version=version("dagster"),
        name="Dagster",
        openlineageAdapterVersion=version("embed_assets"),
    )
    facets: dict[str, Any] = {"parent": parent, "processing_engine": engine}
    if error:
        said = f"{error}. Dagster's run {making.run_id} says more."
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(said, "python")
    kind = job_type_job.JobTypeJobFacet(
        processingType="BATCH", integration="DAGSTER", jobType="ASSET"
    )
    return RunEvent(
        eventType=RunState[state],
        eventTime=datetime.now(UTC).isoformat(),
        run=Run(runId=str(uuid.uuid5(uuid.UUID(making.run_id), making.asset)), facets=facets),
        job=Job(namespace=namespace, name=making.asset, facets={"jobType": kind}),
        inputs=_inputs(namespace, making, made),
        outputs=_outputs(namespace, making, made),
        producer=PRODUCER,
    )


def _inputs(namespace: str, making: Making, made: Made | None) -> "list[InputDataset]":
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import base_subset_dataset

    known = made or Made("", {})
    tables = {
        GRAPH[name].table: known.inputs.get(name, "") for name in GRAPH[making.asset].upstream
    }
    subset = {}
    if making.documents:
        subset["subset"] = base_subset_dataset.InputSubsetInputDatasetFacet(_subset(making))
    files = dict(sorted(known.files.items())[:LISTED])
    return [
        *(
            InputDataset(
                namespace,
                _table(name),
                facets={**_version(v), **_schema(name)},
                inputFacets=subset,
            )
            for name, v in tables.items()
        ),
        *(InputDataset(namespace, f"pdfs/{path}", facets=_version(v)) for path, v in files.items()),
        *(InputDataset(namespace, _model(v), facets=_version(v)) for v in known.models_read),
    ]


def _outputs(namespace: str, making: Making, made: Made | None) -> "list[OutputDataset]":
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import base_subset_dataset, output_statistics_output_dataset

    known, table = made or Made("", {}), GRAPH[making.asset].table
    facets = {**_version(known.version), **_schema(table), **_sources(namespace, making.asset)}
    of_output: dict[str, Any] = {}
    if making.documents:
        of_output["subset"] = base_subset_dataset.OutputSubsetOutputDatasetFacet(_subset(making))
    if known.rows is not None:
        counted = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            rowCount=known.rows
        )
        of_output["outputStatistics"] = counted
    return [
        OutputDataset(namespace, _table(table), facets=facets, outputFacets=of_output),
        *(OutputDataset(namespace, _model(v), facets=_version(v)) for v in known.models),
    ]


def _table(name: str) -> str:
    return f"main.{name}"


def _model(number: str) -> str:
    return f"models/v{number}"


def _subset(making: Making) -> Any:
    """The documents of a run; of more than are listed, their number."""
    from openlineage.client.facet_v2 import base_subset_dataset as subset

    keys = making.documents
    rest = [{"documents": len(keys)}] if len(keys) > LISTED else []
    dimensions = [*({"document_id": key} for key in keys[:LISTED]), *rest]
    return subset.PartitionSubsetCondition([subset.Partition(each) for each in dimensions])


def _version(known: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    facet = dataset_version_dataset.DatasetVersionDatasetFacet
    return {"version": facet(datasetVersion=known)} if known else {}


def _schema(table: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import schema_dataset

    columns = [
        schema_dataset.SchemaDatasetFacetFields(name, column.sql, column.description)
        for name, column in TABLES[table].columns.items()
    ]
    return {"schema": schema_dataset.SchemaDatasetFacet(fields=columns)}


def _sources(namespace: str, asset: str) -> dict[str, Any]:
    """Where the columns of an asset's table come from."""
    from openlineage.client.facet_v2 import column_lineage_dataset as lineage

    fields = {
        column: lineage.Fields(
            [
                lineage.InputField(namespace, _table(table), name)
                for table, _, name in (source.partition(".") for source in sources)
            ]
        )
        for column, sources in COLUMN_SOURCES.get(asset, {}).items()
    }
    return {"columnLineage": lineage.ColumnLineageDatasetFacet(fields)} if fields else {}
