"""However a version is asked for its vectors, they are those that it was judged by."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.models import Model, ModelSignature

from embed_assets.comparison.promotion import MOST_APART, ServedWays
from embed_assets.errors import ProjectError
from embed_assets.models.registry import Version, register
from embed_assets.resources.tracking import Tracking
from embed_assets.search import ways
from embed_assets.search.server import routes
from embed_assets.search.ways import ask_ways
from embed_assets.settings import Settings
from embed_assets.training.weights import save_model
from embed_assets_tests.tiny_model import make_static_model, make_tiny_model

PROMPTS = {"query": "query: ", "document": "passage: "}
SIZES = (32, 16)


def with_prompts(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(make_tiny_model(folder)), device="cpu", prompts=PROMPTS)


def with_adapter(folder: Path) -> Any:
    """Queries take another way than documents."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Router

    base = list(with_prompts(folder))
    router: Any = Router.for_query_document([*base, Dense(32, 32)], base)
    return SentenceTransformer(modules=[router], prompts=PROMPTS)


def static(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(make_static_model(folder)), device="cpu", prompts=PROMPTS)


@dataclass(frozen=True)
class Registered:
    settings: Settings
    tracking: Tracking
    version: Version

    def ask(self) -> ServedWays:
        return ask_ways(self.settings, self.tracking, self.version)

    @property
    def logged(self) -> Path:
        """The folder in which MLflow keeps the model."""
        [modules] = self.tracking.artifacts.rglob("modules.json")
        return modules.parent


def registered(home: Path, model: Any) -> Registered:
    settings = Settings(home=home, dimensions="32,16", precision="bf16")
    folder = settings.models / "v1"
    folder.parent.mkdir(parents=True)
    save_model(model, folder, SIZES)
    tracking = Tracking(home=str(home))
    tracking.connect()
    return Registered(settings, tracking, Version(register(tracking, folder, "r"), "tiny", folder))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("made") / "home"
    registered(home, with_prompts(home.with_name("base")))
    return home


@pytest.fixture
def known(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registered:
    """A version with prompts, in a home of the test's own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = shutil.copytree(made, tmp_path / "home")
    settings = Settings(home=home, dimensions="32,16", precision="bf16")
    version = Version("1", "tiny", settings.models / "v1")
    return Registered(settings, Tracking(home=str(home)), version)


@pytest.mark.parametrize("model", [with_prompts, with_adapter, static])
def test_all_ways_give_the_same_vectors_for_queries_and_documents_at_every_dimension(
    model, tmp_path, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = registered(tmp_path / "home", model(tmp_path / "base")).ask()
    assert found.objection is None
    ways = ("its folder", "MLflow", "/v1/embeddings float", "/v1/embeddings base64")
    assert set(found.apart) == {
        f"{way}, {task}, {size} dimensions" for way in ways for task in PROMPTS for size in SIZES
    }
    assert max(found.apart.values()) < MOST_APART


def test_asking_draws_no_bar_of_another_library(known, capfd):
    assert known.ask().objection is None
    assert "\r" not in capfd.readouterr().err


def test_a_version_of_before_whose_model_in_mlflow_takes_no_task_is_asked_without(known):
    file = known.logged.parent / "MLmodel"
    model: Any = Model.load(str(file))
    model.signature = ModelSignature(model.signature.inputs, model.signature.outputs)
    model.save(str(file))
    assert known.ask().objection is None


def test_another_prompt_in_mlflow_is_found(known):
    config = known.logged / "config_sentence_transformers.json"
    said = config.read_text(encoding="utf-8")
    config.write_text(said.replace("passage: ", "text: "), encoding="utf-8")
    found = known.ask()
    assert found.objection is not None
    assert found.objection.startswith("MLflow, document, 32 dimensions gives other vectors")
    assert found.apart["MLflow, query, 32 dimensions"] < MOST_APART


@pytest.mark.parametrize("way", ["code beside", "a loader of its own", "a pickle"])
def test_code_that_somebody_put_into_the_server_s_copy_does_not_run(known, tmp_path, way):
    logged = known.logged
    ran = tmp_path / "ran"
    (logged / "evil.py").write_text(f"open({str(ran)!r}, 'w')", encoding="utf-8")
    if way == "code beside":
        modules = logged / "modules.json"
        rows = json.loads(modules.read_text(encoding="utf-8"))
        rows[-1]["type"] = "evil.Pooling"
        modules.write_text(json.dumps(rows), encoding="utf-8")
    elif way == "a loader of its own":
        model = Model.load(str(logged.parent / "MLmodel"))
        model.flavors["python_function"] |= {"loader_module": "evil", "code": logged.name}
        model.save(str(logged.parent / "MLmodel"))
    else:
        (logged / "evil.py").rename(logged / "pytorch_model.bin")
    found = known.ask()
    assert "MLflow gives no vectors of it (it would run what" in str(found.objection)
    assert not ran.exists()


ELSEWHERE = "somebody/model--modeling.Own"
"""A class in a repository of the hub."""


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("modules.json", [{"idx": 0, "name": "0", "path": "", "type": ELSEWHERE}]),
        ("config.json", {"auto_map": {"AutoModel": [ELSEWHERE, None]}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ELSEWHERE}}),
        ("adapter_config.json", {"base_model_name_or_path": "somebody/model"}),
        ("sentence_bert_config.json", {"tokenizer_name_or_path": "\\\\host\\model"}),
    ],
)
def test_a_copy_that_names_what_lies_elsewhere_is_not_loaded(known, file, says, monkeypatch):
    place = known.logged / file
    if isinstance(says, dict) and place.is_file():
        says = json.loads(place.read_text(encoding="utf-8")) | says
    place.write_text(json.dumps(says), encoding="utf-8")
    monkeypatch.setattr("mlflow.pyfunc.load_model", lambda _: pytest.fail("it was loaded"))
    found = known.ask()
    assert "MLflow gives no vectors of it (it would run what" in str(found.objection)


def test_code_that_the_version_itself_has_is_no_reason(known):
    for folder in (known.logged, known.version.folder):
        (folder / "own.py").write_text("class Own: ...", encoding="utf-8")
    assert known.ask().objection is None


def test_a_model_that_mlflow_has_lost_is_said(known):
    shutil.rmtree(known.logged)
    found = known.ask()
    assert set(found.failed) == {"MLflow"}
    assert "MLflow gives no vectors of it" in str(found.objection)


def test_a_version_whose_folder_was_registered_is_not_asked_for_in_mlflow(known):
    client, name = known.tracking.client(), known.tracking.name
    again = client.create_model_version(name, known.version.folder.as_uri())
    version = Version(str(again.version), "tiny", known.version.folder)
    found = ask_ways(known.settings, known.tracking, version)
    assert found.objection is None
    assert not [way for way in found.apart if way.startswith("MLflow")]


@pytest.mark.parametrize(
    ("encoding", "broken"),
    [("float", lambda rows: rows.round(3)), ("base64", lambda rows: rows[:, ::-1])],
)
def test_a_server_that_rounds_or_mixes_up_is_found_in_either_encoding(
    known, monkeypatch, encoding, broken
):
    sent = routes.embeddings_body

    def body(vectors: np.ndarray, asked: Any, *rest: Any) -> bytes:
        return sent(broken(vectors) if asked == encoding else vectors, asked, *rest)

    monkeypatch.setattr(routes, "embeddings_body", body)
    assert f"/v1/embeddings {encoding}, query, " in str(known.ask().objection)


def test_a_server_that_does_not_start_is_said(known, monkeypatch):
    def none(*_: Any) -> None:
        raise OSError("no port is free")

    monkeypatch.setattr(ways, "listen", none)
    found = known.ask()
    assert found.objection == "/v1/embeddings gives no vectors of it (no port is free)"


def test_no_numbers_at_all_are_not_the_same(known, monkeypatch):
    def nothing(*_: Any) -> Any:
        yield "", "query", 32, np.full((3, 32), np.nan, np.float32)

    monkeypatch.setattr(ways, "_folder", nothing)
    assert "its folder, query, 32 dimensions gives other vectors, inf" in str(known.ask().objection)


def test_mlflow_that_does_not_answer_is_an_error_and_no_verdict(known, monkeypatch):
    def away(self: Tracking) -> None:
        raise ProjectError("MLflow does not answer")

    def lost(*_: Any) -> Sequence[Any]:
        raise OSError("lost")

    monkeypatch.setattr(Tracking, "check_answers", away)
    monkeypatch.setattr(ways, "_mlflow", lost)
    with pytest.raises(ProjectError, match="does not answer"):
        known.ask()
