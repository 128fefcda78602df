"""sentence-transformers' trainer with our batches and light checkpoints.

The only place that reaches into the trainer's private methods: what each is overridden for stands
beside it. pyproject.toml caps transformers and sentence-transformers to what this was tested with.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from embed_assets.machine import Machine
from embed_assets.training.batches import Place, batch_sampler
from embed_assets.training.config import TrainingConfig
from embed_assets.training.progress import Clock
from embed_assets.training.weights import load_weights, save_weights

if TYPE_CHECKING:
    from datasets import Dataset

WEIGHTS = "weights.safetensors"
CHECKPOINTING: dict[str, Any] = {
    "activation_checkpointing": True,
    "activation_checkpointing_kwargs": {"use_reentrant": False},
}
"""Given only where it is on: transformers had another name for it not long ago (5.17)."""


def training_dataset(pairs: pl.DataFrame) -> "Dataset":
    """Anchor first: sentence-transformers goes by the order of columns, not by their names."""
    from datasets import Dataset

    columns = {name: pairs[name].to_list() for name in ("anchor", "positive")}
    for place, texts in enumerate(zip(*pairs["negatives"], strict=True)):
        columns[f"negative_{place + 1}"] = list(texts)
    return Dataset.from_dict(columns)


def places_of(pairs: pl.DataFrame) -> list[Place]:
    """What each pair brings to a batch, in the order of the dataset."""
    return [
        Place(
            anchor=row["anchor"],
            positive=row["chunk_id"],
            shown=frozenset([row["chunk_id"], *row["negative_ids"]]),
            related=frozenset([row["chunk_id"], *row["related_chunk_ids"]]),
            length=max(len(text) for text in [row["positive"], *row["negatives"]]),
            extractive=row.get("extractive", False),  # earlier releases took all in every epoch
        )
        for row in pairs.iter_rows(named=True)
    ]


def trainer_class(config: TrainingConfig, clock: Clock) -> Any:
    """The trainer's class. clock: told of the pairs that each step trains on."""
    from sentence_transformers import SentenceTransformerTrainer

    class PairTrainer(SentenceTransformerTrainer):
        def __init__(self, *, places: Sequence[Place], **options: Any) -> None:
            self._places = places
            super().__init__(**options)

        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """Nothing: no card is written, and what fills one shows a bar of its own."""

        def get_batch_sampler(self, dataset: Any, batch_size: int, *args: Any, **kw: Any) -> Any:
            """Batches in which no pair's answer is another's negative."""
            self.sampler = batch_sampler(
                dataset,
                self._places,
                batch_size=batch_size * self.args.world_size,
                seed=self.args.seed,
                epochs=config.epochs,
                extractive=config.extractive_per_epoch,
                together=config.pairs_together,
                processes=self.args.world_size,
            )
            return self.sampler

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            """Count the pairs."""
            loss = super().training_step(model, inputs, *args, **kwargs)
            texts = inputs.get("anchor_offsets", inputs["anchor_input_ids"])
            clock.pairs += len(texts) * self.args.world_size
            return loss

        def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
            # transformers tells the sampler its epoch only where no other process has a share.
            self.sampler.set_epoch(self.state.global_step // len(self.sampler))
            return super()._run_epoch(*args, **kwargs)

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            # The trainer saves a whole model folder; a checkpoint needs the trained weights alone.
            folder = Path(output_dir or config.checkpoints)
            folder.mkdir(parents=True, exist_ok=True)
            if self.is_world_process_zero():
                save_weights(self.model, folder / WEIGHTS)

        def _load_from_checkpoint(self, checkpoint_path: str) -> None:
            # What `_save` wrote is no model folder, which the trainer would look for.
            load_weights(self.model, Path(checkpoint_path) / WEIGHTS)

    return PairTrainer


def trainer_arguments(
    config: TrainingConfig,
    dataset: "Dataset",
    pairs: int,
    precision: str,
    machine: Machine,
    *,
    checkpointing: bool,
) -> Any:
    """The trainer's arguments.

    pairs: of each epoch. checkpointing: activations are computed again on the way back.
    """
    from sentence_transformers import SentenceTransformerTrainingArguments

    steps = math.ceil(pairs / config.batch_size) * config.epochs
    prompts = dict.fromkeys(dataset.column_names, config.document_prompt)
    return SentenceTransformerTrainingArguments(
        output_dir=str(config.checkpoints),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size // config.processes,
        learning_rate=config.learning_rate,
        warmup_steps=round(steps * config.warmup_share),
        lr_scheduler_type="cosine",
        bf16=precision == "bf16",
        accelerator_config={"split_batches": True},
        # Without it transformers asks for a GPU before it computes in bf16, and several processes
        # on CPUs (gloo) would not know of each other.
        use_cpu=not machine.gpus,
        prompts=prompts | {"anchor": config.query_prompt},
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        seed=config.seed,
        data_seed=config.seed,
        dataloader_pin_memory=bool(machine.gpus),
        **(CHECKPOINTING if checkpointing else {}),
    )
