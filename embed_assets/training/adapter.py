"""A linear query adapter: the base model stays as it is, only queries are turned towards chunks.

A matrix is put behind the query's embedding. Chunks keep the embeddings that they have, so that no
index is made anew, and training takes seconds, since nothing is encoded again. It begins as the
identity. (LlamaIndex's adapter fine-tuning is the same idea, for one dimension.)
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from embed_assets.machine import this_machine
from embed_assets.models.encoder import load_model
from embed_assets.models.identity import note_same
from embed_assets.training.config import TrainingConfig
from embed_assets.training.kept import surroundings
from embed_assets.training.losses import TEMPERATURE
from embed_assets.training.progress import Progress
from embed_assets.training.validation import ndcg_by_dimension
from embed_assets.training.weights import save_model
from embed_assets.wording import counted

EPOCHS = 60
PATIENCE = 6
BATCH = 128
"""Questions per step. Every chunk that is trained on is a candidate, up to CANDIDATES of them."""
CANDIDATES = 8192


def fit_adapter(config: TrainingConfig, progress: Progress) -> dict[str, Any]:
    """Fit the adapter on the pairs' embeddings and save the epoch that is best on validation.

    Reads the columns `embedding` of the frames in the config's folder. Returns what `train` does.
    """
    import torch

    started = time.monotonic()
    torch.manual_seed(config.seed)
    random = np.random.default_rng(config.seed)
    pairs = pl.read_parquet(config.pairs)
    chunks = pairs.unique("chunk_id", maintain_order=True)
    place_of = {chunk_id: place for place, chunk_id in enumerate(chunks["chunk_id"])}
    questions = torch.from_numpy(_matrix(pairs["anchor_embedding"]))
    answers = torch.from_numpy(_matrix(chunks["positive_embedding"]))
    target = np.array([place_of[chunk_id] for chunk_id in pairs["chunk_id"]])
    related = [
        [place_of[chunk_id] for chunk_id in ids if chunk_id in place_of]
        for ids in pairs["related_chunk_ids"]
    ]
    score = _validation(config)
    adapter = torch.nn.Linear(questions.shape[1], questions.shape[1], bias=False)
    torch.nn.init.eye_(adapter.weight)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=config.learning_rate, weight_decay=0)
    base = score(adapter.weight.detach().numpy())
    best, best_weight, best_epoch = base, adapter.weight.detach().clone(), 0
    progress.say(
        f"Fitting an adapter to {counted(pairs.height, 'pair')}: validation NDCG@10 {best:.4f}"
    )
    epoch = 0
    while epoch < EPOCHS and epoch - best_epoch < PATIENCE:
        epoch += 1
        losses = []
        order = random.permutation(pairs.height)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            others = random.permutation(len(answers))[:CANDIDATES]
            candidates = np.union1d(others, target[batch])
            loss = _loss(
                adapter(questions[batch]),
                answers[candidates],
                torch.from_numpy(np.searchsorted(candidates, target[batch])),
                _forbidden(candidates, [related[i] for i in batch], target[batch]),
                config.dimensions,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        ndcg = score(adapter.weight.detach().numpy())
        measured = {"loss": float(np.mean(losses)), "validation_ndcg_at_10": ndcg}
        progress.measure({epoch: measured})
        if ndcg > best:
            best, best_weight, best_epoch = ndcg, adapter.weight.detach().clone(), epoch
    progress.say(f"Adapter of epoch {best_epoch}: validation NDCG@10 {best:.4f}")
    _save(config, best_weight)
    seconds = time.monotonic() - started
    return {
        "pairs": pairs.height,
        "epochs": epoch,
        "steps": epoch * -(-pairs.height // BATCH),
        "step_seconds": round(seconds, 2),
        "pairs_per_second": round(epoch * pairs.height / seconds, 3),
        "best_epoch": best_epoch,
        "best_validation_ndcg_at_10": best,
        "base_validation_ndcg_at_10": base,
        "tuned_share": 1.0,
        "resumed_from": None,
        "precision": "fp32",
        "machine": str(this_machine()),
        **surroundings(),
    }


def _loss(queries: Any, chunks: Any, target: Any, forbidden: Any, dimensions: Any) -> Any:
    """Cross entropy of cosines at each dimension, related chunks left out."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    losses = []
    for dimension in dimensions:
        cosines = normalize(queries[:, :dimension]) @ normalize(chunks[:, :dimension]).T
        losses.append(cross_entropy((cosines / TEMPERATURE).masked_fill(forbidden, -1e9), target))
    return torch.stack(losses).sum()


def _forbidden(candidates: np.ndarray, related: list[list[int]], target: np.ndarray) -> Any:
    """Bool (questions, candidates): related to the question, and not its target."""
    import torch

    rows = zip(related, target, strict=True)
    mask = [np.isin(candidates, places) & (candidates != own) for places, own in rows]
    return torch.from_numpy(np.stack(mask))


def _validation(config: TrainingConfig) -> Callable[[np.ndarray], float]:
    """What an adapter scores: NDCG@10 at the largest dimension, on embeddings alone."""
    questions, corpus = pl.read_parquet(config.validation), pl.read_parquet(config.corpus)
    queries, documents = _matrix(questions["embedding"]), _matrix(corpus["embedding"])
    largest = max(config.dimensions)

    def score(adapter: np.ndarray) -> float:
        adapted = queries @ adapter.T
        return ndcg_by_dimension(adapted, documents, questions, corpus, [largest])[largest]

    return score


def _matrix(embeddings: pl.Series) -> np.ndarray:
    """Float32 (texts, size) of a column of embeddings, each of length one."""
    matrix = embeddings.list.to_array(len(embeddings[0])).to_numpy().astype(np.float32)
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)


def _save(config: TrainingConfig, weight: Any) -> None:
    """A model whose queries pass through the adapter, and whose documents don't."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Router
    from torch.nn import Identity

    base = load_model(config.base, config.token_limit)
    size = weight.shape[0]
    adapter = Dense(size, size, bias=False, activation_function=Identity(), init_weight=weight)
    documents = list(base)
    model = SentenceTransformer(
        modules=[Router.for_query_document([*documents, adapter], documents)],
        prompts={"query": config.query_prompt, "document": config.document_prompt},
    )
    save_model(model, config.model, config.dimensions)
    note_same(config.model, "document", config.base)
