"""A training in a process of its own, wherever that is, and why it failed."""

from collections.abc import Callable
from functools import partial
from threading import Event

from embed_assets.errors import ProjectError
from embed_assets.resources.processes import ProcessError
from embed_assets.training.claims import wait_until_left
from embed_assets.training.config import TrainingConfig
from embed_assets.training.launch import training_command, training_environment


class TrainingError(ProjectError):
    """The training process failed; the message says why."""


def train_in_process(
    config: TrainingConfig,
    start: Callable[..., None],
    tracking_uri: str,
    threads: int | None = None,
) -> None:
    """Train from where the last process stopped, if one did. TrainingError where it fails.

    start: a ProcessClient's `carry_out`, or its `run`. threads: as `training_environment` has it.
    """
    config.failure.unlink(missing_ok=True)
    environment = partial(training_environment, tracking_uri=tracking_uri, threads=threads)
    try:
        start(
            command=training_command(config),
            env=partial(environment, config.processes),
            processes=config.processes,
            folder=config.folder,
            before_again=partial(_clear_for_another, config),
        )
    except ProcessError as error:
        raise TrainingError(_why(config, error)) from error


def _clear_for_another(config: TrainingConfig, stopped: Event) -> None:
    """Before another process goes on with a training that was lost with its node."""
    wait_until_left(config.folder, stopped)
    config.failure.unlink(missing_ok=True)


def _why(config: TrainingConfig, error: ProcessError) -> str:
    """Why a training failed, in its own words where it had time for some."""
    if config.failure.is_file():
        return config.failure.read_text(encoding="utf-8")
    if error.was_killed:
        return (
            f"The training was killed ({error}). If the system did it for lack of memory: one with "
            "a smaller EMBED_ASSETS_BATCH_SIZE needs less."
        )
    said = f"The training ended without saying why ({error})."
    return f"{said} Its output, which a run has in its logs, may say more."
