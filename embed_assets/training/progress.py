"""Where a training says how it goes: Dagster's log through Pipes, MLflow, and a progress bar."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from embed_assets.errors import one_line
from embed_assets.machine import GIB, Machine, peak_memory_bytes
from embed_assets.resources.patience import answering_at_once
from embed_assets.secrets import hide_secrets
from embed_assets.terminal import progress_bar
from embed_assets.training.config import TrainingConfig

SECONDS_BETWEEN_REPORTS = 10.0
SECONDS_BETWEEN_TRIES = 60.0
"""For an MLflow server that could not be reached: a try costs three seconds of training."""
METRICS_AT_ONCE = 1000
"""That MLflow takes in one call."""
PREFIX = "progress"
"""What stands before the names of what is measured at the steps of a training, in MLflow."""


class Progress(Protocol):
    """Who is told."""

    def say(self, message: str) -> None:
        """A line for a person."""

    def measure(self, metrics: Mapping[int, Mapping[str, float]]) -> None:
        """Metrics by name, by step."""


class PipesAndMlflow:
    """The lines go to Dagster's log, the metrics to the MLflow run. MLflow is where it says.

    A server that can't be reached holds no training up: metrics wait until it takes them.
    """

    def __init__(self, pipes: Any, config: TrainingConfig) -> None:
        from mlflow import MlflowClient

        self._pipes = pipes
        self._client = MlflowClient()  # of MLFLOW_TRACKING_URI: `launch.py`
        self._run_id, self._file = config.mlflow_run_id, config.unsent
        self._unsent: list[Any] = []
        self._refused = False
        self._next_try = 0.0

    def say(self, message: str) -> None:
        """A line for Dagster's log."""
        self._pipes.log.info(message)

    def measure(self, metrics: Mapping[int, Mapping[str, float]]) -> None:
        """Metrics by step, for MLflow."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._unsent += [
            Metric(f"{PREFIX}/{name}", float(value), now, step)
            for step, measured in metrics.items()
            for name, value in measured.items()
        ]
        if time.monotonic() >= self._next_try:
            with answering_at_once():
                self._send()

    def end(self) -> None:
        """Send what was not taken yet, or leave it to whoever records the training."""
        self._next_try = 0.0
        self.measure({})
        if self._unsent:
            rows = [[row.key, row.value, row.timestamp, row.step] for row in self._unsent]
            self._file.write_text(json.dumps(rows), encoding="utf-8")

    def _send(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            _log_in_parts(self._client, self._run_id, self._unsent)
        except MlflowException as error:
            self._next_try = time.monotonic() + SECONDS_BETWEEN_TRIES
            if not self._refused:
                self._refused = True
                reason = one_line(hide_secrets(str(error)))
                self._pipes.log.warning(
                    f"MLflow takes no metrics now, they are kept and training goes on: {reason}"
                )


def send_kept_metrics(config: TrainingConfig) -> None:
    """Send MLflow what it didn't take while the training was at work."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    if config.unsent.is_file():
        rows = [Metric(*row) for row in json.loads(config.unsent.read_text(encoding="utf-8"))]
        _log_in_parts(MlflowClient(), config.mlflow_run_id, rows)
        config.unsent.unlink()


def _log_in_parts(client: Any, run_id: str, rows: list[Any]) -> None:
    """Send metrics, and drop from the list those that were taken."""
    while rows:
        client.log_batch(run_id, rows[:METRICS_AT_ONCE])
        del rows[:METRICS_AT_ONCE]


class Silent(Progress):
    """Says nothing: the processes beside the first one."""


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


class StepReport:
    """What each step measures: on the bar at once, to the others every few seconds."""

    def __init__(self, progress: Progress, clock: Clock, machine: Machine) -> None:
        self._progress, self._clock, self._machine = progress, clock, machine
        self._pending: dict[int, dict[str, float]] = {}
        self._said = 0.0
        self._first = self._steps = 0
        self._bar: Any = None

    def begin(self, first: int, steps: int, label: str | None) -> None:
        """Steps are taken from `first` on until there are `steps`. No bar without a label."""
        self._first, self._steps = first, steps
        self._bar = progress_bar(label, steps, "batch", initial=first)

    def advance(self, step: int) -> None:
        """Show the step that was taken."""
        self._bar.update(step - self._bar.n)

    def add(self, step: int, loss: float, learning_rate: float) -> None:
        """Take in what a step measured, and say it if that is due."""
        left = (self._steps - step) * self._clock.seconds / max(1, step - self._first)
        rate, memory = self._clock.pairs_per_second, peak_memory_bytes(self._machine) / GIB
        self._pending[step] = {
            "loss": loss,
            "learning_rate": learning_rate,
            "pairs_per_second": rate,
            "memory_gib": memory,
            "seconds_left": left,
        }
        self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        if time.monotonic() - self._said >= SECONDS_BETWEEN_REPORTS:
            self._said = time.monotonic()
            self._progress.say(
                f"Step {step} of {self._steps}: loss {loss:.4f}, "
                f"{rate:.1f} pairs/s, {memory:.1f} GiB, {left:.0f} s left"
            )
            self._flush()

    def end(self) -> None:
        """Say what was not said yet."""
        self._flush()
        self._bar.close()

    def _flush(self) -> None:
        self._progress.measure(self._pending)
        self._pending.clear()
