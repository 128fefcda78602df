"""Where a training says how it goes: Dagster's log through Pipes, MLflow, and a progress bar."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from embed_assets.evaluation.retrieval import metric_name
from embed_assets.machine import GIB, Machine, peak_memory_bytes
from embed_assets.terminal import progress_bar
from embed_assets.training.config import TrainingConfig
from embed_assets.training.validation import BEST_METRIC
from embed_assets.training.weights import save_weights

SECONDS_BETWEEN_REPORTS = 10.0
METRICS_AT_ONCE = 1000
"""That MLflow takes in one call."""


class Progress(Protocol):
    """Who is told."""

    def say(self, message: str) -> None:
        """A line for a person."""

    def measure(self, metrics: Mapping[int, Mapping[str, float]]) -> None:
        """Metrics by name, by step."""


class PipesAndMlflow:
    """The lines go to Dagster's log, the metrics to the MLflow run."""

    def __init__(self, pipes: Any, config: TrainingConfig) -> None:
        from mlflow import MlflowClient

        self._pipes = pipes
        self._client = MlflowClient(config.tracking_uri)
        self._run_id = config.mlflow_run_id
        self._lost = False

    def say(self, message: str) -> None:
        """A line for Dagster's log."""
        self._pipes.log.info(message)

    def measure(self, metrics: Mapping[int, Mapping[str, float]]) -> None:
        """Metrics by step, for MLflow. Where it can't be reached, training goes on without."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        rows = [
            Metric(name, float(value), now, step)
            for step, measured in metrics.items()
            for name, value in measured.items()
        ]
        try:
            for start in range(0, len(rows), METRICS_AT_ONCE):
                self._client.log_batch(self._run_id, rows[start : start + METRICS_AT_ONCE])
        except MlflowException as error:
            if not self._lost:
                self._lost = True
                self._pipes.log.warning(f"MLflow takes no metrics, training goes on: {error}")


class Silent:
    """Says nothing: the processes beside the first one."""

    def say(self, message: str) -> None:
        """Nothing."""

    def measure(self, metrics: Mapping[int, Mapping[str, float]]) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Validated:
    """NDCG@10 of the model at a step."""

    step: int
    epoch: float
    ndcg: float


class Validations:
    """What the model scored on validation so far, in the order of the steps."""

    def __init__(self, log_history: Iterable[Mapping[str, Any]] = ()) -> None:
        """log_history: the trainer's, of a run that was killed."""
        self.rows = [
            Validated(row["step"], round(row["epoch"], 2), row[f"eval_{BEST_METRIC}"])
            for row in log_history
            if f"eval_{BEST_METRIC}" in row
        ]

    @property
    def best(self) -> Validated:
        """The best, the first of equals. ValueError where there is none yet."""
        return max(self.rows, key=lambda row: row.ndcg)


class Clock:
    """Seconds of training alone, and the pairs trained on in them."""

    def __init__(self) -> None:
        self.pairs = 0
        self._seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Go on counting."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """Count no more, until it is started again."""
        self._seconds, self._since = self.seconds, None

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Don't count what happens inside."""
        self.stop()
        yield
        self.start()

    @property
    def seconds(self) -> float:
        """Counted so far."""
        running = time.monotonic() - self._since if self._since is not None else 0.0
        return self._seconds + running

    @property
    def pairs_per_second(self) -> float:
        """Of training alone."""
        return self.pairs / max(self.seconds, 1e-9)


def watch(
    config: TrainingConfig, progress: Progress, clock: Clock, pairs: int, machine: Machine
) -> Any:
    """A trainer callback: reports what is measured, keeps the best weights."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def __init__(self) -> None:
            self.validations = Validations()
            self.first_step = 0
            self._reported = 0.0
            self._saved = 0.0
            self._pending: dict[int, dict[str, float]] = {}
            self._bar: Any = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.first_step = state.global_step
            self._recall(state.log_history)
            self._bar = progress_bar(
                "Training" if state.is_world_process_zero else None,
                state.max_steps,
                "batch",
                initial=state.global_step,
            )
            self._saved = time.monotonic()
            clock.start()
            progress.say(f"Training on {pairs} pairs: {state.max_steps} steps")

        def _recall(self, log_history: Sequence[Mapping[str, Any]]) -> None:
            """What a run that was killed had measured."""
            self.validations = Validations(log_history)
            measured: dict[int, dict[str, float]] = {}
            for row in log_history:
                figures = measured.setdefault(row["step"], {})
                if f"eval_{BEST_METRIC}" in row:
                    figures |= _validation_figures(row)
                elif "loss" in row:
                    figures |= {name: row[name] for name in ("loss", "learning_rate")}
            progress.measure(measured)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._bar.update(state.global_step - self._bar.n)
            if _agreed(time.monotonic() - self._saved >= config.seconds_between_checkpoints):
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._saved = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kw: Any) -> None:
            if not logs or "loss" not in logs:
                return
            step = state.global_step
            left = (state.max_steps - step) * clock.seconds / max(1, step - self.first_step)
            memory = peak_memory_bytes(machine) / GIB
            self._pending[step] = {
                "loss": logs["loss"],
                "learning_rate": logs["learning_rate"],
                "pairs_per_second": clock.pairs_per_second,
                "memory_gib": memory,
                "seconds_left": left,
            }
            self._bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)
            if time.monotonic() - self._reported >= SECONDS_BETWEEN_REPORTS:
                self._reported = time.monotonic()
                progress.say(
                    f"Step {step} of {state.max_steps}: loss {logs['loss']:.4f}, "
                    f"{clock.pairs_per_second:.1f} pairs/s, {memory:.1f} GiB, {left:.0f} s left"
                )
                self._flush()

        def on_evaluate(
            self,
            args: Any,
            state: Any,
            control: Any,
            metrics: Any = None,
            model: Any = None,
            **kwargs: Any,
        ) -> None:
            now = Validated(
                state.global_step, round(state.epoch, 2), metrics[f"eval_{BEST_METRIC}"]
            )
            before = self.validations.best if self.validations.rows else None
            self.validations.rows.append(now)
            if state.is_world_process_zero and (before is None or now.ndcg > before.ndcg):
                save_weights(model, config.best(now.step))
                # The one before stays until a checkpoint knows of this one.
                _forget_best(config, {now.step, before.step if before else now.step})
            progress.measure({now.step: _validation_figures(metrics | {"epoch": now.epoch})})
            progress.say(f"Epoch {now.epoch:g}: validation NDCG@10 {now.ndcg:.4f}")

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.stop()
            self._flush()
            self._bar.close()

        def _flush(self) -> None:
            progress.measure(self._pending)
            self._pending.clear()

    def _validation_figures(measured: Mapping[str, Any]) -> dict[str, float]:
        # Not `validation`: that is of the model as it is kept, and of all chunks.
        figures = {
            metric_name("validation_in_training", name.removeprefix("eval_")): value
            for name, value in measured.items()
            if name.startswith("eval_dim_")
        }
        return figures | {"epoch": measured["epoch"]}

    def _agreed(wish: bool) -> bool:
        """The first process's wish: all save together, or none."""
        if config.processes == 1:
            return wish
        from accelerate.utils import broadcast_object_list

        return bool(broadcast_object_list([wish])[0])

    return Watch()


def _forget_best(config: TrainingConfig, steps: Iterable[int]) -> None:
    """Delete all but these steps' weights."""
    kept = {config.best(step) for step in steps}
    for path in config.folder.glob("best-*.safetensors"):
        if path not in kept:
            path.unlink()
