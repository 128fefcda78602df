"""What a model's name means, whoever names it: an option or a setting."""

import os
import re
from pathlib import PurePath

from embed_assets.errors import ProjectError, SettingsError, one_line
from embed_assets.models.card import ModelCard, model_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.encoder import Encoder
from embed_assets.models.files import NoModelError
from embed_assets.models.hosted import HostedEncoder
from embed_assets.models.registry import newest_model, trained_version
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

HOSTED = "openai:"
_VERSION = re.compile(r"v?\d+")
_BETWEEN_PATHS = re.compile(rf"([{os.pathsep},](?!//)\s*)")
"""What stands between the paths of a list, but not within an address; kept by split."""


def find_encoder(
    warehouse: Warehouse, settings: Settings, model: str, named_by: str
) -> tuple[str, Encoder]:
    """Name of a model, and what embeds texts with it.

    model: a sentence-transformers name or folder, a version such as `v3`, or `openai:MODEL`.
    named_by: the setting or option that names it. The prompts of the settings are put before texts
    where they are set; a version has its own. SettingsError where there is no such model,
    ProjectError where there is no such version, or its folder is gone.
    """
    if model.startswith(HOSTED):
        return model, HostedEncoder(warehouse, hosted_name(model, named_by), settings)
    if not is_version(model):
        card = _card(settings, model, named_by)
        return model, CachedEncoder(warehouse, card, settings)
    card = trained_version(newest_model(warehouse, model)).card
    return card.name, CachedEncoder(warehouse, card, settings)


def hosted_name(model: str, named_by: str) -> str:
    """What the server calls `openai:MODEL`. SettingsError where MODEL is missing."""
    name = model.removeprefix(HOSTED)
    if not name:
        raise SettingsError(f"{HOSTED} lacks the model's name, as in {HOSTED}MODEL.", named_by)
    return name


def is_version(model: str) -> bool:
    """Whether this names a version that the project has trained: v3 or 3."""
    return _VERSION.fullmatch(model) is not None


def told_name(named: str) -> str:
    """What a model, or a setting that names files, is where others read it.

    A path of this machine is told by its last part, each of a list's too; a name stays as it is.
    """
    return "".join(map(_last_part, _BETWEEN_PATHS.split(named)))


def _last_part(part: str) -> str:
    is_path = part.startswith(("./", "../", "/", "~"))
    return PurePath(part).name or part if is_path else part


def reason_of(error: Exception) -> str:
    """Why a model can't be used, in one line, without what names the model."""
    said = error.reason if isinstance(error, ProjectError) else str(error)
    return one_line(said) or type(error).__name__


def _card(settings: Settings, model: str, named_by: str) -> ModelCard:
    try:
        return model_card(settings.model_copy(update={"model": model}))
    except NoModelError as error:
        raise NoModelError(error.reason, named_by) from error
