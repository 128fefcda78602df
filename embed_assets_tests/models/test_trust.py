"""A model is data: no code that comes with it is run, unless a person named it."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest

from embed_assets.models.encoder import load_model
from embed_assets.models.files import NoModelError, may_run_code
from embed_assets_tests.tiny_model import make_tiny_model


@pytest.fixture
def model(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path / "model")


class Harm:
    """Makes a folder where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.place),)


def test_weights_that_are_a_pickle_with_code_are_refused_and_nothing_is_run(
    model: Path, tmp_path: Path
) -> None:
    import torch

    [weights] = model.rglob("model.safetensors")
    weights.unlink()
    harm = tmp_path / "harm"
    torch.save({"weight": Harm(harm)}, weights.with_name("pytorch_model.bin"))
    with pytest.raises(NoModelError, match="can't be loaded") as raised:
        load_model(str(model))
    assert "\n" not in str(raised.value)
    assert not harm.exists()
    with weights.with_name("pytorch_model.bin").open("wb") as file:
        pickle.dump(Harm(harm), file, protocol=2)
    with pytest.raises(NoModelError, match="can't be loaded"):
        load_model(str(model))
    assert not harm.exists()


def test_plain_weights_of_an_older_model_are_loaded(model: Path) -> None:
    import torch
    from safetensors.torch import load_file

    before = load_model(str(model)).encode(["a text"])
    [weights] = model.rglob("model.safetensors")
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    assert (load_model(str(model)).encode(["a text"]) == before).all()


@pytest.fixture
def with_code(model: Path) -> Path:
    """A model with a module of its own, which leaves a trace where it is imported."""
    modules = json.loads((model / "modules.json").read_text())
    modules.append({"idx": len(modules), "name": "own", "path": "own", "type": "own.Own"})
    (model / "modules.json").write_text(json.dumps(modules))
    (model / "own").mkdir()
    (model / "own.py").write_text(
        "import pathlib\n"
        "from torch import nn\n"
        f"pathlib.Path({str(model.parent / 'ran')!r}).touch()\n"
        "class Own(nn.Identity):\n"
        "    @staticmethod\n"
        "    def load(path):\n"
        "        return Own()\n"
    )
    return model


@pytest.mark.parametrize("trusts", [False, True])
def test_code_of_a_model_is_run_only_where_a_setting_names_it(
    with_code: Path, trusts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = with_code.parent / "ran"
    cache = str(with_code.parent / "cache")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", cache)
    if trusts:
        monkeypatch.setenv("EMBED_ASSETS_TRUSTED_MODELS", f"other/model, {with_code}")
        load_model(str(with_code))
    else:
        with pytest.raises(NoModelError, match=r"own\.Own.*EMBED_ASSETS_TRUSTED_MODELS"):
            load_model(str(with_code))
    assert ran.exists() == trusts


def test_a_model_of_an_unknown_architecture_with_code_says_how_to_trust_it(model: Path) -> None:
    shutil.rmtree(model / "1_Pooling", ignore_errors=True)
    [file] = [f for f in model.rglob("config.json") if "model_type" in f.read_text()]
    config = json.loads(file.read_text()) | {
        "model_type": "of-nobody",
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"},
    }
    file.write_text(json.dumps(config))
    with pytest.raises(NoModelError, match=r"own\.OwnConfig.*EMBED_ASSETS_TRUSTED_MODELS"):
        load_model(str(model))


def test_a_name_is_trusted_as_it_stands_and_a_folder_with_all_in_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    assert may_run_code("me/model", "x, me/model")
    assert not may_run_code("me/model-2", "me/model")
    assert not may_run_code("me/model", "")
    assert may_run_code(str(tmp_path / "a" / "b"), str(tmp_path / "a"))
    assert not may_run_code(str(tmp_path / "ab"), str(tmp_path / "a"))
