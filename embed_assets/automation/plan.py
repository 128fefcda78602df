"""The plan: every step that is due with its reason, and everything that waits with its reason.

A pure function of what is on record, of the folder and of the time. The command and the sensors
carry it out, `embed-assets status` prints it, and nothing else decides what is stale. It looks at
states, never at events: what one plan misses the next one sees.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import NamedTuple

from embed_assets.automation.retraining import RetrainingPolicy, Untrained, at
from embed_assets.documents.folder import FoundDocument, Loaded, first_moves
from embed_assets.graph import CORPUS_ASSETS, DOCUMENT_ASSETS, GRAPH, SEARCH_INDEX, made_from
from embed_assets.grouping import ONE_EACH, Grouping, is_shared
from embed_assets.resources.ledger import (
    NEVER_BY_ITSELF,
    PEOPLES_ROWS,
    UNPARTITIONED,
    Attempt,
    Cause,
    Records,
)
from embed_assets.wording import counted

BYTES_PER_RUN = 256_000_000
"""A run holds the bytes of all its documents in memory."""
BYTES_OF_A_LARGE_DOCUMENT = 8_000_000
"""For one so large no smaller one waits: a run stores all of its documents together."""
MOVES_AT_ONCE = 128
"""Documents that are moved at a time: Dagster takes .05 s for each asset of each, and a tick of a
sensor has sixty seconds."""
REMOVALS_AT_ONCE = 1024
"""Documents that are removed at a time: Dagster takes .02 s for the partition of each."""
ADDITIONS_AT_ONCE = 10_000
"""Partitions that a tick adds, in half a second. There are more where Dagster's history is new."""
INGEST = "ingest"
"""The job in which documents become questions."""
EMBEDDINGS = "chunk_embeddings"
FOLDER = "folder"
"""What waits where documents were lost."""
NEW, CHANGED_FILE = "new", "the file has changed"
NOT_MADE, OTHER_CODE, OTHER_INPUT = (
    "not made yet",
    "its code or settings have changed",
    "what it is made from has changed",
)
NO_MODEL = (
    "it is not known which model is the champion, or its folder is gone: `embed-assets run` asks "
    "MLflow"
)
OTHER_QUESTIONS = "the files of people's questions have changed"
INDEX_PAUSE = timedelta(minutes=10)
"""From one index to the next while documents are still due: to make one takes all of them."""
FORGOTTEN = "the newest version learned from a document that was forgotten"


@dataclass(frozen=True)
class Folder:
    """What is in the PDF folder, and what was read from it.

    found: documents by id. loaded: what is on record of those that were read. settling: ids of
    files that may still be written to. moved: id under which a document is found now -> its id
    before. forgotten: paths of files in the folder that may not come in, and why; they are not in
    `found`. odd: paths of what can't be read there, and why. unseen: ids of documents on record
    that may be there, hidden by something odd.
    """

    found: Mapping[str, FoundDocument] = field(default_factory=dict)
    loaded: Mapping[str, Loaded] = field(default_factory=dict)
    settling: Collection[str] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    forgotten: Mapping[str, str] = field(default_factory=dict)
    odd: Mapping[str, str] = field(default_factory=dict)
    unseen: Collection[str] = ()

    @property
    def gone(self) -> list[str]:
        """Ids of documents on record that are no longer in the folder, nor have moved in it."""
        kept = {*self.found, *self.moved.values(), *self.unseen}
        return [key for key in self.loaded if key not in kept]


@dataclass(frozen=True)
class Work:
    """What is under way.

    ingesting: whether a run makes documents, or waits to. training: whether a run makes what is
    made of all of them, or waits to. indexing: whether a run makes the search index, or waits to.
    busy: whether a run is at work, one that waits left out, or a training that outlived its run.
    paused_until, training_paused_until: when to ask for an ingest, or for a training, again, after
    those that failed. indexed_at: when the search index was made. index_lost: whether it is gone
    that was made. index_paused_until: when to ask for it again, after runs that failed.
    """

    ingesting: bool = False
    training: bool = False
    indexing: bool = False
    busy: bool = False
    paused_until: datetime | None = None
    training_paused_until: datetime | None = None
    indexed_at: datetime | None = None
    index_lost: bool = False
    index_paused_until: datetime | None = None


@dataclass(frozen=True)
class Step:
    """Assets to make in order, for these documents; for all together without any.

    again: whether nothing is new but that it is time for another try.
    """

    assets: tuple[str, ...]
    documents: tuple[str, ...]
    reason: str
    again: bool = False


class Until(Enum):
    """What somebody waits for."""

    LATER = auto()
    """A time, or a change."""
    RUN_ENDS = auto()
    PERSON = auto()
    """A person's agreement."""


@dataclass(frozen=True)
class Wait:
    """What waits: a document's path, an asset, INGEST or FOLDER; why, and for what."""

    what: str
    reason: str
    until: Until = Until.LATER


@dataclass(frozen=True)
class Plan:
    """What is to be done. refused: why nothing is, until a person agrees.

    add: partitions. remove: documents, by id. strays: partitions to remove that no document on
    record, or in the folder, is in; those that a document had for itself are in `remove` too.
    moved: as in Folder. lost: documents on record that are no longer in the folder, and stay on
    record until a person agrees. documents_first: whether documents come before what is made of
    all of them.
    """

    steps: tuple[Step, ...] = ()
    waiting: tuple[Wait, ...] = ()
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    documents_first: bool = False
    refused: str | None = None

    @property
    def document_steps(self) -> tuple[Step, ...]:
        """Steps of single documents."""
        return tuple(step for step in self.steps if step.documents)

    @property
    def index_step(self) -> Step | None:
        """The step that makes the search index, if it is due."""
        return next((step for step in self.steps if step.assets == (SEARCH_INDEX,)), None)

    @property
    def corpus_step(self) -> Step | None:
        """The step that makes a model or its figures of all documents together, if it is due."""
        others = (step for step in self.steps if not step.documents)
        return next((step for step in others if step.assets != (SEARCH_INDEX,)), None)

    @property
    def changes_documents(self) -> bool:
        """Whether documents come, go, move or are made."""
        return bool(self.document_steps or self.add or self.remove or self.strays or self.moved)


@dataclass(frozen=True)
class Policy:
    """What the plan goes by. code_versions: by asset that can be made. parse_timeout: a worker has
    so many seconds for an item.

    asked_at: when a person asked; what was tried in vain before is tried once more, and no training
    waits. budget_since: since when there is a new budget for language models. agreed: whether a
    person agreed to the loss of documents. lost_share: of the documents on record, that may leave
    at once without it. put_off_since: since when documents have come before a training.
    ingests: whether somebody asks for the documents that are due. code_version_parts: by asset, of
    those whose code version consists of several, by name. tried_with: by cause, version of what
    would be tried now. grouping: of documents into partitions.
    """

    code_versions: Mapping[str, str]
    parse_timeout: float
    now: datetime
    asked_at: datetime | None = None
    budget_since: datetime | None = None
    agreed: bool = False
    lost_share: float = 1.0
    retraining: RetrainingPolicy = field(default_factory=RetrainingPolicy)
    put_off_since: datetime | None = None
    ingests: bool = True
    code_version_parts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tried_with: Mapping[Cause, str] = field(default_factory=dict)
    grouping: Grouping = ONE_EACH

    def tries_again(self, attempt: Attempt) -> bool:
        """Whether it is time for another try of what nothing has changed about."""
        limit = attempt.failure.limit
        if limit is not None and limit < self.parse_timeout:
            return True
        by = attempt.failure.other_means
        means = by and self.tried_with.get(by)
        if means and means != attempt.failure.tried_with:
            return True
        if attempt.failure.cause in NEVER_BY_ITSELF - {Cause.NOT_ASKED}:
            return False
        set_back = attempt.tried_at > self.now  # the clock was: no time counts from there
        if self.asked_at is not None and (set_back or attempt.tried_at < self.asked_at):
            return True
        if attempt.failure.cause is Cause.NOT_ASKED:
            since = self.budget_since
            return since is not None and (set_back or attempt.tried_at < since)
        return attempt.next_at is not None and (set_back or attempt.next_at <= self.now)


def make_plan(
    records: Records,
    folder: Folder,
    partitions: Sequence[str],
    work: Work,
    policy: Policy,
    untrained: Untrained | None = None,
) -> Plan:
    """What is due and what waits. partitions: keys that Dagster knows, oldest first."""
    untrained, partition_of = untrained or Untrained(), policy.grouping.partition_of
    kept = {*folder.found, *folder.moved.values(), *folder.unseen}
    lost = [] if policy.agreed else folder.gone
    if lost and len(lost) == len(folder.loaded):
        several = f"none of the {len(lost):,} documents on record is in the folder"
        said = several if len(lost) > 1 else "the only document on record isn't in the folder"
        return Plan(refused=said, lost=tuple(lost))
    waiting = [Wait(path, why) for path, why in (*folder.forgotten.items(), *folder.odd.items())]
    # A person deletes one document now and then; a folder that is half there loses many.
    if len(lost) > max(1, policy.lost_share * len(folder.loaded)):
        waiting.append(Wait(FOLDER, _loss(lost, folder, policy), Until.PERSON))
    else:
        lost = []
    stays = kept.union(lost)
    strays = policy.grouping.without(partitions, stays.union(folder.loaded))
    # All that is known of a document may be a partition of its own, or that it was tried in vain.
    left = [key for key in strays if not is_shared(key)]
    left += [*folder.loaded, *(key for _, key in records.tried if key != UNPARTITIONED)]
    gone = [key for key in dict.fromkeys(left) if key not in stays]
    moved = folder.moved
    if work.busy or work.ingesting:
        for keys, what in ((gone, "gone"), (moved, "moved")):
            reason = f"{what}, and a run may still use it"
            waiting += [Wait(_path(folder, key), reason, Until.RUN_ENDS) for key in keys]
        gone, strays, moved = [], [], {}
    found = [key for key in folder.found if key not in folder.moved]
    groups: dict[_Due, list[str]] = defaultdict(list)
    if work.ingesting:
        reason = "a run ingests: documents are looked at when it has ended"
        waiting.append(Wait(INGEST, reason, Until.RUN_ENDS))
        found = []
    for key in found:
        if key in folder.settling:
            waiting.append(Wait(_path(folder, key), "still changing"))
            continue
        found_due = _document_due(key, records, folder, policy)
        if isinstance(found_due, Wait):
            waiting.append(found_due)
        elif found_due is not None:
            groups[found_due].append(key)
    steps = [Step(due.assets, tuple(keys), *due[1:]) for due, keys in groups.items()]
    if not work.ingesting:
        made_for = {key for step in steps for key in step.documents}
        elsewhere = {*gone, *moved.values(), *made_for}
        left = [key for key in _embeddings_left(records, policy) if key not in elsewhere]
        steps += [Step((EMBEDDINGS,), tuple(left), OTHER_CODE)] if left else []
    # Those on record too: a run that was killed between the two may have left one out.
    due = {key for step in steps for key in step.documents}
    lacking = set(map(partition_of, folder.loaded.keys() | due)).difference(partitions)
    add = [key for key in policy.grouping.partitions_of(found) if key in lacking]
    pause = work.paused_until if policy.asked_at is None else None
    if due and pause and pause > policy.now:
        said = f"the last ingest failed or was stopped; {counted(len(due), 'document')} due"
        waiting.append(Wait(INGEST, f"{said}: tried again from {at(pause)} on"))
        steps = []
    index, index_waits = _index_due(records, work, policy, documents_due=bool(steps))
    waiting += index_waits
    # No training waits for embeddings that search is prepared with.
    documents_first = bool(
        (any(step.assets != (EMBEDDINGS,) for step in steps) and policy.ingests)
        or gone
        or moved
        or any(w.until is Until.RUN_ENDS for w in waiting)
    )
    if documents_first and not _overdue(work, untrained, policy):
        waiting.append(Wait("training_pairs", "documents come first"))
    else:
        corpus, waits = _corpus_due(records, work, policy, untrained)
        waiting += waits
        steps += [corpus] if corpus else []
    return Plan(
        steps=(*steps, *index),
        waiting=tuple(waiting),
        add=tuple(add),
        remove=tuple(gone),
        strays=tuple(strays),
        moved=moved,
        lost=tuple(lost),
        documents_first=documents_first,
    )


def first_part(plan: Plan) -> Plan:
    """What of a plan one tick does with partitions. What is left over is due at the next."""
    return replace(
        plan,
        add=plan.add[:ADDITIONS_AT_ONCE],
        remove=plan.remove[:REMOVALS_AT_ONCE],
        strays=plan.strays[:REMOVALS_AT_ONCE],
        moved=first_moves(plan.moved, MOVES_AT_ONCE),
    )


def _loss(lost: Sequence[str], folder: Folder, policy: Policy) -> str:
    """That so many documents are gone that a person has to agree."""
    paths = ", ".join(sorted(_path(folder, key) for key in lost)[:3])
    more = ", …" if len(lost) > 3 else ""
    return (
        f"{len(lost)} of the {len(folder.loaded)} documents on record are gone ({paths}{more}): "
        f"more than {100 * policy.lost_share:.0f} % at once wait until a person agrees"
    )


def _overdue(work: Work, untrained: Untrained, policy: Policy) -> bool:
    """Whether what changed has waited so long that no more documents come before it.

    Where documents never cease to come there would be no training at all.
    """
    if policy.asked_at is not None or work.training:
        return False
    since = policy.put_off_since
    return (
        untrained.forgotten
        or policy.retraining.waited(untrained, policy.now)
        or (since is not None and since + policy.retraining.longest(untrained) <= policy.now)
    )


class _Due(NamedTuple):
    """What is due of a document: as of Step."""

    assets: tuple[str, ...]
    reason: str
    again: bool = False


def _document_due(key: str, records: Records, folder: Folder, policy: Policy) -> _Due | Wait | None:
    """Assets of a document to make in order, and why: the first that is stale, all made from it."""
    document, loaded = folder.found[key], folder.loaded.get(key)
    for place, asset in enumerate(DOCUMENT_ASSETS):
        reason = _reason(asset, key, records, policy)
        changed = bool(place == 0 and loaded and not loaded.is_as(document))
        tried = records.tried.get((asset, key))
        if reason is None and tried is None and not changed:  # as almost all are, of very many
            continue
        assets = tuple(
            name
            for name in DOCUMENT_ASSETS[place:]
            if name in policy.code_versions
            and (name == asset or asset in made_from(name) or _reason(name, key, records, policy))
        )
        if reason is None and changed:
            # Perhaps only the file's time has changed: reading it tells.
            assets, reason = (asset,), CHANGED_FILE
        inputs = document.version if place == 0 else records.input_version(asset, key)
        if tried is not None and tried.is_about(policy.code_versions.get(asset, ""), inputs):
            if policy.tries_again(tried):
                return _Due(assets, f"tried in vain before: {tried.failure.cause}", again=True)
            if reason is not None:
                return Wait(document.path, _again(tried))
        if reason is not None:
            return _Due(assets, NEW if place == 0 and reason == NOT_MADE else reason)
    return None


def _index_due(
    records: Records, work: Work, policy: Policy, *, documents_due: bool
) -> tuple[list[Step], list[Wait]]:
    """The step that makes the search index, or why it waits.

    Of all documents by one model: while the embeddings of some are of another one, and until these
    are made anew, search goes on with the index that there is.
    """
    if SEARCH_INDEX not in policy.code_versions:
        chunks = any(
            name == "chunks" and row.data_version for (name, _), row in records.made.items()
        )
        return [], [Wait(SEARCH_INDEX, NO_MODEL)] if chunks else []
    made = [row for (name, _), row in records.made.items() if name == EMBEDDINGS]
    if not any(row.data_version for row in made):
        return [], []
    reason = _reason(SEARCH_INDEX, UNPARTITIONED, records, policy)
    if reason is None and work.index_lost:
        reason = NOT_MADE
    tried = records.tried.get((SEARCH_INDEX, UNPARTITIONED))
    inputs = records.input_version(SEARCH_INDEX)
    if tried and tried.is_about(policy.code_versions[SEARCH_INDEX], inputs):
        if policy.tries_again(tried):
            reason = reason or f"tried in vain before: {tried.failure.cause}"
        elif reason:
            return [], [Wait(SEARCH_INDEX, _again(tried))]
    if reason is None or work.indexing:
        return [], []
    if others := sum(row.code_version != policy.code_versions[EMBEDDINGS] for row in made):
        said = f"{counted(others, 'document')} not embedded by the model of now yet"
        return [], [Wait(SEARCH_INDEX, f"{said}: search goes on with the index that there is")]
    due_again = work.indexed_at and work.indexed_at + INDEX_PAUSE
    pause = work.index_paused_until if policy.asked_at is None else None
    if pause and pause > policy.now:
        return [], [Wait(SEARCH_INDEX, f"the last run failed; tried again from {at(pause)} on")]
    documents_first = policy.asked_at is None and (documents_due or work.ingesting)
    if documents_first and due_again and due_again > policy.now:
        return [], [Wait(SEARCH_INDEX, "documents come first")]
    return [Step((SEARCH_INDEX,), (), reason)], []


def _corpus_due(
    records: Records, work: Work, policy: Policy, untrained: Untrained
) -> tuple[Step | None, list[Wait]]:
    """The assets over all documents to make now, in order, and those that wait.

    When the pairs are stale and all else is as it was, the pairs alone are made first: only then is
    it known whether what is made from them is stale.
    """
    chosen: dict[str, str] = {}
    waiting: list[Wait] = []
    held: set[str] = set()
    for asset in CORPUS_ASSETS:
        upstream = [name for name in GRAPH[asset].upstream if not GRAPH[name].partitioned]
        if name := next((name for name in upstream if name in held), None):
            waiting.append(Wait(asset, f"{name} waits"))
            held.add(asset)
            continue
        tried = records.tried.get((asset, UNPARTITIONED))
        reason = _corpus_reason(asset, records, policy, untrained)
        inputs = records.input_version(asset)
        # A failure says nothing of what is up to date: its run may have had settings of its own.
        counts = tried and (reason is not None or tried.failure.cause is not Cause.FAILED)
        if tried and counts and tried.is_about(policy.code_versions[asset], inputs):
            if policy.tries_again(tried):
                reason = reason or f"tried in vain before: {tried.failure.cause}"
            elif reason is not None:
                waiting.append(Wait(asset, _again(tried)))
                held.add(asset)
                continue
        too_few = untrained.too_few if policy.asked_at is None else None
        if asset == CORPUS_ASSETS[0] and reason and too_few:
            waiting.append(Wait(asset, too_few))
            break
        follows = [name for name in upstream if name in chosen and name != CORPUS_ASSETS[0]]
        reason = reason or (OTHER_INPUT if follows else None)
        if reason is None:
            continue
        if wait := _not_yet(asset, reason, records, work, policy, untrained):
            # A model that waits for its time is compared meanwhile as it is.
            waiting.append(wait)
            continue
        chosen[asset] = reason
        if asset == CORPUS_ASSETS[0] and (asset, UNPARTITIONED) in records.made:
            break
    step = Step(tuple(chosen), (), next(iter(chosen.values()))) if chosen else None
    return step, waiting


def _corpus_reason(
    asset: str, records: Records, policy: Policy, untrained: Untrained
) -> str | None:
    """Why an asset over all documents is stale, if it is."""
    if asset == "finetuned_model" and untrained.forgotten:
        return FORGOTTEN
    return _reason(asset, UNPARTITIONED, records, policy)


def _not_yet(
    asset: str, reason: str, records: Records, work: Work, policy: Policy, untrained: Untrained
) -> Wait | None:
    """Why an asset over all documents is not made yet though it is stale, if it waits."""
    if work.training or (work.busy and not work.ingesting):
        reason = "a run is at work: what it makes decides what is due"
        return Wait(asset, reason, Until.RUN_ENDS)
    if policy.asked_at is not None or asset == CORPUS_ASSETS[0]:
        return None
    pause = work.training_paused_until
    if pause and pause > policy.now:
        return Wait(asset, f"the last run failed; it is tried again from {at(pause)} on")
    stale = _corpus_reason("finetuned_model", records, policy, untrained)
    held_up = stale and policy.retraining.why_not_yet(
        untrained, policy.now, pairs_alone=stale == OTHER_INPUT
    )
    if not held_up:
        return None
    if asset == "finetuned_model":
        return Wait(asset, held_up)
    again = policy.retraining.scores_again(untrained, policy.now)
    return Wait(asset, f"scored from {at(again)} on, or after the training") if again else None


def _reason(asset: str, key: str, records: Records, policy: Policy) -> str | None:
    """Why a slice is stale, if it is. What can't be made now, for lack of a model, is not."""
    if asset not in policy.code_versions:
        return None
    known = records.made.get((asset, key))
    if known is None:
        return NOT_MADE
    if known.code_version != policy.code_versions[asset]:
        parts = policy.code_version_parts.get(asset, {})
        others = {name for name, version in parts.items() if known.parts.get(name) != version}
        return OTHER_QUESTIONS if others == {PEOPLES_ROWS} else OTHER_CODE
    if GRAPH[asset].upstream and known.input_version != records.input_version(asset, key):
        return OTHER_INPUT
    return None


def to_embed(records: Records, code_versions: Mapping[str, str]) -> list[str]:
    """Documents whose chunks, as they are on record, are not embedded by the model of now."""
    code = code_versions.get(EMBEDDINGS)
    if code is None:
        return []
    known = (
        (key, records.made.get((EMBEDDINGS, key))) for of, key in records.made if of == "chunks"
    )
    return [
        key
        for key, row in known
        if row is None
        or (row.code_version, row.input_version) != (code, records.input_version(EMBEDDINGS, key))
    ]


def _embeddings_left(records: Records, policy: Policy) -> list[str]:
    """Documents to embed, whatever else is due or waits of them: that needs no file."""
    code = policy.code_versions.get(EMBEDDINGS, "")

    def waits(key: str) -> bool:
        tried, inputs = records.tried.get((EMBEDDINGS, key)), records.input_version(EMBEDDINGS, key)
        return bool(tried and tried.is_about(code, inputs) and not policy.tries_again(tried))

    return [key for key in to_embed(records, policy.code_versions) if not waits(key)]


def _again(tried: Attempt) -> str:
    times = "once" if tried.attempts == 1 else f"{tried.attempts} times"
    when = (
        f"tried again from {at(tried.next_at)} on"
        if tried.next_at
        else "tried again when it changes, or when a person asks"
    )
    return f"{tried.failure.error} ({times}; {when})"


def _path(folder: Folder, key: str) -> str:
    if key in folder.found:
        return folder.found[key].path
    return folder.loaded[key].path if key in folder.loaded else key


def batches(
    order: Sequence[str],
    wanted: Iterable[str],
    documents: Mapping[str, FoundDocument] | None = None,
    grouping: Grouping = ONE_EACH,
) -> list[list[str]]:
    """Wanted documents in runs of neighbours, each as long as the grouping lets it be at most.

    order: all partition keys, oldest first. A Dagster run covers a range of partitions in that
    order, so that only neighbours can share one. documents: by key; those of one run together are
    no larger than BYTES_PER_RUN. Large ones have runs of their own, after the others.
    """
    found, places = documents or {}, {key: place for place, key in enumerate(order)}
    sizes = {key: found[key].size_bytes if key in found else 0 for key in wanted}
    partitions = {key: grouping.partition_of(key) for key in sizes}
    placed = sorted(
        (sizes[key] > BYTES_OF_A_LARGE_DOCUMENT, places[partition], key)
        for key, partition in partitions.items()
        if partition in places
    )
    size, before = 0, (False, -2)
    result: list[list[str]] = []
    for large, place, key in placed:
        neighbours = before in ((large, place - 1), (large, place))
        size, before = size + sizes[key], (large, place)
        if neighbours and len(result[-1]) < grouping.per_run and size <= BYTES_PER_RUN:
            result[-1].append(key)
        else:
            result.append([key])
            size = sizes[key]
    return result
