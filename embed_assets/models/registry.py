"""The versions that this project has trained: where each is, and which one is the champion."""

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from embed_assets.errors import ProjectError, SettingsError, one_line
from embed_assets.models.card import ModelCard, version_card
from embed_assets.models.encoder import load_model
from embed_assets.resources.current_index import note_champion
from embed_assets.resources.tracking import (
    CHALLENGER,
    CHAMPION,
    DESCRIBED,
    HOME,
    MADE_CHAMPION,
    PREVIOUS,
    REPLACED,
    SOURCE,
    TRAINED_IN,
    WITHDRAWN,
    Tracking,
)
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import TRACKING_URI, Settings
from embed_assets.tables import TABLES

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

LOGGED_BY = "embed-assets finetuned_model"
"""What a logged model says of the program that logged it."""
SERVING_REQUIREMENTS = ("sentence-transformers", "torch", "transformers", "mlflow")


def newest_model(warehouse: Warehouse, version: str | None = None) -> dict[str, Any]:
    """Row of `models` for a version, or the newest. ProjectError if there is none."""
    columns = ", ".join(TABLES["models"].columns)
    rows = warehouse.read(f"SELECT {columns} FROM models ORDER BY trained_at DESC")
    if version is not None:
        rows = rows.filter(pl.col("version") == version.removeprefix("v"))
    if rows.is_empty():
        what = f"There is no model version {version}" if version else "There is no model yet"
        raise ProjectError(f"{what} in {warehouse.name}. `embed-assets run` trains one.")
    row = rows.row(0, named=True)
    return row | {"path": _in_home(row["path"], warehouse)}


ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
LONGEST_REASON = 1000
"""Characters of a reason in a tag."""


@dataclass(frozen=True)
class Version:
    """A version that this project has trained. base: name of the model it was fine-tuned from."""

    number: str
    base: str
    folder: Path

    @property
    def card(self) -> ModelCard:
        """Its own prompts and limit. ProjectError where its folder is gone."""
        if not self.folder.is_dir():
            raise ProjectError(f"The folder of version {self.number} is gone: {self.folder}.")
        return version_card(f"v{self.number}", self.folder)


def trained_version(row: Mapping[str, Any]) -> Version:
    """The version of a row of `models`, as `newest_model` gives it."""
    return Version(row["version"], row["base"], Path(row["path"]))


def version_folders(warehouse: Warehouse) -> dict[str, tuple[Path, str]]:
    """Of each version on record its folder, there or not, and the MLflow run that trained it."""
    rows = warehouse.read("SELECT version, path, mlflow_run_id FROM models ORDER BY trained_at")
    return {v: (Path(_in_home(path, warehouse)), run) for v, path, run in rows.iter_rows()}


def _in_home(path: str, warehouse: Warehouse) -> str:
    """Where a version's folder is, its home being where it is today.

    It is noted relative to the home; 0.1.0 noted where it was then.
    """
    home, noted = Path(warehouse.path).parent, Path(path)
    moved = home / "models" / noted.name
    return str(moved if noted.is_absolute() and moved.is_dir() else home / noted)


def champion(warehouse: Warehouse, settings: Settings) -> Version | None:
    """The registry's champion, whatever base model it was fine-tuned from."""
    versions = warehouse.read("SELECT version FROM models")["version"]
    if versions.is_empty():
        return None
    tracking = Tracking(home=str(settings.home), project=settings.project)
    number = champion_version(tracking)
    return trained_version(newest_model(warehouse, number)) if number in versions else None


def champion_version(tracking: Tracking) -> str | None:
    """Version that has the alias `champion`, if any has. ProjectError if MLflow can't say."""
    return tracking.aliases().get(CHAMPION)


def follow_champion(warehouse: Warehouse, settings: Settings) -> None:
    """Have search prepared for the champion, whoever made it so.

    ProjectError if MLflow can't say.
    """
    if warehouse.count("models"):
        found = champion(warehouse, settings)
        note_champion(settings.home, found and found.number)


def champion_before(
    tracking: Tracking, version: str, can_serve: Collection[str] | None = None
) -> str | None:
    """Version that was champion before this one: it is so still, or this one has replaced it.

    can_serve: as `serving_versions` gives it; all that MLflow knows, without.
    """
    current = champion_version(tracking)
    return current if current != version else _replaced_by(tracking, version, can_serve)


def serving_versions(warehouse: Warehouse) -> set[str]:
    """Versions of this home whose folders are there."""
    rows = warehouse.read("SELECT version, path FROM models").iter_rows()
    return {version for version, path in rows if Path(_in_home(path, warehouse)).is_dir()}


def _replaced_by(
    tracking: Tracking, version: str, can_serve: Collection[str] | None = None
) -> str | None:
    """Version that this one replaced as champion, or the nearest before it that may still serve.

    One that was withdrawn since, or is gone, is passed over.
    """
    known = {
        str(found.version): found.tags
        for found in tracking.client().search_model_versions(f"name = '{tracking.name}'")
    }
    seen = {version}
    before = known.get(version, {}).get(REPLACED)
    while before is not None and before not in seen:
        serves = before in known and (can_serve is None or before in can_serve)
        if serves and WITHDRAWN not in known[before]:
            return before
        seen.add(before)
        before = known.get(before, {}).get(REPLACED)
    return None


def why_withdrawn(warehouse: Warehouse, tracking: Tracking, version: str) -> str | None:
    """When, by whom and why a version was withdrawn, if it was: it is not promoted by itself."""
    with tracking.explained():
        tags = tracking.client().get_model_version(tracking.name, version).tags
    forgotten = forgotten_by(warehouse, version)
    return tags.get(WITHDRAWN, f"trained on {forgotten}" if forgotten else None)


def forgotten_by(warehouse: Warehouse, version: str) -> str | None:
    """Documents that a version was trained on and that were forgotten since, in words."""
    rows = warehouse.read(
        "SELECT path, forgotten_at FROM forgotten WHERE list_contains(versions, ?) ORDER BY path",
        [version],
    )
    said = [f"{path}, forgotten on {at:%Y-%m-%d}" for path, at in rows.iter_rows()]
    return "; ".join(said) or None


def check_versions(warehouse: Warehouse, tracking: Tracking) -> None:
    """SettingsError where MLflow would give a version a number that this home has given already."""
    numbers = warehouse.read("SELECT version FROM models")["version"].cast(pl.Int64, strict=False)
    last = numbers.max()
    if last is None:
        return
    known = tracking.client().search_model_versions(f"name = '{tracking.name}'")
    if max((int(found.version) for found in known), default=0) < int(str(last)):
        raise SettingsError(
            f"this home has version {last}, and MLflow none so high of '{tracking.name}': the "
            "next one would take the place of another. Set EMBED_ASSETS_PROJECT and "
            f"{TRACKING_URI} as they were, or give another --home.",
            "EMBED_ASSETS_PROJECT",
        )


def register(tracking: Tracking, model: Path, trained_in: str, called: str = "model") -> str:
    """Log a model and register it; gives its version.

    One that was registered before, by a run that was killed before it recorded that, is not
    registered again. trained_in: MLflow run that trained it. called: name of the logged model.
    """
    import mlflow
    from mlflow import sentence_transformers as flavor
    from mlflow.models import Model

    name = tracking.connect()
    # Not every registry searches by tags.
    for known in tracking.client().search_model_versions(f"name = '{name}'"):
        if known.tags.get(TRAINED_IN) == trained_in:
            return str(known.version)
    uri = _logged_before(tracking, trained_in)
    if uri is None:
        loaded = load_model(str(model))
        # Not by the flavour's `log_model`, which forgets the task (mlflow 3.17).
        logged = Model.log(
            artifact_path=None,
            flavor=flavor,
            model=loaded,
            name=called,
            tags={SOURCE: LOGGED_BY, TRAINED_IN: trained_in},
            # It counts tokens with the tokenizer, in a way that only transformers' have.
            task="llm/v1/embeddings" if callable(loaded.tokenizer) else None,
            # A local build (torch 2.13.0+cpu) is served by the public version of the same number.
            pip_requirements=[
                f"{package}=={version(package).partition('+')[0]}"
                for package in SERVING_REQUIREMENTS
            ],
        )
        uri = logged.model_uri
    _take_tasks(uri)
    registered = mlflow.register_model(uri, name, tags={TRAINED_IN: trained_in})
    tracking.connect()  # marks the registered model that this may have made
    return str(registered.version)


def _take_tasks(uri: str) -> None:
    """Have MLflow's servers of a model take `prompt_name` and `task`: without, texts are documents.

    MLflow gives the model's task a signature of its own, which has no parameters.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature, get_model_info, set_signature
    from mlflow.types import ParamSchema, ParamSpec

    if known := get_model_info(uri).signature:
        params = [ParamSpec(name, "string", "document") for name in ("prompt_name", "task")]
        signature = ModelSignature(known.inputs, known.outputs, ParamSchema(params))
        with suppress(MlflowException):  # a store in which nothing can be written over
            set_signature(uri, signature)


def _logged_before(tracking: Tracking, trained_in: str) -> str | None:
    """Address of the model that a run logged which was killed before it registered it, if any.

    What was logged in part is removed.
    """
    found = [m for m in unregistered_models(tracking) if m.tags.get(TRAINED_IN) == trained_in]
    whole = next((m for m in found if str(m.status) == "READY"), None)
    for model in found:
        if model is not whole:
            remove_logged(tracking, model)
    return whole and whole.model_uri


def unregistered_models(tracking: Tracking) -> "list[LoggedModel]":
    """Models that were logged by this project and never registered. ProjectError if MLflow can't
    say.
    """
    if tracking.is_empty:
        return []
    with tracking.explained("MLflow can't say what was logged"):
        client, name = tracking.client(), tracking.name
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            return []
        versions = client.search_model_versions(f"name = '{name}'")
        registered = {str(version.source).removeprefix("models:/") for version in versions}
        logged = client.search_logged_models([experiment.experiment_id])
        ours = [model for model in logged if model.tags.get(SOURCE) == LOGGED_BY]
        return [model for model in ours if model.model_id not in registered]


def remove_logged(tracking: Tracking, model: "LoggedModel") -> None:
    """Remove a logged model and its files; those that a server keeps are the server's to remove."""
    tracking.client().delete_logged_model(model.model_id)
    shutil.rmtree(tracking.artifacts / "models" / model.model_id, ignore_errors=True)


def registered_numbers(tracking: Tracking) -> set[str]:
    """Versions that MLflow knows of this home's registered model. ProjectError if it can't say."""
    if tracking.is_empty:
        return set()
    with tracking.explained():
        known = tracking.client().search_model_versions(f"name = '{tracking.name}'")
        return {str(version.version) for version in known}


def lost_artifacts(tracking: Tracking) -> list[str]:
    """Versions whose files MLflow looks for in this home in vain."""
    if tracking.is_empty:
        return []
    with tracking.explained():
        known = tracking.client().search_model_versions(f"name = '{tracking.name}'")
        of = {str(v.version): str(v.source).removeprefix("models:/") for v in known}
    kept = tracking.artifacts / "models"
    return [v for v, model in of.items() if model.startswith("m-") and not (kept / model).is_dir()]


def register_again(tracking: Tracking, folders: Mapping[str, tuple[Path, str]]) -> list[str]:
    """Register versions that MLflow has lost, under their numbers; gives them.

    folders: by version, its folder and the MLflow run that trained it. MLflow counts by itself: a
    number between them that has no folder is made and deleted. Those that MLflow has counted beyond
    are left out.
    """
    known = registered_numbers(tracking)
    last = max((int(number) for number in known), default=0)
    missing = sorted(int(number) for number in folders if int(number) > last)
    if not missing:
        return []
    name, client = tracking.connect(), tracking.client()
    if not known and tracking.registered_model() is None:
        client.create_registered_model(name, {HOME: tracking.home_id})
    made = []
    for number in range(last + 1, missing[-1] + 1):
        folder, run = folders.get(str(number), (Path(), ""))
        source = folder.as_uri() if run else tracking.artifacts.as_uri()
        version = client.create_model_version(name, source, tags={TRAINED_IN: run})
        if run:
            made.append(str(version.version))
        else:
            client.delete_model_version(name, str(version.version))
    return made


def write_description(tracking: Tracking, version: str, text: str, tags: Mapping[str, str]) -> None:
    """Describe a version in markdown, and tag it. A description that a person wrote stays."""
    client, name = tracking.client(), tracking.name
    known = client.get_model_version(name, version)
    for key, value in tags.items():
        if known.tags.get(key) != value:
            client.set_model_version_tag(name, version, key, value)
    if _is_ours(known.description, known.tags) and known.description != text:
        client.set_model_version_tag(name, version, DESCRIBED, _marks(known.description, text))
        client.update_model_version(name, version, text)


def write_model_description(tracking: Tracking, text: str) -> None:
    """Describe the registered model in markdown. A description that a person wrote stays."""
    client, name = tracking.client(), tracking.name
    known = client.get_registered_model(name)
    if _is_ours(known.description, known.tags) and known.description != text:
        client.set_registered_model_tag(name, DESCRIBED, _marks(known.description, text))
        client.update_registered_model(name, text)


def redact_descriptions(tracking: Tracking, redact: Callable[[str], str]) -> None:
    """Take out of the descriptions of all versions what a function takes out of texts."""
    if tracking.is_empty:
        return
    client, name = tracking.client(), tracking.name
    for known in client.search_model_versions(f"name = '{name}'"):
        before = known.description or ""
        text = redact(before)
        if text != before:
            if _is_ours(before, known.tags):
                marks = _marks(before, text)
                client.set_model_version_tag(name, known.version, DESCRIBED, marks)
            client.update_model_version(name, known.version, text)


def _is_ours(description: str | None, tags: Mapping[str, str]) -> bool:
    """Whether a description is as it was written here, or there is none."""
    return not description or digest(description) in tags.get(DESCRIBED, "").split()


def _marks(before: str | None, text: str) -> str:
    """Of the description now and the next one: killed between mark and text, it is still ours."""
    return f"{digest(before or '')} {digest(text)}"


@dataclass(frozen=True)
class Decision:
    """Who decides about a champion, and why."""

    who: str
    why: str

    @property
    def mark(self) -> str:
        """The tag that a version gets: when, who and why."""
        now = datetime.now(UTC)
        return f"{now:%Y-%m-%d %H:%M:%S} UTC, {self.who}: {one_line(self.why, LONGEST_REASON)}"


def make_champion(
    tracking: Tracking,
    version: str,
    decision: Decision,
    can_serve: Collection[str] | None = None,
) -> None:
    """Give this version the alias `champion`, and remember which one had it, when, by whom and why.

    The alias `previous` follows. Killed half-way, it is finished by being called again.
    """
    client, name = tracking.client(), tracking.name
    replaced, tags = champion_version(tracking), client.get_model_version(name, version).tags
    if replaced is None and REPLACED in tags:  # of an earlier time as champion
        client.delete_model_version_tag(name, version, REPLACED)
    elif replaced not in (None, version):
        client.set_model_version_tag(name, version, REPLACED, replaced)
    _point(tracking, PREVIOUS, _replaced_by(tracking, version, can_serve))
    _point(tracking, CHAMPION, version)
    if WITHDRAWN in tags:
        client.delete_model_version_tag(name, version, WITHDRAWN)
    if replaced != version or MADE_CHAMPION not in tags:
        client.set_model_version_tag(name, version, MADE_CHAMPION, decision.mark)


def roll_back(
    tracking: Tracking, decision: Decision, can_serve: Collection[str] | None = None
) -> str | None:
    """Give the alias `champion` back to the version that the champion replaced; gives that one.

    Without one before it nobody has the alias: the base model serves. The alias `previous` follows,
    and the version rolled back from is marked as withdrawn. ProjectError where there is no
    champion. Killed half-way, it is finished by being called again.
    """
    champion = champion_version(tracking)
    if champion is None:
        raise ProjectError("There is no champion to roll back from: the base model serves.")
    before = _replaced_by(tracking, champion, can_serve)
    tracking.client().set_model_version_tag(tracking.name, champion, WITHDRAWN, decision.mark)
    _point(tracking, PREVIOUS, before and _replaced_by(tracking, before, can_serve))
    _point(tracking, CHAMPION, before)
    if before:
        tracking.client().set_model_version_tag(tracking.name, before, MADE_CHAMPION, decision.mark)
    return before


def make_challenger(tracking: Tracking, version: str) -> None:
    """Give this version the alias `challenger`: it is the newest that was judged."""
    _point(tracking, CHALLENGER, version)


def _point(tracking: Tracking, alias: str, version: str | None) -> None:
    """Give a version an alias, or take it from whoever has it. Search follows the champion."""
    client, name = tracking.client(), tracking.name
    if version is not None:
        client.set_registered_model_alias(name, alias, version)
    elif alias in tracking.aliases():
        client.delete_registered_model_alias(name, alias)
    if alias == CHAMPION:
        note_champion(Path(tracking.home), version)


def aliases(warehouse: Warehouse, settings: Settings) -> dict[str, str | None]:
    """Version that has each alias: champion, challenger, previous. Asks nobody without a model."""
    if not warehouse.count("models"):
        return dict.fromkeys(ALIASES)
    tracking = Tracking(home=str(settings.home), project=settings.project)
    known = tracking.aliases()
    return {name: known.get(name) for name in ALIASES}


def withdraw(
    tracking: Tracking,
    versions: Collection[str],
    decision: Decision,
    can_serve: Collection[str] | None = None,
) -> list[str]:
    """Take the aliases of versions, and mark them so that they get none by themselves again.

    Gives those that had one. The champion's goes to the newest version that was champion once, is
    not withdrawn and can serve; without such a one the base serves. The decision says nothing of
    what was forgotten. Killed half-way, it is finished by being called again.
    """
    if not versions or tracking.is_empty:
        return []
    client, name = tracking.client(), tracking.name
    known = client.search_model_versions(f"name = '{name}'")
    for row in known:
        if str(row.version) in versions and WITHDRAWN not in row.tags:
            client.set_model_version_tag(name, row.version, WITHDRAWN, decision.mark)
    held = tracking.aliases()
    taken = {alias: number for alias, number in held.items() if number in versions}
    if CHAMPION in taken:
        clean = [
            number
            for number in _once_champion(known, held)
            if number not in versions and (can_serve is None or number in can_serve)
        ]
        if clean:
            client.set_model_version_tag(name, clean[0], MADE_CHAMPION, decision.mark)
        _point(tracking, CHAMPION, clean[0] if clean else None)
    if CHALLENGER in taken:
        _point(tracking, CHALLENGER, None)
    champion = champion_version(tracking)
    _point(tracking, PREVIOUS, champion and _replaced_by(tracking, champion, can_serve))
    return sorted(set(taken.values()), key=int)


def _once_champion(known: "Iterable[ModelVersion]", held: Mapping[str, str]) -> list[str]:
    """Versions that are or were champion and are not withdrawn, the newest first.

    held: versions by alias. Older homes note of a champion only which one it replaced.
    """
    marked = {MADE_CHAMPION, REPLACED}
    before = {row.tags.get(REPLACED) for row in known} | {held.get(CHAMPION)}
    clean = {str(row.version): row.tags for row in known if WITHDRAWN not in row.tags}
    champions = [number for number, tags in clean.items() if marked & {*tags} or number in before]
    return sorted(champions, key=int, reverse=True)
