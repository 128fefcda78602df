"""The ways in which a version is served, and whether all of them give the vectors it was judged by.

Its folder in sentence-transformers, its model in MLflow, and `/v1/embeddings` in both encodings at
every dimension are asked for the same texts, in full precision.
"""

import base64
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embed_assets.comparison.promotion import ServedWays
from embed_assets.errors import ProjectError, one_line
from embed_assets.models.card import ModelCard
from embed_assets.models.encoder import LocalEncoder, load_model
from embed_assets.models.files import OWN_CLASSES
from embed_assets.models.identity import model_identity
from embed_assets.models.network import quiet
from embed_assets.models.registry import Version
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.server.access import Access
from embed_assets.search.server.limits import Limits
from embed_assets.search.server.listening import Listening, listen
from embed_assets.search.server.openai_form import shortened
from embed_assets.search.server.served import CHAMPION, Mode, Served, Task
from embed_assets.search.server.serving import Serving
from embed_assets.settings import Settings

if TYPE_CHECKING:
    import openai
    import torch

TASKS: tuple[Task, ...] = ("query", "document")
SAMPLES = 4
"""Questions, and chunks, that every way is asked for."""
LOADER = "mlflow.sentence_transformers"
PICKLES = (".bin", ".pkl", ".pickle", ".pt", ".pth", ".ckpt")
"""Files that run code when they are loaded."""
TOKENIZER = "tokenizer.json"
"""Its strings are words, and name nothing."""
OTHERS = ("a text", "Ünïcödé, 漢字 and\na second line", "word " * 600)
"""Asked for too: the last is longer than most models read."""
Vectors = dict[Task, np.ndarray]


def ask_ways(settings: Settings, tracking: Tracking, version: Version) -> ServedWays:
    """How far from the judged vectors those are that each way of serving a version gives.

    ProjectError where MLflow doesn't answer, or has no such version.
    """
    with tracking.explained(f"MLflow does not give version {version.number}"):
        known = tracking.client().get_model_version(tracking.name, version.number)
    card, texts = version.card, _texts(Warehouse.of(settings))
    encoder = LocalEncoder(card, "fp32")
    judged: Vectors = {task: _normalised(encoder.encode(texts[task], task)) for task in TASKS}
    served = _OneModel(card, encoder, card.trained_dimensions(settings.dimensions))
    apart: dict[str, float] = {}
    failed: dict[str, str] = {}
    ways = {
        "its folder": lambda: _folder(card, texts, served.dimensions),
        "MLflow": lambda: _mlflow(tracking, version, encoder.device, texts, served.dimensions),
        "/v1/embeddings": lambda: _server(served, texts),
    }
    if str(known.source).startswith(("file:", "/")):
        del ways["MLflow"]  # which had lost the version, and was told of its folder since
    for name, ask in ways.items():
        try:
            for how, task, dimension, vectors in ask():
                far = _apart(vectors, shortened(judged[task], dimension))
                apart[f"{name}{how}, {task}, {dimension} dimensions"] = far
        except Exception as error:  # whatever breaks there is why nobody can be served that way
            tracking.check_answers()
            failed[name] = one_line(str(error)) or type(error).__name__
    return ServedWays(apart, failed)


Answers = Iterator[tuple[str, Task, int, np.ndarray]]
"""How it was asked, of which task, at which dimension, and vectors of length 1, (texts, size)."""


def _texts(warehouse: Warehouse) -> dict[Task, list[str]]:
    """Texts of the corpus, and some that are hard to handle."""
    asked = warehouse.read(
        "SELECT anchor FROM training_pairs ORDER BY md5(question_id) LIMIT ?", [SAMPLES]
    )
    chunks = warehouse.read(
        "SELECT chunk_text FROM chunks WHERE chunk_text IS NOT NULL ORDER BY chunk_id LIMIT ?",
        [SAMPLES],
    )
    return {
        "query": [*asked["anchor"].to_list(), *OTHERS],
        "document": [*chunks["chunk_text"].to_list(), *OTHERS],
    }


def _folder(card: ModelCard, texts: dict[Task, list[str]], dimensions: Sequence[int]) -> Answers:
    from sentence_transformers.util import truncate_embeddings

    model = load_model(card.source)
    encode = {"query": model.encode_query, "document": model.encode_document}
    for task in TASKS:
        vectors = encode[task](texts[task])
        for size in dimensions:
            yield "", task, size, _normalised(truncate_embeddings(vectors, size))


def _mlflow(
    tracking: Tracking,
    version: Version,
    device: "torch.device",
    texts: dict[Task, list[str]],
    dimensions: Sequence[int],
) -> Answers:
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.artifacts import download_artifacts

    name = f"models:/{tracking.connect()}/{version.number}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        place = download_artifacts(artifact_uri=name, dst_path=temporary)
        _check_brings_no_code(Path(place), version)
        model = pyfunc.load_model(place)
    by_task = model.metadata.get_params_schema() is not None
    raw = cast(Any, model.get_raw_model())
    raw.to(device)  # MLflow takes whatever torch finds
    encode = {"query": raw.encode_query, "document": raw.encode_document}
    for task in TASKS:
        if not by_task:  # versions of before
            vectors = encode[task](texts[task])
        else:
            asked = pd.DataFrame({"input": texts[task]})
            with quiet("transformers"):  # MLflow counts the tokens of whole texts
                answer: Any = model.predict(asked, params={"prompt_name": task, "task": task})
            if isinstance(answer, dict):  # in OpenAI's form; not of static embeddings
                answer = [row["embedding"] for row in answer["data"]]
            vectors = np.asarray(answer, np.float32)
        vectors = _normalised(vectors)
        for size in dimensions:
            yield "", task, size, shortened(vectors, size)


def _check_brings_no_code(model: Path, version: Version) -> None:
    """ProjectError where loading MLflow's copy would run more than the version's own folder does.

    Whoever may write to the server's store may have changed it. MLflow trusts it, and has code run
    that lies in it, and code of repositories that its files name.
    """
    from mlflow.models import Model

    how = Model.load(str(model)).flavors.get("python_function", {})
    own = {file.read_bytes() for file in version.folder.rglob("*.py")}
    files = [file for file in model.rglob("*") if file.is_file()]
    strange = [f.name for f in files if f.suffix == ".py" and f.read_bytes() not in own]
    strange += [f.name for f in files if f.suffix in PICKLES]
    strange += sorted(_named(model) - _named(version.folder))
    if how.get("loader_module") != LOADER or how.get("code"):
        strange.append("a loader of its own")
    if strange:
        raise ProjectError(f"it would run what the version's folder hasn't: {strange[0]}")


def _named(model: Path) -> set[str]:
    """All that the settings of a model may take from elsewhere: classes, repositories, folders."""
    files = [file for file in model.rglob("*.json") if file.name != TOKENIZER]
    said = {text for file in files for text in _strings(json.loads(file.read_bytes()))}
    return {
        text
        for text in said
        if any(sign in text for sign in "./\\")
        and any(map(str.isalpha, text))  # no number of a release
        and not text.startswith(f"{OWN_CLASSES}.")
    }


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _server(served: "_OneModel", texts: dict[Task, list[str]]) -> Answers:
    import openai

    serving = Serving(_Follower(served), Access(), Limits())
    with (
        Listening(serving, listen("127.0.0.1", 0)) as server,
        openai.DefaultHttpxClient(trust_env=False) as client,
    ):
        api = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", http_client=client)
        for task in TASKS:
            for size in served.dimensions:
                yield " float", task, size, _float(api, texts[task], task, size)
                yield " base64", task, size, _base64(api, texts[task], task, size)


def _float(api: "openai.OpenAI", texts: list[str], task: Task, size: int) -> np.ndarray:
    answer = api.embeddings.create(
        model=f"{CHAMPION}-{task}", input=texts, dimensions=size, encoding_format="float"
    )
    return np.array([row.embedding for row in answer.data], np.float32)


def _base64(api: "openai.OpenAI", texts: list[str], task: Task, size: int) -> np.ndarray:
    answer = api.embeddings.create(
        model=CHAMPION,
        input=texts,
        dimensions=size,
        encoding_format="base64",
        extra_body={"input_type": task},
    )
    # Typed as numbers, which is what is asked for mostly.
    rows = (cast(Any, row.embedding) for row in answer.data)
    return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])


def _normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two numbers; infinite where they are not of one shape."""
    if one.shape != other.shape or not np.isfinite(one).all():
        return math.inf
    return float(np.abs(one - other).max())


class _OneModel:
    """A version that is served without an index."""

    chunks, models = 0, (CHAMPION,)
    cutoff: float | None = None

    def __init__(self, card: ModelCard, encoder: LocalEncoder, dimensions: Sequence[int]) -> None:
        self._encoder = encoder
        self.name, self.identity, self.dimensions = card.name, model_identity(card), dimensions
        self.token_limit, self._count = card.token_limit, card.count_tokens
        self._known: dict[tuple[Task, str], np.ndarray] = {}

    def embed(self, texts: Sequence[str], task: Task) -> np.ndarray:
        """As the judged ones are made; each text once, however often it is asked for."""
        new = [text for text in texts if (task, text) not in self._known]
        vectors = _normalised(self._encoder.encode(new, task))
        self._known |= {(task, text): row for text, row in zip(new, vectors, strict=True)}
        return np.stack([self._known[task, text] for text in texts])

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    def search(
        self,
        queries: Sequence[str],
        k: int,
        mode: Mode,
        model: str = CHAMPION,
        only_likely: bool = False,
    ) -> list[list[dict[str, Any]]]:
        return [[] for _ in queries]

    def pdf(self, path: str) -> bytes | None:
        return None


@dataclass(frozen=True)
class _Follower:
    served: Served

    def current(self) -> Served:
        return self.served

    def close(self) -> None:
        pass
