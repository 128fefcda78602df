"""What waits is answered together, and nobody pays for another's request."""

import asyncio
import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import pytest

from embed_assets.search.server.batching import PIECE, Batcher, More, QueueFullError


@dataclass
class Model:
    """What works are done by; it waits while `free` is cleared."""

    calls: list[list[str]] = field(default_factory=list)
    free: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.free.set()


@dataclass(eq=False)
class Upper:
    """A work that puts texts in capitals."""

    model: Model
    texts: Sequence[str]
    kind: Hashable = "upper"
    wrong: str = ""

    @property
    def together_with(self) -> Hashable:
        return self.kind

    def check(self) -> None:
        if self.wrong:
            raise ValueError(self.wrong)

    def run(self, texts: Sequence[str]) -> Sequence[str]:
        self.model.calls.append(list(texts))
        assert self.model.free.wait(10)
        if "broken" in texts:
            raise RuntimeError("it broke")
        return [text.upper() for text in texts]


def answers(model: Model, *works: Upper, waiting: int = 1000, together: int = 128) -> list:
    """The answers to works that come while the model is busy with another one."""

    async def ask() -> list:
        batcher = Batcher(waiting, together)
        model.free.clear()
        busy = asyncio.create_task(batcher.answer(Upper(model, ["busy"])))
        while not model.calls:
            await asyncio.sleep(0.001)
        asked = [asyncio.create_task(batcher.answer(work)) for work in works]
        await asyncio.sleep(0)
        model.free.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert await busy == ["BUSY"]
        assert batcher.waiting == 0
        await batcher.close()
        return found

    found = asyncio.run(ask())
    del model.calls[0]
    return found


def test_requests_that_wait_are_one_batch_and_each_gets_its_own_answers():
    model = Model()
    found = answers(model, Upper(model, ["a", "b"]), Upper(model, ["c"]), Upper(model, ["d", "e"]))

    assert found == [["A", "B"], ["C"], ["D", "E"]]
    assert model.calls == [["a", "b", "c", "d", "e"]]


def test_kinds_are_not_mixed():
    model = Model()
    found = answers(
        model, Upper(model, ["a"], "q"), Upper(model, ["b"], "d"), Upper(model, ["c"], "q")
    )

    assert found == [["A"], ["B"], ["C"]]
    assert model.calls == [["a", "c"], ["b"]]


def test_a_batch_holds_no_more_texts_than_it_may():
    model = Model()
    works = [Upper(model, [f"{n}"]) for n in range(10)]
    answers(model, *works, together=4)

    assert [len(call) for call in model.calls] == [4, 4, 2]


def test_a_short_request_does_not_wait_for_the_whole_of_a_long_one():
    model = Model()
    long = [f"t{n}" for n in range(10 * PIECE)]
    found = answers(model, Upper(model, long), Upper(model, ["short"]), together=2 * PIECE)

    assert found == [[text.upper() for text in long], ["SHORT"]]
    assert "short" in model.calls[0]
    assert sorted(text for call in model.calls for text in call) == sorted([*long, "short"])


def test_the_error_of_one_request_is_not_that_of_others_in_its_batch():
    model = Model()
    good, bad, wrong, also = answers(
        model,
        Upper(model, ["a"]),
        Upper(model, ["broken"]),
        Upper(model, ["b"], wrong="too long"),
        Upper(model, ["c"]),
    )

    assert good == ["A"]
    assert also == ["C"]
    assert isinstance(bad, RuntimeError)
    assert isinstance(wrong, ValueError)
    assert model.calls[0] == ["a", "broken", "c"]


def test_a_long_request_that_fails_in_one_piece_fails_as_a_whole():
    model = Model()
    long = ["t"] * (2 * PIECE) + ["broken"] + ["t"] * (5 * PIECE)
    failed, good = answers(model, Upper(model, long), Upper(model, ["a"]), together=PIECE)

    assert isinstance(failed, RuntimeError)
    assert good == ["A"]
    assert len(model.calls) < 8  # what is left of it is not done


def test_a_call_that_answers_too_little_is_an_error():
    model = Model()
    work = Upper(model, ["a", "b"])
    work.run = lambda texts: texts[:1]
    [failed] = answers(model, work)

    assert isinstance(failed, RuntimeError)


def test_what_nobody_waits_for_any_more_is_not_done():
    async def ask() -> tuple[list[list[str]], int]:
        model = Model()
        batcher = Batcher(100, 100)
        model.free.clear()
        busy = asyncio.create_task(batcher.answer(Upper(model, ["busy"])))
        while not model.calls:
            await asyncio.sleep(0.001)
        left = asyncio.create_task(batcher.answer(Upper(model, ["left"])))
        stays = asyncio.create_task(batcher.answer(Upper(model, ["stays"])))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        waiting = batcher.waiting
        model.free.set()
        assert await stays == ["STAYS"]
        await busy
        await batcher.close()
        return model.calls, waiting

    assert asyncio.run(ask()) == ([["busy"], ["stays"]], 1)


def test_a_full_queue_takes_nothing_more_and_says_when_to_come_back():
    async def ask() -> int:
        model = Model()
        batcher = Batcher(3, 100)
        model.free.clear()
        works = [asyncio.create_task(batcher.answer(Upper(model, ["busy"])))]
        while not model.calls:
            await asyncio.sleep(0.001)
        works.append(asyncio.create_task(batcher.answer(Upper(model, ["a", "b"]))))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as full:
            await batcher.answer(Upper(model, ["c", "d"]))
        works.append(asyncio.create_task(batcher.answer(Upper(model, ["c"]))))
        model.free.set()
        assert await asyncio.gather(*works) == [["BUSY"], ["A", "B"], ["C"]]
        await batcher.close()
        return full.value.retry_after

    assert 1 <= asyncio.run(ask()) <= 60


def test_an_empty_queue_takes_a_request_however_long():
    async def ask() -> list[str]:
        batcher = Batcher(3, 2)
        found = await batcher.answer(Upper(Model(), ["a"] * 10))
        await batcher.close()
        return found

    assert asyncio.run(ask()) == ["A"] * 10


@pytest.mark.parametrize(
    ("requests", "seconds", "looks"), [(64, 60.0, 32), (64, -1.0, 1), (1, 60.0, 1), (0, 60.0, 1)]
)
def test_a_batch_waits_a_while_until_half_of_those_before_are_back(requests, seconds, looks):
    back = []

    def waiting() -> int:
        back.append("one more")
        return len(back)

    asyncio.run(More(requests, time.monotonic() + seconds).come(waiting))

    assert len(back) == looks


def test_closing_waits_for_the_batch_at_work_and_leaves_the_rest():
    ended = []

    class Slow(Upper):
        def run(self, texts: Sequence[str]) -> Sequence[str]:
            found = super().run(texts)
            ended.append(time.monotonic())
            return found

    async def ask() -> None:
        model = Model()
        batcher = Batcher(100, 100)
        model.free.clear()
        busy = asyncio.create_task(batcher.answer(Slow(model, ["busy"])))
        while not model.calls:
            await asyncio.sleep(0.001)
        left = asyncio.create_task(batcher.answer(Slow(model, ["left"])))
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        model.free.set()
        await closing
        assert ended
        busy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left

    asyncio.run(ask())
