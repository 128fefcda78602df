"""What a person reads while a command works: a bar in a terminal, lines in a file or a log.

Text of others (names of files, questions, answers of servers) is shown and never obeyed, since all
that a process says passes `shown_as_text`.
"""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from tqdm import tqdm

from embed_assets.wording import printable, printable_lines

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_TOLD = 30.0
"""A line in Dagster's event log costs a twentieth of a second, and stays for ever."""
TERMINAL = "EMBED_ASSETS_TERMINAL"
"""Set while bars are to be drawn in a terminal that stderr no longer leads to: its device."""
LINE = "{desc}: {percentage:.0f}%, {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


_BAR_MOVES = re.compile("(?:\\n|\x1b\\[A)+|\r")
"""What tqdm writes by itself: up and down a line, and back to its start before the line's text."""

_say: ContextVar[Callable[[str], None] | None] = ContextVar("say", default=None)


class _Shown:
    """A stream that writes out what a terminal would obey, but for the moves of a bar."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        moves = _BAR_MOVES.match(text)
        start = moves[0] if moves and moves[0] in (text, "\r") else ""
        self._stream.write(start + printable_lines(text[len(start) :]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def shown_as_text() -> Iterator[None]:
    """Have stdout and stderr of this process show the text of others, and never obey it."""
    before = sys.stdout, sys.stderr
    show_as_text()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def show_as_text() -> None:
    """The same for as long as the process lives."""
    sys.stdout, sys.stderr = _shown(sys.stdout), _shown(sys.stderr)


def _shown(stream: Any) -> Any:
    return stream if stream is None or isinstance(stream, _Shown) else _Shown(stream)


@contextmanager
def progress_told(say: Callable[[str], None]) -> Iterator[None]:
    """Have the progress of all bars of the block said too: every thirty seconds, and at the end."""
    token = _say.set(say)
    try:
        yield
    finally:
        _say.reset(token)


def progress_bar(
    title: str | None, total: int, unit: str, *, initial: int = 0, stream: TextIO | None = None
) -> "tqdm[Any]":
    """A bar to update, in the terminal or on stderr if no stream is given; none without a title.

    Where that is no terminal: a line every ten seconds, and one at the end. Give
    `refresh=False` to what changes its text between updates, or each change is a line.
    """
    out = stream or _terminal(os.environ.get(TERMINAL)) or sys.stderr
    title = title and printable(title)
    shared: dict[str, Any] = {"desc": title, "total": total, "unit": unit, "initial": initial}
    if title is None or out is None:
        return tqdm(**shared, disable=True)
    if out.isatty():
        # Some terminals say that they have no columns or no lines: nothing would fit.
        has_size = min(os.get_terminal_size(out.fileno())) > 1
        size: dict[str, Any] = {"dynamic_ncols": True} if has_size else {"ncols": 80, "nrows": 24}
        return _Told(**shared, file=out, **size)
    lines = _Lines(out)
    bar = _LineByLine(
        **shared, file=lines, bar_format=LINE, mininterval=SECONDS_BETWEEN_LINES, miniters=1
    )
    lines.silent = False
    return bar


def tell(line: str) -> None:
    """Say a line where the bars are drawn."""
    out = _terminal(os.environ.get(TERMINAL)) or sys.stderr
    if out is not None:
        tqdm.write(printable(line), file=out)


@contextmanager
def terminal_kept() -> Iterator[None]:
    """Have bars drawn in this process's terminal, by its children too, whatever becomes of stderr.

    Dagster leads stderr into a file while a step is at work, and copies that file to the terminal.
    """
    try:
        os.environ[TERMINAL] = os.ttyname(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # no terminal, none with a name, no stderr
        yield
        return
    try:
        yield
    finally:
        del os.environ[TERMINAL]


@functools.cache
def _terminal(device: str | None) -> TextIO | None:
    try:
        return os.fdopen(os.open(device, os.O_WRONLY), "w", encoding="utf-8") if device else None
    except OSError:
        return None


class _Told(tqdm):
    """Says how far the work is to whoever listens, see `progress_told`."""

    def __init__(self, *given: Any, **options: Any) -> None:
        self._say, self._told_at = _say.get(), 0.0
        super().__init__(*given, **options)

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Say something after the bar."""
        super().set_postfix_str(printable(s), refresh)

    def update(self, n: float | None = 1) -> bool | None:
        """Move on by so much; by nothing, where that it is still at work is all there is to say."""
        shown = super().update(n)
        if not n and not self.disable and self._silent_for() >= SECONDS_BETWEEN_TOLD:
            self.last_print_t += self._silent_for()
            self.refresh()
        self._tell(SECONDS_BETWEEN_TOLD)
        return shown

    def _silent_for(self) -> float:
        return self.start_t + self.format_dict["elapsed"] - self.last_print_t

    def close(self) -> None:
        """End the bar; it may be closed more than once."""
        self._tell(0.0)
        super().close()

    def _tell(self, pause: float) -> None:
        if self._say is None or self.disable:
            return
        taken = self.format_dict["elapsed"]
        if taken - self._told_at < pause:
            return
        self._told_at = taken
        more = f", {self.postfix}" if self.postfix else ""
        self._say(f"{self.desc}: {self.n} of {self.total} {self.unit}s{more}, {taken:.0f} s")


class _LineByLine(_Told):
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
