"""Requests that come together are one batch: a queue, and one thread that takes what waits.

A model is fastest with many texts at a time, and must not be used by two threads. A request of many
texts is taken in pieces, in turn with the others, so that a short one is soon answered.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

PIECE = 32
"""Texts that are taken of one request before it is the turn of the next."""
SHARE_WAITED, LONGEST_WAIT = 0.2, 0.25
"""How long a batch waits for more requests: a share of the seconds of the one before, at most."""
LONGEST_RETRY = 60
"""Seconds."""

_log = logging.getLogger(__name__)


class QueueFullError(Exception):
    """No more may wait. retry_after: seconds after which there may be room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class Work(Protocol):
    """What a request wants to have done for each of its texts."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts, one at least."""
        ...

    @property
    def together_with(self) -> Hashable:
        """Works for which this is equal are done by one call of `run`."""
        ...

    def check(self) -> None:
        """Raises what keeps the work from being done. Called once, in the worker's thread."""
        ...

    def run(self, texts: Sequence[str]) -> Sequence[Any]:
        """One result for each of the texts, which may be another work's."""
        ...


@dataclass(eq=False)
class _Job:
    work: Work
    answer: "asyncio.Future[list[Any]]"
    results: list[Any] = field(default_factory=list)
    taken: int = 0
    checked: bool = False

    def piece(self, most: int) -> "_Piece":
        start = self.taken
        self.taken = min(start + most, len(self.work.texts))
        return _Piece(self, self.work.texts[start : self.taken])

    def settle(self, outcome: "Sequence[Any] | Exception") -> None:
        if self.answer.done():
            return
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
            return
        self.results.extend(outcome)
        if len(self.results) == len(self.work.texts):
            self.answer.set_result(self.results)


@dataclass(frozen=True, eq=False)
class _Piece:
    job: _Job
    texts: Sequence[str]


class Batcher:
    """Answers works in batches. To be made, used and closed within one event loop."""

    def __init__(
        self, most_waiting: int, most_together: int, seen: Callable[[int], object] = lambda _: None
    ) -> None:
        """Both in texts. seen: told the texts of each batch."""
        self._most_waiting, self._most_together, self._seen = most_waiting, most_together, seen
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "batches")
        self._texts_a_second = 0.0
        self._more = More()
        self._task = asyncio.create_task(self._work())

    @property
    def waiting(self) -> int:
        """Texts that nobody has taken yet."""
        return sum(
            len(job.work.texts) - job.taken for job in self._jobs if not job.answer.cancelled()
        )

    async def answer(self, work: Work) -> list[Any]:
        """A result for each text. Cancelled, what is left of the work is not done.

        QueueFullError where too much waits; an empty queue takes any work.
        """
        waiting = self.waiting
        if waiting and waiting + len(work.texts) > self._most_waiting:
            raise QueueFullError(self._retry_after(waiting))
        job = _Job(work, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrived.set()
        return await job.answer

    async def close(self) -> None:
        """Take nothing more; wait for the batch at work."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for job in self._jobs:
            job.answer.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            await self._more.come(lambda: len(self._jobs))
            batch = self._take()
            if not batch:
                self._arrived.clear()
                continue
            started = time.monotonic()
            for piece, outcome in await loop.run_in_executor(self._thread, _answers, batch):
                piece.job.settle(outcome)
            texts = sum(len(piece.texts) for piece in batch)
            self._seen(texts)
            ended = time.monotonic()
            took = max(ended - started, 1e-3)
            requests = len({piece.job for piece in batch}) + len(self._jobs)
            self._more = More(requests, ended + min(SHARE_WAITED * took, LONGEST_WAIT))
            now = texts / took
            self._texts_a_second = (
                now if not self._texts_a_second else (0.8 * self._texts_a_second + 0.2 * now)
            )

    def _take(self) -> list[_Piece]:
        """Pieces in turn of all that waits, up to the bound of texts."""
        batch: list[_Piece] = []
        room = self._most_together
        while self._jobs and room:
            job = self._jobs.popleft()
            if job.answer.done():  # nobody waits for it any more, or a piece of it failed
                continue
            piece = job.piece(min(PIECE, room))
            room -= len(piece.texts)
            batch.append(piece)
            if job.taken < len(job.work.texts):
                self._jobs.append(job)
        return batch

    def _retry_after(self, waiting: int) -> int:
        seconds = math.ceil(waiting / self._texts_a_second) if self._texts_a_second else 1
        return max(1, min(seconds, LONGEST_RETRY))


@dataclass(frozen=True)
class More:
    """What may be expected after a batch: whoever was answered may ask again at once.

    Without waiting for them, the next batch would be the first of them alone. until: by the
    monotonic clock.
    """

    requests: int = 0
    until: float = 0.0

    async def come(self, waiting: Callable[[], int]) -> None:
        """Wait until half of them are back."""
        while waiting() < self.requests // 2 and time.monotonic() < self.until:
            await asyncio.sleep(0.001)


_Outcome = Sequence[Any] | Exception


def _answers(batch: Sequence[_Piece]) -> list[tuple[_Piece, _Outcome]]:
    """Each piece with its results, or with why it has none. Runs in the worker's thread."""
    outcomes: dict[_Piece, _Outcome] = {}
    for piece in batch:
        if not piece.job.checked:
            piece.job.checked = True
            try:
                piece.job.work.check()
            except Exception as error:
                outcomes[piece] = error
    failed = {piece.job for piece in outcomes}
    for group in _groups([piece for piece in batch if piece.job not in failed]):
        outcomes |= _done(group)
    return [(piece, outcomes[piece]) for piece in batch if piece in outcomes]


def _groups(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    kinds: dict[Hashable, list[_Piece]] = {}
    for piece in pieces:
        kinds.setdefault(piece.job.work.together_with, []).append(piece)
    yield from kinds.values()


def _done(pieces: Sequence[_Piece]) -> dict[_Piece, _Outcome]:
    """The results of pieces that are done together; one by one where that fails."""
    texts = [text for piece in pieces for text in piece.texts]
    try:
        results = pieces[0].job.work.run(texts)
        if len(results) != len(texts):
            raise RuntimeError(f"{len(results)} results for {len(texts)} texts")
    except Exception as error:
        if len(pieces) == 1:
            return {pieces[0]: error}
        _log.warning("A batch of %d requests failed: each is tried alone.", len(pieces))
        return {piece: outcome for one in pieces for piece, outcome in _done([one]).items()}
    left = iter(results)
    return {piece: [next(left) for _ in piece.texts] for piece in pieces}
