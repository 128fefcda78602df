"""A batch's forward pass with nothing done twice: each distinct text once, on a CPU in parts.

Where pairs of a chunk share a batch (`batches.py`) its text stands there once for each; its
embedding is computed once and repeated, and with it the way back.

A batch is padded to its longest text, and its activations leave a CPU's cache at each layer. In
parts of like lengths, each no larger than the cache takes, the embeddings, the loss and the
gradients are the same. Measured with MiniLM and 32 pairs, in seconds of one core: two thirds of the
time on papers cut into chunks, nine tenths where nearly every text is as long as the model takes
(scifact; `benchmarks/training_step.py`), all of it where they are cut at 128. The memory is that of
the whole batch.
"""

from collections.abc import Callable
from typing import Any

from embed_assets.machine import Machine
from embed_assets.models.encoder import batches

PART_TOKENS = 1024
"""Tokens of a part, padding included. 512 to 2,048 differ by less than a fifth."""

Features = dict[str, Any]
Forward = Callable[..., Features]


def forward_once(model: Any, machine: Machine) -> None:
    """Have a sentence-transformers model in training work through batches of tokens so."""
    forward = model.forward
    most = None if machine.gpus else PART_TOKENS

    def call(features: Features, **options: Any) -> Features:
        tokens, mask = features.get("input_ids"), features.get("attention_mask")
        known = tokens is not None and mask is not None and tokens.shape == mask.shape
        if not model.training or not known:
            return forward(features, **options)
        first, place = _distinct(tokens, mask)
        once = _rows(features, mask, first)
        embeddings = _in_parts(forward, once, most, options)
        return {**features, "sentence_embedding": embeddings[place]}

    model.forward = call


def _distinct(input_ids: Any, mask: Any) -> tuple[Any, Any]:
    """Row of each distinct text, and for each row which of these its text is."""
    import torch

    _, place = torch.unique(torch.stack([input_ids, mask]), dim=1, return_inverse=True)
    order = torch.arange(len(place), device=place.device)
    # Of several rows written to one place any stays: they are the same text.
    first = order.new_empty(int(place.max()) + 1).scatter_(0, place, order)
    return first, place


def _in_parts(forward: Forward, features: Features, most: int | None, options: Features) -> Any:
    """The embeddings, computed in parts of at most so many tokens where that is given.

    A part has no more padding than its longest text needs.
    """
    if most is None:
        return forward(features, **options)["sentence_embedding"]
    import torch

    mask = features["attention_mask"]
    lengths = mask.sum(dim=1)
    order, embeddings = [], []
    for places in batches(lengths.numpy(), most):
        rows = torch.from_numpy(places)
        longest = int(lengths[rows].max())
        left_padded = bool(mask[rows, -1].all())
        columns = slice(-longest, None) if left_padded else slice(longest)
        part = _rows(features, mask, rows, columns)
        order.append(rows)
        embeddings.append(forward(part, **options)["sentence_embedding"])
    return torch.cat(embeddings)[torch.argsort(torch.cat(order))]


def _rows(features: Features, mask: Any, rows: Any, columns: slice = slice(None)) -> Features:
    """These rows of all that goes by row, and these columns of all that goes by token."""
    import torch

    part = dict(features)
    for name, value in features.items():
        if torch.is_tensor(value) and value.shape == mask.shape:
            part[name] = value[rows][:, columns]
        elif torch.is_tensor(value) and value.shape[:1] == mask.shape[:1]:
            part[name] = value[rows]
    return part
