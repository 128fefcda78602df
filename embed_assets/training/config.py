"""What the training process is told: one file, with the frames it reads beside it.

Imported where there is neither Dagster nor a warehouse: nothing of them belongs here.
"""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from embed_assets.errors import SettingsError
from embed_assets.machine import Machine, this_machine
from embed_assets.models.card import ModelCard, starts_with_transformer
from embed_assets.settings import Merge, Precision, Settings, Training

LEARNING_RATES = {"full": 6e-5, "lora": 1e-3, "adapter": 1e-3}
"""Peak learning rate of each method, where none is set."""
EXTRACTIVE_PER_EPOCH = 512
"""Extractive pairs of one epoch, where nothing is set: 16 updates. The next takes others, as long
as there are some. On one of four sets as many updates teach more from 1,024 pairs than from 512
twice, on none less, and four times as many undo what they gain on one (`docs/results.md`)."""
NOT_OF_ADAPTERS = (
    *("epochs", "batch_size", "pairs_together", "loss", "hard_negatives", "frozen_share"),
    *("merge", "retrain_from", "processes"),
)
"""Settings that have no effect on an adapter: it has steps and a loss of its own."""


class TrainingConfig(Training):
    """All that the child needs to know: the training settings, and what follows from them.

    Frames are parquet files in `folder`. batch_size: pairs over all processes. merge: share of the
    tuned weights that is kept, the rest being those before them, or `best`, by validation.
    extractive_per_epoch: extractive pairs that an epoch takes, in turn; 0: all.
    mlflow_run_id: where it says how it goes; empty: nowhere.
    trained_from: version that is trained on from, and start: its folder; None: the base.
    base_ndcg_at_10: the base model's on the validation questions. seconds_between_checkpoints: what
    a killed run loses, at most. label: of its progress bar. identity: of the model that is started
    from, where another machine may train.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    mlflow_run_id: str
    base: str
    trained_from: str | None = None
    start: Path | None = None
    token_limit: int
    query_prompt: str
    document_prompt: str
    dimensions: tuple[int, ...]
    precision: Precision
    # Set by now: pyright calls a narrower type another one.
    learning_rate: float  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    merge: Merge = 1.0  # pyright: ignore[reportIncompatibleVariableOverride]
    extractive_per_epoch: int = 0
    processes: int = 1
    warmup_share: float = 0.1
    base_ndcg_at_10: float | None = None
    seconds_between_checkpoints: float = 300.0
    label: str = "Training"
    identity: str = ""

    @property
    def source(self) -> str:
        """Where the weights are that the training starts from."""
        return str(self.start or self.base)

    @property
    def card(self) -> ModelCard:
        """The model that the training starts from, as it is trained."""
        limit, prompts = self.token_limit, (self.query_prompt, self.document_prompt)
        return ModelCard(self.source, self.source, limit, *prompts)

    @property
    def told(self) -> dict[str, Any]:
        """What shapes the model, for those who ask later: no folder, no run."""
        others = {"folder", "mlflow_run_id", "start", "seconds_between_checkpoints", "label"}
        return self.model_dump(mode="json", exclude={*others, "identity"})

    @property
    def path(self) -> Path:
        """Where the config itself is, as JSON."""
        return self.folder / "config.json"

    @property
    def pairs(self) -> Path:
        """Training pairs: anchor, positive, question_id, chunk_id, related_chunk_ids, extractive,
        negatives, negative_ids.

        related_chunk_ids: chunks that are no negatives of the anchor. negatives: texts, as many for
        every pair.
        """
        return self.folder / "pairs.parquet"

    @property
    def validation(self) -> Path:
        """Validation questions: question_id, anchor, relevant_chunk_ids."""
        return self.folder / "validation.parquet"

    @property
    def corpus(self) -> Path:
        """The distinct chunks that validation searches: chunk_id, chunk_text."""
        return self.folder / "corpus.parquet"

    @property
    def sources(self) -> Path:
        """Where the texts of all these come from, for who must take some out later.

        question_id, chunk_id, document_id, sha256. The training doesn't read it.
        """
        return self.folder / "sources.parquet"

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps what it needs to resume."""
        return self.folder / f"checkpoints-{self.processes}"

    @property
    def cost(self) -> Path:
        """What the training has taken up to now, as JSON; it goes when the result is there."""
        return self.folder / "cost.json"

    @property
    def unsent(self) -> Path:
        """Metrics that MLflow did not take, as JSON; it goes when they are there."""
        return self.folder / "unsent.json"

    def best(self, step: int) -> Path:
        """Weights of a step that was the best on validation until then."""
        return self.folder / f"best-{step}.safetensors"

    @property
    def model(self) -> Path:
        """The trained model. It is there only when it is whole."""
        return self.folder / "model"

    @property
    def failure(self) -> Path:
        """Why the training failed, in one line; missing where it didn't, or was killed."""
        return self.folder / "failure.txt"

    @property
    def result(self) -> Path:
        """What the training returned, as JSON: its pairs, time, best epoch, scores and machine."""
        return self.folder / "result.json"


def training_config(
    folder: Path,
    settings: Settings,
    card: ModelCard,
    run_id: str,
    machine: Machine | None = None,
) -> TrainingConfig:
    """The training that the settings ask for. SettingsError where they don't go together."""
    check_training(settings, card)
    processes = process_count(settings, machine or this_machine())
    decided = {
        "learning_rate": settings.learning_rate or LEARNING_RATES[settings.method],
        # Each process has its share of every batch.
        "batch_size": -(-settings.batch_size // processes) * processes,
        "processes": processes,
        "merge": 1.0,
        "extractive_per_epoch": EXTRACTIVE_PER_EPOCH if takes_turns(settings) else 0,
    }
    return TrainingConfig(
        **settings.model_dump(include=set(Training.model_fields)) | decided,
        folder=folder,
        mlflow_run_id=run_id,
        base=card.source,
        token_limit=card.token_limit,
        query_prompt=card.query_prompt,
        document_prompt=card.document_prompt,
        dimensions=card.dimensions(settings.dimensions),
        precision=settings.precision,
    )


def takes_turns(settings: Settings) -> bool:
    """Whether an epoch takes but some of the extractive pairs."""
    return settings.max_pairs is None and settings.method != "adapter"


def check_training(settings: Settings, card: ModelCard) -> None:
    """SettingsError where training settings don't go together, or with the model."""
    if settings.loss == "gist" and settings.hard_negatives > 1:
        raise SettingsError(
            "EMBED_ASSETS_HARD_NEGATIVES: the loss `gist` takes one for each question, at most."
        )
    if settings.pairs_together >= settings.batch_size:
        raise SettingsError(
            "EMBED_ASSETS_PAIRS_TOGETHER: below EMBED_ASSETS_BATCH_SIZE, please: "
            "a batch of one chunk has no negatives."
        )
    if not starts_with_transformer(card.source):
        for name, needed in (("method", "lora"), ("loss", "cached_mnrl"), ("loss", "gist")):
            if getattr(settings, name) == needed:
                raise SettingsError(
                    f"EMBED_ASSETS_{name.upper()}={needed} needs a transformer, and {card.name} "
                    "doesn't begin with one."
                )
    if settings.dimensions:  # to know the model's own size may take loading it
        card.dimensions(settings.dimensions)


def as_meant(settings: Settings) -> dict[str, object]:
    """What stands for training settings in a code version: see `Settings.shape`.

    None for those without effect by the method that is set, and for a default written out.
    """
    rate = settings.learning_rate
    return {
        "learning_rate": None if rate == LEARNING_RATES[settings.method] else rate,
        **(dict.fromkeys(NOT_OF_ADAPTERS) if settings.method == "adapter" else {}),
    }


def process_count(settings: Settings, machine: Machine) -> int:
    """Processes that train together: as set, else one for each GPU. An adapter needs but one.

    SettingsError where the machine can't have so many.
    """
    if settings.method == "adapter":
        return 1
    wanted = settings.processes or max(1, len(machine.gpus))
    if wanted > 1 and not machine.is_linux:
        raise SettingsError(
            f"EMBED_ASSETS_PROCESSES: {wanted} processes train together on Linux only. Set it to 1."
        )
    if machine.gpus and wanted > len(machine.gpus):
        raise SettingsError(
            f"EMBED_ASSETS_PROCESSES: {wanted} processes need a GPU each, "
            f"and {machine.called} has {len(machine.gpus)}."
        )
    return wanted
