"""Progress in a terminal and in a file."""

import io
import logging
import os
import pty
import re
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pytest
import tqdm.std
import typer

from embed_assets.terminal import (
    SECONDS_BETWEEN_LINES,
    TERMINAL,
    progress_bar,
    progress_told,
    shown_as_text,
    terminal_kept,
)
from embed_assets_tests.hostile import HOSTILE, OBEYED


class File(io.StringIO):
    encoding = "utf-8"


@dataclass
class Terminal:
    """A pseudo terminal: what writes to it, and what it showed."""

    stream: TextIO
    device: int

    def shown(self) -> str:
        self.stream.flush()
        parts = []
        while select.select([self.device], [], [], 0.2)[0]:
            parts.append(os.read(self.device, 2**16))
        return b"".join(parts).decode()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    device, stream = pty.openpty()
    with os.fdopen(stream, "w", encoding="utf-8") as open_stream:
        yield Terminal(open_stream, device)
    os.close(device)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that a bar goes by; a test moves it on."""
    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    return now


def work(stream: TextIO, clock: list[float], seconds: int) -> None:
    """A hundred seconds of work, ten steps a second, or as many seconds as are given."""
    with progress_bar("Parsing PDFs", 10 * seconds, "page", stream=stream) as bar:
        for step in range(10 * seconds):
            clock[0] += 0.1
            bar.set_postfix_str(f"{step} of something", refresh=False)
            bar.update()


def test_in_a_file_there_is_a_line_every_ten_seconds_and_one_at_the_end(clock: list[float]):
    stream = File()
    work(stream, clock, seconds=100)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 100 / SECONDS_BETWEEN_LINES
    assert len(set(lines)) == len(lines)
    assert "\r" not in stream.getvalue()
    assert lines[0].startswith("Parsing PDFs: 10%, 100/1000 [00:10<01:30")
    assert lines[-1].startswith("Parsing PDFs: 100%, 1000/1000")
    assert "999 of something" in lines[-1]


def test_in_a_file_a_last_step_that_takes_long_is_said_once(clock: list[float]):
    stream = File()
    with progress_bar("Parsing PDFs", 2, "page", stream=stream) as bar:
        for _ in range(2):
            clock[0] += 2 * SECONDS_BETWEEN_LINES
            bar.update()
    assert [line.partition(",")[0] for line in stream.getvalue().splitlines()] == [
        "Parsing PDFs: 50%",
        "Parsing PDFs: 100%",
    ]


def test_work_that_stands_still_says_that_it_goes_on(clock: list[float]):
    stream = File()
    with progress_bar("Parsing PDFs", 32, "page", stream=stream) as bar:
        bar.update(31)
        for _ in range(180):
            clock[0] += 0.5
            bar.update(0)
        clock[0] += 0.5
        bar.update()
    lines = stream.getvalue().splitlines()
    assert [line.partition("<")[0] for line in lines] == [
        "Parsing PDFs: 97%, 31/32 [00:10",
        "Parsing PDFs: 97%, 31/32 [00:40",
        "Parsing PDFs: 97%, 31/32 [01:10",
        "Parsing PDFs: 100%, 32/32 [01:30",
    ]


def test_in_a_file_short_work_is_one_line(clock: list[float]):
    stream = File()
    work(stream, clock, seconds=3)
    assert len(stream.getvalue().splitlines()) == 1


def test_in_a_file_work_that_is_broken_off_says_how_far_it_came(clock: list[float]):
    stream = File()
    with progress_bar("Training", 7, "batch", initial=2, stream=stream) as bar:
        bar.update(3)
    assert stream.getvalue().startswith("Training: 71%, 5/7")


@pytest.mark.parametrize("size", [(24, 100), (0, 100), (24, 0), (0, 0)])
def test_in_a_terminal_a_bar_is_drawn_over_itself(
    clock: list[float], terminal: Terminal, size: tuple[int, int]
):
    termios.tcsetwinsize(terminal.device, size)
    work(terminal.stream, clock, seconds=1)
    shown = terminal.shown()
    assert shown.count("\rParsing PDFs: ") > 5
    assert shown.count("\n") == 1
    assert "10/10" in shown


def test_work_without_a_title_shows_nothing(terminal: Terminal):
    for stream in (terminal.stream, file := File()):
        with progress_bar(None, 3, "text", stream=stream) as bar:
            bar.update(3)
    assert file.getvalue() == ""
    terminal.stream.write("nothing else")
    assert terminal.shown() == "nothing else"


BAR = """
from embed_assets.terminal import progress_bar
with progress_bar("Training", 3, "batch") as bar:
    bar.update(3)
"""


@pytest.mark.parametrize("kept", [True, False])
def test_a_bar_is_drawn_in_the_terminal_though_stderr_leads_elsewhere(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, kept: bool
):
    """As in a step of Dagster's, and in the training that it starts."""
    monkeypatch.setattr("sys.stderr", terminal.stream)
    with terminal_kept() if kept else nullcontext():
        command = [sys.executable, "-c", BAR]
        said = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True).stderr
    assert TERMINAL not in os.environ
    if kept:
        assert said == ""
        assert "\rTraining: 100%|" in terminal.shown()
    else:
        assert said.startswith("Training: 100%, 3/3")


@pytest.mark.parametrize("device", ["/dev/nowhere", ""])
def test_without_its_terminal_a_bar_goes_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str
):
    monkeypatch.setenv(TERMINAL, device)
    with progress_bar("Training", 3, "batch") as bar:
        bar.update(3)
    assert capsys.readouterr().err.startswith("Training: 100%, 3/3")


def test_where_stderr_is_no_terminal_none_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        monkeypatch.setattr("sys.stderr", log)
        with terminal_kept():
            assert TERMINAL not in os.environ
        monkeypatch.setattr("sys.stderr", None)
        with terminal_kept():
            assert TERMINAL not in os.environ


def test_a_program_without_stderr_shows_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stderr", None)
    with progress_bar("Training", 3, "batch") as bar:
        bar.update(3)


def test_who_listens_is_told_every_thirty_seconds_and_at_the_end(clock):
    said: list[str] = []
    with progress_told(said.append):
        work(File(), clock, seconds=100)
    assert [line.rpartition(", ")[2] for line in said] == ["30 s", "60 s", "90 s", "100 s"]
    assert said[-1] == "Parsing PDFs: 1000 of 1000 pages, 999 of something, 100 s"
    work(File(), clock, seconds=40)
    assert len(said) == 4, "nobody listens any more"


def test_who_listens_is_told_what_a_terminal_shows_too(clock, terminal):
    said: list[str] = []
    with progress_told(said.append):
        work(terminal.stream, clock, seconds=10)
    assert said == ["Parsing PDFs: 100 of 100 pages, 99 of something, 10 s"]


def test_a_bar_without_a_title_tells_nobody(clock):
    said: list[str] = []
    with progress_told(said.append), progress_bar(None, 10, "page") as bar:
        bar.update(10)
    assert said == []


# Text of others.

MOVES = re.compile("\r|\x1b\\[A")
"""What a bar itself asks of a terminal."""


def test_a_bar_obeys_nothing_of_its_title_nor_of_what_stands_behind_it(terminal):
    for text in HOSTILE.values():
        with progress_bar(text, 2, "page", stream=terminal.stream) as bar:
            bar.set_postfix_str(text)
            bar.update(2)
    shown = MOVES.sub("", terminal.shown())
    assert "owned" in shown
    assert not OBEYED.search(shown)


def test_what_a_process_prints_logs_or_warns_of_is_shown_and_not_obeyed(monkeypatch):
    out, err = File(), File()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    last: Any = logging.lastResort
    with shown_as_text(), shown_as_text():
        for text in HOSTILE.values():
            print(text)  # noqa: T201
            print(text, file=sys.stderr)  # noqa: T201
            typer.echo(text, err=True)
            last.emit(logging.makeLogRecord({"msg": text, "levelno": 30}))
            tqdm.std.tqdm.write(text, file=sys.stderr)
            sys.stderr.writelines([text])
            sys.excepthook(ValueError, ValueError(text), None)
    assert (sys.stdout, sys.stderr) == (out, err)
    for stream in (out, err):
        shown = stream.getvalue()
        assert "\\x1b]0;owned" in shown
        # print gives a text by itself: one that is a move of a bar, or begins with it, passes.
        assert not OBEYED.search(MOVES.sub("", shown))


def test_bars_of_libraries_still_move(monkeypatch, terminal):
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    size: Any = {"total": 2, "ncols": 80, "nrows": 24}
    with (
        shown_as_text(),
        tqdm.std.tqdm(**size),
        tqdm.std.tqdm(position=1, **size) as below,
    ):
        below.update(2)
    shown = terminal.shown()
    assert "\r" in shown
    assert "\x1b[A" in shown
    assert "\\x1b" not in shown
