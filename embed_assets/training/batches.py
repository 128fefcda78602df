"""Batches of pairs: no pair's answer is another's negative, and texts of like length together.

In the multiple-negatives ranking loss the other texts of a batch are negatives. So a chunk that
stood in it twice would be taught to be its own opposite, and so would a neighbour that shares words
with it. And a batch is padded to its longest text: batches of mixed lengths spend most of a CPU's
time on padding.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

POOL = 16
"""Batches' worth of shuffled pairs that are sorted by length together: what keeps them random."""


@dataclass(frozen=True)
class Place:
    """What a pair brings to a batch.

    anchor: its question. shown: ids of the chunks that the others see as negatives, its positive
    and its hard negatives. related: ids of the chunks that must not be shown to it: its positive,
    others that answer it, their neighbours. length: of its longest text, in any unit.
    """

    anchor: str
    shown: frozenset[str]
    related: frozenset[str]
    length: int


@dataclass
class _Batch:
    pairs: list[int] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)
    related: set[str] = field(default_factory=set)

    def takes(self, place: Place) -> bool:
        return (
            place.anchor not in self.anchors
            and self.related.isdisjoint(place.shown)
            and self.shown.isdisjoint(place.related)
        )

    def add(self, index: int, place: Place) -> None:
        self.pairs.append(index)
        self.anchors.add(place.anchor)
        self.shown |= place.shown
        self.related |= place.related


def group_pairs(
    places: Sequence[Place], batch_size: int, seed: int, *, full: bool = False
) -> list[list[int]]:
    """Indices of pairs in batches, in random order. Same seed, same batches.

    No anchor stands twice in a batch, and no chunk beside a pair that it is related to. So the last
    batches may be small, and few chunks make only small ones. A batch below a quarter of the others
    is left out of this epoch: its step would be as long as theirs and teach little. `full` leaves
    out every batch that isn't full, as processes that share each batch need it.
    """
    shuffle = random.Random(seed)
    order = list(range(len(places)))
    shuffle.shuffle(order)
    pool = POOL * batch_size
    order = [
        index
        for start in range(0, len(order), pool)
        for index in sorted(order[start : start + pool], key=lambda i: places[i].length)
    ]
    batches: list[list[int]] = []
    while order:
        batch, later = _Batch(), []
        for position, index in enumerate(order):
            if not batch.takes(places[index]):
                later.append(index)
                continue
            batch.add(index, places[index])
            if len(batch.pairs) == batch_size:
                later += order[position + 1 :]
                break
        order = later
        batches.append(batch.pairs)
    largest = max(map(len, batches), default=0)
    least = batch_size if full else max(2, largest // 4)
    batches = [batch for batch in batches if len(batch) >= least]
    shuffle.shuffle(batches)
    return batches


def batch_sampler(
    dataset: Any,
    places: Sequence[Place],
    *,
    batch_size: int,
    seed: int,
    epochs: int,
    processes: int = 1,
) -> Any:
    """Batch sampler for sentence-transformers' trainer, over a dataset in the order of `places`.

    batch_size: pairs of a batch over all processes, each of which takes its share of every batch.
    epochs: whose batches are counted: every epoch has as many as the one with the fewest, since the
    trainer tells by their number where it is. ValueError where there is none.
    """
    from sentence_transformers.base.sampler import DefaultBatchSampler

    def epoch_of(number: int) -> list[list[int]]:
        return group_pairs(places, batch_size, seed + number, full=processes > 1)

    batches = min(len(epoch_of(number)) for number in range(epochs))
    if not batches:
        raise ValueError(
            f"{len(places)} pairs of {len({min(place.shown) for place in places})} chunks make no "
            f"batch of {batch_size}: no two of one chunk or of its neighbours may stand together."
        )

    class GroupedSampler(DefaultBatchSampler):
        def __iter__(self) -> Any:
            yield from epoch_of(self.epoch)[:batches]

        def __len__(self) -> int:
            return batches

    return GroupedSampler(dataset, batch_size=batch_size, drop_last=processes > 1, seed=seed)
