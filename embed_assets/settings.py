"""Every setting, once: its name, type, default, one line of help, and the assets that it shapes.

A setting `name` is read from the environment variable `EMBED_ASSETS_NAME`, then from `.env` in the
working directory, then from its default here. The table of `docs/settings.md` is made from this
file.

Settings stand in groups, and `Settings` is all of them: flat names, whatever the group. Each is
marked in its declaration with the assets that it shapes: another value makes these stale, since
their code versions are made from the marks (`Settings.shape`).
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from embed_assets.errors import SettingsError
from embed_assets.grouping import DOCUMENTS_PER_RUN, Grouping
from embed_assets.lake_address import EXAMPLE, lake_address, refuse_password
from embed_assets.places import Place, to_place

PREFIX = "EMBED_ASSETS_"
TRACKING_URI = "MLFLOW_TRACKING_URI"
SIGNING_KEY = f"{PREFIX}SIGNING_KEY"
IN_POSTGRES = "postgresql+psycopg2://"
"""What an address of Dagster's history begins with; SQLAlchemy takes another driver without it."""
_JOB_SERVER = re.compile(r"https?://[^\s/@?#]+/?")
"""An address without a name or a password: Dagster and logs show it."""
DEFAULT_PROJECT = "embed-assets"
LABELLED_BESIDE_PDFS = "questions.jsonl"
EXTRACTIVE = "extractive"
"""Questions taken from the chunks themselves, rather than written by a model."""
Precision = Literal["auto", "fp32", "bf16"]
Method = Literal["full", "lora", "adapter"]
Loss = Literal["mnrl", "cached_mnrl", "gist"]
LabelledPurpose = Literal["train", "test"]
RetrainFrom = Literal["base", "champion"]
Headings = Literal["first", "every"]
Engine = Literal["local", "ray"]
Merge = Literal["best"] | Annotated[float, Field(gt=0, le=1)]


class Shapes:
    """Mark of a setting: the assets that it shapes. `Shapes()`: none, it may change without effect.

    Such a setting says where things lie, how many work on them, how long they may take or what they
    may cost.
    """

    def __init__(self, *assets: str) -> None:
        self.assets = frozenset(assets)


NOTHING = Shapes()
EMBEDDINGS = Shapes("training_pairs", "base_eval", "finetuned_model")
OF_QUERIES = Shapes(*EMBEDDINGS.assets, "search_index")
OF_CHUNKS = Shapes(*OF_QUERIES.assets, "chunk_embeddings")
TOKENS = Shapes(*OF_CHUNKS.assets, "chunks")
CHUNKS = Shapes("chunks")
INDEX = Shapes("search_index")
DIMENSIONS = Shapes("base_eval", "finetuned_model")
QUESTIONS = Shapes("synthetic_questions")
QUESTIONS_AND_PAIRS = Shapes("synthetic_questions", "training_pairs")
FINETUNED_MODEL = Shapes("finetuned_model")
EVALUATION = Shapes("base_eval")
COMPARED = Shapes("base_eval", "comparison")
COMPARISON = Shapes("comparison")


class Group(BaseModel):
    """Settings that belong together."""


class Places(Group):
    """Where everything lies."""

    pdfs: Annotated[Place, NoDecode, NOTHING] = Field(
        default=Path("data/sample"),
        description="Folder of PDFs, searched recursively: a path, or a URL (`s3://`, `gs://`, "
        "`az://`)",
    )
    home: Annotated[Path, NOTHING] = Field(
        default=Path("data/home"),
        description="Folder of all state: warehouse, MLflow, models, Dagster",
    )
    warehouse: Annotated[str, NOTHING] = Field(
        default="",
        description="Where the tables are. Unset: `warehouse.duckdb` in the home. "
        f"`{EXAMPLE}` (or `=DIR`): in a DuckLake, for several machines",
    )
    dagster_storage: Annotated[str, NOTHING] = Field(
        default="",
        description="Where Dagster keeps its history. Unset: SQLite files in the home. "
        "`postgresql+psycopg2://USER@HOST/NAME`: Postgres, for daemon, pages and runs on several "
        "machines",
    )
    ray_jobs: Annotated[str, NOTHING] = Field(
        default="",
        description="Where Dagster's runs are: `http://HOST:8265`, jobs of the Ray cluster whose "
        "pages are there. Unset: processes beside Dagster's daemon",
    )
    partitions: Annotated[int, NOTHING] = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Partitions in Dagster that documents share. 0: each document is one. Beyond "
        "50,000 documents, one for each 200 or so",
    )
    documents_per_run: Annotated[int, NOTHING] = Field(
        default=DOCUMENTS_PER_RUN,
        ge=1,
        le=256,
        description="Documents that a run of Dagster makes, at most, of 256 MB together. A cluster "
        "of more than 64 CPUs has work for all of them with more",
    )
    project: Annotated[str, NOTHING] = Field(
        default=DEFAULT_PROJECT,
        pattern=r"^[\w.-]+$",
        description="Name of the experiment and the registered model in MLflow: several projects "
        "can share a server",
    )
    follow_links: Annotated[bool, NOTHING] = Field(
        default=False,
        description="Whether links that lead out of the PDF folder are followed",
    )
    largest_pdf_mb: Annotated[int, NOTHING] = Field(
        default=1000,
        ge=1,
        le=4000,
        description="Megabytes of the largest PDF that is read: memory holds it several times",
    )


class Model(Group):
    """The base model, and how texts are embedded."""

    model: Annotated[str, TOKENS] = Field(
        default="all-MiniLM-L6-v2",
        description="Base model: a sentence-transformers hub name or a local folder. "
        "`all-MiniLM-L6-v2` is installed with the package and needs no network",
    )
    trusted_models: Annotated[str, NOTHING] = Field(
        default="",
        description="Models whose own code may be run, by hub name or folder, separated by commas. "
        "No other model's is: one that needs it is refused",
    )
    query_prompt: Annotated[str | None, OF_QUERIES] = Field(
        default=None, description="Put before each query. Unset: what the model's family needs"
    )
    document_prompt: Annotated[str | None, OF_CHUNKS] = Field(
        default=None, description="Put before each chunk. Unset: what the model's family needs"
    )
    dimensions: Annotated[str | None, DIMENSIONS] = Field(
        default=None,
        description="Matryoshka dimensions, separated by commas. Unset: those of "
        "768, 512, 256, 128, 64 below the model's size, and its size",
    )
    precision: Annotated[Precision, EMBEDDINGS] = Field(
        default="auto", description="`auto`: bf16 on GPUs and CPUs that compute in it, else fp32"
    )
    max_chunk_tokens: Annotated[int, TOKENS] = Field(
        default=512,
        ge=32,
        description="Upper bound of a chunk for models that take very long texts",
    )
    headings: Annotated[Headings, CHUNKS] = Field(
        default="first",
        description="`first`: a section's headings stand in its first chunk. "
        "`every`: each chunk begins with all headings above it",
    )


class Documents(Group):
    """How PDFs are read."""

    engine: Annotated[Engine, NOTHING] = Field(
        default="local",
        description="Where PDFs are parsed and cut, texts embedded, and models trained and asked: "
        "`local`, on this machine; `ray`, on the Ray cluster at `RAY_ADDRESS`, or on one that is "
        "started here while that is unset",
    )
    workers: Annotated[int, NOTHING] = Field(
        default=0,
        ge=0,
        description="Processes that parse PDFs. 0: one per core, at most 8; on Ray, one per CPU of "
        "the cluster",
    )
    parse_timeout: Annotated[float, NOTHING] = Field(
        default=300.0,
        gt=0,
        description="Seconds that 16 pages of a document may take to parse, and a page by itself: "
        "of what takes longer, pages are tried one by one, then without the layout model. Also for "
        "a document's chunks",
    )
    ocr: Annotated[str, NOTHING] = Field(
        default="off",
        pattern=r"^(off|auto|\w+(\+\w+)*)$",
        description="Optical character recognition of pages without usable text, by Tesseract: "
        "`off`; its languages, as `eng` or `deu+fra`; `auto`: all that are installed, if any",
    )
    pdf_passwords: Annotated[Path | None, NOTHING] = Field(
        default=None,
        description="File of passwords, one a line, that are tried on encrypted PDFs",
    )


class Questions(Group):
    """Who asks what about the documents."""

    questions: Annotated[str, QUESTIONS] = Field(
        default=EXTRACTIVE,
        description="Who writes the training questions: `extractive` (no model needed), "
        "`openai:MODEL` (any OpenAI-compatible server: OPENAI_BASE_URL, OPENAI_API_KEY), "
        "`huggingface:MODEL` (a model on this machine) or `none`",
    )
    questions_per_chunk: Annotated[int, QUESTIONS] = Field(
        default=2, ge=1, le=10, description="Questions that a language model writes for a chunk"
    )
    question_kinds: Annotated[str, QUESTIONS] = Field(
        default="",
        description="What a language model writes, and how often: `question:4,keywords:2,title:1`. "
        "There are `question`, `keywords`, `claim`, `title`, `conversational` and `misspelt`. "
        "Unset: a question for each chunk, then keywords and claims in turn",
    )
    question_domain: Annotated[str, QUESTIONS] = Field(
        default="",
        description="What the documents are, told to the model that writes questions: "
        "`tenancy contracts in Scotland`",
    )
    question_prompt: Annotated[Path | None, QUESTIONS] = Field(
        default=None,
        description="Jinja file of your own instructions to that model. "
        "Unset: `embed_assets/questions/written/instructions.jinja`",
    )
    labelled: Annotated[str, QUESTIONS_AND_PAIRS] = Field(
        default="",
        description="Files or folders of people's questions (JSONL, CSV, datasets, Argilla, "
        "LlamaIndex, BEIR), separated as in PATH. "
        f"Unset: `{LABELLED_BESIDE_PDFS}` in the PDF folder, where there is one",
    )
    labelled_purpose: Annotated[LabelledPurpose, QUESTIONS_AND_PAIRS] = Field(
        default="test",
        description="What a labelled question is for when its row doesn't say: train, test",
    )


class Llm(Group):
    """Calls of language models."""

    llm_temperature: Annotated[float, QUESTIONS] = Field(
        default=0.7, ge=0, le=2, description="Temperature of the model that writes questions"
    )
    llm_max_tokens: Annotated[int, QUESTIONS] = Field(
        default=1024, ge=16, description="Tokens of one reply, at most"
    )
    llm_concurrency: Annotated[int, NOTHING] = Field(
        default=8, ge=1, description="Calls at a time; a local model's batch size"
    )
    llm_timeout: Annotated[float, NOTHING] = Field(
        default=120.0, gt=0, description="Seconds that one call may take"
    )
    llm_requests_per_minute: Annotated[int, NOTHING] = Field(
        default=0, ge=0, description="Calls a minute. 0: no limit"
    )
    llm_token_budget: Annotated[int, NOTHING] = Field(
        default=0,
        ge=0,
        description="Tokens that one command may use on a server, calls in flight reckoned by the "
        "largest so far. What is left over is asked by the next command. 0: no limit",
    )
    llm_cost_budget: Annotated[float, NOTHING] = Field(
        default=0.0, ge=0, description="Money that one command may spend, by the prices below"
    )
    llm_input_price: Annotated[float, NOTHING] = Field(
        default=0.0, ge=0, description="Price of a million input tokens, in any currency"
    )
    llm_output_price: Annotated[float, NOTHING] = Field(
        default=0.0, ge=0, description="Price of a million output tokens"
    )


class Filters(Group):
    """Which of a machine's questions are kept."""

    filters: Annotated[str, QUESTIONS_AND_PAIRS] = Field(
        default="unanswerable,duplicates,near_duplicates",
        description="What drops a machine's questions: `all`, `none`, or some of `unanswerable`, "
        "`pointing` (at 'the text', a figure, …), `verbatim`, `duplicates`, `near_duplicates`, "
        "`round_trip` (the base model doesn't find the chunk)",
    )
    judge: Annotated[str, QUESTIONS] = Field(
        default="",
        description="Model that scores written questions from 1 to 5, as `openai:MODEL`. "
        "Unset: none does",
    )
    judge_threshold: Annotated[float, QUESTIONS] = Field(
        default=3.0, ge=1, le=5, description="Least score of a question that trains"
    )


class Training(Group):
    """How the model is fine-tuned: Dagster's Launchpad offers these for one run."""

    method: Annotated[Method, FINETUNED_MODEL] = Field(
        default="full",
        description="What is trained: `full`, the weights; `lora`, low-rank changes of them; "
        "`adapter`, a matrix behind the queries: chunks keep their embeddings",
    )
    loss: Annotated[Loss, FINETUNED_MODEL] = Field(
        default="mnrl",
        description="Loss at each dimension: `mnrl`, in-batch negatives; `cached_mnrl`, the same "
        "for batches larger than memory; `gist`, the base model says which are no negatives",
    )
    epochs: Annotated[int, FINETUNED_MODEL] = Field(
        default=2,
        ge=1,
        description="Passes over the training pairs, at most; of many extractive ones each takes "
        "others. An adapter makes as many as it needs",
    )
    max_pairs: Annotated[int | None, FINETUNED_MODEL] = Field(
        default=None,
        ge=0,
        description="Pairs to train on at most, spread over all chunks. 0: every pair in every "
        "epoch, which takes longer and on thousands of extractive ones gained no more. "
        "Unset: every pair, but 512 extractive ones in each epoch, others in the next. Without a "
        "GPU some 200 pairs take a minute",
    )
    batch_size: Annotated[int, FINETUNED_MODEL] = Field(
        default=32,
        ge=2,
        description="Pairs per batch; each is a negative to others. Where it doesn't fit in memory "
        "its gradients are cached",
    )
    pairs_together: Annotated[int, FINETUNED_MODEL] = Field(
        default=1,
        ge=1,
        description="Pairs of a chunk that may share a batch, and the work of embedding its text",
    )
    learning_rate: Annotated[float | None, FINETUNED_MODEL] = Field(
        default=None,
        gt=0,
        description="Peak learning rate. Unset: 6e-5 for `full`, 1e-3 for `lora` and `adapter`",
    )
    frozen_share: Annotated[float, FINETUNED_MODEL] = Field(
        default=0.34,
        ge=0,
        lt=1,
        description="Share of the layers, the lowest, that stay as they are in `full` and `lora` "
        "training, rounded down. 0: all are trained",
    )
    hard_negatives: Annotated[int, FINETUNED_MODEL] = Field(
        default=0,
        ge=0,
        le=8,
        description="Chunks per pair that the base model takes for the answer and that are none",
    )
    merge: Annotated[Merge | None, FINETUNED_MODEL] = Field(
        default=None,
        description="Share of the tuned weights in the model, the rest being those that the "
        "training started from: a guard against forgetting. `best`: the one of four that is best "
        "on validation. Unset: 1, and 0.5 where most questions are extractive",
    )
    retrain_from: Annotated[RetrainFrom, FINETUNED_MODEL] = Field(
        default="base",
        description="What a training starts from: `base`, or `champion`: on from the champion, "
        "with a replay of what it was trained on",
    )
    processes: Annotated[int, FINETUNED_MODEL] = Field(
        default=0, ge=0, description="Processes that train together, by torchrun. 0: one per GPU"
    )
    seed: Annotated[int, FINETUNED_MODEL] = Field(
        default=42, description="Seed of the training's order and initialisation"
    )


class Evaluation(Group):
    """What the model is compared with."""

    baselines: Annotated[str, COMPARED] = Field(
        default="bm25,hybrid,champion",
        description="What the fine-tuned model is compared with beside its base, separated by "
        "commas: `bm25`, `hybrid` (bm25 with the base model; with the fine-tuned one too), "
        "`champion` (the one before it), `openai:MODEL` (any OpenAI-compatible server's "
        "embeddings), any sentence-transformers model, a version (`v3`). `none`: nothing",
    )
    learning_curve: Annotated[bool, COMPARISON] = Field(
        default=False,
        description="Whether each comparison trains on parts of the pairs too, and says what would "
        "help most. It takes 1.3 times the training's time on top, up to 3 times where "
        "extractive pairs take turns, and three times that of embedding all chunks",
    )


class Promotion(Group):
    """When a model becomes the champion: better than its base beyond chance, and none of these."""

    promotion_margin: Annotated[float, COMPARISON] = Field(
        default=0.01,
        ge=0,
        le=1,
        description="NDCG@10 by which it may be lower than the champion, on any test split and at "
        "any dimension: a greater loss that is beyond chance keeps it from promotion",
    )
    general: Annotated[str, COMPARISON] = Field(
        default="data/general",
        description="BEIR folder of general questions, by which forgetting is noticed. "
        "`data/general` comes with the project, wherever it is started. `none`: nothing",
    )
    general_loss: Annotated[float, COMPARISON] = Field(
        default=0.02,
        ge=0,
        le=1,
        description="NDCG@10 by which it may be lower than its base on these",
    )
    figures_behind: Annotated[int, NOTHING] = Field(
        default=20,
        ge=0,
        description="Documents that may have come, changed or gone since the champion was scored, "
        "before a check warns",
    )


class Automation(Group):
    """When the sensors act."""

    watch: Annotated[bool, NOTHING] = Field(
        default=False,
        description="Whether both sensors are on from the start, as with `embed-assets ui --watch`",
    )

    lost_share: Annotated[float, NOTHING] = Field(
        default=1 / 3,
        ge=0,
        le=1,
        description="Share of the documents that may leave the folder at once; more waits until a "
        "person agrees (`embed-assets ingest --yes`)",
    )
    retrain_share: Annotated[float, NOTHING] = Field(
        default=0.05,
        ge=0,
        description="Share of new, changed and removed pairs from which on the model is trained "
        "again",
    )
    retrain_wait_hours: Annotated[float, NOTHING] = Field(
        default=24.0,
        ge=0,
        description="Hours after which it is trained again on any change, however small",
    )
    retrain_pause_hours: Annotated[float, NOTHING] = Field(
        default=1.0, ge=0, description="Hours from one training to the next, at least"
    )


class Search(Group):
    """How chunks are searched."""

    dense_weight: Annotated[float, EVALUATION] = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="Weight of the search by meaning in hybrid search; the search by words has the "
        "rest of 1. Where people's questions test, each comparison says whether another one does "
        "better",
    )
    lance_from: Annotated[int, INDEX] = Field(
        default=1_000_000,
        ge=0,
        description="Chunks from which on LanceDB finds the nearest, approximately "
        "(`pip install 'embed_assets[lance]'`). 0: never",
    )


class Serving(Group):
    """Who may ask the servers."""

    ui_hosts: Annotated[str, NOTHING] = Field(
        default="",
        description="Hosts under which a proxy or a forwarded port leads to `embed-assets ui`, "
        "separated by commas: `dagster.example.com,localhost:8000`. Others are refused",
    )
    serve_key: Annotated[SecretStr | None, NOTHING] = Field(
        default=None,
        description="Key that `embed-assets serve` asks for. Unset: it asks for none",
    )
    serve_hosts: Annotated[str, NOTHING] = Field(
        default="",
        description="Hosts under which `embed-assets serve` is reached, by a proxy or a forwarded "
        "port, separated by commas. Others are refused. Unset, with `--host`: none is",
    )
    serve_inputs: Annotated[int, NOTHING] = Field(
        default=2048, ge=1, description="Texts that one request may have embedded"
    )
    serve_tokens: Annotated[int, NOTHING] = Field(
        default=300_000, ge=1, description="Tokens that one request may have read"
    )
    serve_body_mb: Annotated[int, NOTHING] = Field(
        default=8, ge=1, description="Size of one request, in MB"
    )
    serve_queue: Annotated[int, NOTHING] = Field(
        default=4096,
        ge=1,
        description="Texts that may wait; a request beyond that is told to come back (503)",
    )
    serve_batch: Annotated[int, NOTHING] = Field(
        default=128, ge=1, description="Texts of requests that are embedded together, at most"
    )


class Sharing(Group):
    """How a version is handed on."""

    signing_key: Annotated[Path | None, NOTHING] = Field(
        default=None,
        description="PEM file of a private key (Ed25519, ECDSA, RSA) that signs what `embed-assets "
        "lineage --bundle` writes",
    )


class Settings(  # pyright: ignore[reportIncompatibleVariableOverride] # two kinds of model_config
    Places,
    Model,
    Documents,
    Questions,
    Llm,
    Filters,
    Training,
    Evaluation,
    Promotion,
    Automation,
    Search,
    Serving,
    Sharing,
    BaseSettings,
):
    """What a person can turn. Paths are made absolute, so that child processes agree on them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        validate_default=True,
    )

    @field_validator("pdfs", mode="before")
    @classmethod
    def _placed(cls, address: str | Place) -> Place:
        return to_place(address)

    @field_validator("warehouse")
    @classmethod
    def _lake(cls, address: str) -> str:
        return address and str(lake_address(address, f"{PREFIX}WAREHOUSE"))

    @field_validator("dagster_storage")
    @classmethod
    def _in_postgres(cls, address: str) -> str:
        if address and not address.startswith(IN_POSTGRES):
            raise SettingsError(f"not {IN_POSTGRES}USER@HOST/NAME.", f"{PREFIX}DAGSTER_STORAGE")
        refuse_password(address, f"{PREFIX}DAGSTER_STORAGE")
        return address

    @field_validator("ray_jobs")
    @classmethod
    def _job_server(cls, address: str) -> str:
        if address and not _JOB_SERVER.fullmatch(address):
            said = "not http://HOST:8265. A token is in RAY_AUTH_TOKEN."
            raise SettingsError(said, f"{PREFIX}RAY_JOBS")
        return address

    @field_validator("home", "question_prompt", "signing_key", "pdf_passwords")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path and Path(os.path.abspath(path.expanduser()))

    def changed(self, changes: Mapping[str, object]) -> "Settings":
        """These settings with others in their place, read as from the environment.

        SettingsError in one line where a value is wrong.
        """
        try:
            return type(self).model_validate({**dict(self), **changes})
        except ValidationError as error:
            raise wrong_setting(error) from error

    def shape(self, asset: str, **meant: object) -> tuple[tuple[str, object], ...]:
        """Name and value of every setting that is marked to shape an asset, by name.

        meant: by name, what stands in place of a setting's value where something else decides: the
        prompt of a model's family where none is set, the rows of a file, None where the setting has
        no effect beside another. ValueError for a setting that isn't marked.
        """
        marked = {name for name in type(self).model_fields if asset in shaped_by(name)}
        if unmarked := sorted(set(meant) - marked):
            raise ValueError(f"not marked to shape {asset}: {', '.join(unmarked)}")
        return tuple((name, meant.get(name, getattr(self, name))) for name in sorted(marked))

    @property
    def shaping(self) -> dict[str, Any]:
        """Name and value, as in JSON, of every setting that shapes something."""
        return self.model_dump(
            mode="json", include={n for n in type(self).model_fields if shaped_by(n)}
        )

    @property
    def shaping_as_set(self) -> dict[str, Any]:
        """Those of `shaping` that are not as they are by default."""
        fields = type(self).model_fields
        return {n: v for n, v in self.shaping.items() if getattr(self, n) != fields[n].default}

    @property
    def labelled_files(self) -> tuple[Place, ...]:
        """Files and folders of people's questions, in the order given.

        SettingsError where it can't be told whether there are some beside the PDFs.
        """
        if self.labelled:
            parts = self.labelled.split(os.pathsep)
            return tuple(Path(os.path.abspath(Path(p).expanduser())) for p in parts if p)
        beside = self.pdfs / LABELLED_BESIDE_PDFS
        try:
            return (beside,) if beside.is_file() else ()
        except OSError as error:
            said = f"{beside}: {error.strerror or error}."
            raise SettingsError(said, f"{PREFIX}PDFS") from error

    @property
    def general_folder(self) -> Path | None:
        """BEIR folder of general questions, if any."""
        if self.general == type(self).model_fields["general"].default:
            return Path(__file__).parent.parent / self.general
        return None if self.general == "none" else Path(os.path.abspath(self.general))

    @property
    def grouping(self) -> Grouping:
        """How documents are grouped into Dagster's partitions and runs."""
        return Grouping(self.partitions, self.documents_per_run)

    @property
    def warehouse_file(self) -> Path:
        """The DuckDB file of the tables, where they are not in a DuckLake."""
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

    def report(self, version: str) -> Path:
        """HTML report of a version."""
        return self.reports / f"comparison-v{version}.html"

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance folder."""
        return self.home / "dagster"


def shaped_by(name: str) -> frozenset[str]:
    """Assets that a setting is marked to shape. LookupError where it has no mark."""
    marks = (mark for mark in Settings.model_fields[name].metadata if isinstance(mark, Shapes))
    mark = next(marks, None)
    if mark is None:
        raise LookupError(f"the setting {name} doesn't say which assets it shapes")
    return mark.assets


def wrong_setting(error: ValidationError) -> SettingsError:
    """The first wrong setting in one line: its variable, what it must be, and what it was."""
    first = error.errors()[0]
    name = PREFIX + str(first["loc"][0]).upper()
    return SettingsError(f"{name}: {first['msg']}, not {first['input']!r}.")


def settings_table() -> str:
    """The table of `docs/settings.md`, in markdown."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for group in Group.__subclasses__():
        for name, field in group.model_fields.items():
            default = f"{field.default:.3g}" if isinstance(field.default, float) else field.default
            default = "" if default in (None, "") else f"`{default}`"
            lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(settings_table())  # noqa: T201
