"""The files of a model: in its folder, or in the hub's cache."""

import json
import os
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from embed_assets.errors import SettingsError

BASE_MODEL = "EMBED_ASSETS_MODEL"
"""The setting that names the base model: what an error is about where nobody knows better."""


class NoModelError(SettingsError):
    """There is no such model, or it can't be known whether there is one."""

    def __init__(self, reason: str, about: str = BASE_MODEL) -> None:
        """`about`: the setting or option that names the model."""
        super().__init__(reason, about)


def read_json(source: str, name: str) -> Any:
    """What a JSON file of a model says; an empty dict where the model has no such file."""
    try:
        return json.loads(model_file(source, name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def first_module(source: str) -> dict[str, Any]:
    """What a model's files say of its first module: type, path; empty of a bare transformer."""
    modules = read_json(source, "modules.json")
    return modules[0] if isinstance(modules, list) and modules else {}


def tokenizer_file(source: str) -> Path:
    """A model's tokenizer, which is at its root or with its first module."""
    with suppress(FileNotFoundError):
        file = model_file(source, "tokenizer.json")
        if file.is_file():
            return file
    folder = first_module(source).get("path", "")
    return model_file(source, str(PurePath(folder, "tokenizer.json")))


def model_file(source: str, name: str) -> Path:
    """A file of the model, fetched from the hub where the model isn't local."""
    folder = Path(source)
    if folder.is_dir():
        return folder / name
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, name))
    except LocalEntryNotFoundError as error:
        raise no_such_model(source) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(name) from error
    except Exception as error:
        raise no_such_model(source) from error


def no_such_model(name: str) -> NoModelError:
    """The error that no model has this name, and what to do."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
    hint = ", or unset HF_HUB_OFFLINE" if offline else ", or check the name and the network"
    return NoModelError(f"no folder and no hub model '{name}'. Set it to a local folder{hint}.")
