"""Models that work side by side on a Ray cluster, one on each GPU or on some cores of its nodes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from embed_assets.errors import ProjectError
from embed_assets.models.card import ModelCard
from embed_assets.models.encoder import LocalEncoder
from embed_assets.models.files import Task
from embed_assets.resources.ledger import Cause
from embed_assets.resources.workers import Outcome, Workers
from embed_assets.terminal import progress_bar

if TYPE_CHECKING:
    import numpy as np

PART = 512
"""Texts that a model is sent at a time; so few aren't worth a model elsewhere."""
PARTS = 4
"""Parts that are kept together."""
SECONDS = 1800.0
"""For a part: to load the model, and to encode texts as long as it reads on a few cores."""


@dataclass(frozen=True)
class Part:
    """Texts for one model, and how they are encoded."""

    card: ModelCard
    precision: Literal["fp32", "bf16"]
    task: Task
    texts: Sequence[str]


_loaded: "dict[tuple[ModelCard, str], LocalEncoder]" = {}
"""The model that this worker has loaded."""


def encode_part(part: Part) -> "np.ndarray":
    """Embeddings of a part's texts, float32 (texts, size), not normalised; by a worker."""
    key = part.card, part.precision
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = LocalEncoder(part.card, part.precision)
    return _loaded[key].encode(part.texts, part.task)


def encode_on_ray(
    card: ModelCard,
    precision: Literal["fp32", "bf16"],
    texts: Sequence[str],
    task: Task,
    progress: str | None = None,
) -> "Iterator[np.ndarray]":
    """Embeddings of texts in their order, some PARTS at a time, float32 (texts, size).

    A part whose process ended is begun once more. ProjectError where it ends again, or where a node
    has no such model.
    """
    import numpy as np

    from embed_assets.resources.ray_workers import ray_models

    cuts = range(0, len(texts), PART)
    parts = [Part(card, precision, task, texts[start : start + PART]) for start in cuts]
    block: list[np.ndarray] = []
    with (
        progress_bar(progress, len(texts), "text") as bar,
        ray_models(len(parts), SECONDS) as workers,
    ):
        for outcome in workers.map(encode_part, parts):
            block.append(_result(workers, outcome))
            bar.update(len(outcome.item.texts))
            if len(block) == PARTS:
                yield np.concatenate(block)
                block = []
        if block:
            yield np.concatenate(block)


def _result(workers: Workers, outcome: "Outcome[Part, np.ndarray]") -> "np.ndarray":
    if outcome.failure and outcome.failure.cause == Cause.PROCESS_ENDED:
        [outcome] = workers.map(encode_part, [outcome.item])
    if outcome.result is None:
        reason = outcome.failure and outcome.failure.error
        raise ProjectError(f"A model on the Ray cluster couldn't encode: {reason}")
    return outcome.result
