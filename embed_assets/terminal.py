"""Progress of long work, as a person sees it: a bar in a terminal, lines in a file or a log."""

import sys
from typing import Any, TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
LINE = "{desc}: {percentage:.0f}%, {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def progress_bar(
    title: str | None, total: int, unit: str, *, initial: int = 0, stream: TextIO | None = None
) -> "tqdm[Any]":
    """A bar to update, on stderr if no stream is given; nothing at all without a title.

    Where the stream is no terminal: a line every ten seconds, and one at the end. Give
    `refresh=False` to what changes its text between updates, or each change is a line.
    """
    out = stream or sys.stderr
    shared: dict[str, Any] = {
        "desc": title,
        "total": total,
        "unit": unit,
        "initial": initial,
    }
    if title is None or out is None:
        return tqdm(**shared, disable=True)
    if out.isatty():
        return tqdm(**shared, file=out, dynamic_ncols=True)
    lines = _Lines(out)
    bar = _LineByLine(
        **shared, file=lines, bar_format=LINE, mininterval=SECONDS_BETWEEN_LINES, miniters=1
    )
    lines.silent = False
    return bar


class _LineByLine(tqdm):
    """Leaves the last line to `close`: it would be there twice."""

    def update(self, n: float | None = 1) -> bool | None:
        """Move on by so much."""
        if self.n + (n or 0) < self.total:
            return super().update(n)
        self.n += n or 0
        return None


class _Lines:
    """A stream on which what tqdm writes over its own last words becomes a line each time.

    silent: at first, since tqdm begins by saying that nothing is done.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding
        self.silent = True

    def write(self, text: str) -> None:
        line = text.strip()
        if line and not self.silent:
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()
