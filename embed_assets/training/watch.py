"""What happens between the steps of a training: reports, validation's best weights, checkpoints."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embed_assets.evaluation.retrieval import metric_name
from embed_assets.machine import Machine
from embed_assets.training.config import TrainingConfig
from embed_assets.training.progress import Clock, Progress, StepReport
from embed_assets.training.validation import BEST_METRIC
from embed_assets.training.weights import save_weights
from embed_assets.wording import counted

NDCG = f"eval_{BEST_METRIC}"


@dataclass(frozen=True)
class Validated:
    """NDCG@10 of the model at a step."""

    step: int
    epoch: float
    ndcg: float


def validated(log_history: Iterable[Mapping[str, Any]]) -> list[Validated]:
    """What a trainer's history holds of validation, in the order of the steps."""
    return [
        Validated(row["step"], round(row["epoch"], 2), row[NDCG])
        for row in log_history
        if NDCG in row
    ]


def best_of(rows: Iterable[Validated]) -> Validated:
    """The best, the first of equals. ValueError where there is none."""
    return max(rows, key=lambda row: row.ndcg)


class Watch:
    """Called by transformers' trainer, by the names of its events; `callback` makes it one of its.

    Every method is given the trainer's arguments, its state, and `control`, in which it may ask for
    something.
    """

    def __init__(
        self, config: TrainingConfig, progress: Progress, clock: Clock, pairs: int, machine: Machine
    ) -> None:
        """pairs: how many are trained on."""
        self._config, self._progress, self._clock, self._pairs = config, progress, clock, pairs
        self._report = StepReport(progress, clock, machine)
        self._saved = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take up what a run that was killed had measured, and begin."""
        self._progress.measure(_measured(state.log_history))
        label = self._config.label if state.is_world_process_zero else None
        self._report.begin(state.global_step, state.max_steps, label)
        self._saved = time.monotonic()
        self._clock.start()
        pairs, steps = counted(self._pairs, "pair"), counted(state.max_steps, "step")
        self._progress.say(
            f"Training on {pairs}: {steps} in {counted(self._config.epochs, 'epoch')}"
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint where the last one is long ago."""
        self._report.advance(state.global_step)
        config = self._config
        due = time.monotonic() - self._saved >= config.seconds_between_checkpoints
        if _first_process_says(due, config.processes):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember when."""
        self._saved = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kw: Any) -> None:
        """Report a step's loss."""
        if logs and "loss" in logs:
            self._report.add(state.global_step, logs["loss"], logs["learning_rate"])

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep the weights where they are the best on validation so far."""
        *before, now = validated(state.log_history)
        if state.is_world_process_zero and best_of([*before, now]) is now:
            save_weights(given["model"], self._config.best(now.step))
            # The one before stays until a checkpoint knows of this one.
            _forget_best(self._config, {best_of(before or [now]).step, now.step})
        figures = _validation_figures(given["metrics"] | {"epoch": now.epoch})
        self._progress.measure({now.step: figures})
        self._progress.say(f"Epoch {now.epoch:g}: validation NDCG@10 {now.ndcg:.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say what is left to say."""
        self._clock.stop()
        self._report.end()


def callback(watch: Watch) -> Any:
    """The watch as the trainer takes it: events that a watch doesn't know do nothing."""
    from transformers import TrainerCallback

    events = {name: getattr(watch, name) for name in dir(watch) if name.startswith("on_")}
    handler = TrainerCallback()
    vars(handler).update(events)
    return handler


def _measured(log_history: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """The metrics in a trainer's history, by step."""
    measured: dict[int, dict[str, float]] = {}
    for row in log_history:
        figures = measured.setdefault(row["step"], {})
        if NDCG in row:
            figures |= _validation_figures(row)
        elif "loss" in row:
            figures |= {name: row[name] for name in ("loss", "learning_rate")}
    return measured


def _validation_figures(measured: Mapping[str, Any]) -> dict[str, float]:
    # MLflow has them under `progress`: `validation` is of the model as it is kept, and all chunks.
    figures = {
        metric_name("validation", name.removeprefix("eval_")): value
        for name, value in measured.items()
        if name.startswith("eval_dim_")
    }
    return figures | {"epoch": measured["epoch"]}


def _first_process_says(wish: bool, processes: int) -> bool:
    """The first process's wish: all save together, or none."""
    if processes == 1:
        return wish
    from accelerate.utils import broadcast_object_list

    return bool(broadcast_object_list([wish])[0])


def _forget_best(config: TrainingConfig, steps: Iterable[int]) -> None:
    """Delete all but these steps' weights."""
    kept = {config.best(step) for step in steps}
    for path in config.folder.glob("best-*.safetensors"):
        if path not in kept:
            path.unlink()
