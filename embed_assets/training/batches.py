"""Batches of pairs: never one chunk twice, and texts of like length together.

In the multiple-negatives ranking loss the other positives of a batch are negatives, so a chunk that
stood in it twice would be taught to be its own opposite. And a batch is padded to its longest text:
batches of mixed lengths spend most of a CPU's time on padding.
"""

import math
import random
from collections.abc import Sequence
from typing import Any

POOL = 16
"""Batches' worth of shuffled pairs that are sorted by length together: what keeps them random."""


def group_pairs(
    anchors: Sequence[str], positives: Sequence[str], batch_size: int, seed: int
) -> list[list[int]]:
    """Indices of pairs in batches, at most ceil(pairs / batch_size), in random order.

    No text stands twice in a batch. Pairs that fit no batch (the last ones of a chunk with very
    many) are left out, and so is a batch of one, which has no negatives. Same seed, same batches.
    """
    shuffle = random.Random(seed)
    order = list(range(len(anchors)))
    shuffle.shuffle(order)
    pool = POOL * batch_size
    order = [
        index
        for start in range(0, len(order), pool)
        for index in sorted(order[start : start + pool], key=lambda i: len(positives[i]))
    ]
    most = math.ceil(len(order) / batch_size)
    batches: list[list[int]] = []
    while order and len(batches) < most:
        batch, texts, later = [], set[str](), []
        for place, index in enumerate(order):
            pair = {anchors[index], positives[index]}
            if pair & texts:
                later.append(index)
                continue
            batch.append(index)
            texts |= pair
            if len(batch) == batch_size:
                later += order[place + 1 :]
                break
        order = later
        batches.append(batch)
    batches = [batch for batch in batches if len(batch) > 1]
    shuffle.shuffle(batches)
    return batches


def length_grouped_sampler(dataset: Any, *, batch_size: int, seed: int = 0, **options: Any) -> Any:
    """Batch sampler for sentence-transformers' trainer over a dataset of (anchor, positive)."""
    from sentence_transformers.base.sampler import DefaultBatchSampler

    anchors, positives = list(dataset["anchor"]), list(dataset["positive"])

    class LengthGroupedSampler(DefaultBatchSampler):
        def __iter__(self) -> Any:
            yield from group_pairs(anchors, positives, batch_size, seed + self.epoch)

        def __len__(self) -> int:
            return math.ceil(len(anchors) / batch_size)

    return LengthGroupedSampler(dataset, batch_size=batch_size, seed=seed, **options)
