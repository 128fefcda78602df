"""One item's misfortune, whatever it is, costs that item alone."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from embed_assets.errors import ProjectError, one_line
from embed_assets.resources.ledger import Cause, Failure
from embed_assets.resources.shared_bytes import SharedBytes
from embed_assets.resources.worker import lacks_memory, report
from embed_assets.resources.workers import Outcome, WorkerPool
from embed_assets.settings import Engine

TIMEOUT = 6.0  # beside other tests a worker takes a while to answer


class Unpicklable(Exception):
    """An error that can't be sent to another process, as some libraries' are."""

    def __init__(self, reason: str, place: int) -> None:
        super().__init__(f"{reason} at {place}")


def double(number: int) -> int:
    return 2 * number


def process_id(_: int) -> int:
    return os.getpid()


def do(item: tuple[str, int]) -> int:
    """What the item says; runs in a worker process."""
    what, number = item
    deeds[what](number)
    return double(number)


def complain(number: int) -> None:
    raise ValueError(f"no\n  {number}\n\n" + "x" * 1000)


def complain_strangely(number: int) -> None:
    raise Unpicklable("bad", number)


deeds: dict[str, Callable[[int], Any]] = {
    "double": lambda number: None,
    "dawdle": lambda number: time.sleep(0.3),
    "linger": lambda number: time.sleep(2),
    "raise": complain,
    "raise strangely": complain_strangely,
    "hang": lambda number: time.sleep(120),
    "die": lambda number: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda number: os._exit(3),
}
ITEMS = [
    ("dawdle", 1),
    ("double", 2),
    ("raise", 3),
    ("die", 4),
    ("double", 5),
    ("hang", 6),
    ("exit", 7),
    ("raise strangely", 8),
    ("double", 9),
]


@pytest.fixture(
    scope="module",
    params=[
        "local",
        pytest.param(
            "ray", marks=pytest.mark.skipif(not find_spec("ray"), reason="ray isn't installed")
        ),
    ],
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Where the processes are: what is promised of them holds for each of these."""
    if request.param == "local":
        yield request.param
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # this module, for its processes
        yield request.param
        import ray

        ray.shutdown()


def map_over(items: list[Any], function: Callable[[Any], Any], pool: WorkerPool) -> list[Outcome]:
    with pool.start(len(items)) as workers:
        return list(workers.map(function, items))


def why(outcome: Outcome) -> str | None:
    return outcome.failure and outcome.failure.error


@pytest.fixture(scope="module")
def in_order(engine: Engine) -> list[Outcome[tuple[str, int], int]]:
    """What became of the items, as the pool gave it."""
    return map_over(ITEMS, do, WorkerPool(engine=engine, processes=2, timeout=TIMEOUT))


@pytest.fixture(scope="module")
def outcomes(in_order) -> dict[str, list[Outcome]]:
    """The same by what the items did."""
    return {what: [o for o in in_order if o.item[0] == what] for what in deeds}


def test_the_order_of_the_items_is_kept_though_the_first_is_slow(in_order):
    assert [outcome.item for outcome in in_order] == ITEMS


def test_items_after_and_between_the_failing_ones_get_their_results(outcomes):
    results = [(o.item[1], o.result, why(o)) for o in outcomes["double"] + outcomes["dawdle"]]
    assert results == [(2, 4, None), (5, 10, None), (9, 18, None), (1, 2, None)]


def test_one_that_raises_says_so_in_one_line_of_bounded_length(outcomes):
    [outcome] = outcomes["raise"]
    assert outcome.result is None
    said = why(outcome)
    assert said is not None
    assert said.startswith("ValueError: no 3 xxx")
    assert len(said) == 300
    assert said.endswith("…")


def test_one_that_hangs_is_ended_after_the_timeout(outcomes):
    assert [why(o) for o in outcomes["hang"]] == [f"took longer than {TIMEOUT:.0f} s"]


def test_one_that_takes_its_process_down_is_told_apart(outcomes, engine):
    failures = [o.failure for o in outcomes["die"] + outcomes["exit"]]
    codes = [" with exit code -9", " with exit code 3"] if engine == "local" else ["", ""]
    assert failures == [Failure(Cause.PROCESS_ENDED, f"its process ended{code}") for code in codes]


def test_one_whose_error_cannot_be_sent_still_says_that_it_failed(outcomes):
    [outcome] = outcomes["raise strangely"]
    assert (outcome.result, why(outcome)) == (None, "Unpicklable: bad at 8")


def allocate(size_bytes: int) -> int:
    return len(bytearray(size_bytes))


def test_one_that_needs_more_memory_than_its_share_fails_and_others_go_on(engine):
    pool = WorkerPool(engine=engine, processes=1, timeout=60, memory_limit_bytes=4 * 2**30)
    sizes = [1000, 8 * 2**30, 2000]
    errors = {o.item: why(o) for o in map_over(sizes, allocate, pool)}
    assert errors == {
        1000: None,
        8 * 2**30: "needs more memory than a worker may take",
        2000: None,
    }


def fail_on_full_memory(kept_free: int) -> None:
    """Raise what a library without a word for it raises, with so much memory left."""
    held = []
    with suppress(MemoryError):
        while bytearray(kept_free):
            held.append(bytearray(64 << 20))
    raise RuntimeError("bad allocation")


def test_an_error_where_hardly_any_memory_is_left_is_put_down_to_that(engine):
    limit = 4 << 30
    pool = WorkerPool(engine=engine, processes=1, timeout=60, memory_limit_bytes=limit)
    failures = [o.failure for o in map_over([1 << 20, limit], fail_on_full_memory, pool)]
    causes = [failure and failure.cause for failure in failures]
    assert causes == [Cause.NO_MEMORY, Cause.FAILED]


def fill_and_free(limit: int) -> None:
    """Raise an error that has nothing to do with memory, after all of it was taken once."""
    with suppress(RuntimeError):
        fail_on_full_memory(1 << 20)
    raise ValueError("is damaged")


def test_memory_that_was_freed_is_not_lacking():
    pool = WorkerPool(processes=1, timeout=60, memory_limit_bytes=3 << 30)
    [outcome] = map_over([0], fill_and_free, pool)
    assert outcome.failure == Failure(Cause.FAILED, "ValueError: is damaged")


@pytest.mark.parametrize("is_left", [True, False])
def test_where_c_s_allocator_cannot_be_asked_the_system_is(monkeypatch, is_left):
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("embed_assets.resources.worker.ctypes.CDLL", refuse)
    if not is_left:
        monkeypatch.setattr("embed_assets.resources.worker.mmap.mmap", refuse)
    assert lacks_memory() != is_left


def test_to_ask_whether_memory_is_left_takes_none():
    program = (
        "import resource\n"
        "from embed_assets.resources.worker import HEADROOM, lacks_memory\n"
        "taken = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = taken()\n"
        "assert not lacks_memory()\n"
        "assert taken() - before < HEADROOM / 4\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_caller_that_stops_early_leaves_no_process_behind(engine):
    def stop_early() -> None:
        with WorkerPool(engine=engine, processes=1).start(2) as workers:
            seen.append(next(workers.map(process_id, [1, 2])).result)
            raise KeyboardInterrupt

    seen: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        stop_early()
    [worker] = seen
    if engine == "local":
        assert not multiprocessing.active_children()
        assert not is_there(worker)
    wait_until(lambda: not is_there(worker))


def test_an_item_at_work_ends_at_once_with_its_caller(engine, tmp_path):
    def stop(in_hand: Sequence[tuple[Any, int]]) -> None:
        if any(process for _, process in in_hand):
            seen.extend(process for _, process in in_hand)
            raise KeyboardInterrupt

    seen: list[int] = []
    queue = deque([tmp_path / "never"])
    with (
        pytest.raises(KeyboardInterrupt),
        WorkerPool(engine=engine, processes=1).start(1) as workers,
    ):
        list(workers.work_off(report_process_and_wait, queue, watch=stop))
    [worker] = seen
    wait_until(lambda: not is_there(worker))


def wait_until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.05)


def report_process_and_wait(file: Path) -> None:
    report(os.getpid())
    while not file.exists():
        time.sleep(0.01)


def read_bytes(shared: SharedBytes) -> bytes:
    return shared.read()


def test_bytes_are_shared_with_all_workers(engine):
    contents = [b"one", b"", b"x" * 1_000_000]
    pool = WorkerPool(engine=engine, processes=2, timeout=60)
    with pool.start(2) as workers, workers.sharing(contents) as shared:
        assert len(dict.fromkeys(shared)) == 3, "keys of a dict"
        assert [o.result for o in workers.map(read_bytes, shared)] == contents


def report_and_wait(item: tuple[int, str]) -> int:
    """Say how much is done, and go on once somebody has seen it and made the file."""
    done, file = item
    report(done)
    while not os.path.exists(file):
        time.sleep(0.01)
    return done


def test_what_workers_report_is_seen_while_they_are_at_work(tmp_path, engine):
    seen = tmp_path / "seen"
    items = deque([(3, str(seen)), (5, str(seen))])
    looks: list[dict[Any, int]] = []

    def watch(in_hand: Sequence[tuple[Any, int]]) -> None:
        looks.append(dict(in_hand))
        if sorted(looks[-1].values()) == [3, 5]:
            seen.touch()

    with WorkerPool(engine=engine, processes=2, timeout=60).start(2) as workers:
        outcomes = list(workers.work_off(report_and_wait, items, watch=watch))
        assert sorted(o.result for o in outcomes if o.result) == [3, 5]
        assert {(3, str(seen)): 3, (5, str(seen)): 5} in looks
        looks.clear()
        list(workers.work_off(do, deque([("linger", 1)]), watch=watch))
        assert {done for look in looks for done in look.values()} == {0}, "each begins at nothing"


def test_a_queue_may_grow_and_shrink_while_it_is_worked_off(engine):
    queue = deque([("double", number) for number in range(20)])
    found = []
    with WorkerPool(engine=engine, processes=1, timeout=60).start(1) as workers:
        for outcome in workers.work_off(do, queue):
            found.append(outcome.item[1])
            if len(found) == 1:
                queue.clear()
                queue.append(("double", 100))
    # Two are in hand at a time.
    assert found == [0, 1, 100]


def test_what_is_worked_off_comes_as_it_ends_and_a_failure_costs_its_item_alone(engine):
    queue = deque([("linger", 1), ("die", 2), ("double", 3), ("double", 4)])
    with WorkerPool(engine=engine, processes=2, timeout=60).start(2) as workers:
        outcomes = list(workers.work_off(do, queue))
    causes = {o.item[1]: (o.result, o.failure and o.failure.cause) for o in outcomes}
    assert causes == {
        1: (2, None),
        2: (None, Cause.PROCESS_ENDED),
        3: (6, None),
        4: (8, None),
    }


def test_a_worker_loads_nothing_heavy_by_itself():
    program = (
        "import sys\n"
        "import embed_assets.documents.reading, embed_assets.resources.worker\n"
        "assert not {'dagster', 'polars', 'duckdb', 'pydantic'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_worker_on_ray_loads_nothing_heavy_by_itself_either():
    program = (
        "import sys\n"
        "import embed_assets.documents.reading, embed_assets.resources.ray_worker\n"
        "assert not {'dagster', 'polars', 'duckdb', 'pydantic'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_workers_of_this_machine_load_nothing_of_ray():
    program = (
        "import sys\n"
        "from embed_assets.resources.workers import WorkerPool\n"
        "if __name__ == '__main__':\n"
        "    with WorkerPool().start(1) as workers:\n"
        "        assert [o.result for o in workers.map(abs, [-1])] == [1]\n"
        "    assert 'ray' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_limit_of_its_own_holds_for_one_map_alone(engine):
    with WorkerPool(engine=engine, processes=1, timeout=60).start(1) as workers:
        [cut_off] = workers.map(do, [("hang", 1)], timeout=1)
        [done] = workers.map(do, [("dawdle", 1)])
    assert (why(cut_off), done.result) == ("took longer than 1 s", 2)


def test_where_processes_share_no_memory_it_is_said_in_one_line(monkeypatch):
    def refuse(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/dev/shm")

    monkeypatch.setattr("_multiprocessing.SemLock", refuse)  # as sem_open does
    with (
        pytest.raises(ProjectError, match=r"^Worker processes can't be started: .*/dev/shm"),
        WorkerPool().start(1),
    ):
        pass


def test_one_line_keeps_what_is_short_and_shortens_what_is_long():
    assert one_line(" a \n b\t c ") == "a b c"
    assert one_line("abcdef", limit=6) == "abcdef"
    assert one_line("abcdefg", limit=6) == "abcde…"
