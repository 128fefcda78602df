"""Progress in a terminal and in a file."""

import io

import pytest
import tqdm.std

from embed_assets.terminal import SECONDS_BETWEEN_LINES, progress_bar


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class File(Terminal):
    def isatty(self) -> bool:
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that a bar goes by; a test moves it on."""
    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    return now


def work(stream: io.StringIO, clock: list[float], seconds: int) -> None:
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


def test_in_a_file_short_work_is_one_line(clock: list[float]):
    stream = File()
    work(stream, clock, seconds=3)
    assert len(stream.getvalue().splitlines()) == 1


def test_in_a_file_work_that_is_broken_off_says_how_far_it_came(clock: list[float]):
    stream = File()
    with progress_bar("Training", 7, "batch", initial=2, stream=stream) as bar:
        bar.update(3)
    assert stream.getvalue().startswith("Training: 71%, 5/7")


def test_in_a_terminal_a_bar_is_drawn_over_itself(clock: list[float]):
    stream = Terminal()
    work(stream, clock, seconds=3)
    assert stream.getvalue().count("\r") > 10
    assert stream.getvalue().count("\n") == 1
    assert "30/30" in stream.getvalue()


@pytest.mark.parametrize("stream", [Terminal(), File()])
def test_work_without_a_title_shows_nothing(stream: io.StringIO):
    with progress_bar(None, 3, "text", stream=stream) as bar:
        bar.update(3)
    assert stream.getvalue() == ""


def test_a_program_without_stderr_shows_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stderr", None)
    with progress_bar("Training", 3, "batch") as bar:
        bar.update(3)
