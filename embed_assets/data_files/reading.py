"""What a file gave: the rows that can be used, and those that can't, each with its place and why.

One rule for every reader. A bad row is reported, and the others are taken. A bad file, and one of
which no row can be used, is a DataFileError: what it looks like, and what was wanted.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from embed_assets.errors import one_line
from embed_assets.places import Place

LONGEST_REASON = 240  # characters

T = TypeVar("T")


class DataFileError(Exception):
    """A file can't be read; the message names it and the reason."""

    def __init__(self, file: Place, reason: str) -> None:
        """`reason`: goes on after the name of the file."""
        self.file, self.reason = file, one_line(reason, LONGEST_REASON).rstrip(".")
        super().__init__(f"{file}: {self.reason}.")


@dataclass(frozen=True)
class BadRow:
    """A row that can't be used. place: its line or row in the file, in a folder with the file."""

    file: Place
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: {self.reason}"

    def as_json(self) -> dict[str, str]:
        """As the command prints it."""
        return {"file": str(self.file), "place": self.place, "reason": self.reason}


@dataclass(frozen=True)
class Reading(Generic[T]):
    """Rows as they were taken, in their order, and those that were not."""

    taken: tuple[T, ...]
    bad: tuple[BadRow, ...] = ()


Rows = Iterator[tuple[str, Any] | BadRow]
"""Place and content of each row of a file, or why it has none."""


def bad_row(file: Place, place: str, reason: object) -> BadRow:
    """A bad row with its reason on one line: an error says what it says."""
    if isinstance(reason, RecursionError):
        reason = "is nested too deeply"
    said = f"lacks {reason}" if isinstance(reason, KeyError) else str(reason)
    return BadRow(file, place, one_line(said, LONGEST_REASON).rstrip("."))


def usable(file: Place, rows: Rows, make: Callable[[Any], T]) -> Iterator[T | BadRow]:
    """What `make` makes of each row; a bad row where it raises what a wrong row makes it raise."""
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        place, content = row
        try:
            yield make(content)
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            yield bad_row(file, place, error)


def sort_out(place: Place, found: Iterable[T | BadRow], wanted: str) -> Reading[T]:
    """The rows of a file or folder. DataFileError where none can be used. wanted: what a row is."""
    taken: list[T] = []
    bad: list[BadRow] = []
    for row in found:
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            taken.append(row)
    if taken:
        return Reading(tuple(taken), tuple(bad))
    if not bad:
        raise DataFileError(place, f"holds no rows. {wanted}")
    count = "its only row can't" if len(bad) == 1 else f"none of its {len(bad):,} rows can"
    reason = one_line(bad[0].reason, LONGEST_REASON // 2)
    raise DataFileError(place, f"{count} be used; {bad[0].place}: {reason}. {wanted}")


def real_text(text: str) -> str:
    """The text. ValueError where it holds halves of characters, as undecoded bytes are read."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            sign = text[error.start]
            if not "\udc80" <= sign <= "\udcff":  # as bytes that are no UTF-8 are read
                raise ValueError(f"{sign!r} is half a character: its other half is gone") from error
            raise ValueError(
                f"{sign!r} is no character: the file is not UTF-8 text; save it as such (in Excel: "
                "as 'CSV UTF-8')"
            ) from error
    return text


def state_on_disk(path: Path) -> tuple[object, ...]:
    """What changes when a file does, or one in a folder. A file that is absent has no state."""
    files = [path]
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(folder, name) for name in names]
    found = []
    for file in sorted(files):
        with suppress(OSError):
            stat = file.stat()
            found.append((file, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return tuple(found)
