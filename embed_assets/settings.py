"""Every setting, once: its name, type, default and one line of help.

A setting `name` is read from the environment variable `EMBED_ASSETS_NAME`, then from `.env` in the
working directory, then from its default here. The README's table is made from this file.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "EMBED_ASSETS_"
TRACKING_URI = "MLFLOW_TRACKING_URI"
DEFAULT_PROJECT = "embed-assets"
LABELLED_BESIDE_PDFS = "questions.jsonl"
EXTRACTIVE = "extractive"
"""Questions taken from the chunks themselves, rather than written by a model."""
NEARLY_EQUAL = 0.95
"""Cosine. Of the 1,915 questions of two sets that a language model wrote for contracts and manuals,
all-MiniLM-L6-v2 puts 20 pairs at .95 or above: 14 equal to the letter, 4 rewordings, 2 that differ
in a word that matters. Of the 7 between .93 and .95, 2 are rewordings; below, hardly any."""
ROUND_TRIP_K = 20
LabelledPurpose = Literal["train", "test"]
Merge = Literal["best"] | Annotated[float, Field(gt=0, le=1)]


class Settings(BaseSettings):
    """What a person can turn. Paths are made absolute, so that child processes agree on them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        validate_default=True,
    )

    pdfs: Path = Field(
        default=Path("data/sample"), description="Folder of PDFs, searched recursively"
    )
    home: Path = Field(
        default=Path("data/home"),
        description="Folder of all state: warehouse, MLflow, models, Dagster",
    )
    project: str = Field(
        default=DEFAULT_PROJECT,
        pattern=r"^[\w.-]+$",
        description="Name of the experiment and the registered model in MLflow: several projects "
        "can share a server",
    )
    model: str = Field(
        default="all-MiniLM-L6-v2",
        description="Base model: a sentence-transformers hub name or a local folder. "
        "`all-MiniLM-L6-v2` is installed with the package and needs no network",
    )
    query_prompt: str | None = Field(
        default=None, description="Put before each query. Unset: what the model's family needs"
    )
    document_prompt: str | None = Field(
        default=None, description="Put before each chunk. Unset: what the model's family needs"
    )
    dimensions: str | None = Field(
        default=None,
        description="Matryoshka dimensions, separated by commas. Unset: those of "
        "768, 512, 256, 128, 64 below the model's size, and its size",
    )
    baselines: str = Field(
        default="bm25,champion",
        description="What the fine-tuned model is compared with beside its base, separated by "
        "commas: `bm25`, `champion` (the one before it), `openai:MODEL` (any OpenAI-compatible "
        "server's embeddings), any sentence-transformers model, a version (`v3`). `none`: nothing",
    )
    questions: str = Field(
        default=EXTRACTIVE,
        description="Who writes the training questions: `extractive` (no model needed), "
        "`openai:MODEL` (any OpenAI-compatible server: OPENAI_BASE_URL, OPENAI_API_KEY), "
        "`huggingface:MODEL` (a model on this machine) or `none`",
    )
    questions_per_chunk: int = Field(
        default=2, ge=1, le=10, description="Questions that a language model writes for a chunk"
    )
    question_domain: str = Field(
        default="",
        description="What the documents are, told to the model that writes questions: "
        "`tenancy contracts in Scotland`",
    )
    question_prompt: Path | None = Field(
        default=None,
        description="Jinja file of your own instructions to that model. "
        "Unset: `embed_assets/questions/written/instructions.jinja`",
    )
    llm_temperature: float = Field(
        default=0.7, ge=0, le=2, description="Temperature of the model that writes questions"
    )
    llm_max_tokens: int = Field(default=1024, ge=16, description="Tokens of one reply, at most")
    llm_concurrency: int = Field(
        default=8, ge=1, description="Calls at a time; a local model's batch size"
    )
    llm_timeout: float = Field(default=120.0, gt=0, description="Seconds that one call may take")
    llm_requests_per_minute: int = Field(default=0, ge=0, description="Calls a minute. 0: no limit")
    llm_token_budget: int = Field(
        default=0,
        ge=0,
        description="Tokens that one command may use on a server, calls in flight reckoned by the "
        "largest so far. What is left over is asked by the next command. 0: no limit",
    )
    llm_cost_budget: float = Field(
        default=0.0, ge=0, description="Money that one command may spend, by the prices below"
    )
    llm_input_price: float = Field(
        default=0.0, ge=0, description="Price of a million input tokens, in any currency"
    )
    llm_output_price: float = Field(
        default=0.0, ge=0, description="Price of a million output tokens"
    )
    judge: str = Field(
        default="",
        description="Model that scores written questions from 1 to 5, as `openai:MODEL`. "
        "Unset: none does",
    )
    judge_threshold: float = Field(
        default=3.0, ge=1, le=5, description="Least score of a question that trains"
    )
    labelled: str = Field(
        default="",
        description="Files or folders of people's questions (JSONL, CSV, datasets, Argilla, "
        "LlamaIndex, BEIR), separated as in PATH. "
        f"Unset: `{LABELLED_BESIDE_PDFS}` in the PDF folder, where there is one",
    )
    labelled_purpose: LabelledPurpose = Field(
        default="test",
        description="What a labelled question is for when its row doesn't say: train, test",
    )
    filters: str = Field(
        default="unanswerable,duplicates,near_duplicates",
        description="What drops a machine's questions: `all`, `none`, or some of `unanswerable`, "
        "`pointing` (at 'the text', a figure, …), `verbatim`, `duplicates`, `near_duplicates`, "
        "`round_trip` (the base model doesn't find the chunk)",
    )
    near_duplicate: float = Field(
        default=NEARLY_EQUAL,
        gt=0,
        le=1,
        description="Cosine, less what all questions share, from which two are nearly the same",
    )
    round_trip_k: int = Field(
        default=ROUND_TRIP_K,
        ge=1,
        description="Places among which the round trip must find the chunk",
    )
    max_chunk_tokens: int = Field(
        default=512,
        ge=32,
        description="Upper bound of a chunk for models that take very long texts",
    )
    workers: int = Field(
        default=0, ge=0, description="Processes that parse PDFs. 0: one per core, at most 8"
    )
    parse_timeout: float = Field(
        default=600.0, gt=0, description="Seconds that parsing one document may take"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="`auto`: bf16 on GPUs and CPUs that compute in it, else fp32"
    )
    epochs: int = Field(
        default=2,
        ge=1,
        description="Passes over the training pairs, at most. An adapter makes as many as it needs",
    )
    max_pairs: int | None = Field(
        default=None,
        ge=0,
        description="Pairs to train on at most, spread over all chunks. 0: every pair. "
        "Unset: every pair, but 512 extractive ones. Without a GPU some 200 pairs take a minute",
    )
    batch_size: int = Field(
        default=32,
        ge=2,
        description="Pairs per batch; each is a negative to others. Where it doesn't fit in memory "
        "its gradients are cached",
    )
    pairs_together: int = Field(
        default=1,
        ge=1,
        description="Pairs of a chunk that may share a batch, and the work of embedding its text",
    )
    method: Literal["full", "lora", "adapter"] = Field(
        default="full",
        description="What is trained: `full`, the weights; `lora`, low-rank changes of them; "
        "`adapter`, a matrix behind the queries: chunks keep their embeddings",
    )
    loss: Literal["mnrl", "cached_mnrl", "gist"] = Field(
        default="mnrl",
        description="Loss at each dimension: `mnrl`, in-batch negatives; `cached_mnrl`, the same "
        "for batches larger than memory; `gist`, the base model says which are no negatives",
    )
    hard_negatives: int = Field(
        default=0,
        ge=0,
        le=8,
        description="Chunks per pair that the base model takes for the answer and that are none",
    )
    frozen_share: float = Field(
        default=0.34,
        ge=0,
        lt=1,
        description="Share of the layers, the lowest, that stay as they are in `full` and `lora` "
        "training, rounded down. 0: all are trained",
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the activations left out at random in `full` and `lora` training",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Peak learning rate. Unset: 6e-5 for `full`, 1e-3 for `lora` and `adapter`",
    )
    patience: int = Field(
        default=0, ge=0, description="Epochs without a gain on validation that end it. 0: none do"
    )
    merge: Merge | None = Field(
        default=None,
        description="Share of the tuned weights in the model, the rest being the base's: a guard "
        "against forgetting. `best`: the one of four that is best on validation. Unset: 1, and 0.5 "
        "where most questions are extractive",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations twice, to train in less memory"
    )
    processes: int = Field(
        default=0, ge=0, description="Processes that train together, by torchrun. 0: one per GPU"
    )
    seed: int = Field(default=42, description="Seed of the training's order and initialisation")

    @field_validator("pdfs", "home", "question_prompt")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path and Path(os.path.abspath(path.expanduser()))

    @cached_property
    def labelled_files(self) -> tuple[Path, ...]:
        """Files and folders of people's questions, in the order given."""
        if self.labelled:
            parts = self.labelled.split(os.pathsep)
            return tuple(Path(os.path.abspath(Path(p).expanduser())) for p in parts if p)
        beside = self.pdfs / LABELLED_BESIDE_PDFS
        return (beside,) if beside.is_file() else ()

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return self.home / "warehouse.duckdb"

    @property
    def answers(self) -> Path:
        """The SQLite file of language models' answers."""
        return self.home / "answers.sqlite"

    @property
    def models(self) -> Path:
        """Folder of fine-tuned models, one subfolder each."""
        return self.home / "models"

    @property
    def reports(self) -> Path:
        """Folder of HTML reports."""
        return self.home / "reports"

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance folder."""
        return self.home / "dagster"

    @property
    def tracking_uri(self) -> str:
        """MLflow server: MLFLOW_TRACKING_URI, else SQLite in the home folder."""
        return os.environ.get(TRACKING_URI) or f"sqlite:///{self.home / 'mlflow.db'}"


def settings_table() -> str:
    """The README's table of settings, in markdown."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(settings_table())  # noqa: T201
