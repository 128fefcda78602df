"""Bytes that worker processes read, without a copy of them for each item sent through a pipe."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from embed_assets.errors import ProjectError


class SharedBytes(Protocol):
    """Where bytes can be read: small enough to be sent with every item, and a key of a dict."""

    def read(self) -> bytes:
        """The bytes, in any worker."""
        ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class BytesInFile:
    """A stretch of a file."""

    path: str
    start: int
    size: int

    def read(self) -> bytes:
        """The bytes; OSError once the block of `bytes_in_file` has ended."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return file.read(self.size)


@contextmanager
def bytes_in_file(contents: Sequence[bytes]) -> Iterator[list[BytesInFile]]:
    """The same bytes for other processes of this user, until the block ends.

    They are in a file that has no name where the system allows it (Linux), so that nothing of it
    stays, whatever ends this process; elsewhere in one that is removed at the end. ProjectError
    where there is no room for it.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile())
            path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
            if not os.path.exists(path):
                file = stack.enter_context(tempfile.NamedTemporaryFile())
                path = file.name
            for content in contents:
                file.write(content)
            file.flush()
        except OSError as error:
            raise ProjectError(
                f"{tempfile.gettempdir()}: {error.strerror}. PDFs are handed to the parsing "
                "processes there. Make room, or set TMPDIR to another folder."
            ) from error
        starts = accumulate(map(len, contents), initial=0)
        yield [
            BytesInFile(path, start, len(content))
            for content, start in zip(contents, starts, strict=False)
        ]
