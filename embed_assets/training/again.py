"""A version trained again from what is kept of its training, and put beside what it was.

On one processor, with the same number of threads, the same code gives the same weights: what comes
out otherwise says that something is not as it was.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.evaluation.retrieval import evaluate, metric_name
from embed_assets.evaluation.scoring import RetrievalTask, mlflow_metrics
from embed_assets.models.card import version_card
from embed_assets.models.encoder import LocalEncoder, load_model
from embed_assets.resources.processes import process_client
from embed_assets.resources.warehouse import digest
from embed_assets.settings import Engine
from embed_assets.training.config import TrainingConfig
from embed_assets.training.kept import copy_training, kept_result
from embed_assets.training.process import train_in_process
from embed_assets.training.validation import BEST_METRIC, Validation

PREFIX = "retraining-"
"""How the folders begin in which versions are trained again: no training takes these up."""
SAME_FIGURES = 1e-6
"""By how much figures may differ, and be called the same."""


def folder_again(models: Path, version: str, *made_with: object) -> Path:
    """Where a version is trained again. made_with: what must be as it was to take it up there."""
    return models / f"{PREFIX}v{version}-{digest(made_with)}"


def folders_again(models: Path) -> list[Path]:
    """Where versions are trained again, or were when that was interrupted."""
    return sorted(folder for folder in models.glob(f"{PREFIX}*") if folder.is_dir())


def prepare_again(
    kept: TrainingConfig,
    base: str,
    start: Path | None,
    folder: Path,
    pairs: pl.DataFrame | None = None,
    label: str = "Training",
) -> TrainingConfig:
    """The training as it was, in another folder; what is there of it is taken up.

    base: where the base model is today. start: the same of the version that it was trained from.
    pairs: what it trains on in place of its own pairs, and with the same columns. label: of its
    progress bar.
    """
    changes = {"folder": folder, "base": base, "start": start, "mlflow_run_id": "", "label": label}
    training = kept.model_copy(update=changes)
    if not training.path.is_file():
        copy_training(kept, training, pairs)
    return training


def train_again(training: TrainingConfig, threads: int, engine: Engine) -> dict[str, Any]:
    """Train in a process, unless that was done; gives what the training returns.

    threads: that it was trained with. engine: where the process is. ProjectError where it fails.
    Interrupted, it ends the process: what it had is taken up by the next call.
    """
    if not (training.model.is_dir() and training.result.is_file()):
        train_in_process(training, process_client(engine).carry_out, "", threads)
    return kept_result(training)


def largest_difference(one: Path, other: Path) -> float | None:
    """Between the weights of two model folders; 0 where they are the same.

    None where one has a tensor that the other lacks, or of another shape.
    """
    files = sorted(file.relative_to(one) for file in one.rglob("*.safetensors"))
    if files != sorted(file.relative_to(other) for file in other.rglob("*.safetensors")):
        return None
    differences = [_difference(one / file, other / file) for file in files]
    if not differences or None in differences:
        return None
    return max(filter(None, differences), default=0.0)


def _difference(one: Path, other: Path) -> float | None:
    import torch
    from safetensors import safe_open

    largest = 0.0
    with safe_open(one, "pt") as first, safe_open(other, "pt") as second:
        names = sorted(first.keys())
        if names != sorted(second.keys()):
            return None
        for name in names:
            mine, theirs = first.get_tensor(name), second.get_tensor(name)
            if mine.shape != theirs.shape:
                return None
            if not torch.equal(mine, theirs):
                between = (mine.double() - theirs.double()).abs().max()
                largest = max(largest, float(torch.nan_to_num(between, nan=torch.inf)))
    return largest


def figures_of(folder: Path, training: TrainingConfig, task: RetrievalTask) -> dict[str, float]:
    """NDCG@10 of a model by split and dimension: on what it was validated on, and on today's tests.

    folder: of the model. training: has the validation. task: today's test questions, maybe none.
    """
    precision = kept_result(training)["precision"]
    model = load_model(str(folder), training.token_limit)
    validated = Validation(training, precision).score(model)
    figures = {
        metric_name("validation_in_training", name): score
        for name, score in validated.items()
        if name != BEST_METRIC
    }
    if task.questions.is_empty():
        return figures
    encoder = LocalEncoder(version_card("version", folder), precision)
    scores = evaluate(
        encoder.encode(list(task.queries.values()), "query", "Encoding questions"),
        encoder.encode(list(task.texts.values()), "document", "Encoding chunks"),
        list(task.queries),
        list(task.texts),
        task.relevant,
        training.dimensions,
        task.splits,
    ).scores
    return figures | mlflow_metrics(scores.filter(metric="ndcg"))


def same_figures(then: Mapping[str, float], now: Mapping[str, float]) -> bool:
    """Whether figures of the same names are the same, but for rounding."""
    return then.keys() == now.keys() and all(
        abs(then[name] - now[name]) <= SAME_FIGURES for name in then
    )
