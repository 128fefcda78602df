"""The documents partition set, the id that names a document, and what is around every asset."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import dagster as dg
from slugify import slugify

from embed_assets.graph import GRAPH
from embed_assets.grouping import DOCUMENTS_PER_RUN
from embed_assets.resources.explaining import said_in_the_ui
from embed_assets.resources.openlineage import Making, is_configured
from embed_assets.settings import Settings

DOCUMENTS = "documents"
documents = dg.DynamicPartitionsDefinition(name=DOCUMENTS)
BATCHES = dg.BackfillPolicy.multi_run(max_partitions_per_run=DOCUMENTS_PER_RUN)


def asset(name: str, kinds: set[str]) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorator of an asset: group, partitions, pool and upstream are those of the graph.

    The inputs of a partitioned asset are the arguments of its function.
    """
    known = GRAPH[name]
    common: dict[str, Any] = {
        "name": name,
        "group_name": known.stage,
        "kinds": kinds,
        "pool": known.pool,
    }
    if not known.partitioned:
        make = dg.asset(**common, deps=list(known.upstream))
        return lambda function: make(said_in_the_ui(function))
    make = dg.asset(**common, partitions_def=documents, backfill_policy=BATCHES)
    return lambda function: make(said_in_the_ui(_told(name, function)))


def _told(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a partitioned asset, of which OpenLineage is told.

    That the asset is complete the IO manager tells, once its rows are stored, and of which
    documents where they share partitions.
    """

    @functools.wraps(function)
    def make(*arguments: Any, **named: Any) -> Any:
        if not is_configured():
            return function(*arguments, **named)
        context = dg.AssetExecutionContext.get()
        run, settings = context.run, named.get("settings")
        shared = isinstance(settings, Settings) and settings.partitions
        documents = () if shared else context.partition_keys
        making = Making(name, run.run_id, run.job_name, context.log, documents)
        making.start()
        with making.failing():
            return function(*arguments, **named)

    return make


def document_id(path: PurePosixPath) -> str:
    """Id of the document at a path relative to the PDF folder: `[a-z0-9-]` only.

    The slug is for people, the eight hex digits of the path's sha256 keep it unique. It names the
    file, not its content, so that a changed file keeps its partition.
    """
    digest = hashlib.sha256(path.as_posix().encode("utf-8", "surrogateescape")).hexdigest()
    slug = slugify(path.with_suffix("").as_posix(), separator="-") or "document"
    return f"{slug}-{digest[:8]}"
