"""Batches of pairs: no pair's answer is another's negative, and texts of like length together.

In the multiple-negatives ranking loss the other texts of a batch are negatives. So a neighbour of a
chunk, which shares words with it, would be taught to be its opposite, and so would another chunk
that answers the same question. A batch is padded to its longest text: batches of mixed lengths
spend most of a CPU's time on padding.

By default no chunk stands twice in a batch. Where its pairs may stand together, its text, which is
most of the work, is embedded once for all of them (`forward.py`). It is then k times among the
candidates, always as the same embedding, so that the softmax holds its score k times: the gradient
of its own question's loss by that score is -N / (k·exp(score) + N), N being the other candidates'
sum. It is never pushed away from a question that it answers; where every chunk stands k times the
gradient is that of one each.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

POOL = 16
"""Batches' worth of shuffled pairs that are sorted by length together: what keeps them random."""


@dataclass(frozen=True)
class Place:
    """What a pair brings to a batch.

    anchor: its question. positive: id of its chunk. shown: ids of the chunks that the others see as
    negatives, its positive and its hard negatives. related: ids of the chunks that must not be
    shown to it: its positive, others that answer it, their neighbours. length: of its longest text,
    in any unit. extractive: whether its question was taken from its chunk.
    """

    anchor: str
    positive: str
    shown: frozenset[str]
    related: frozenset[str]
    length: int
    extractive: bool = False


@dataclass
class _Batch:
    together: int
    pairs: list[int] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    positives: Counter[str] = field(default_factory=Counter)
    shown: set[str] = field(default_factory=set)
    related: set[str] = field(default_factory=set)

    def takes(self, place: Place) -> bool:
        # Where its chunk is the positive of another pair here, all others agree to it already.
        shared = {place.positive} if place.positive in self.positives else set[str]()
        return (
            place.anchor not in self.anchors
            and self.positives[place.positive] < self.together
            and self.related.isdisjoint(place.shown - shared)
            and self.shown.isdisjoint(place.related - shared)
        )

    def add(self, index: int, place: Place) -> None:
        self.pairs.append(index)
        self.anchors.add(place.anchor)
        self.positives[place.positive] += 1
        self.shown |= place.shown
        self.related |= place.related


def group_pairs(
    places: Sequence[Place], batch_size: int, seed: int, *, together: int = 1, full: bool = False
) -> list[list[int]]:
    """Indices of pairs in batches, in random order. Same seed, same batches.

    together: pairs of a chunk in one batch, at most.

    No anchor stands twice in a batch, and no chunk beside a pair that it is related to, but for the
    pair's own. So the last batches may be small, and few chunks make only small ones. A batch below
    a quarter of the others is left out of this epoch: its step would be as long as theirs and teach
    little. So is one of a single chunk, which has no negatives. `full` leaves out every batch that
    isn't full, as processes that share each batch need it.
    """
    shuffle = random.Random(seed)
    order = _in_order(places, batch_size, together, shuffle)
    batches: list[_Batch] = []
    while order:
        batch, later = _Batch(together), []
        for position, index in enumerate(order):
            if not batch.takes(places[index]):
                later.append(index)
                continue
            batch.add(index, places[index])
            if len(batch.pairs) == batch_size:
                later += order[position + 1 :]
                break
        order = later
        batches.append(batch)
    largest = max((len(batch.pairs) for batch in batches), default=0)
    least = batch_size if full else largest / 4
    kept = [
        batch.pairs for batch in batches if len(batch.positives) > 1 and len(batch.pairs) >= least
    ]
    shuffle.shuffle(kept)
    return kept


def _in_order(
    places: Sequence[Place], batch_size: int, together: int, shuffle: random.Random
) -> list[int]:
    """Indices of the pairs, shuffled by chunk, and chunks of like length beside each other."""
    shuffled = list(range(len(places)))
    shuffle.shuffle(shuffled)
    chunks: dict[str, list[int]] = {}
    for index in shuffled:
        chunks.setdefault(places[index].positive, []).append(index)
    groups = [
        pairs[i : i + together] for pairs in chunks.values() for i in range(0, len(pairs), together)
    ]
    shuffle.shuffle(groups)
    # As many chunks as batches hold pairs: what is sorted together is never less than POOL batches.
    pool = POOL * batch_size
    return [
        index
        for start in range(0, len(groups), pool)
        for group in sorted(
            groups[start : start + pool], key=lambda group: max(places[i].length for i in group)
        )
        for index in group
    ]


def pairs_of_epoch(places: Sequence[Place], epoch: int, extractive: int, seed: int) -> list[int]:
    """Indices of the pairs that an epoch takes: all, but of extractive ones so many, in turn.

    The seed shuffles them, one of every chunk comes before a second of any, and after the last of
    them the first again. epoch: from 0. extractive: at most; 0: all.
    """
    shuffled = [index for index, place in enumerate(places) if place.extractive]
    if not 0 < extractive < len(shuffled):
        return list(range(len(places)))
    random.Random(seed).shuffle(shuffled)
    of_chunk: Counter[str] = Counter()
    before: dict[int, int] = {}
    for index in shuffled:
        before[index] = of_chunk[places[index].positive]
        of_chunk[places[index].positive] += 1
    those = sorted(shuffled, key=lambda index: before[index])
    first = epoch * extractive
    taken = {those[i % len(those)] for i in range(first, first + extractive)}
    return [i for i, place in enumerate(places) if i in taken or not place.extractive]


def batch_sampler(
    dataset: Any,
    places: Sequence[Place],
    *,
    batch_size: int,
    seed: int,
    epochs: int,
    extractive: int = 0,
    together: int = 1,
    processes: int = 1,
) -> Any:
    """Batch sampler for sentence-transformers' trainer, over a dataset in the order of `places`.

    batch_size: pairs of a batch over all processes, each of which takes its share of every batch.
    extractive: pairs of an epoch, as `pairs_of_epoch` takes them. together: pairs of a chunk in one
    batch, at most.
    epochs: whose batches are counted: every epoch has as many as the one with the fewest, since the
    trainer tells by their number where it is. The pairs of a batch that goes for it wait for their
    next turn. ValueError where there is none.
    """
    from sentence_transformers.base.sampler import DefaultBatchSampler

    def epoch_of(number: int) -> list[list[int]]:
        taken = pairs_of_epoch(places, number, extractive, seed)
        batches = group_pairs(
            [places[index] for index in taken],
            batch_size,
            seed + number,
            together=together,
            full=processes > 1,
        )
        return [[taken[row] for row in batch] for batch in batches]

    batches, fewest = min((len(epoch_of(number)), number) for number in range(epochs))
    if not batches:
        taken = [places[index] for index in pairs_of_epoch(places, fewest, extractive, seed)]
        raise ValueError(
            f"{len(taken)} pairs of {len({place.positive for place in taken})} chunks make no "
            f"batch of {batch_size}: no chunk may stand beside its neighbours' pairs, or alone."
        )

    class GroupedSampler(DefaultBatchSampler):
        def __iter__(self) -> Any:
            yield from epoch_of(self.epoch)[:batches]

        def __len__(self) -> int:
            return batches

    return GroupedSampler(dataset, batch_size=batch_size, drop_last=processes > 1, seed=seed)
