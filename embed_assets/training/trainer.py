"""The training process: `python -m embed_assets.training.trainer CONFIG`.

Runs as a child of the asset through Dagster Pipes, or of the command that trains again, so that a
crash ends a step and not the code server; under torchrun with more than one process. Streams its
progress to Dagster and MLflow, takes up where a killed run stopped, and leaves a plain model folder
(safetensors, no pickle).
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.errors import ProjectError, one_line
from embed_assets.machine import Machine, this_machine
from embed_assets.models.encoder import load_model, resolved_precision
from embed_assets.models.identity import check_same_model
from embed_assets.resources.child import end_with_actor
from embed_assets.secrets import hide_in_logs, hide_secrets
from embed_assets.terminal import show_as_text
from embed_assets.training.adapter import fit_adapter
from embed_assets.training.batches import pairs_of_epoch
from embed_assets.training.claims import training_in
from embed_assets.training.config import TrainingConfig
from embed_assets.training.cost import counted_cost
from embed_assets.training.forward import forward_once
from embed_assets.training.kept import surroundings
from embed_assets.training.losses import cached_texts, make_loss
from embed_assets.training.memory import room_for
from embed_assets.training.pair_trainer import (
    places_of,
    trainer_arguments,
    trainer_class,
    training_dataset,
)
from embed_assets.training.progress import Clock, PipesAndMlflow, Progress, Silent
from embed_assets.training.validation import BEST_METRIC, Validation, evaluator
from embed_assets.training.watch import Watch, best_of, callback, validated
from embed_assets.training.weights import (
    RATIOS,
    add_lora,
    fold_in_lora,
    freeze_lowest,
    interpolate,
    load_weights,
    put_weights,
    save_model,
    set_dropout,
)
from embed_assets.wording import counted

STATE = "trainer_state.json"


def train(
    config: TrainingConfig, progress: Progress, machine: Machine | None = None
) -> dict[str, Any]:
    """Fine-tune the base model, or a version, on the pairs and save what is best on validation.

    Returns what `result` of the config holds, but for its cost. step_seconds and pairs_per_second
    are of training alone, in this process: since it was resumed. ValueError where the pairs make no
    batch.
    """
    from transformers import PrinterCallback, TrainerState, set_seed

    machine = machine or this_machine()
    precision = resolved_precision(config.precision, machine)
    progress.say(f"Training in {precision} on {machine}")
    set_seed(config.seed)
    model = _model(config, machine)
    pairs = pl.read_parquet(config.pairs)
    dataset = training_dataset(pairs)
    clock = Clock()
    watch = Watch(config, progress, clock, pairs.height, machine)
    validation = Validation(config, precision, machine)
    room = room_for(
        model,
        config.token_limit,
        memory_bytes=machine.model_memory_bytes // (1 if machine.gpus else config.processes),
        bf16=precision == "bf16",
    )
    cached = cached_texts(config, len(dataset.column_names), room.texts)
    if room.checkpointing:
        progress.say("Activations are computed twice: those of one text don't fit in memory.")
    if cached is not None:
        progress.say(f"Gradients are cached, {counted(cached, 'text')} at a time.")
    places = places_of(pairs)
    trainer = trainer_class(config, clock)(
        model=model,
        args=trainer_arguments(
            config,
            dataset,
            len(pairs_of_epoch(places, 0, config.extractive_per_epoch, config.seed)),
            precision,
            machine,
            checkpointing=room.checkpointing,
        ),
        train_dataset=dataset,
        places=places,
        loss=make_loss(model, config, cached, machine),
        evaluator=evaluator(validation, clock.pause),
        callbacks=[callback(watch)],
    )
    trainer.remove_callback(PrinterCallback)  # the watch says it
    checkpoint = last_checkpoint(config)
    if checkpoint is not None and _is_finished(checkpoint, config):
        trainer.state = TrainerState.load_from_json(str(checkpoint / STATE))
        progress.say(f"The training was over at {checkpoint.name}: its best epoch is taken up.")
    else:
        if checkpoint is not None:
            progress.say(f"Resuming from {checkpoint.name}")
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    best = best_of(validated(trainer.state.log_history))
    result = {
        "pairs": pairs.height,
        "epochs": config.epochs,
        "steps": trainer.state.global_step,
        "step_seconds": round(clock.seconds, 2),
        "pairs_per_second": round(clock.pairs_per_second, 3),
        "best_epoch": best.epoch,
        "best_validation_ndcg_at_10": best.ndcg,
        "base_validation_ndcg_at_10": config.base_ndcg_at_10,
        "tuned_share": 1.0,
        "resumed_from": checkpoint.name if checkpoint else None,
        "precision": precision,
        "machine": str(machine),
        **surroundings(),
    }
    if not trainer.is_world_process_zero():
        return result
    load_weights(model, config.best(best.step))
    if config.method == "lora":
        fold_in_lora(model)
    if config.merge != 1:
        result |= _merge(model, config, validation, best.ndcg, progress, machine)
    score = result["best_validation_ndcg_at_10"]
    if config.base_ndcg_at_10 is not None and score <= config.base_ndcg_at_10:
        progress.say(
            f"The model is no better on validation ({score:.4f}) than the base model "
            f"({config.base_ndcg_at_10:.4f}). The comparison on the test questions decides."
        )
    save_model(model, config.model, config.dimensions)
    return result


def last_checkpoint(config: TrainingConfig) -> Path | None:
    """Newest checkpoint that was written whole: the trainer's state, and each process's dice."""
    whole = [path for path in config.checkpoints.glob("checkpoint-*") if _is_whole(path, config)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_whole(checkpoint: Path, config: TrainingConfig) -> bool:
    """A checkpoint that the trainer is removing at this moment is none."""
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        return len(list(checkpoint.glob("rng_state*.pth"))) >= config.processes
    except (OSError, ValueError):
        return False


def _is_finished(checkpoint: Path, config: TrainingConfig) -> bool:
    """Whether it was made after the last validation."""
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    steps = [row.step for row in validated(state["log_history"])]
    return state["global_step"] >= state["max_steps"] and state["global_step"] in steps


def _model(config: TrainingConfig, machine: Machine) -> Any:
    """The model that the training starts from, ready to be trained."""
    model = load_model(config.source, config.token_limit, machine)
    model.prompts = {"query": config.query_prompt, "document": config.document_prompt}
    set_dropout(model, 0.0)
    if config.method == "lora":
        add_lora(model, config.frozen_share)
    else:
        freeze_lowest(model, config.frozen_share)
    forward_once(model, machine)
    return model


def _merge(
    model: Any,
    config: TrainingConfig,
    validation: Validation,
    tuned_score: float,
    progress: Progress,
    machine: Machine,
) -> dict[str, float]:
    """Leave in the model the mix that the config asks for of tuned weights and those before them.

    Returns what the result says of it: the share, and its NDCG@10 on validation.
    """
    tuned = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    source = load_model(config.source, machine=machine).to(model.device)
    before = dict(source.named_parameters())
    scores = {1.0: tuned_score} if config.merge == "best" else {}
    for share in RATIOS if config.merge == "best" else (config.merge,):
        put_weights(model, interpolate(before, tuned, share))
        scores[share] = validation.score(model)[BEST_METRIC]
        progress.say(f"{share:.0%} of the tuned weights: validation NDCG@10 {scores[share]:.4f}")
    best = max(scores, key=lambda share: scores[share])
    put_weights(model, interpolate(before, tuned, best))
    return {"tuned_share": best, "best_validation_ndcg_at_10": scores[best]}


def main() -> None:
    """Entry point of the child process."""
    hide_in_logs()
    show_as_text()
    end_with_actor()
    config = TrainingConfig.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    first = os.environ.get("RANK", "0") == "0"  # torchrun's: the first process speaks for all
    try:
        if config.identity:
            check_same_model(config.card, config.identity)
        if first:
            _train_and_report(config)
        else:
            train(config, Silent())
    except Exception as error:
        # The first process that fails: what others say is that it has left them.
        with suppress(OSError), config.failure.open("x", encoding="utf-8") as file:
            file.write(_reason(error))
        raise


def _train_and_report(config: TrainingConfig) -> None:
    run = fit_adapter if config.method == "adapter" else train
    machine = this_machine()
    used = machine.gpus[: config.processes]
    with training_in(config.folder), _progress(config) as progress:
        with counted_cost(machine.find_energy_counters(used), config.cost) as cost:
            result = run(config, progress)
        result |= {
            "seconds": round(cost.seconds, 2),
            "energy_wh": cost.watt_hours,
            "energy_of": cost.parts,
        }
        unfinished = config.result.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(result), encoding="utf-8")
        unfinished.replace(config.result)
        config.cost.unlink(missing_ok=True)
        shutil.rmtree(config.checkpoints, ignore_errors=True)


@contextmanager
def _progress(config: TrainingConfig) -> Iterator[Progress]:
    """Who is told: Dagster and MLflow; nobody where the training is of no MLflow run."""
    if not config.mlflow_run_id:
        yield Silent()
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        progress = PipesAndMlflow(pipes, config)
        yield progress
        progress.end()


def _reason(error: Exception) -> str:
    """Why a training failed, in one line."""
    if isinstance(error, ProjectError):
        return one_line(hide_secrets(str(error)))
    return one_line(hide_secrets(f"The training failed: {type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
