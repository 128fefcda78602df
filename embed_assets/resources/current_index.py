"""What search goes by: one small file in the home, replaced as a whole.

It names the index that is searched, the version that search is to be prepared for, and documents
that are in the index and are gone. Whoever searches reads this file and the index, and nothing else
of the home: a change shows at once, and a reader never waits for a writer.
"""

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

FILE = "current.json"
BASE = ""
"""The version that stands for the base model."""


@dataclass(frozen=True)
class Current:
    """What search goes by.

    index: folder of the index that is searched, if there is one. champion: version that search is
    to be prepared for; BASE for the base model, None where nobody has noted it. hidden: documents
    that left, and when.
    """

    index: str | None = None
    champion: str | None = None
    hidden: Mapping[str, str] = field(default_factory=dict)


def search_folder(home: Path) -> Path:
    """Folder of the home with all that is searched."""
    return home / "search"


def read_current(home: Path) -> Current:
    """What search goes by now; of a file that is damaged, nothing: all of it can be made again."""
    try:
        text = (search_folder(home) / FILE).read_text(encoding="utf-8")
        return Current(**json.loads(text))
    except (FileNotFoundError, ValueError, TypeError):
        return Current()


def state_of(home: Path) -> tuple[int, ...]:
    """What changes whenever the file does; cheap to ask for."""
    try:
        state = (search_folder(home) / FILE).stat()
    except FileNotFoundError:
        return ()
    return (state.st_ino, state.st_mtime_ns, state.st_size)


def change_current(home: Path, change: Callable[[Current], Current]) -> Current:
    """Put another state in place of the one that is; gives it. Others wait meanwhile."""
    folder = search_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    file, fresh = folder / FILE, folder / f"{FILE}.new"
    with FileLock(folder / f"{FILE}.lock"):
        before = read_current(home)
        after = change(before)
        if after != before or not file.exists():
            with fresh.open("w", encoding="utf-8") as stream:
                json.dump(asdict(after), stream)
                stream.flush()
                os.fsync(stream.fileno())
            fresh.replace(file)
        return after


def note_champion(home: Path, version: str | None) -> None:
    """Have search prepared for a version; for the base model without one."""
    if read_current(home).champion != (version or BASE):
        change_current(home, lambda now: replace(now, champion=version or BASE))


def hide_documents(home: Path, document_ids: Collection[str]) -> None:
    """Have search leave out documents that are about to be removed."""
    if not document_ids:
        return
    at = datetime.now(UTC).isoformat()
    gone = dict.fromkeys(document_ids, at)
    change_current(home, lambda now: replace(now, hidden={**now.hidden, **gone}))


def point_at(home: Path, index: str, begun: datetime, stale: Collection[str] = ()) -> None:
    """Have search go by another index from now on.

    begun: when its rows were read: what was hidden since is hidden in it too. stale: documents in
    it that are on record no more, or not as they are in it.
    """
    at = datetime.now(UTC).isoformat()

    def change(now: Current) -> Current:
        since = {k: t for k, t in now.hidden.items() if datetime.fromisoformat(t) >= begun}
        return replace(now, index=index, hidden={**dict.fromkeys(stale, at), **since})

    change_current(home, change)
