"""Where a training says how it goes: Dagster's log through Pipes, MLflow, and a progress bar."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from embed_assets.resources.tracking import metric_name
from embed_assets.training.config import TrainingConfig
from embed_assets.training.memory import peak_memory
from embed_assets.training.validation import BEST_METRIC
from embed_assets.training.weights import save_weights

SECONDS_BETWEEN_REPORTS = 10.0
GIB = 2**30


class Progress(Protocol):
    """Who is told."""

    def say(self, message: str) -> None:
        """A line for a person."""

    def measure(self, metrics: dict[str, float], step: int) -> None:
        """Metrics of a step."""


class PipesAndMlflow:
    """The lines go to Dagster's log, the metrics to the MLflow run."""

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


class Silent:
    """Says nothing: the processes beside the first one."""

    def say(self, message: str) -> None:
        """Nothing."""

    def measure(self, metrics: dict[str, float], step: int) -> None:
        """Nothing."""


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


def watch(config: TrainingConfig, progress: Progress, clock: Clock, pairs: int) -> Any:
    """A trainer callback: reports what is measured, keeps the best weights, stops when it may."""
    from tqdm import tqdm
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def __init__(self) -> None:
            self.validation: list[dict[str, float]] = []
            self.first_step = 0
            self._reported = 0.0
            self._saved = 0.0
            self._pending: dict[int, dict[str, float]] = {}
            self._bar: Any = None

        @property
        def best(self) -> dict[str, float]:
            """Epoch and NDCG@10 of the best validation, the first of equals."""
            nothing = {"epoch": 0.0, BEST_METRIC: 0.0}
            return max(self.validation, key=lambda row: row[BEST_METRIC], default=nothing)

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.first_step = state.global_step
            for row in state.log_history:  # what a run that was killed had measured
                if f"eval_{BEST_METRIC}" in row:
                    self._remember(row["epoch"], row[f"eval_{BEST_METRIC}"])
                    progress.measure(_validation_figures(row), row["step"])
                elif "loss" in row:
                    measured = {name: row[name] for name in ("loss", "learning_rate")}
                    progress.measure(measured, row["step"])
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="Training",
                unit="batch",
                disable=not state.is_world_process_zero,
            )
            self._saved = time.monotonic()
            clock.start()
            progress.say(f"Training on {pairs} pairs: {state.max_steps} steps")

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
            memory = peak_memory(args.device) / GIB
            self._pending[step] = {
                "loss": logs["loss"],
                "learning_rate": logs["learning_rate"],
                "pairs_per_second": clock.pairs_per_second,
                "memory_gib": memory,
                "seconds_left": left,
            }
            self._bar.set_postfix_str(f"loss {logs['loss']:.3f}")
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
            epoch, ndcg = round(state.epoch, 2), metrics[f"eval_{BEST_METRIC}"]
            best_before = self.best[BEST_METRIC]
            self._remember(epoch, ndcg)
            if state.is_world_process_zero and ndcg > best_before:
                save_weights(model, config.best)
            progress.measure(_validation_figures(metrics | {"epoch": epoch}), state.global_step)
            progress.say(f"Epoch {epoch:g}: validation NDCG@10 {ndcg:.4f}")
            since_best = len(self.validation) - 1 - self.validation.index(self.best)
            if config.patience and since_best >= config.patience:
                progress.say(f"No gain in {since_best} validations: stopping.")
                control.should_training_stop = True

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.stop()
            self._flush()
            self._bar.close()

        def _remember(self, epoch: float, ndcg: float) -> None:
            self.validation.append({"epoch": epoch, BEST_METRIC: ndcg})

        def _flush(self) -> None:
            for step, metrics in self._pending.items():
                progress.measure(metrics, step)
            self._pending.clear()

    def _validation_figures(measured: dict[str, float]) -> dict[str, float]:
        figures = {
            metric_name("validation", name.removeprefix("eval_")): value
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
