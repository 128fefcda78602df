"""Batches of pairs: never one chunk twice, and texts of like length together.

In the multiple-negatives ranking loss the other positives of a batch are negatives, so a chunk that
stood in it twice would be taught to be its own opposite. And a batch is padded to its longest text:
batches of mixed lengths spend most of a CPU's time on padding.
"""

import random
from collections.abc import Sequence
from typing import Any

POOL = 16
"""Batches' worth of shuffled pairs that are sorted by length together: what keeps them random."""


def group_pairs(
    anchors: Sequence[str], positives: Sequence[str], batch_size: int, seed: int
) -> list[list[int]]:
    """Indices of pairs in batches, in random order. Same seed, same batches.

    No text stands twice in a batch, so that few chunks make small batches. A batch of one, which
    has no negatives, is left out.
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
    batches: list[list[int]] = []
    while order:
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

    batches = len(group_pairs(anchors, positives, batch_size, seed))

    class LengthGroupedSampler(DefaultBatchSampler):
        def __iter__(self) -> Any:
            # As many as in the first epoch, by which the trainer has counted its steps.
            yield from group_pairs(anchors, positives, batch_size, seed + self.epoch)[:batches]

        def __len__(self) -> int:
            return batches

    return LengthGroupedSampler(dataset, batch_size=batch_size, seed=seed, **options)
