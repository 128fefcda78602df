"""The files of a model: in its folder, or in the hub's cache.

A file that the model lacks is absent: that is known. Where the hub doesn't answer and its cache
doesn't say, the model is unknown, and that is an error.
"""

import functools
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from embed_assets.errors import SettingsError
from embed_assets.settings import PREFIX, Settings

Task = Literal["query", "document"]
TRUSTED_MODELS = f"{PREFIX}TRUSTED_MODELS"
BASE_MODEL = "EMBED_ASSETS_MODEL"
"""The setting that names the base model: what an error is about where nobody knows better."""
MODULES = "modules.json"
TRANSFORMER = "Transformer"
ROUTER = "Router"
ROUTER_CONFIG = "router_config.json"
"""What sentence-transformers writes where queries and documents take different ways."""
OWN_CLASSES = "sentence_transformers"
"""Package of the modules that need no code of the model's."""
WEIGHTS = (".safetensors", ".bin")


DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError)
"""What reading a model's damaged files raises."""


class NoModelError(SettingsError):
    """There is no such model, or it can't be known whether there is one."""

    def __init__(self, reason: str, about: str = BASE_MODEL) -> None:
        """`about`: the setting or option that names the model."""
        super().__init__(reason, about)


@dataclass(frozen=True)
class Module:
    """One step from text to embedding. kind: name of its class. path: its folder in the model's."""

    kind: str
    path: str

    def file(self, name: str) -> str:
        """Path in the model of one of the module's files."""
        return str(PurePosixPath(self.path, name))


def route(source: str, task: Task) -> tuple[Module, ...]:
    """The modules that texts of a task pass through, in order. A bare transformer is one module."""
    listed = read_json(source, MODULES) or [{"type": TRANSFORMER, "path": ""}]
    modules = [Module(_class_name(row["type"]), row["path"]) for row in listed]
    return tuple(step for module in modules for step in _steps(source, module, task))


def _steps(source: str, module: Module, task: Task) -> list[Module]:
    """The module itself, or those that a router sends texts of this task through."""
    if module.kind != ROUTER:
        return [module]
    said = read_json(source, module.file(ROUTER_CONFIG))
    steps = [Module(_class_name(said["types"][n]), module.file(n)) for n in said["structure"][task]]
    return [inner for step in steps for inner in _steps(source, step, task)]


def _class_name(path: str) -> str:
    return path.rpartition(".")[2]


def read_json(source: str, name: str) -> Any:
    """What a JSON file of a model says; an empty dict where the model has no such file."""
    file = find_file(source, name)
    return {} if file is None else json.loads(file.read_text(encoding="utf-8"))


def find_file(source: str, name: str) -> Path | None:
    """A file of a model, fetched from the hub where the model isn't local; None if it has none.

    source: a local folder or a hub name. NoModelError where it can't be known.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    return _hub_file(source, name)


def tokenizer_file(source: str) -> Path:
    """A model's tokenizer, at its root or with its first module. NoModelError if it has none."""
    for name in ("tokenizer.json", route(source, "document")[0].file("tokenizer.json")):
        if (file := find_file(source, name)) is not None:
            return file
    raise NoModelError(f"{source} has no tokenizer.json, without which no tokens are counted.")


def foreign_code(source: str) -> tuple[str, ...]:
    """Classes that a model takes from code beside its weights, as its files name them."""
    listed = [row["type"] for row in read_json(source, MODULES) or ()]
    modules = [name for name in listed if not name.startswith(f"{OWN_CLASSES}.")]
    configs = {"config.json", *(module.file("config.json") for module in route(source, "document"))}
    mapped = [read_json(source, name).get("auto_map") or {} for name in sorted(configs)]
    return tuple(modules + [str(name) for classes in mapped for name in classes.values()])


def may_run_code(source: str, trusted: str | None = None) -> bool:
    """Whether a person named the model, or a folder that it lies in, among those that they trust.

    trusted: as the setting has it; that of the environment if none is given.
    """
    named = Settings().trusted_models if trusted is None else trusted
    names = [name.strip() for name in named.split(",") if name.strip()]
    if not Path(source).is_dir():
        return source in names
    folders = [Path(name).expanduser().resolve() for name in names]
    return any(Path(source).resolve().is_relative_to(folder) for folder in folders)


def hub_commit(source: str) -> str:
    """The commit of a hub model that is used here. NoModelError where it can't be known."""
    for name in (MODULES, "config.json"):
        if (file := find_file(source, name)) is not None:
            return file.parent.name
    raise no_such_model(source)


def folder_commit(folder: Path) -> str | None:
    """The hub's commit that a local folder is of, where it lies in the hub's cache or says so.

    A folder that the hub's client was told to download to notes the commit of each file.
    """
    if folder.parent.name == "snapshots":
        return folder.name
    for name in (MODULES, "config.json"):
        note = folder / ".cache" / "huggingface" / "download" / f"{name}.metadata"
        if note.is_file():
            return note.read_text(encoding="utf-8").partition("\n")[0].strip() or None
    return None


@functools.cache
def _hub_file(source: str, name: str) -> Path | None:
    # Asked once in a process: each look-up is a request.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, name, local_files_only=not _hub_answers()))
    except LocalEntryNotFoundError as error:
        if _is_absent_from_cache(source, name):
            return None
        raise no_such_model(source) from error
    except EntryNotFoundError:
        return None
    except Exception as error:
        raise no_such_model(source) from error


def _hub_answers() -> bool:
    """Whether the hub can be reached: asked once a minute.

    The hub's own client tries for half a minute, for each file that its cache lacks.
    """
    return _answered_in(int(time.monotonic() // 60))


@functools.lru_cache(maxsize=1)
def _answered_in(_minute: int) -> bool:
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=3)
    except Exception:  # of the hub's HTTP client, or that it may not be used
        return False
    return True


def _is_absent_from_cache(source: str, name: str) -> bool:
    """Whether the hub's cache says that a model lacks a file, where the hub doesn't answer.

    A file is absent if the hub said so once, or if the kept snapshot has weights: a whole download
    would have brought the file.
    """
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    if try_to_load_from_cache(source, name) is _CACHED_NO_EXIST:
        return True
    found = (try_to_load_from_cache(source, known) for known in (MODULES, "config.json"))
    snapshots = {Path(file).parent for file in found if isinstance(file, str)}
    return any(
        file.suffix in WEIGHTS and file.is_file()  # no link to a blob that is gone
        for folder in snapshots
        for file in folder.rglob("*")
    )


def no_such_model(name: str) -> NoModelError:
    """The error that no model has this name, and what to do."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
    hint = ", or unset HF_HUB_OFFLINE" if offline else ", or check the name and the network"
    return NoModelError(f"no folder and no hub model '{name}'. Set it to a local folder{hint}.")
