"""A hub's cache, made by hand: what a download leaves on the disk."""

import shutil
from collections.abc import Collection
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_hub_cache(
    cache: Path, name: str, model: Path, without: Collection[str] = (), absent: Collection[str] = ()
) -> Path:
    """Put a model into a cache as the snapshot of a hub model; returns the snapshot's folder.

    without: names or suffixes of files that were not downloaded. absent: files that the hub has
    said it lacks.
    """
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    for file in model.rglob("*"):
        if file.is_file() and not file.name.endswith(tuple(without)):
            target = snapshot / file.relative_to(model)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for path in absent:
        mark = folder / ".no_exist" / COMMIT / path
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return snapshot
