"""How many texts fit in memory at once while a transformer is trained on them."""

from pathlib import Path
from typing import Any

SHARE = 0.6
"""Of the memory that is free; the rest is for what the estimate leaves out."""
CGROUP = Path("/sys/fs/cgroup")


def texts_that_fit(model: Any, tokens: int, *, bf16: bool, checkpointing: bool) -> int:
    """Texts of so many tokens whose forward and backward pass fits into free memory; at least 1.

    Activations of a layer take s·b·h·(34 + 5·a·s/h) bytes in 16 bit, and s·b·h·2 where they are
    computed again on the way back (Korthikanti et al. 2022, 'Reducing Activation Recomputation').
    Embeddings' gradients and the optimizer's two moments are taken off first.
    """
    shape = model[0].auto_model.config
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    hidden, heads, layers = shape.hidden_size, shape.num_attention_heads, shape.num_hidden_layers
    width = 1 if bf16 else 2
    whole_layer = width * tokens * hidden * (34 + 5 * heads * tokens / hidden)
    kept_layers = width * tokens * hidden * 2 * layers + whole_layer
    per_text = kept_layers if checkpointing else whole_layer * layers
    left = SHARE * (free_memory(model.device) - 12 * weights)
    return max(1, int(left / per_text))


def free_memory(device: Any) -> int:
    """Bytes that may still be taken on a torch device: of the GPU, or of what this process has."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return min(psutil.virtual_memory().available, _container_memory())


def peak_memory(device: Any) -> int:
    """The most bytes that this process has held on a torch device."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _container_memory() -> int:
    """What a container may still take (cgroup v2); more than any machine has, without a limit."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
    except OSError:
        return 2**63
    return 2**63 if limit == "max" else max(0, int(limit) - used)
