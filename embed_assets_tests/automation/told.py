"""A home and its folder, as a test of the plan tells its story."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from embed_assets.automation.plan import Folder, Plan, Policy, Work, make_plan
from embed_assets.automation.retraining import Untrained
from embed_assets.documents.folder import FoundDocument, Loaded
from embed_assets.graph import (
    CORPUS_ASSETS,
    DOCUMENT_ASSETS,
    GRAPH,
    SEARCH_INDEX,
    TESTING,
    TRAINING,
)
from embed_assets.resources.ledger import (
    UNPARTITIONED,
    Attempt,
    Cause,
    Failure,
    Materialization,
    Records,
    Slice,
    next_attempt,
)

VERSIONS = dict.fromkeys(GRAPH, "1")
WRITTEN = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SOON, LATER = NOW + timedelta(minutes=1), NOW + timedelta(days=2)
KILLED = Failure(Cause.PROCESS_ENDED, "its process ended with exit code -9")
NO_ANSWER = Failure(Cause.CALL_FAILED, "no answer")
BUDGET = Failure(Cause.NOT_ASKED, "3 chunks without questions: the budget is spent")
UNREADABLE = Failure(Cause.UNREADABLE_FILE, "the file may not be read: Permission denied")
AFTER_PARSING = ("chunks", "synthetic_questions", "chunk_embeddings")


@dataclass
class Home:
    """A home and its folder, as a test tells its story."""

    made: dict[Slice, Materialization] = field(default_factory=dict)
    tried: dict[Slice, Attempt] = field(default_factory=dict)
    found: dict[str, FoundDocument] = field(default_factory=dict)
    loaded: dict[str, Loaded] = field(default_factory=dict)
    partitions: list[str] = field(default_factory=list)
    settling: set[str] = field(default_factory=set)
    moved: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)
    work: Work = field(default_factory=Work)
    untrained: Untrained = field(default_factory=Untrained)
    index_follows: bool = True

    @property
    def records(self) -> Records:
        return Records(self.made, self.tried)

    def put(self, *keys: str, written: datetime = WRITTEN, size: int = 4) -> None:
        """A file appears in the folder, or another one in its place."""
        for key in keys:
            self.found[key] = FoundDocument(key, f"{key}.pdf", size, written)

    def take(self, *keys: str) -> None:
        """A file leaves the folder."""
        for key in keys:
            del self.found[key]

    def make(self, asset: str, key: str, holds: str, code: str = "1", **parts: str) -> None:
        """An asset is made from what its inputs hold now."""
        made_from = self.records.input_version(asset, key)
        self.made[asset, key] = Materialization(code, made_from, holds, parts)
        self.tried.pop((asset, key), None)
        if asset == "raw_pdfs":
            file = self.found[key]
            self.loaded[key] = Loaded(file.path, file.size_bytes, file.modified_at, holds)

    def ingest(self, *keys: str) -> None:
        """Documents appear and are brought up to date."""
        self.put(*(key for key in keys if key not in self.found))
        for key in keys:
            for asset in DOCUMENT_ASSETS:
                self.make(asset, key, f"{asset} v1")
            if key not in self.partitions:
                self.partitions.append(key)

    def train(self, *assets: str, training: str = "t1", testing: str = "e1") -> None:
        """What is made of all documents together is brought up to date."""
        for asset in assets or CORPUS_ASSETS:
            if asset == "training_pairs":
                parts = {TRAINING: training, TESTING: testing}
                self.make(asset, UNPARTITIONED, f"{training} {testing}", **parts)
            else:
                made_from = self.records.input_version(asset)
                self.make(asset, UNPARTITIONED, f"{asset} from {made_from}")

    def fail(
        self, asset: str, failure: Failure, key: str = UNPARTITIONED, at: datetime = NOW
    ) -> Attempt:
        """An asset is tried in vain, or made though not for good."""
        of = (asset, key)
        made_from = self.records.input_version(asset, key)
        if asset == DOCUMENT_ASSETS[0]:
            made_from = self.found[key].version
        self.tried[of] = next_attempt(self.tried.get(of), failure, "1", made_from, at)
        return self.tried[of]

    def remove(self, *keys: str) -> None:
        """Every trace of documents that left is removed."""
        for key in keys:
            self.loaded.pop(key, None)
            self.partitions.remove(key)
            for asset in DOCUMENT_ASSETS:
                self.made.pop((asset, key), None)
                self.tried.pop((asset, key), None)

    def index(self) -> None:
        """The search index is brought up to date."""
        self.make(SEARCH_INDEX, UNPARTITIONED, "an index")

    def plan(self, versions: Mapping[str, str] = VERSIONS, **policy: Any) -> Plan:
        if self.index_follows:
            self.index()
        chosen = Policy(**{"code_versions": versions, "parse_timeout": 600, "now": NOW, **policy})
        folder = Folder(
            self.found, self.loaded, self.settling, self.moved, {}, self.odd, self.unseen
        )
        return make_plan(self.records, folder, self.partitions, self.work, chosen, self.untrained)

    def due(self, key: str, versions: Mapping[str, str] = VERSIONS, **policy: Any) -> tuple:
        """Assets of a document that are due."""
        steps = self.plan(versions, **policy).document_steps
        return next((step.assets for step in steps if key in step.documents), ())

    def to_train(self, versions: Mapping[str, str] = VERSIONS, **policy: Any) -> tuple:
        """Assets over all documents that are due."""
        step = self.plan(versions, **policy).corpus_step
        return step.assets if step else ()

    def waits(self, what: str, **policy: Any) -> str | None:
        """Why a document (by its path) or an asset waits, if it does."""
        waiting = self.plan(**policy).waiting
        return next((wait.reason for wait in waiting if wait.what == what), None)


def changed(*assets: str) -> dict[str, str]:
    """Code versions, those of some assets anew."""
    return {**VERSIONS, **dict.fromkeys(assets, "2")}
