"""Writes a bundle: the model of a version, the record of what made it, and proof of both."""

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from embed_assets.errors import ProjectError, SettingsError, one_line
from embed_assets.models.names import told_name
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import SIGNING_KEY, Settings
from embed_assets.training.bundle.bill import bill_of_materials
from embed_assets.training.bundle.files import (
    BILL,
    MODEL,
    PROVENANCE,
    RECORD,
    REPORT,
    digest,
    digests,
)
from embed_assets.training.bundle.provenance import provenance_statement
from embed_assets.training.bundle.signing import read_signer, signed
from embed_assets.training.kept import KEPT
from embed_assets.training.lineage import version_lineage
from embed_assets.training.record import PAIRS
from embed_assets.wording import counted, in_lines

LOCK = "writing.lock"
"""Beside a bundle that is being written."""
TRAINED_WITH = "config_sentence_transformers.json"


def write_bundle(settings: Settings, version: str | None, folder: Path) -> dict[str, Any]:
    """What `lineage VERSION --bundle DIR --json` prints.

    ProjectError if there is no such version, its folder is gone, or what is written doesn't fit its
    schema; SettingsError if the folder is in use, or the key can't be read.
    """
    folder = Path(os.path.abspath(folder.expanduser()))
    check_free(folder, settings.home, "--bundle")
    signer = read_signer(settings.signing_key) if settings.signing_key else None
    lineage = version_lineage(Warehouse.of(settings), settings, version)
    model = Path(lineage["model"])
    if not model.is_dir():
        raise ProjectError(f"The folder of version {lineage['version']} is gone: {model}.")
    with whole(folder) as unfinished:
        _copy_model(model, unfinished / MODEL)
        report = settings.report(lineage["version"])
        if report.is_file():
            shutil.copyfile(report, unfinished / REPORT)
        record = portable(lineage)
        _write_json(unfinished / RECORD, record)
        files = digests(unfinished)
        libraries = _libraries(unfinished / MODEL)
        bill = bill_of_materials(settings.project, record, files, libraries)
        (unfinished / BILL).write_text(bill, encoding="utf-8")
        files[BILL] = digest(unfinished / BILL)
        statement = provenance_statement(record, files)
        if signer:
            _write_json(unfinished / PROVENANCE, signed(statement, signer))
        else:
            (unfinished / PROVENANCE).write_bytes(statement)
    return {
        "version": lineage["version"],
        "bundle": str(folder),
        "files": len(files),
        "signed": signer is not None,
        "keyid": signer.public_key.keyid if signer else None,
    }


def bundle_text(summary: Mapping[str, Any]) -> str:
    """The same for a person."""
    said = f"signed by key {summary['keyid']}" if summary["signed"] else "unsigned"
    lines = [
        f"Version {summary['version']} is in {summary['bundle']}: "
        f"{counted(summary['files'], 'file')} and their provenance, {said}."
    ]
    if not summary["signed"]:
        lines.append(f"With {SIGNING_KEY}, a PEM file, it would be signed.")
    return in_lines(lines)


def portable(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as it is handed on: without this machine's folders and its servers' pages."""
    here = ("dagster_run", "dagster_assets", "mlflow_run", "mlflow_error")
    return {
        **record,
        "base": told_name(record["base"]),
        **{name: _told(record[name]) for name in ("settings", "settings_set")},
        "model": MODEL,
        "pairs": record["pairs"] and f"{MODEL}/{PAIRS}",
        **dict.fromkeys(here),
    }


def _told(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Settings without the folders of this machine."""
    if settings is None:
        return None
    return {
        name: told_name(value) if isinstance(value, str) else value
        for name, value in settings.items()
    }


def _copy_model(model: Path, place: Path) -> None:
    """Copy a version's folder but for what its training read: more texts than the pairs."""

    def left_out(folder: str, _: list[str]) -> list[str]:
        return [KEPT] if Path(folder) == model else []

    shutil.copytree(model, place, ignore=left_out)


def check_free(folder: Path, home: Path, about: str) -> None:
    """SettingsError unless a folder may be filled. about: the option that names it."""
    if folder.is_symlink():
        raise SettingsError(
            f"{folder} is a link. Give the folder that it leads to, or another one.", about
        )
    if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(home)):
        raise SettingsError(
            f"{folder} lies in the home, which holds what the project makes. Choose a folder "
            "elsewhere.",
            about,
        )
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise SettingsError(
                f"{folder} is there and isn't an empty folder. Choose another, or remove it.", about
            )
    except OSError as error:
        raise SettingsError(f"{folder}: {error.strerror}.", about) from error


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder beside the one that is meant, which becomes it when the block ends without error.

    What a process that was killed has left there is removed. Who writes holds a lock in its folder,
    which the system opens when the process dies.
    """
    unfinished, lock = None, None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_unfinished(folder)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        lock = FileLock(unfinished / LOCK)
        lock.acquire()
        bundle = unfinished / folder.name
        bundle.mkdir()  # with the rights that a new folder has, unlike the temporary one
        yield bundle
        if folder.is_dir():
            folder.rmdir()
        bundle.rename(folder)
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.strerror else one_line(str(error))
        raise ProjectError(f"{folder} can't be written: {said}.") from error
    except ValueError as error:
        raise ProjectError(f"{folder}: nothing was written: {error}.") from error
    finally:
        if unfinished:
            shutil.rmtree(unfinished, ignore_errors=True)
        if lock:
            lock.release()


def _clear_unfinished(folder: Path) -> None:
    """Remove what processes that are dead have left of a bundle in this place."""
    for lock in folder.parent.glob(f".{glob.escape(folder.name)}-*/{LOCK}"):
        with suppress(Timeout), FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent, ignore_errors=True)


def _libraries(model: Path) -> dict[str, str]:
    """Versions of the libraries that a model was trained with, as its folder tells them."""
    known = model / TRAINED_WITH
    if not known.is_file():
        return {}
    return json.loads(known.read_text(encoding="utf-8")).get("__version__", {})


def _write_json(file: Path, document: Any) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
