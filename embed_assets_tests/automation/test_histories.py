"""A thousand random histories of a folder: in the end the model knows what is there, and no more.

A world in memory carries out what both sensors ask for, by the real plan, with runs that take time,
wait in a queue, fail or are killed, and a daemon that is off for a while.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from embed_assets.automation.plan import INGEST, Folder, Plan, Policy, Work, make_plan
from embed_assets.automation.retraining import RetrainingPolicy, Untrained
from embed_assets.documents.folder import FoundDocument, Loaded
from embed_assets.graph import DOCUMENT_ASSETS, GRAPH, SEARCH_INDEX, TESTING, TRAINING
from embed_assets.resources.ledger import (
    PAUSES,
    UNPARTITIONED,
    Attempt,
    Cause,
    Failure,
    Materialization,
    Records,
    Slice,
    next_attempt,
)
from embed_assets.resources.warehouse import digest

VERSIONS = dict.fromkeys(GRAPH, "1")
HOUR = timedelta(hours=1)
BROKEN = Failure(Cause.CALL_FAILED, "no answer")
Pair = tuple[int, int]


def pairs_of(content: int) -> dict[str, set[Pair]]:
    """What a document gives to train on, to choose by and to test by; a seventh are held out."""
    pairs = {(content, n) for n in range(20)}
    if content % 7 == 0:
        return {"train": set(), "validation": set(), "test": pairs}
    parts = {"train": range(16), "validation": range(16, 18), "test": range(18, 20)}
    return {name: {(content, n) for n in numbers} for name, numbers in parts.items()}


@dataclass
class Run:
    """A Dagster run. steps: what it does, part by part. started: whether it left the queue.

    index: whether it makes the search index.
    """

    corpus: bool
    steps: Iterator[None]
    started: bool = False
    index: bool = False


@dataclass
class World:
    """A folder, a home, and the runs that are under way. Time passes by the hour."""

    chance: random.Random
    policy: RetrainingPolicy
    now: datetime = datetime(2026, 11, 1, tzinfo=UTC)
    files: dict[str, tuple[int, datetime]] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    made: dict[Slice, Materialization] = field(default_factory=dict)
    made_at: dict[Slice, datetime] = field(default_factory=dict)
    tried: dict[Slice, Attempt] = field(default_factory=dict)
    loaded: dict[str, Loaded] = field(default_factory=dict)
    contents: dict[tuple[str, str], int] = field(default_factory=dict)
    partitions: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    killed: dict[bool, list[datetime]] = field(default_factory=lambda: {True: [], False: []})
    pairs: dict[str, set[Pair]] = field(default_factory=dict)
    changes: list[tuple[datetime, str]] = field(default_factory=list)
    models: list[tuple[datetime, set[Pair]]] = field(default_factory=list)
    next_content: int = 1
    trouble: bool = True
    happened: Counter[str] = field(default_factory=Counter)

    # What happens in the folder.

    def arrive(self) -> None:
        name = f"d{self.chance.randrange(30)}"
        self.happened["arrived while it trained"] += any(r.corpus and r.started for r in self.runs)
        self.happened["changed"] += name in self.files
        self.files[name] = (self.next_content, self.now)
        self.next_content += 1

    def leave(self) -> None:
        if len(self.files) > 3:
            del self.files[self.chance.choice(sorted(self.files))]
            self.happened["left while a run was at work"] += self._at_work() > 0

    def rename(self) -> None:
        if self.files:
            content = self.files.pop(self.chance.choice(sorted(self.files)))
            self.files[f"d{self.chance.randrange(30, 60)}"] = content

    # What a tick sees.

    @property
    def records(self) -> Records:
        return Records(self.made, self.tried)

    @property
    def found(self) -> dict[str, FoundDocument]:
        return {k: FoundDocument(k, k, content, at) for k, (content, at) in self.files.items()}

    def folder(self) -> Folder:
        found = self.found
        changed = {k for k in found if k not in self.loaded or not self.loaded[k].is_as(found[k])}
        gone = {row.size_bytes: k for k, row in self.loaded.items() if k not in found}
        moved = {
            k: gone.pop(found[k].size_bytes)
            for k in sorted(changed - self.loaded.keys())
            if found[k].size_bytes in gone
        }
        settling = {k for k in changed if self.seen.get(k) != found[k].version}
        self.seen = {k: found[k].version for k in changed}
        return Folder(found, self.loaded, settling, moved)

    def work(self) -> Work:
        pauses = {}
        for corpus, times in self.killed.items():
            pauses[corpus] = times[-1] + PAUSES[min(len(times), 4) - 1] if times else None
        return Work(
            ingesting=any(not run.corpus and not run.index for run in self.runs),
            training=any(run.corpus for run in self.runs),
            indexing=any(run.index for run in self.runs),
            indexed_at=self.made_at.get((SEARCH_INDEX, UNPARTITIONED)),
            busy=any(run.started for run in self.runs),
            paused_until=pauses[False],
            training_paused_until=pauses[True],
        )

    def untrained(self) -> Untrained:
        if ("training_pairs", UNPARTITIONED) not in self.made:
            train = {p for c in self.contents.values() for p in pairs_of(c)["train"]}
            return Untrained(
                since=self._unpaired_since(), too_few=None if len(train) >= 16 else "too few"
            )
        exist, trained = self.pairs["train"], self.models[-1][1] if self.models else set()
        known = self.made.get(("finetuned_model", UNPARTITIONED))
        place = max(
            (i for i, (_, v) in enumerate(self.changes) if known and v == known.input_version),
            default=-1,
        )
        since = [at for at, _ in self.changes[place + 1 : place + 2]]
        if self.made["training_pairs", UNPARTITIONED].input_version != self.records.input_version(
            "training_pairs"
        ):
            since += filter(None, [self._unpaired_since()])
        return Untrained(
            pairs=len(exist),
            new=len(exist - trained),
            removed=len(trained - exist),
            since=min(since, default=None),
            trained_at=self.models[-1][0] if self.models else None,
            scored_at=self.made_at.get(("comparison", UNPARTITIONED)),
        )

    def _unpaired_since(self) -> datetime | None:
        paired = self.made_at.get(("training_pairs", UNPARTITIONED))
        upstream = GRAPH["training_pairs"].upstream
        times = [at for (asset, _), at in self.made_at.items() if asset in upstream]
        return min((at for at in times if paired is None or at > paired), default=None)

    def plan(self, *, agreed: bool = False) -> Plan:
        policy = Policy(
            VERSIONS, 600, self.now, agreed=agreed, lost_share=1 / 3, retraining=self.policy
        )
        folder, parts = self.folder(), self.partitions
        return make_plan(self.records, folder, parts, self.work(), policy, self.untrained())

    # What the sensors do.

    def tick(self, *, agreed: bool = False) -> Plan:
        """Both sensors, in any order. Gives the plan of the one that ingests."""
        if self.chance.random() < 0.5:
            self._ask_for_training()
        plan = self.plan(agreed=agreed)
        if not plan.refused:
            self._sync(plan)
            for step in plan.document_steps:
                if not any(wait.what == INGEST for wait in plan.waiting):
                    self.runs.append(Run(False, self._ingest(step.assets, step.documents)))
            if plan.index_step:
                self.runs.append(Run(False, self._index(), index=True))
        self._ask_for_training()
        return plan

    def _ask_for_training(self) -> None:
        seen = dict(self.seen)
        step = self.plan().corpus_step
        self.seen = seen
        if step:
            self.runs.append(Run(True, self._train(step.assets)))

    @property
    def _by_slice(self) -> tuple[dict[Any, Any], ...]:
        return self.made, self.made_at, self.tried, self.contents

    def _sync(self, plan: Plan) -> None:
        for key, before in plan.moved.items():
            del self.loaded[before]
            self.loaded[key] = Loaded(key, self.files[key][0], self.files[key][1], "")
            for asset in DOCUMENT_ASSETS:
                for rows in self._by_slice:
                    rows.pop((asset, key), None)
                    if (asset, before) in rows:
                        rows[asset, key] = rows.pop((asset, before))
            self.partitions.remove(before)
            self.partitions.append(key)
        for key in plan.remove:
            self.loaded.pop(key, None)
            for asset in DOCUMENT_ASSETS:
                for rows in self._by_slice:
                    rows.pop((asset, key), None)
            if key in self.partitions:
                self.partitions.remove(key)
        self.partitions += [key for key in plan.add if key not in self.partitions]

    # What runs do, a part an hour at most.

    def _write(self, of: Slice, inputs: str, data: str, **parts: str) -> None:
        self.made[of] = Materialization("1", inputs, data, parts)
        self.made_at[of] = self.now
        self.tried.pop(of, None)

    def _ingest(self, assets: tuple[str, ...], keys: tuple[str, ...]) -> Iterator[None]:
        for asset in assets:
            for key in keys:
                if asset == "raw_pdfs":
                    if key not in self.files:
                        continue
                    content, at = self.files[key]
                    self.loaded[key] = Loaded(key, content, at, "")
                else:
                    above = self.contents.get((GRAPH[asset].upstream[0], key))
                    if above is None:
                        continue
                    content = above
                inputs = self.records.input_version(asset, key)
                self.contents[asset, key] = content
                self._write((asset, key), inputs, str(content))
                if self.trouble and asset == "synthetic_questions" and self.chance.random() < 0.1:
                    self.tried[asset, key] = next_attempt(None, BROKEN, "1", inputs, self.now)
            yield

    def _index(self) -> Iterator[None]:
        inputs = self.records.input_version(SEARCH_INDEX)
        yield
        self._write((SEARCH_INDEX, UNPARTITIONED), inputs, f"index {self.now}")

    def _train(self, assets: tuple[str, ...]) -> Iterator[None]:
        for asset in assets:
            inputs = self.records.input_version(asset)
            before = self.tried.get((asset, UNPARTITIONED))
            asked = [c for (of, _), c in self.contents.items() if of == "synthetic_questions"]
            trains = set(self.pairs.get("train", set()))
            for _ in range(self.chance.randrange(1, 4)):
                yield
            if self.trouble and self.chance.random() < 0.15:
                failed = next_attempt(before, BROKEN, "1", inputs, self.now)
                self.tried[asset, UNPARTITIONED] = failed
                raise RuntimeError("a step failed")
            if asset == "training_pairs":
                splits = [pairs_of(content) for content in asked]
                self.pairs = {n: set().union(*(s[n] for s in splits)) for n in pairs_of(1)}
                trained = digest(sorted(self.pairs["train"] | self.pairs["validation"]))
                tested = digest((sorted(self.pairs["test"]), sorted(asked)))
                if not self.changes or self.changes[-1][1] != trained:
                    self.changes.append((self._unpaired_since() or self.now, trained))
                parts = {TRAINING: trained, TESTING: tested}
                self._write((asset, UNPARTITIONED), inputs, trained + tested, **parts)
                continue
            if asset == "finetuned_model":
                self.models.append((self.now, trains))
            self._write((asset, UNPARTITIONED), inputs, f"{asset} {self.now}")

    def pass_an_hour(self) -> None:
        self.now += HOUR
        for run in [run for run in self.runs if not run.started][: 2 - self._at_work()]:
            run.started = True
        for run in [run for run in self.runs if run.started]:
            if self.trouble and self.chance.random() < 0.05:
                self._end(run, failed=True)
                continue
            try:
                next(run.steps)
            except StopIteration:
                self._end(run, failed=False)
            except RuntimeError:
                self._end(run, failed=True)

    def _at_work(self) -> int:
        return sum(run.started for run in self.runs)

    def _end(self, run: Run, *, failed: bool) -> None:
        self.runs.remove(run)
        self.happened["runs that failed or were killed"] += failed
        if not run.index:
            times = self.killed[run.corpus]
            self.killed[run.corpus] = [*times, self.now] if failed else []


def live(seed: int) -> World:
    """A history, and then quiet until nothing is due and nothing waits."""
    chance = random.Random(seed)
    share, wait, pause = (chance.choice(c) for c in ((0, 0.05, 0.5), (0, 2, 24), (0, 0.5, 6)))
    world = World(chance, RetrainingPolicy(share, wait * HOUR, pause * HOUR))
    for _ in range(6):
        world.arrive()
    on = True
    for _ in range(chance.randrange(20, 60)):
        for event in (world.arrive, world.leave, world.rename):
            if chance.random() < 0.15:
                event()
        on = on if chance.random() > 0.1 else not on
        if on:
            world.tick()
        world.happened["hours without a daemon"] += not on
        world.pass_an_hour()
    world.trouble = False
    plan = Plan()
    for _ in range(400):
        plan = world.tick(agreed=True)
        if not (plan.steps or plan.waiting or plan.remove or plan.moved or world.runs):
            return world
        world.pass_an_hour()
    raise AssertionError(f"history {seed}: after 400 hours there is still {plan}")


@pytest.mark.parametrize("block", range(10))
def test_in_the_end_the_newest_model_was_trained_on_what_is_there(block: int) -> None:
    for seed in range(100 * block, 100 * block + 100):
        world = live(seed)
        there = [content for content, _ in world.files.values()]
        given = set().union(*(pairs_of(content)["train"] for content in there))
        assert world.models, f"history {seed}: no model"
        assert world.models[-1][1] == given, f"history {seed}"
        assert set(world.partitions) == set(world.loaded) == set(world.files), f"history {seed}"
        newest = world.records.made["comparison", UNPARTITIONED]
        assert newest.input_version == world.records.input_version("comparison"), f"history {seed}"
        index = world.records.made[SEARCH_INDEX, UNPARTITIONED]
        assert index.input_version == world.records.input_version(SEARCH_INDEX), f"history {seed}"


def test_a_history_has_trouble_in_it() -> None:
    """The thousand would prove nothing if all went well in them."""
    happened: Counter[str] = Counter()
    for seed in range(30):
        world = live(seed)
        happened += world.happened + Counter(models=len(world.models))
    assert len(happened) == 6
    assert min(happened.values()) >= 15, happened
