"""What the training process is told: one file, with the frames it reads beside it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from embed_assets.settings import Merge

Method = Literal["full", "lora", "adapter"]
Loss = Literal["mnrl", "cached_mnrl", "gist"]


class TrainingConfig(BaseModel):
    """All that the child needs to know. Frames are parquet files in `folder`.

    frozen_share: of the layers, the lowest, that stay as they are. dropout: of the activations, at
    random, whatever the base model was trained with. batch_size: pairs over all processes.
    pairs_together: of a chunk in one batch, at most. patience: validations without a gain after
    which it stops; 0: never. merge: share of the tuned weights that is kept, the rest being the
    base's, or `best`, by validation. seconds_between_checkpoints: what a killed run loses, at most.
    base_ndcg_at_10: the base model's on the validation questions.
    """

    model_config = ConfigDict(frozen=True)

    folder: Path
    base: str
    token_limit: int
    query_prompt: str
    document_prompt: str
    dimensions: tuple[int, ...]
    method: Method = "full"
    loss: Loss = "mnrl"
    frozen_share: float = 0.0
    dropout: float = 0.0
    epochs: int
    batch_size: int
    pairs_together: int = 1
    learning_rate: float
    warmup_share: float = 0.1
    patience: int = 0
    merge: Merge = 1.0
    gradient_checkpointing: bool = False
    processes: int = 1
    base_ndcg_at_10: float | None = None
    seed: int
    precision: Literal["auto", "fp32", "bf16"]
    seconds_between_checkpoints: float = 300.0
    tracking_uri: str
    mlflow_run_id: str

    @property
    def path(self) -> Path:
        """Where the config itself is, as JSON."""
        return self.folder / "config.json"

    @property
    def pairs(self) -> Path:
        """Training pairs: anchor, positive, chunk_id, related_chunk_ids, negatives, negative_ids.

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
    def checkpoints(self) -> Path:
        """Where the trainer keeps what it needs to resume."""
        return self.folder / f"checkpoints-{self.processes}"

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
        """What the training returned, as JSON."""
        return self.folder / "result.json"
