"""Models that work side by side on a Ray cluster, one on each GPU or on some cores of its nodes."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from embed_assets.errors import ProjectError
from embed_assets.models.card import ModelCard
from embed_assets.models.encoder import LocalEncoder
from embed_assets.models.files import Task
from embed_assets.models.identity import check_same_model, model_identity
from embed_assets.resources.ledger import Cause
from embed_assets.resources.workers import Item, Outcome, Result, Workers
from embed_assets.terminal import progress_bar

if TYPE_CHECKING:
    import numpy as np

PART = 512
"""Texts that a model is sent at a time; so few aren't worth a model elsewhere."""
PARTS = 4
"""Parts that are kept together."""
SECONDS = 4 * 3600.0
"""For a part: to fetch and load the model, and for a large one to read long texts on a core."""


@dataclass(frozen=True)
class Part:
    """Texts for one model, and how they are encoded.

    identity: of the model, where the part comes from. start: place of the first text among all.
    """

    card: ModelCard
    identity: str
    precision: Literal["fp32", "bf16"]
    task: Task
    texts: Sequence[str]
    start: int


_loaded: dict[tuple[ModelCard, str, str], LocalEncoder] = {}
"""The model that this worker has loaded."""


def encode_part(part: Part) -> "np.ndarray":
    """Embeddings of a part's texts, float32 (texts, size), not normalised; by a worker.

    ProjectError where this node has other files of the model: their vectors would be taken for the
    model's own.
    """
    key = part.card, part.identity, part.precision
    if key not in _loaded:
        _loaded.clear()
        check_same_model(part.card, part.identity)
        _loaded[key] = LocalEncoder(part.card, part.precision)
    return _loaded[key].encode(part.texts, part.task)


def encode_on_ray(
    card: ModelCard,
    precision: Literal["fp32", "bf16"],
    texts: Sequence[str],
    task: Task,
    progress: str | None = None,
) -> "Iterator[tuple[list[int], np.ndarray]]":
    """Places of texts and their embeddings, float32 (texts, size), as they come, PARTS at a time.

    ProjectError as `begun_again` has it, and where a node has no such model, or another.
    """
    import numpy as np

    from embed_assets.resources.ray_workers import ray_models

    identity, cuts = model_identity(card), range(0, len(texts), PART)
    parts = deque(Part(card, identity, precision, task, texts[i : i + PART], i) for i in cuts)
    places: list[int] = []
    made: list[np.ndarray] = []
    with (
        progress_bar(progress, len(texts), "text") as bar,
        ray_models(len(parts), SECONDS) as models,
    ):
        for part, matrix in begun_again(models, encode_part, parts):
            places += range(part.start, part.start + len(part.texts))
            made.append(matrix)
            bar.update(len(part.texts))
            if len(made) == PARTS:
                yield places, np.concatenate(made)
                places, made = [], []
        if made:
            yield places, np.concatenate(made)


def begun_again(
    models: Workers, function: Callable[[Item], Result], queue: deque[Item]
) -> Iterator[tuple[Item, Result]]:
    """Items and their results, as they come; the queue may grow between two.

    An item whose process ended is begun once more. ProjectError where an item fails: all are
    needed.
    """
    again: list[Item] = []
    for outcome in models.work_off(function, queue):
        if _may_begin_again(outcome) and not any(outcome.item is item for item in again):
            again.append(outcome.item)
            queue.appendleft(outcome.item)
        elif outcome.failure:
            raise ProjectError(
                f"A model on the Ray cluster failed: {outcome.failure.error}. Each node needs the "
                "model: a folder at the same path (mount the home there), or the hub."
            )
        else:
            yield outcome.item, outcome.result  # pyright: ignore[reportReturnType]


def _may_begin_again(outcome: Outcome[Item, Result]) -> bool:
    return outcome.failure is not None and outcome.failure.cause == Cause.PROCESS_ENDED
