"""The whole project for Dagster: wiring only."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from embed_assets.automation.everything import everything
from embed_assets.automation.jobs import compact, promote, rollback
from embed_assets.automation.living import executor
from embed_assets.automation.runs import INGEST, TRAIN
from embed_assets.automation.sensors import build_sensors
from embed_assets.automation.state import code_versions
from embed_assets.comparison import assets as comparison_stage
from embed_assets.comparison.checks import became_champion, better_than_base
from embed_assets.documents import assets as documents_stage
from embed_assets.documents.checks import document_is_readable
from embed_assets.evaluation import assets as evaluation_stage
from embed_assets.evaluation.checks import figures_are_fresh, splits_are_filled
from embed_assets.graph import CORPUS_ASSETS, DOCUMENT_ASSETS, GRAPH, SEARCH_INDEX
from embed_assets.machine import Machine, this_machine
from embed_assets.pairs import assets as pairs_stage
from embed_assets.pairs.checks import documents_arrive, no_leakage, peoples_questions_found
from embed_assets.questions import assets as questions_stage
from embed_assets.resources.answers import AnswerStore
from embed_assets.resources.io_manager import DocumentsIOManager
from embed_assets.resources.processes import process_client
from embed_assets.resources.shown_settings import settings_resource
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.resources.worker_memory import share_of_memory
from embed_assets.resources.workers import WorkerPool
from embed_assets.search import assets as search_stage
from embed_assets.search.ways import ask_ways
from embed_assets.secrets import hide_in_logs
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.training import assets as training_stage

MOST_WORKERS = 8
OWNER = "team:retrieval"
UNKNOWN = "no model"
"""Code version of what can't be made now."""
VERDICT_FIRST = "comparison"
"""The asset whose page opens with what came out, and has its columns behind a click: Dagster shows
`dagster/column_schema` above all that a materialization says."""


def build_definitions(
    settings: Settings | None = None, overrides: Mapping[str, Any] | None = None
) -> dg.Definitions:
    """The project for these settings; `overrides` replaces resources by name, for tests."""
    settings = settings or Settings()
    definitions = dg.Definitions(
        assets=[
            *_of_documents(settings),
            pairs_stage.training_pairs,
            evaluation_stage.base_eval,
            training_stage.finetuned_model,
            comparison_stage.comparison,
            search_stage.search_index,
        ],
        asset_checks=[
            document_is_readable,
            no_leakage,
            splits_are_filled,
            documents_arrive,
            peoples_questions_found,
            figures_are_fresh,
            better_than_base,
            became_champion,
        ],
        jobs=[
            dg.define_asset_job(
                INGEST,
                [*DOCUMENT_ASSETS, SEARCH_INDEX],
                description="PDFs become questions, and are found.",
            ),
            dg.define_asset_job(TRAIN, [*CORPUS_ASSETS], description="Questions become a model."),
            everything,
            promote,
            rollback,
            compact,
        ],
        sensors=build_sensors(settings),
        executor=executor(settings),
        resources={**build_resources(settings), **(overrides or {})},
    )
    versions = code_versions(settings) | search_stage.OWN_VERSIONS
    return definitions.map_asset_specs(func=lambda spec: _complete(spec, versions))


def _of_documents(settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of single documents. A backfill of the UI has a run for as many as are set, or for
    each shared partition: that has as many as a run can hold.
    """
    assets = [
        documents_stage.raw_pdfs,
        documents_stage.parsed_markdown,
        documents_stage.chunks,
        questions_stage.synthetic_questions,
        search_stage.chunk_embeddings,
    ]
    most = 1 if settings.partitions else settings.documents_per_run
    policy = dg.BackfillPolicy.multi_run(max_partitions_per_run=most)
    return [asset.with_attributes(backfill_policy=policy) for asset in assets]


def build_resources(settings: Settings) -> dict[str, Any]:
    """Resources by name."""
    warehouse = Warehouse.of(settings)
    return {
        "settings": settings_resource(settings),
        "warehouse": warehouse,
        "answers": AnswerStore.of(settings),
        "io_manager": DocumentsIOManager(
            database=warehouse.path, warehouse=warehouse, partitions=settings.partitions
        ),
        "pool": worker_pool(settings, this_machine()),
        "tracking": Tracking(home=str(settings.home), project=settings.project),
        "pipes": process_client(settings.engine),
        "ask_ways": ask_ways,
    }


def worker_pool(settings: Settings, machine: Machine) -> WorkerPool:
    """The processes that parse PDFs, each with its share of the memory of the machine it is on."""
    if settings.engine == "ray":
        return WorkerPool(engine="ray", processes=settings.workers, timeout=settings.parse_timeout)
    processes = settings.workers or min(MOST_WORKERS, machine.cores)
    return WorkerPool(
        processes=processes,
        timeout=settings.parse_timeout,
        memory_limit_bytes=share_of_memory(machine, processes),
    )


def _complete(spec: dg.AssetSpec, versions: Mapping[str, str]) -> dg.AssetSpec:
    """What holds for every asset: an owner, a code version, its table's columns."""
    name = spec.key.path[-1]
    table = GRAPH[name].table
    columns = "columns" if name == VERDICT_FIRST else "dagster/column_schema"
    metadata: dict[str, Any] = {
        "dagster/table_name": f"main.{table}",
        columns: _column_schema(table),
    }
    if spec.partitions_def is not None:
        metadata["partition_expr"] = "document_id"
    return spec.merge_attributes(metadata=metadata, owners=[OWNER]).replace_attributes(
        code_version=versions.get(name, UNKNOWN)
    )


def _column_schema(name: str) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column_name,
                column.sql,
                description=column.description,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column_name, column in TABLES[name].columns.items()
        ]
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The project under the settings of the environment; made when Dagster asks for it."""
    hide_in_logs()
    return build_definitions()
