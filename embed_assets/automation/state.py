"""What the plan is made from, read from the folder, the warehouse and Dagster; and what follows
from a plan for the partitions.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType  # Dagster doesn't export them

from embed_assets.automation.plan import INGEST, Folder, Plan, Policy, Work, first_part, make_plan
from embed_assets.automation.retraining import RetrainingPolicy, Untrained
from embed_assets.automation.runs import work_under_way
from embed_assets.automation.untrained import read_untrained
from embed_assets.comparison import assets as comparison_stage
from embed_assets.comparison.general import general_task
from embed_assets.documents import assets as documents_stage
from embed_assets.documents.checks import evaluations
from embed_assets.documents.entries import Entries, Rules
from embed_assets.documents.folder import (
    FoundDocument,
    find_moved,
    move_documents,
    read_loaded,
    remove_documents,
    survey,
)
from embed_assets.documents.forgotten import read_forgotten
from embed_assets.evaluation import assets as evaluation_stage
from embed_assets.evaluation.baselines import check_baselines
from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.grouping import Grouping, is_shared
from embed_assets.models.card import model_card
from embed_assets.pairs import assets as pairs_stage
from embed_assets.partitions import DOCUMENTS, document_id
from embed_assets.questions import assets as questions_stage
from embed_assets.questions.generation import check_generator
from embed_assets.questions.labelled.files import read_labelled
from embed_assets.resources.current_index import hide_documents
from embed_assets.resources.io_manager import column_lineage
from embed_assets.resources.ledger import Records, read_records
from embed_assets.resources.previews import shown_of_slices
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search import assets as search_stage
from embed_assets.search.building import (
    drop_kept_indexes,
    forget_indexes,
    searched_manifest,
)
from embed_assets.search.wanted import wanted_model
from embed_assets.settings import Settings
from embed_assets.terminal import progress_bar
from embed_assets.training import assets as training_stage
from embed_assets.training.config import check_training
from embed_assets.wording import in_markdown

ADDED_BY_A_STATEMENT = 1000
"""Partitions that Dagster is given at a time: it asks its database for all of them at once, and
many builds of SQLite refuse more than 32,766 values in a statement."""
DELETED_IN_SILENCE = 1000
"""Partitions that take some seconds at most."""
STAGES = (
    documents_stage,
    questions_stage,
    pairs_stage,
    evaluation_stage,
    training_stage,
    comparison_stage,
    search_stage,
)


def code_versions(settings: Settings) -> dict[str, str]:
    """Code version of every asset that can be made under these settings."""
    return {name: v for stage in STAGES for name, v in stage.code_versions(settings).items()}


def check_settings(settings: Settings, warehouse: Warehouse) -> None:
    """SettingsError, before hours of work, where a setting can't be used."""
    documents_stage.how_to_read(settings)
    check_generator(settings)
    read_labelled(settings.labelled_files, settings.labelled_purpose)
    check_training(settings, model_card(settings))
    check_baselines(warehouse, settings)
    general_task(settings)


@dataclass(frozen=True)
class State:
    """All that a plan looks at, but for the time and the person.

    entries: of the folder, as they were found.
    """

    records: Records
    folder: Folder
    partitions: Sequence[str]
    work: Work
    untrained: Untrained
    entries: Entries = field(default_factory=Entries)

    @property
    def pending(self) -> dict[str, FoundDocument]:
        """Documents that are new, or whose files have changed since they were read."""
        loaded = self.folder.loaded
        return {
            key: document
            for key, document in self.folder.found.items()
            if key not in loaded or not loaded[key].is_as(document)
        }

    def with_settling(self, settling: Collection[str]) -> "State":
        """The same, but that these documents' files may still be written to."""
        return replace(self, folder=replace(self.folder, settling=settling))

    def plan(
        self,
        settings: Settings,
        versions: Mapping[str, str],
        *,
        asked_at: datetime | None = None,
        **policy: Any,
    ) -> Plan:
        """The plan as of now. asked_at and others: as in Policy."""
        chosen = Policy(
            code_versions=versions,
            code_version_parts={
                "synthetic_questions": questions_stage.code_version_parts(settings),
                "training_pairs": pairs_stage.code_version_parts(settings),
            },
            parse_timeout=settings.parse_timeout,
            tried_with=documents_stage.how_to_read(settings).tried_with,
            now=datetime.now(UTC),
            asked_at=asked_at,
            lost_share=settings.lost_share,
            retraining=RetrainingPolicy.of(settings),
            grouping=settings.grouping,
            **policy,
        )
        work = self.work
        if asked_at is not None:
            # A person waits for runs at work alone: writers take turns, and what only waits to
            # start may wait for ever.
            work = replace(work, ingesting=False, training=False, indexing=False)
        return make_plan(self.records, self.folder, self.partitions, work, chosen, self.untrained)


def read_state(
    settings: Settings,
    warehouse: Warehouse,
    instance: dg.DagsterInstance | None,
    *,
    trains: bool = True,
) -> State:
    """The state as it is. SettingsError where the folder can't be read. Changes nothing.

    instance: none where Dagster has not been used in this home. trains: whether the plan is asked
    when to train again.
    """
    rules = Rules.of(settings)
    entries = survey(settings.pdfs, rules)
    scanned = entries.documents
    with warehouse.at_once() as at_once:
        forgotten, loaded = read_forgotten(at_once), read_loaded(at_once)
        records = read_records(at_once)
    refused = {file.path: why for file in scanned.values() if (why := forgotten.why_not(file.path))}
    found = {key: file for key, file in scanned.items() if file.path not in refused}
    unseen = {key for key, document in loaded.items() if entries.hide(document.path)}
    seen = {key: document for key, document in loaded.items() if key not in unseen}
    moved = find_moved(settings.pdfs, found, seen, rules)
    return State(
        records,
        Folder(found, loaded, (), moved, refused, entries.odd, unseen),
        instance.get_dynamic_partitions(DOCUMENTS) if instance else (),
        _work(settings, instance),
        read_untrained(warehouse, settings, records) if trains else Untrained(),
        entries,
    )


def recorded_state(settings: Settings, warehouse: Warehouse, instance: dg.DagsterInstance) -> State:
    """The state as if the folder were as it is on record: what is due without a look at it."""
    with warehouse.at_once() as at_once:
        loaded, records = read_loaded(at_once), read_records(at_once)
    found = {
        key: FoundDocument(key, row.path, row.size_bytes, row.modified_at, row.etag)
        for key, row in loaded.items()
    }
    return State(
        records,
        Folder(found, loaded),
        instance.get_dynamic_partitions(DOCUMENTS),
        _work(settings, instance),
        Untrained(),
    )


def _work(settings: Settings, instance: dg.DagsterInstance | None) -> Work:
    work = work_under_way(instance, settings) if instance else Work()
    manifest, wanted = searched_manifest(settings), wanted_model(settings)
    if manifest is None:
        return replace(work, index_lost=True)
    return replace(
        work,
        indexed_at=datetime.fromisoformat(manifest.made_at),
        index_lost=wanted is not None and wanted.identity != manifest.identity,
    )


def list_documents(instance: dg.DagsterInstance, warehouse: Warehouse, settings: Settings) -> Plan:
    """Bring the partitions in line with the folder without ingesting: what a person finds there.

    Gives the plan whose part it carried out: documents that left or moved are those that a sensor
    would take, and so is what waits for a person. Every PDF has its partition, due or not.
    """
    state = read_state(settings, warehouse, instance, trains=False)
    plan = state.plan(settings, code_versions(settings))
    if plan.refused:
        return plan
    there = (key for key in state.folder.found if key not in state.folder.moved)
    plan = replace(first_part(plan), add=tuple(settings.grouping.partitions_of(there)))
    sync_partitions(instance, warehouse, settings, plan, state)
    return plan


def sync_partitions(
    instance: dg.DagsterInstance,
    warehouse: Warehouse,
    settings: Settings,
    plan: Plan,
    state: State,
) -> None:
    """Bring rows and partitions in line with the folder: what moved, what left, what is new."""
    gone = _names_ever(warehouse, plan.remove)
    hide_documents(settings.home, gone)  # a search finds them no more, whatever comes
    if plan.moved:
        move_documents(warehouse, plan.moved, state.folder.found)
    if plan.remove:
        remove_documents(warehouse, plan.remove)
        hide_documents(settings.home, gone)  # also in an index that was begun before
        if warehouse.count("chunks"):
            drop_kept_indexes(settings)
        else:
            forget_indexes(settings)
    grouping, found = settings.grouping, state.folder.found
    add_partitions(instance, [*grouping.partitions_of(plan.moved), *plan.add], state.partitions)
    left = [*plan.remove, *(key for key in plan.moved.values() if key not in found)]
    stay = {*found, *state.folder.loaded}.difference(left) if left else ()
    emptied = grouping.without(grouping.partitions_of(left), stay)
    delete_partitions(instance, dict.fromkeys([*emptied, *plan.strays]))
    if plan.moved:
        paths = {key: state.folder.loaded[before].path for key, before in plan.moved.items()}
        _report_moved(instance, warehouse, settings, paths)
    if plan.moved or plan.remove:  # those that moved have new names, and fewer may be unreadable
        changed = grouping.partitions_of(plan.moved)
        for evaluation in evaluations(instance, warehouse, changed, grouping):
            _report(instance, warehouse, evaluation, plan.moved, grouping)


def add_partitions(
    instance: dg.DagsterInstance, keys: Sequence[str], there: Collection[str]
) -> None:
    """Add those that are not there yet, in their order. there: the partitions that there are."""
    known = set(there)
    new = [key for key in dict.fromkeys(keys) if key not in known]
    for start in range(0, len(new), ADDED_BY_A_STATEMENT):
        instance.add_dynamic_partitions(DOCUMENTS, new[start : start + ADDED_BY_A_STATEMENT])


def delete_partitions(instance: dg.DagsterInstance, keys: Collection[str]) -> None:
    """Delete them, one after the other: Dagster takes no more at once."""
    title = "Removing partitions" if len(keys) > DELETED_IN_SILENCE else None
    with progress_bar(title, len(keys), "partition") as bar:
        for key in keys:
            instance.delete_dynamic_partition(DOCUMENTS, key)
            bar.update()


def _names_ever(warehouse: Warehouse, keys: Sequence[str]) -> list[str]:
    """Ids that documents have, or had under former paths."""
    if not keys:
        return []
    rows = warehouse.read(
        "SELECT path FROM former_paths WHERE document_id IN (SELECT unnest(?::VARCHAR[]))",
        [list(keys)],
    )
    return [*keys, *(document_id(PurePosixPath(path)) for path in rows["path"])]


def _report_moved(
    instance: dg.DagsterInstance,
    warehouse: Warehouse,
    settings: Settings,
    paths_before: Mapping[str, str],
) -> None:
    """Show on the pages that documents have now what is on record of them. paths_before: by id."""
    keys, records = list(paths_before), read_records(warehouse, *DOCUMENT_ASSETS)
    known = records.made.keys() | records.tried.keys()
    questions = questions_stage.shown_on_record(warehouse, settings, keys)
    for asset in DOCUMENT_ASSETS:
        shown = shown_of_slices(warehouse, asset, keys)
        for key, path in paths_before.items():
            if (asset, key) not in known:
                continue
            own = questions[key] if asset == "synthetic_questions" else {}
            partition = settings.grouping.partition_of(key)
            # Of several documents it shows what a run made: that stays.
            shared = is_shared(partition)
            event = dg.AssetObservation if shared else dg.AssetMaterialization
            instance.report_runless_asset_event(
                event(
                    asset,
                    partition=partition,
                    description=f"The file moved; it was {in_markdown(path)} before.",
                    metadata={} if shared else {**own, **shown[key], **column_lineage(asset)},
                )
            )
    if learned := training_stage.learned_from_today(warehouse, keys, settings.grouping):
        instance.report_runless_asset_event(learned)


def _report(
    instance: dg.DagsterInstance,
    warehouse: Warehouse,
    evaluation: Any,
    moved: Iterable[str],
    grouping: Grouping,
) -> None:
    """Report the result of a check: of a partition, as of the run that read a document in it.

    Dagster takes one of a partition that belongs to no run, and a second one breaks it: a document
    may move twice. One of a run it replaces.
    """
    runs = warehouse.read(
        "SELECT dagster_run_id FROM materializations WHERE document_id = $1 "
        "UNION ALL SELECT dagster_run_id FROM attempts WHERE document_id = $1",
        [next((k for k in moved if grouping.partition_of(k) == evaluation.partition), None)],
    )["dagster_run_id"]
    if runs.is_empty():  # of all documents together: then no partition
        instance.report_runless_asset_event(evaluation)
        return
    event = DagsterEvent(
        DagsterEventType.ASSET_CHECK_EVALUATION.value,
        job_name=INGEST,
        event_specific_data=evaluation,
    )
    instance.report_dagster_event(event, run_id=runs[0])
