"""A training step on a CPU: the batch whole, as everybody trains, and in parts that fit the cache.

Estimated: a batch of 32 pairs is padded to its longest text, a fifth to a third of it for nothing,
and its activations (32 x 256 tokens) leave the cache at each layer; parts of a few texts of like
length save both, so 1.3 to 1.5 times the speed, at the same loss.

    python benchmarks/training_step.py --beir DIR [--parts 0 512 1024 2048] [--frozen 0 0.34]

Prints processor seconds of a step on one thread (they don't grow with what else the machine does),
of its forward and backward pass, and the loss of the first step, which must be the same for all.
0 is the whole batch.
"""

import argparse
import time
from pathlib import Path

import torch
from sentence_transformers.sentence_transformer.losses import (
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from embed_assets.evaluation.beir import read_beir
from embed_assets.resources.encoder import load_model, model_source
from embed_assets.settings import Settings
from embed_assets.training import forward
from embed_assets.training.weights import freeze_lowest

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


def measure(batches: list[Batch], model: str, part: int, frozen: float) -> None:
    encoder = load_model(model_source(model)).train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if part:
        forward.PART_TOKENS = part
        forward.forward_once(encoder)
    freeze_lowest(encoder, frozen)
    loss = MatryoshkaLoss(encoder, MultipleNegativesRankingLoss(encoder), DIMENSIONS)
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=2e-5, fused=True)
    ahead, whole, losses = 0.0, 0.0, []
    for batch in batches:
        start = time.thread_time()
        columns = [encoder.preprocess(list(texts)) for texts in zip(*batch, strict=True)]
        value = loss(columns, torch.empty(0))
        ahead += time.thread_time() - start
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        whole += time.thread_time() - start
        losses.append(value.item())
    count = len(batches)
    print(
        f"parts of {part or 'all':>5} tokens, {frozen:.2f} frozen: {whole / count:6.2f} s a step, "
        f"forward {ahead / count:5.2f} s, loss {losses[0]:.5f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--beir", type=Path, required=True)
    parser.add_argument("--model", default=Settings().model)
    parser.add_argument("--parts", type=int, nargs="+", default=[0, 512, 1024, 2048])
    parser.add_argument("--frozen", type=float, nargs="+", default=[0.0])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    batches = batches_of(options.beir, options.batches, options.batch_size)
    for frozen in options.frozen:
        for part in options.parts:
            measure(batches, options.model, part, frozen)


if __name__ == "__main__":
    main()
