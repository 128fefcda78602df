"""What people mark on the page: whether a chunk answers a query. A file of lines, JSON each.

Nothing reads it by itself: a person reviews it first.
"""

import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KEYS = ("query", "chunk_id")
"""Two votes that have these in common are one person's change of mind: the later one counts."""

_log = logging.getLogger(__name__)


def add_vote(file: Path, vote: Mapping[str, Any]) -> None:
    """Add a vote to the file, which is its owner's alone. It is on the disk when this returns."""
    line = json.dumps({**vote, "at": datetime.now(UTC).isoformat(timespec="seconds")}) + "\n"
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as votes:
        if votes.seek(0, os.SEEK_END):
            votes.seek(-1, os.SEEK_END)
            if votes.read(1) != b"\n":  # a kill has cut the last line off
                line = f"\n{line}"
        votes.write(line.encode())
        votes.flush()
        os.fsync(votes.fileno())


def read_votes(file: Path) -> list[dict[str, Any]]:
    """All votes that count, in the order in which they were first given. Without a file: none."""
    votes: dict[tuple[Any, ...], dict[str, Any]] = {}
    if not file.exists():
        return []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            vote = json.loads(line)
            key = tuple(str(vote[key]) for key in KEYS)
        except (ValueError, LookupError, TypeError):
            if line.strip():
                _log.warning("%s, line %d is no vote: it is passed over.", file, number)
            continue
        votes[key] = vote
    return list(votes.values())
