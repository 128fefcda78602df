"""The loss: in-batch negatives at every Matryoshka dimension.

Matryoshka representation learning (Kusupati et al. 2022) over the multiple-negatives ranking loss
(Henderson et al. 2017), the same with cached gradients (Gao et al. 2021), so that a large batch
needs the memory of a small one, or with the frozen base as the guide that says which negatives are
none (Solatorio 2024).
"""

from typing import Any

from embed_assets.machine import Machine
from embed_assets.models.encoder import load_model
from embed_assets.training.config import TrainingConfig

TEMPERATURE = 0.05
"""Of the softmax over cosines: sentence-transformers' own for multiple negatives (scale 20)."""
GUIDE_MARGIN = 0.05
"""A negative that the guide scores above 95 % of the positive is left out."""


def make_loss(
    model: Any, config: TrainingConfig, cached_texts: int | None, machine: Machine
) -> Any:
    """Matryoshka over the loss that the config names.

    cached_texts: texts per mini-batch of cached gradients, the same loss and the same gradients for
    another forward pass; None where the whole batch goes at once.
    """
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MatryoshkaLoss,
        MultipleNegativesRankingLoss,
    )

    options: dict[str, Any] = {"gather_across_devices": config.processes > 1}
    if cached := cached_texts is not None:
        options["mini_batch_size"] = cached_texts
    if config.loss == "gist":
        loss = _guided(model, config, cached, options, machine)
    else:
        kind = CachedMultipleNegativesRankingLoss if cached else MultipleNegativesRankingLoss
        loss = kind(model, scale=1 / TEMPERATURE, **options)
    return MatryoshkaLoss(model, loss, matryoshka_dims=list(config.dimensions))


def cached_texts(config: TrainingConfig, columns: int, fit: int) -> int | None:
    """Texts per mini-batch where gradients are cached: as asked, or because a batch doesn't fit.

    columns: texts of a pair, its hard negatives included. fit: texts that memory holds at once.
    """
    share = config.batch_size // config.processes
    if config.loss != "cached_mnrl" and columns * share <= fit:
        return None
    return max(1, min(fit, share))


def _guided(
    model: Any, config: TrainingConfig, cached: bool, options: dict[str, Any], machine: Machine
) -> Any:
    from sentence_transformers.sentence_transformer.losses import CachedGISTEmbedLoss, GISTEmbedLoss

    guide = load_model(config.base, config.token_limit, machine)
    guide.requires_grad_(False)
    guide.eval()
    guide.forward = _remembering(guide.forward)
    kind = CachedGISTEmbedLoss if cached else GISTEmbedLoss
    return kind(
        model,
        guide,
        temperature=TEMPERATURE,
        margin_strategy="relative",
        margin=GUIDE_MARGIN,
        contrast_anchors=False,
        contrast_positives=False,
        **options,
    )


def _remembering(forward: Any) -> Any:
    """The forward pass of a frozen model, run once for each of the texts of a batch.

    The loss is computed at each dimension, and would ask the guide anew for each.
    """
    last: dict[bytes, Any] = {}

    def call(features: dict[str, Any], **options: Any) -> dict[str, Any]:
        key = features["input_ids"].cpu().numpy().tobytes()
        if key not in last:
            if len(last) >= 2:  # anchors and positives of one batch
                last.clear()
            last[key] = forward(features, **options)
        return dict(last[key])

    return call
