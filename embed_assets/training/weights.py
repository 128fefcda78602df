"""A model's trained weights on disk, LoRA folded into them, and the mean of two models' weights."""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embed_assets.training.usual_form import write_usual_form

LORA_RANK = 16
RATIOS = (0.75, 0.5, 0.25)
"""Shares of the tuned weights that are tried beside all of them."""


def save_weights(model: Any, path: Path) -> None:
    """Write the weights that are trained, whole or not at all."""
    from safetensors.torch import save_file

    weights = {
        name: weight.detach().cpu().contiguous()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    unfinished = path.with_name(path.name + ".unfinished")
    save_file(weights, unfinished)
    unfinished.replace(path)


def save_model(model: Any, folder: Path, dimensions: Sequence[int]) -> None:
    """Write a model's folder whole or not at all. dimensions: at which its embeddings may be cut.

    Its config says so in the words that vLLM asks for before it cuts any.
    """
    for module in model.modules():
        if (config := getattr(getattr(module, "auto_model", None), "config", None)) is not None:
            config.is_matryoshka = True
            config.matryoshka_dimensions = sorted(dimensions)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(str(unfinished), create_model_card=False)
    write_usual_form(unfinished, model.max_seq_length or math.inf)
    # safetensors writes files that nobody else may read, whatever the umask says of all others.
    usual = (unfinished / "modules.json").stat().st_mode
    for file in filter(Path.is_file, unfinished.rglob("*")):
        file.chmod(usual)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def load_weights(model: Any, path: Path) -> None:
    """Put saved weights into the model that they were saved from. KeyError where it lacks one."""
    from safetensors.torch import load_file

    put_weights(model, load_file(path))


def put_weights(model: Any, weights: Mapping[str, Any]) -> None:
    """Copy weights by name into a model's parameters."""
    import torch

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)


def freeze_lowest(model: Any, share: float) -> None:
    """Leave the word embeddings and this share of the layers, the lowest, as they are.

    What they know of the language holds for any document, and the way back through them is saved.
    Nothing is frozen where the share is below one layer, nor of a model that has no layers.
    """
    transformer = getattr(model[0], "auto_model", None)
    if transformer is None or not (layers := _lowest_layers(transformer, share)):
        return
    parts = (transformer.get_input_embeddings(), getattr(transformer, "embeddings", None), *layers)
    for part in filter(None, parts):
        part.requires_grad_(False)


def _lowest_layers(transformer: Any, share: float) -> list[Any]:
    """The lowest layers of a transformer, this share of them, rounded down."""
    from torch.nn import ModuleList

    stacks = [part for part in transformer.modules() if isinstance(part, ModuleList)]
    layers = list(max(stacks, key=len, default=[]))
    return layers[: int(share * len(layers) + 1e-9)]


def set_dropout(model: Any, share: float) -> None:
    """Leave out this share of the activations while training, whatever the model's own config says.

    Without any, a step on a CPU takes five sixths of the time (`benchmarks/training_step.py`):
    attention has a fast path there that knows no dropout.
    """
    from torch.nn import Dropout

    for module in model.modules():
        if isinstance(module, Dropout):
            module.p = share
        for name in ("dropout", "attention_dropout", "dropout_prob"):  # attention's, as a number
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, share)


def add_lora(model: Any, frozen_share: float) -> None:
    """Freeze the model, and train low-rank changes of its transformer's linear layers.

    Hu et al. 2021, 'LoRA'. frozen_share: of the layers, the lowest, that stay as they are.
    """
    from peft import LoraConfig

    model.requires_grad_(requires_grad=False)  # of what follows the transformer too
    transformer = model[0].auto_model
    lowest = _lowest_layers(transformer, frozen_share)
    frozen = {part for layer in lowest for part in layer.modules()}
    names = [name for name, part in transformer.named_modules() if part in frozen]
    model.add_adapter(
        LoraConfig(
            r=LORA_RANK,
            lora_alpha=2 * LORA_RANK,
            lora_dropout=0.0,
            target_modules="all-linear",
            exclude_modules=names or None,
        )
    )


def fold_in_lora(model: Any) -> None:
    """Add the low-rank changes to the weights, so that a plain model is left."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            above, _, last = name.rpartition(".")
            setattr(model.get_submodule(above), last, layer.get_base_layer())
    transformer = model[0].auto_model
    transformer._hf_peft_config_loaded = False
    del transformer.peft_config


def interpolate(base: Mapping[str, Any], tuned: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Weights between base (0) and tuned (1): Wortsman et al. 2022, 'Robust fine-tuning'.

    base: what the training started from.

    A line is enough; sentence-transformers' own merging would bring mergekit with it.
    """
    return {name: base[name].lerp(weight, share) for name, weight in tuned.items()}
