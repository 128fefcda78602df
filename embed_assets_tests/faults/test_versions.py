"""Files of versions that are damaged are found, and what a kill left in MLflow is taken up."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from embed_assets.command.check import why_not_as_trained
from embed_assets.models import registry
from embed_assets.models.card import version_card
from embed_assets.models.identity import SAME_AS, model_identity
from embed_assets.models.registry import (
    register,
    register_again,
    registered_numbers,
    unregistered_models,
)
from embed_assets.models.whole import why_broken
from embed_assets.resources.tracking import Tracking
from embed_assets_tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "has no weights"),
        (cut, "is cut off"),
        (lambda file: file.write_bytes(b""), "is cut off"),
        (lambda file: file.write_bytes(b"\x08" + bytes(7) + b"[1, 2,3]"), "holds no weights"),
        (lambda file: (file.parent / "modules.json").write_text("{"), "modules.json is damaged: "),
        (lambda file: (file.parent / "modules.json").write_text('[{"type": ""}]'), "KeyError"),
        (lambda file: (file.parent / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda file: (file.parent / "pairs.parquet").write_text("PAR1"), "Parquet"),
    ],
)
def test_a_file_of_a_version_that_is_damaged_is_found(
    tmp_path: Path, model: Path, damage: Callable[[Path], object], said: str
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "v1"))
    assert why_broken(folder) is None
    assert why_broken(folder, deep=True) is None
    damage(folder / "model.safetensors")
    assert said in str(why_broken(folder))


def test_damage_that_only_a_deep_look_finds_is_said_too(tmp_path: Path, model: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "v1"))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"F32"', b'"G32"', 1))
    assert why_broken(folder) is None
    assert "model.safetensors is damaged: " in str(why_broken(folder, deep=True))
    (folder / SAME_AS).write_text("[]", encoding="utf-8")
    assert "AttributeError" in str(why_not_as_trained(folder, "another"))


def test_a_weight_of_a_version_that_is_another_one_is_found(tmp_path: Path, model: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "v1"))
    identity = model_identity(version_card("tuned", folder))
    assert why_not_as_trained(folder, identity) is None
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 0xFF
    file.write_bytes(content)
    assert why_broken(folder, deep=True) is None
    assert "not those that were trained" in str(why_not_as_trained(folder, identity))


def test_what_a_kill_left_between_logging_and_registering_is_registered_and_nothing_is_left(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = Tracking(home=str(tmp_path / "home"))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlflow.register_model", die)
    with pytest.raises(KeyboardInterrupt):
        register(tracking, model, "the run")
    [left] = unregistered_models(tracking)
    monkeypatch.undo()
    with monkeypatch.context() as patched:
        patched.setattr(registry, "load_model", die)  # it is not logged again
        assert register(tracking, model, "the run") == "1"
    assert unregistered_models(tracking) == []
    assert [f.name for f in (tracking.artifacts / "models").iterdir()] == [left.model_id]

    # Versions that MLflow has lost are registered again under their numbers.
    folders = {"1": (model, "the run"), "3": (model, "another run")}
    assert register_again(tracking, folders) == ["3"]
    assert registered_numbers(tracking) == {"1", "3"}
    assert register_again(tracking, folders) == []
    tracking.client().delete_model_version(tracking.name, "1")  # as a person does it
    assert register_again(tracking, folders) == []
    assert register_again(tracking, folders | {"4": (model, "a third run")}) == ["4"]
    assert registered_numbers(tracking) == {"3", "4"}
