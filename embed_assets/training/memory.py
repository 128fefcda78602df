"""How many texts fit in memory at once while a transformer is trained on them."""

import sys
from dataclasses import dataclass
from typing import Any

SHARE = 0.6
"""Of the memory that there is; the rest is for what the estimate leaves out, and for others."""


@dataclass(frozen=True)
class Room:
    """What memory holds of a training.

    texts: whose forward and backward pass fits at once, at least 1. checkpointing: whether their
    activations are computed again on the way back, because not even one text's fit otherwise.
    """

    texts: int
    checkpointing: bool = False


def room_for(model: Any, tokens: int, *, memory_bytes: int, bf16: bool) -> Room:
    """Room for texts of so many tokens.

    memory_bytes: this process's share of all that there is, not of what is free just now: every
    process comes to the same answer, and so does a run that takes up where another was killed.

    Activations of a layer take s·b·h·(34 + 5·a·s/h) bytes in 16 bit, and s·b·h·2 where they are
    computed again on the way back (Korthikanti et al. 2022, 'Reducing Activation Recomputation').
    Gradients and the optimizer's two moments are taken off first. A model that isn't a transformer
    has no activations to speak of.
    """
    shape: Any = getattr(getattr(model[0], "auto_model", None), "config", None)
    if not hasattr(shape, "num_attention_heads"):
        return Room(sys.maxsize)
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    hidden, heads, layers = shape.hidden_size, shape.num_attention_heads, shape.num_hidden_layers
    width = 1 if bf16 else 2
    layer = width * tokens * hidden * (34 + 5 * heads * tokens / hidden)
    left = SHARE * memory_bytes - 12 * weights
    if left >= layer * layers:
        return Room(int(left / (layer * layers)))
    computed_again = width * tokens * hidden * 2 * layers + layer
    return Room(max(1, int(left / computed_again)), checkpointing=True)
