"""How many texts fit in memory at once while a transformer is trained on them."""

import sys
from typing import Any

SHARE = 0.6
"""Of the memory that there is; the rest is for what the estimate leaves out, and for others."""


def texts_that_fit(
    model: Any, tokens: int, *, memory_bytes: int, bf16: bool, checkpointing: bool
) -> int:
    """Texts of so many tokens whose forward and backward pass fits into memory; at least 1.

    memory_bytes: this process's share of all that there is, not of what is free just now: every
    process comes to the same answer, and so does a run that takes up where another was killed.

    Activations of a layer take s·b·h·(34 + 5·a·s/h) bytes in 16 bit, and s·b·h·2 where they are
    computed again on the way back (Korthikanti et al. 2022, 'Reducing Activation Recomputation').
    Gradients and the optimizer's two moments are taken off first. A model that isn't a transformer
    has no activations to speak of.
    """
    shape: Any = getattr(getattr(model[0], "auto_model", None), "config", None)
    if not hasattr(shape, "num_attention_heads"):
        return sys.maxsize
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    hidden, heads, layers = shape.hidden_size, shape.num_attention_heads, shape.num_hidden_layers
    width = 1 if bf16 else 2
    whole_layer = width * tokens * hidden * (34 + 5 * heads * tokens / hidden)
    kept_layers = width * tokens * hidden * 2 * layers + whole_layer
    per_text = kept_layers if checkpointing else whole_layer * layers
    left = SHARE * memory_bytes - 12 * weights
    return max(1, int(left / per_text))
