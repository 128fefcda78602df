"""A training step on a CPU: whole with dropout, as everybody trains, in parts, and without dropout.

Estimated before it was built: a batch of 32 pairs is padded to its longest text, a fifth to a third
of it for nothing, and its activations (32 x 256 tokens) leave the cache at each layer; parts of a
few texts of like length save both, so 1.3 to 1.5 times the speed, at the same loss. Attention has a
fast path on CPUs that knows no dropout: without it another fifth. Found (docs/results.md): 1.5
times where lengths differ, 1.1 where texts fill 256 tokens, 1 where they fill 128; without dropout
1.2.

    python benchmarks/training_step.py --beir DIR [--parts 0 512 1024 2048] [--frozen 0 0.34]
        [--dropout 0 0.1] [--tokens 128]

Prints processor seconds of a step on one thread (they don't grow with what else the machine does),
of its forward pass, how many floating-point operations of matrix products a second that is, and the
loss of the first step, which without dropout must be the same for all. 0 is the whole batch. The
first line is what the processor does in products of such matrices alone: no step can do more.
"""

import argparse
import time
from argparse import Namespace
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from sentence_transformers.sentence_transformer.losses import (
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from embed_assets.evaluation.beir import read_beir
from embed_assets.machine import this_machine
from embed_assets.models.card import model_source
from embed_assets.models.encoder import load_model
from embed_assets.settings import Settings
from embed_assets.training import forward
from embed_assets.training.weights import freeze_lowest, set_dropout

DIMENSIONS = [384, 256, 128, 64]
Batch = list[tuple[str, str]]


def batches_of(folder: Path, count: int, size: int) -> list[Batch]:
    task = read_beir(folder)
    answers: dict[str, str] = {}  # one query for each document: no batch holds a text twice
    for query, ids in task.relevant.items():
        found = [i for i in sorted(ids) if i in task.corpus and i not in answers]
        if found:
            answers[found[0]] = query
    pairs = [(task.queries[query], task.corpus[i]) for i, query in answers.items()]
    return [pairs[start : start + size] for start in range(0, count * size, size)]


def measure(batches: list[Batch], model: str, part: int, frozen: float, given: Namespace) -> None:
    torch.manual_seed(0)
    machine = replace(this_machine(), find_gpus=tuple)
    encoder = load_model(model_source(model), machine=machine).train()
    encoder.max_seq_length = min(encoder.max_seq_length, given.tokens or encoder.max_seq_length)
    set_dropout(encoder, given.share)
    if part:
        forward.PART_TOKENS = part
        forward.forward_once(encoder, machine)
    freeze_lowest(encoder, frozen)
    loss = MatryoshkaLoss(encoder, MultipleNegativesRankingLoss(encoder), DIMENSIONS)
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=2e-5, fused=True)
    products = sum(layer.weight.numel() for layer in linear_layers(encoder))
    ahead, whole, losses, tokens = 0.0, 0.0, [], 0
    for batch in batches:
        start = time.thread_time()
        columns = [encoder.preprocess(list(texts)) for texts in zip(*batch, strict=True)]
        tokens += sum(int(column["attention_mask"].sum()) for column in columns)
        value = loss(columns, torch.empty(0))
        ahead += time.thread_time() - start
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        whole += time.thread_time() - start
        losses.append(value.item())
    count = len(batches)
    # Forward, and back to inputs and to weights: a product each, of two operations.
    speed = "" if frozen else f", {6 * products * tokens / whole / 1e9:4.0f} GFLOP/s"
    print(
        f"parts of {part or 'all':>5} tokens, {frozen:.2f} frozen, {given.share:.2f} dropout: "
        f"{whole / count:6.2f} s a step, forward {ahead / count:5.2f} s{speed}, "
        f"loss {losses[0]:.5f}",
        flush=True,
    )


def linear_layers(encoder: torch.nn.Module) -> list[torch.nn.Linear]:
    return [module for module in encoder.modules() if isinstance(module, torch.nn.Linear)]


def speed_of_products() -> float:
    """Floating-point operations a second of a layer's largest product."""
    tokens, weights, times = torch.randn(1024, 384), torch.randn(384, 1536), 200
    torch.mm(tokens, weights)
    start = time.thread_time()
    for _ in range(times):
        torch.mm(tokens, weights)
    return times * 2 * tokens.numel() * weights.shape[1] / (time.thread_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--beir", type=Path, required=True)
    parser.add_argument("--model", default=Settings().model)
    parser.add_argument("--parts", type=int, nargs="+", default=[0, 512, 1024, 2048])
    parser.add_argument("--frozen", type=float, nargs="+", default=[0.0])
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0])
    parser.add_argument("--tokens", type=int, default=0, help="of a text; 0: the model's own")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    batches = batches_of(options.beir, options.batches, options.batch_size)
    print(f"products alone: {speed_of_products() / 1e9:.0f} GFLOP/s")
    for share, frozen, part in product(options.dropout, options.frozen, options.parts):
        options.share = share
        measure(batches, options.model, part, frozen, options)


if __name__ == "__main__":
    main()
