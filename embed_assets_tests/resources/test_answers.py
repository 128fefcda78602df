"""An answer is kept as it arrives, and asked for once, whoever asks."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from embed_assets.errors import BusyError
from embed_assets.resources.answers import AnswerStore, reply_now


@pytest.fixture
def store(tmp_path) -> AnswerStore:
    return AnswerStore(path=str(tmp_path / "home" / "answers.sqlite"))


def other_process(store: AnswerStore, body: str) -> subprocess.Popen:
    """A process that opens the store, does something, says so and waits for its end."""
    script = f"""
    import time
    from embed_assets.resources.answers import AnswerStore, reply_now
    with AnswerStore(path={store.path!r}).open("m", "1", "theirs") as answers:
        {body}
        print("ready", flush=True)
        time.sleep(600)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def owners(store: AnswerStore) -> list[Path]:
    """Lock files of the runs that have the store open."""
    return list(Path(store.path).parent.glob("answers.sqlite.*.lock"))


def test_runs_that_open_a_new_store_at_once_wait_for_each_other(tmp_path):
    together = threading.Barrier(4)

    def open_all(_: int) -> None:
        for i in range(50):
            together.wait(60)
            with AnswerStore(path=str(tmp_path / f"{i}.sqlite")).open("m", "1", "s") as answers:
                assert answers.spent() == (0, 0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(open_all, range(4)))


def test_who_gets_no_turn_to_open_says_so(store):
    store = AnswerStore(path=store.path, patience=0.1)
    Path(store.path).parent.mkdir()
    held = FileLock(f"{store.path}.lock")
    with held, pytest.raises(BusyError, match="held it for"), store.open("m", "1", "s"):
        pass


def test_what_was_paid_for_waits_for_others_as_long_as_it_must_and_says_for_whom(store):
    said: list[str] = []
    with store.open("m", "1", "mine", said.append) as answers:
        holder = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
        holder.execute("BEGIN IMMEDIATE")

        def let_go(line: str) -> None:
            said.append(line)
            holder.execute("ROLLBACK")

        patient = replace(answers, file=replace(answers.file, log=let_go))
        patient.put("key", reply_now("the reply", 7, 3))
        holder.close()
    assert len(said) == 1
    assert f"{store.path} is in use by" in said[0]
    with store.open("m", "1", "next") as answers:
        assert answers.known(["key"]) == {"key"}


def test_who_stops_a_run_waits_for_nobody(store):
    """The test would never end."""
    with store.open("m", "1", "first"):
        holder = sqlite3.connect(store.path, isolation_level=None)
    turn = FileLock(f"{store.path}.lock")

    def stop() -> None:
        with store.open("m", "1", "mine") as answers:
            answers.claim("key")
            holder.execute("BEGIN IMMEDIATE")
            turn.acquire()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    holder.close()
    turn.release()
    with store.open("m", "1", "next") as answers:
        answers.release_dead()
        assert answers.claim("key")


def test_an_answer_is_there_for_the_next_run(store):
    with store.open("m", "1", "first") as answers:
        answers.put("key", reply_now("the reply", 7, 3))
    with store.open("m", "1", "second") as answers:
        [(key, reply)] = answers.replies(["key", "unknown"])
    assert (key, reply.text, reply.input_tokens, reply.output_tokens) == ("key", "the reply", 7, 3)


def test_answers_are_found_among_more_keys_than_a_statement_takes(store):
    keys = [f"key {i}" for i in range(2500)]
    with store.open("m", "1", "s") as answers:
        for key in keys[::2]:
            answers.put(key, reply_now(key, 1, 1))
        assert answers.known(keys) == set(keys[::2])
        assert {key: reply.text for key, reply in answers.replies(keys)} == {
            key: key for key in keys[::2]
        }


def test_spending_is_counted_by_session(store):
    with store.open("m", "1", "first") as answers:
        answers.spend(10, 1)
        answers.spend(20, 2)
    with store.open("other", "2", "first") as answers:
        assert answers.spent() == (30, 3)
    with store.open("m", "1", "second") as answers:
        assert answers.spent() == (0, 0)


def test_what_one_run_claims_no_other_takes(store):
    with store.open("m", "1", "a") as first, store.open("m", "1", "b") as second:
        assert first.claim("key")
        assert not second.claim("key")
        first.give_back("key")
        assert second.claim("key")


def test_what_has_an_answer_is_not_claimed(store):
    with store.open("m", "1", "a") as answers:
        answers.put("key", reply_now("reply", 1, 1))
        assert not answers.claim("key")


def test_a_run_that_ends_gives_back_what_it_claimed(store):
    with store.open("m", "1", "a") as first:
        first.claim("key")
    with store.open("m", "1", "b") as second:
        assert second.claim("key")


def test_a_run_that_fails_leaves_no_claim_s_lock_behind(store):
    with pytest.raises(ZeroDivisionError), store.open("m", "1", "a"):
        raise ZeroDivisionError
    assert owners(store) == []


def test_claims_of_a_killed_process_are_freed_and_its_answers_stay(store):
    process = other_process(
        store, "answers.put('answered', reply_now('r', 1, 1)); answers.claim('in flight')"
    )
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with store.open("m", "1", "mine") as answers:
        answers.release_dead()
        assert answers.known(["answered", "in flight"]) == {"answered"}
        assert answers.claim("in flight")
    assert owners(store) == []


def test_claims_of_a_living_process_are_left_to_it(store):
    process = other_process(store, "answers.claim('in flight')")
    try:
        with store.open("m", "1", "mine") as answers:
            answers.release_dead()
            assert not answers.claim("in flight")
    finally:
        process.kill()
        process.wait()


def test_answers_about_a_document_are_forgotten_but_not_those_about_another_too(store):
    with store.open("m", "1", "s") as answers:
        for key in ("only", "both", "before", "other"):
            answers.put(key, reply_now(f"asks about {key}", 1, 1))
        answers.use([("a", "only"), ("a", "both"), ("b", "both"), ("b", "other")])
    # `before` is of a time when nobody noted whom an answer is about.
    assert store.forget(["a"], lambda reply: "before" in reply) == 2
    with store.open("m", "1", "s") as answers:
        assert answers.known(["only", "both", "before", "other"]) == {"both", "other"}
    assert store.forget(["a"], lambda _: False) == 0
    assert store.forget(["b"], lambda _: False) == 2


def test_an_answer_noted_to_be_about_another_document_stays_whatever_it_says(store):
    with store.open("m", "1", "s") as answers:
        answers.put("k", reply_now("a sentence that both have", 1, 1))
        answers.use([("b", "k")])
    assert store.forget(["a"], lambda _: True) == 0


def test_what_was_deleted_leaves_no_bytes_whatever_sqlite_was_built_with(store, monkeypatch):
    connect = sqlite3.connect

    def connect_careless(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.execute("PRAGMA secure_delete = OFF")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_careless)
    with store.open("m", "1", "s") as answers:
        for i in range(8):
            answers.put(f"k{i}", reply_now(f"The {'zorblatt' if i == 3 else 'pump'} is {i}", 1, 1))
        answers.use([("a", "k3")])
    assert store.forget(["a"], lambda _: False) == 1
    for file in Path(store.path).parent.iterdir():
        assert b"zorblatt" not in file.read_bytes()


def test_a_home_without_answers_has_none_to_forget(store):
    assert store.forget(["a"], lambda _: True) == 0
    assert not Path(store.path).exists()
