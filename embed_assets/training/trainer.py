"""The training process: `python -m embed_assets.training.trainer CONFIG`.

Runs as a child of the asset through Dagster Pipes, so that a crash ends a step and not the code
server; streams its progress to Dagster and MLflow; resumes from its last checkpoint; leaves a plain
model folder (safetensors, no pickle).

Matryoshka representation learning (Kusupati et al. 2022) over the multiple-negatives ranking loss
(Henderson et al. 2017): the other positives of a batch are each anchor's negatives, so a batch
never holds one chunk twice.
"""

import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from embed_assets.evaluation.retrieval import evaluate
from embed_assets.resources.encoder import load_model, resolved_precision
from embed_assets.resources.tracking import metric_name
from embed_assets.training.batches import length_grouped_sampler

if TYPE_CHECKING:
    from datasets import Dataset

BEST_METRIC = "eval_ndcg@10"
SECONDS_BETWEEN_REPORTS = 10.0


class TrainingConfig(BaseModel):
    """All that the child needs to know. Frames are parquet files in `folder`."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    base: str
    token_limit: int
    query_prompt: str
    document_prompt: str
    dimensions: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float
    warmup_share: float
    seed: int
    precision: Literal["auto", "fp32", "bf16"]
    tracking_uri: str
    mlflow_run_id: str

    @property
    def pairs(self) -> Path:
        """Training pairs: anchor, positive."""
        return self.folder / "pairs.parquet"

    @property
    def validation(self) -> Path:
        """Validation questions: question_id, anchor, relevant_chunk_ids."""
        return self.folder / "validation.parquet"

    @property
    def corpus(self) -> Path:
        """Every distinct chunk: chunk_id, chunk_text."""
        return self.folder / "corpus.parquet"

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps what it needs to resume."""
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained model. It is there only when it is whole."""
        return self.folder / "model"


def train(config: TrainingConfig, progress: "Progress") -> dict[str, Any]:
    """Fine-tune the base model on the pairs and save the epoch that is best on validation.

    Returns pairs, epochs, seconds, pairs_per_second (of training alone), best_epoch and its NDCG@10
    on validation, resumed_from (step or null) and precision.
    """
    from sentence_transformers import SentenceTransformerTrainer
    from transformers import PrinterCallback, set_seed

    set_seed(config.seed)
    model = load_model(config.base)
    model.max_seq_length = min(model.max_seq_length or config.token_limit, config.token_limit)
    model.prompts = {"query": config.query_prompt, "document": config.document_prompt}
    pairs = _training_dataset(config)
    precision = resolved_precision(config.precision)
    arguments = _arguments(config, len(pairs), precision)
    watch = _watch(config, progress, len(pairs))
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=pairs,
        loss=_loss(model, config.dimensions),
        evaluator=_evaluator(config, watch, precision),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)  # the watch says it
    checkpoint = last_checkpoint(config.checkpoints)
    if checkpoint:
        progress.say(f"Resuming from {checkpoint.name}")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    _save(model, config)
    best = max(watch.validation, key=lambda row: row["ndcg@10"], default={"epoch": 0, "ndcg@10": 0})
    steps = max(1, trainer.state.global_step - watch.first_step)
    seconds = max(watch.training_seconds, 1e-9)
    return {
        "pairs": len(pairs),
        "epochs": config.epochs,
        "steps": trainer.state.global_step,
        "seconds": round(watch.training_seconds, 2),
        "pairs_per_second": round(steps * config.batch_size / seconds, 3),
        "best_epoch": best["epoch"],
        "best_validation_ndcg_at_10": best["ndcg@10"],
        "resumed_from": checkpoint.name if checkpoint else None,
        "precision": precision,
    }


def training_lock(folder: Path) -> FileLock:
    """Held by the process that trains in a folder. filelock.Timeout if another one does."""
    return FileLock(f"{folder}.lock", timeout=0)


def last_checkpoint(folder: Path) -> Path | None:
    """Newest whole checkpoint in a folder: the trainer writes its state last."""
    whole = [p for p in folder.glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return max(whole, key=lambda p: int(p.name.rpartition("-")[2]), default=None)


def _training_dataset(config: TrainingConfig) -> "Dataset":
    """Anchor first: sentence-transformers goes by the order of columns, not by their names."""
    from datasets import Dataset

    pairs = pl.read_parquet(config.pairs).select("anchor", "positive")
    return Dataset.from_dict(pairs.to_dict(as_series=False))


def _loss(model: Any, dimensions: tuple[int, ...]) -> Any:
    from sentence_transformers.sentence_transformer.losses import (
        MatryoshkaLoss,
        MultipleNegativesRankingLoss,
    )

    return MatryoshkaLoss(
        model, MultipleNegativesRankingLoss(model), matryoshka_dims=list(dimensions)
    )


def _arguments(config: TrainingConfig, pairs: int, precision: str) -> Any:
    import torch
    from sentence_transformers import SentenceTransformerTrainingArguments

    steps = math.ceil(pairs / config.batch_size) * config.epochs
    return SentenceTransformerTrainingArguments(
        output_dir=str(config.checkpoints),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=round(steps * config.warmup_share),
        lr_scheduler_type="cosine",
        bf16=precision == "bf16",
        batch_sampler=length_grouped_sampler,
        prompts={"anchor": config.query_prompt, "positive": config.document_prompt},
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=BEST_METRIC,
        greater_is_better=True,
        logging_strategy="steps",
        logging_steps=1,
        logging_first_step=True,
        disable_tqdm=True,
        report_to="none",
        seed=config.seed,
        data_seed=config.seed,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _evaluator(config: TrainingConfig, watch: Any, precision: str) -> Any:
    """Scores validation questions against all chunks, at every dimension, from one encoding."""
    import torch
    from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

    questions = pl.read_parquet(config.validation)
    corpus = pl.read_parquet(config.corpus)
    ids = questions["question_id"].to_list()
    relevant = dict(zip(ids, map(set, questions["relevant_chunk_ids"].to_list()), strict=True))

    class ValidationEvaluator(SentenceEvaluator):
        primary_metric = "ndcg@10"

        def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
            autocast = torch.autocast(
                model.device.type, torch.bfloat16, enabled=precision == "bf16"
            )
            with watch.pause("validating"), autocast:
                encode = {"batch_size": 32, "convert_to_numpy": True, "show_progress_bar": False}
                result = evaluate(
                    model.encode(
                        questions["anchor"].to_list(), prompt=config.query_prompt, **encode
                    ),
                    model.encode(
                        corpus["chunk_text"].to_list(), prompt=config.document_prompt, **encode
                    ),
                    ids,
                    corpus["chunk_id"].to_list(),
                    relevant,
                    config.dimensions,
                )
            ndcg = result.scores.filter(pl.col("metric") == "ndcg")
            by_dimension = dict(ndcg.select("dimension", "score").iter_rows())
            figures = {f"dim_{d}_cosine_ndcg@10": score for d, score in by_dimension.items()}
            return {"ndcg@10": by_dimension[max(by_dimension)], **figures}

    return ValidationEvaluator()


class Progress:
    """Where the training says how it goes: Dagster's log through Pipes, and MLflow."""

    def __init__(self, pipes: Any, config: TrainingConfig) -> None:
        from mlflow import MlflowClient

        self._pipes = pipes
        self._client = MlflowClient(config.tracking_uri)
        self._run_id = config.mlflow_run_id

    def say(self, message: str) -> None:
        """A line for Dagster's log."""
        self._pipes.log.info(message)

    def measure(self, metrics: dict[str, float], step: int) -> None:
        """Metrics of a step, for MLflow."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=rows)


def _watch(config: TrainingConfig, progress: Progress, pairs: int) -> Any:
    """A trainer callback that draws the progress bar and reports what is measured."""
    from contextlib import contextmanager

    from tqdm import tqdm
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def __init__(self) -> None:
            self.validation: list[dict[str, Any]] = []
            self.training_seconds = 0.0
            self.first_step = 0
            self._since: float | None = None
            self._reported = 0.0
            self._pending: dict[int, dict[str, float]] = {}
            self._bar: Any = None

        @contextmanager
        def pause(self, what: str) -> Any:
            self._stop_clock()
            if self._bar is not None:
                self._bar.set_postfix_str(what)
            yield
            self._since = time.monotonic()

        def _stop_clock(self) -> None:
            if self._since is not None:
                self.training_seconds += time.monotonic() - self._since
                self._since = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.first_step = state.global_step
            self._since = time.monotonic()
            for row in state.log_history:  # what a resumed run had measured before it ended
                if BEST_METRIC in row:
                    self.validation.append({"epoch": row["epoch"], "ndcg@10": row[BEST_METRIC]})
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="Training", unit="batch"
            )
            progress.say(f"Training on {pairs} pairs: {state.max_steps} steps")

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._bar.update(state.global_step - self._bar.n)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kw: Any) -> None:
            if not logs or "loss" not in logs:
                return
            step = state.global_step
            self._pending[step] = {"loss": logs["loss"], "learning_rate": logs["learning_rate"]}
            self._bar.set_postfix_str(f"loss {logs['loss']:.3f}")
            now = time.monotonic()
            if now - self._reported >= SECONDS_BETWEEN_REPORTS:
                self._reported = now
                done = max(1, step - self.first_step)
                seconds = self.training_seconds + (now - self._since if self._since else 0.0)
                left = (state.max_steps - step) * seconds / done
                progress.say(
                    f"Step {step} of {state.max_steps}: loss {logs['loss']:.4f}, "
                    f"{done * config.batch_size / max(seconds, 1e-9):.1f} pairs/s, "
                    f"{left:.0f} s left"
                )
                self._flush()

        def on_evaluate(
            self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
        ) -> None:
            if not metrics or BEST_METRIC not in metrics:
                return
            epoch, ndcg = round(state.epoch, 2), metrics[BEST_METRIC]
            self.validation.append({"epoch": epoch, "ndcg@10": ndcg})
            figures = {
                metric_name("validation", name.removeprefix("eval_")): value
                for name, value in metrics.items()
                if name.startswith("eval_dim_")
            }
            progress.measure({**figures, "epoch": epoch}, state.global_step)
            progress.say(f"Epoch {epoch:g}: validation NDCG@10 {ndcg:.4f}")

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._stop_clock()
            self._flush()
            self._bar.close()

        def _flush(self) -> None:
            for step, metrics in self._pending.items():
                progress.measure(metrics, step)
            self._pending.clear()

    return Watch()


def _save(model: Any, config: TrainingConfig) -> None:
    """Write the model folder whole or not at all."""
    unfinished = config.folder / "model.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(str(unfinished), create_model_card=False)
    shutil.rmtree(config.model, ignore_errors=True)
    unfinished.rename(config.model)


def main() -> None:
    """Entry point of the child process."""
    from dagster_pipes import open_dagster_pipes

    config = TrainingConfig.model_validate_json(Path(sys.argv[1]).read_text())
    with training_lock(config.folder), open_dagster_pipes() as pipes:
        result = train(config, Progress(pipes, config))
        (config.folder / "result.json").write_text(json.dumps(result))
        shutil.rmtree(config.checkpoints, ignore_errors=True)


if __name__ == "__main__":
    main()
