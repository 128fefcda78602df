"""A version goes out whole, and no text of a document with it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer

from embed_assets.data_files.beir import is_beir, qrels_files, read_corpus, read_queries
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.publishing import publish_text, publish_version
from embed_assets_tests.rows import filled
from embed_assets_tests.tiny_model import make_static_model, make_tiny_model
from embed_assets_tests.training.hub import Hub, hub

SECRET = "the salary of the keeper"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home with a version whose pairs quote a document."""
    settings = Settings(home=tmp_path / "home")
    folder = settings.models / "v1"
    settings.models.mkdir(parents=True)
    make_tiny_model(tmp_path / "parts").rename(folder)
    (folder / "README.md").write_text("# A card")
    for quoting in ("pairs.parquet", "training/corpus.parquet", "training/config.json", "x.csv"):
        (folder / quoting).parent.mkdir(exist_ok=True)
        (folder / quoting).write_text(SECRET)
    warehouse = Warehouse.of(settings)
    warehouse.replace("models", filled("models", [{"version": "1", "path": "models/v1"}]))
    chunk = {"chunk_id": "c", "chunk_text": SECRET, "document_id": "d"}
    warehouse.replace("chunks", filled("chunks", [chunk]))
    asked = {"question_id": "q", "anchor": "what is paid?", "relevant_chunk_ids": ["c"]}
    rows = [{**asked, "split": "test_labelled"}, {**asked, "question_id": "p", "split": "train"}]
    warehouse.replace("training_pairs", filled("training_pairs", rows))
    return settings


def texts_below(folder: Path) -> str:
    return "".join(f.read_text(errors="replace") for f in folder.rglob("*") if f.is_file())


def test_a_folder_holds_the_model_and_its_card_and_quotes_nothing(settings: Settings, tmp_path):
    summary = publish_version(settings, "v1", str(tmp_path / "out"))
    assert SECRET not in texts_below(tmp_path / "out")
    assert {"README.md", "model.safetensors", "modules.json"} <= set(summary["files"])
    assert SentenceTransformer(str(tmp_path / "out")).encode("valve").shape == (32,)
    assert summary["data"] is None
    assert "none of which quotes a document" in publish_text(summary)
    assert not (tmp_path / "out-questions").exists()


def test_with_data_the_questions_that_test_stand_beside_it(settings: Settings, tmp_path):
    summary = publish_version(settings, "1", str(tmp_path / "out"), with_data=True)
    beside = Path(summary["data"])
    assert is_beir(beside)
    assert read_corpus(beside)[0] == {"c": SECRET}
    assert read_queries(beside)[0] == {"q": "what is paid?"}
    assert set(qrels_files(beside)) == {"test_labelled"}
    assert SECRET not in texts_below(tmp_path / "out")


def test_a_place_that_is_taken_or_in_the_home_is_refused(settings: Settings, tmp_path):
    publish_version(settings, "1", str(tmp_path / "out"))
    for taken in (tmp_path / "out", settings.home / "out"):
        with pytest.raises(SettingsError, match="publish"):
            publish_version(settings, "1", str(taken))
    with pytest.raises(SettingsError, match="--public is for"):
        publish_version(settings, "1", str(tmp_path / "other"), public=True)


def test_a_version_that_is_not_there_is_said(settings: Settings, tmp_path):
    with pytest.raises(ProjectError, match="no model version 7"):
        publish_version(settings, "7", str(tmp_path / "out"))


PUBLISH = """
import json, sys
from pathlib import Path
from embed_assets.errors import ProjectError
from embed_assets.settings import Settings
from embed_assets.training.publishing import publish_version
try:
    settings, how = Settings(home=Path(sys.argv[1])), json.loads(sys.argv[2])
    summary = publish_version(settings, "1", "me/mine", **how)
except ProjectError as error:
    summary = {"error": str(error)}
print(json.dumps(summary))
"""


def to_hub(settings: Settings, there: Hub, token: str = "secret", **how: Any) -> dict[str, Any]:
    """The hub's client reads its address when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": there.address, "HF_TOKEN": token}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PUBLISH, str(settings.home), json.dumps(how)],
        env={k: v for k, v in environment.items() if v},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout)


def test_a_repository_is_private_and_quotes_nothing(settings: Settings):
    with hub() as there:
        summary = to_hub(settings, there)
        assert there.repositories == {("models", "me/mine"): True}
        files = there.files["me/mine"]
        assert {"README.md", "model.safetensors"} <= set(files)
        assert SECRET.encode() not in b"".join(files.values())
        assert summary["to"] == f"{there.address}/me/mine"
        assert there.tokens == {"Bearer secret"}


def test_a_network_for_another_runtime_goes_up_too(settings: Settings):
    with hub() as there:
        summary = to_hub(settings, there, form="openvino")
        files = {"openvino/openvino_model.xml", "openvino/openvino_model.bin"}
        assert files <= set(there.files["me/mine"])
        assert files <= set(summary["files"])


def test_a_model_that_cannot_be_exported_is_not_uploaded(settings: Settings, tmp_path: Path):
    shutil.rmtree(settings.models / "v1")
    make_static_model(tmp_path / "static").rename(settings.models / "v1")
    with hub() as there:
        assert "no transformer" in to_hub(settings, there, form="onnx")["error"]
        assert there.repositories == {}


def test_public_and_with_data_are_what_a_person_says(settings: Settings):
    with hub() as there:
        summary = to_hub(settings, there, public=True, with_data=True)
        assert there.repositories == {
            ("models", "me/mine"): False,
            ("datasets", "me/mine-questions"): False,
        }
        assert SECRET in there.files["me/mine-questions"]["corpus.jsonl"].decode()
        assert summary["data"] == f"{there.address}/datasets/me/mine-questions"


def test_a_repository_that_is_public_already_takes_nothing_unasked(settings: Settings):
    with hub() as there:
        there.repositories["models", "me/mine"] = False
        assert "me/mine is public" in to_hub(settings, there)["error"]
        assert there.files == {}


def test_without_a_token_or_the_right_to_write_it_is_said(settings: Settings):
    with hub() as there:
        assert "HF_TOKEN" in to_hub(settings, there, token="")["error"]
        there.refuses = True
        error = to_hub(settings, there)["error"]
        assert "Hugging Face, me/mine" in error
        assert "secret" not in error
