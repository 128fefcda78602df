"""What lies where in a bundle, and the digests of its files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

MODEL = "model"
"""Folder of the model, with the pairs that it was trained on."""
RECORD = "lineage.json"
REPORT = "report.html"
BILL = "bom.cdx.json"
PROVENANCE = "provenance.intoto.json"
"""Holds the digests of all other files."""


def digests(folder: Path) -> dict[str, str]:
    """sha256 of each file of a bundle but the provenance, by path relative to the bundle."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != PROVENANCE:
            found[name] = digest(path)
    return found


def oddities(folder: Path) -> dict[str, str]:
    """What in a bundle is neither a plain file nor a folder, by path, and what it is."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path.relative_to(folder).as_posix()] = "a link, where a file belongs"
        elif not path.is_file() and not path.is_dir():
            found[path.relative_to(folder).as_posix()] = "neither a file nor a folder"
    return found


def digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_model(files: Mapping[str, str]) -> dict[str, str]:
    """Those files that are the model's."""
    return {name: digest for name, digest in files.items() if name.startswith(f"{MODEL}/")}
