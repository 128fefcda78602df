"""The plan: every step that is due with its reason, and everything that waits with its reason.

A pure function of what is on record, of the folder and of the time. The command and the sensors
carry it out, `embed-assets status` prints it, and nothing else decides what is stale. It looks at
states, never at events: what one plan misses the next one sees.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from embed_assets.documents.folder import FoundDocument, Loaded
from embed_assets.graph import CORPUS_ASSETS, DOCUMENT_ASSETS, GRAPH
from embed_assets.partitions import DOCUMENTS_PER_RUN
from embed_assets.resources.ledger import UNPARTITIONED, Attempt, Cause, Records

INGEST = "ingest"
"""The job in which documents become questions."""
NEW, CHANGED_FILE = "new", "the file has changed"
NOT_MADE, OTHER_CODE, OTHER_INPUT = (
    "not made yet",
    "its code or settings have changed",
    "what it is made from has changed",
)


@dataclass(frozen=True)
class Folder:
    """What is in the PDF folder, and what was read from it.

    found: documents by id. loaded: what is on record of those that were read. settling: ids of
    files that may still be written to. moved: id under which a document is found now -> its id
    before. forgotten: paths of files in the folder that may not come in, and why; they are not in
    `found`.
    """

    found: Mapping[str, FoundDocument] = field(default_factory=dict)
    loaded: Mapping[str, Loaded] = field(default_factory=dict)
    settling: Collection[str] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    forgotten: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What is under way.

    ingesting: whether a run makes documents, or waits to. busy: whether a run is at work, one that
    waits left out, or a training that outlived its run. paused_until: when to ask for an ingest
    again, after those that failed.
    """

    ingesting: bool = False
    busy: bool = False
    paused_until: datetime | None = None


@dataclass(frozen=True)
class Step:
    """Assets to make in order, for these documents; for all together without any."""

    assets: tuple[str, ...]
    documents: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Wait:
    """What waits: a document's path, an asset or INGEST; and why. for_a_run: until a run ends."""

    what: str
    reason: str
    for_a_run: bool = False


@dataclass(frozen=True)
class Plan:
    """What is to be done. refused: why nothing is, until a person agrees.

    add, remove: partitions. moved: as in Folder.
    """

    steps: tuple[Step, ...] = ()
    waiting: tuple[Wait, ...] = ()
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    refused: str | None = None

    @property
    def document_steps(self) -> tuple[Step, ...]:
        """Steps of single documents."""
        return tuple(step for step in self.steps if step.documents)

    @property
    def corpus_step(self) -> Step | None:
        """The step over all documents together, if it is due."""
        return next((step for step in self.steps if not step.documents), None)

    @property
    def changes_documents(self) -> bool:
        """Whether documents come, go, move or are made."""
        return bool(self.document_steps or self.add or self.remove or self.moved)


@dataclass(frozen=True)
class Policy:
    """What the plan goes by. code_versions: by asset. parse_timeout: seconds for a document.

    asked_at: when a person asked; what was tried in vain before is tried once more. agreed: whether
    the person agreed to the loss of all documents.
    """

    code_versions: Mapping[str, str]
    parse_timeout: float
    now: datetime
    asked_at: datetime | None = None
    agreed: bool = False

    def tries_again(self, attempt: Attempt) -> bool:
        """Whether it is time for another try of what nothing has changed about."""
        limit = attempt.failure.limit
        if limit is not None and limit < self.parse_timeout:
            return True
        if attempt.failure.cause in (Cause.TIME_LIMIT, Cause.FORGOTTEN):
            return False
        if self.asked_at is not None and attempt.tried_at < self.asked_at:
            return True
        return attempt.next_at is not None and attempt.next_at <= self.now


def make_plan(
    records: Records, folder: Folder, partitions: Sequence[str], work: Work, policy: Policy
) -> Plan:
    """What is due and what waits. partitions: keys that Dagster knows, oldest first."""
    same = folder.moved or not folder.loaded.keys().isdisjoint(folder.found)
    if folder.loaded and not same and not policy.agreed:
        known = len(folder.loaded)
        return Plan(refused=f"none of the {known} documents on record is in the folder")
    kept = {*folder.found, *folder.moved.values()}
    gone = [key for key in dict.fromkeys([*partitions, *folder.loaded]) if key not in kept]
    waiting = [Wait(path, reason) for path, reason in folder.forgotten.items()]
    moved = folder.moved
    if work.busy or work.ingesting:
        for keys, what in ((gone, "gone"), (moved, "moved")):
            reason = f"{what}, and a run may still use it"
            waiting += [Wait(_path(folder, key), reason, for_a_run=True) for key in keys]
        gone, moved = [], {}
    found = [key for key in folder.found if key not in folder.moved]
    groups: dict[tuple[tuple[str, ...], str], list[str]] = defaultdict(list)
    if work.ingesting:
        reason = "a run ingests: documents are looked at when it has ended"
        waiting.append(Wait(INGEST, reason, for_a_run=True))
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
    steps = [Step(assets, tuple(keys), reason) for (assets, reason), keys in groups.items()]
    # Those on record too: a run that was killed between the two may have left one out.
    due = {key for step in steps for key in step.documents}
    without_partition = (folder.loaded.keys() | due) - set(partitions)
    add = [key for key in found if key in without_partition]
    if steps or gone or moved or any(wait.for_a_run for wait in waiting):
        waiting.append(Wait("training_pairs", "documents come first"))
    else:
        corpus, waits = _corpus_due(records, policy)
        waiting += waits
        if corpus and work.busy:
            reason = "a run is at work: what it makes decides what is due"
            waiting += [Wait(asset, reason, for_a_run=True) for asset in corpus.assets]
        elif corpus:
            steps.append(corpus)
    pause = work.paused_until if policy.asked_at is None else None
    if due and pause and pause > policy.now:
        again = f"it is tried again from {pause:%Y-%m-%d %H:%M} UTC on"
        waiting.append(Wait(INGEST, f"the last ingest failed; {again}"))
        steps = []
    return Plan(tuple(steps), tuple(waiting), tuple(add), tuple(gone), moved)


def _document_due(
    key: str, records: Records, folder: Folder, policy: Policy
) -> tuple[tuple[str, ...], str] | Wait | None:
    """Assets of a document to make in order, and why: the first that is stale, all after it."""
    document, loaded = folder.found[key], folder.loaded.get(key)
    for place, asset in enumerate(DOCUMENT_ASSETS):
        assets, reason = DOCUMENT_ASSETS[place:], _reason(asset, key, records, policy)
        if reason is None and place == 0 and loaded and not loaded.is_as(document):
            # Perhaps only the file's time has changed: reading it tells.
            assets, reason = (asset,), CHANGED_FILE
        tried = records.tried.get((asset, key))
        inputs = document.version if place == 0 else records.input_version(asset, key)
        if tried is not None and tried.is_about(policy.code_versions[asset], inputs):
            if policy.tries_again(tried):
                return assets, f"tried in vain before: {tried.failure.cause}"
            if reason is not None:
                return Wait(document.path, _again(tried))
        if reason is not None:
            return assets, NEW if place == 0 and reason == NOT_MADE else reason
    return None


def _corpus_due(records: Records, policy: Policy) -> tuple[Step | None, list[Wait]]:
    """The assets over all documents to make now, in order.

    When the pairs are stale and all else is as it was, the pairs alone are made first: only then is
    it known whether what is made from them is stale.
    """
    chosen: list[str] = []
    reasons: list[str] = []
    waiting: list[Wait] = []
    for asset in CORPUS_ASSETS:
        upstream = [name for name in GRAPH[asset].upstream if not GRAPH[name].partitioned]
        held = next((w for w in waiting if w.what in upstream), None)
        if held is not None:
            waiting.append(Wait(asset, f"{held.what} waits"))
            continue
        tried = records.tried.get((asset, UNPARTITIONED))
        reason = _reason(asset, UNPARTITIONED, records, policy)
        inputs = records.input_version(asset)
        # A failure says nothing of what is up to date: its run may have had settings of its own.
        counts = tried and (reason is not None or tried.failure.cause is not Cause.FAILED)
        if tried and counts and tried.is_about(policy.code_versions[asset], inputs):
            if policy.tries_again(tried):
                reason = reason or f"tried in vain before: {tried.failure.cause}"
            elif reason is not None:
                waiting.append(Wait(asset, _again(tried)))
                continue
        follows = [name for name in upstream if name in chosen and name != CORPUS_ASSETS[0]]
        if reason is not None or follows:
            chosen.append(asset)
            reasons.append(reason or OTHER_INPUT)
            if asset == CORPUS_ASSETS[0] and (asset, UNPARTITIONED) in records.made:
                break
    return (Step(tuple(chosen), (), reasons[0]) if chosen else None), waiting


def _reason(asset: str, key: str, records: Records, policy: Policy) -> str | None:
    """Why a slice is stale, if it is."""
    known = records.made.get((asset, key))
    if known is None:
        return NOT_MADE
    if known.code_version != policy.code_versions[asset]:
        return OTHER_CODE
    if GRAPH[asset].upstream and known.input_version != records.input_version(asset, key):
        return OTHER_INPUT
    return None


def _again(tried: Attempt) -> str:
    times = "once" if tried.attempts == 1 else f"{tried.attempts} times"
    when = (
        f"tried again from {tried.next_at:%Y-%m-%d %H:%M} UTC on"
        if tried.next_at
        else "tried again when it changes, or when a person asks"
    )
    return f"{tried.failure.error} ({times}; {when})"


def _path(folder: Folder, key: str) -> str:
    if key in folder.found:
        return folder.found[key].path
    return folder.loaded[key].path if key in folder.loaded else key


def batches(order: Sequence[str], wanted: Iterable[str]) -> list[list[str]]:
    """Wanted keys in runs of neighbours, each at most DOCUMENTS_PER_RUN long.

    order: all partition keys, oldest first. A Dagster run covers a range of partitions in that
    order, so that only neighbours can share one.
    """
    chosen = set(wanted)
    result: list[list[str]] = []
    for place, key in enumerate(order):
        if key not in chosen:
            continue
        neighbours = place > 0 and result and result[-1][-1] == order[place - 1]
        if neighbours and len(result[-1]) < DOCUMENTS_PER_RUN:
            result[-1].append(key)
        else:
            result.append([key])
    return result
