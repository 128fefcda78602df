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
from typing import Any

import pytest
from filelock import FileLock

from embed_assets.errors import BusyError
from embed_assets.resources import answers_postgres
from embed_assets.resources.answers import AnswerStore, reply_now
from embed_assets_tests.postgres import sql


@pytest.fixture
def store(tmp_path) -> AnswerStore:
    return AnswerStore(path=str(tmp_path / "home" / "answers.sqlite"))


@pytest.fixture
def shared(store: AnswerStore, database: str) -> AnswerStore:
    """In Postgres."""
    lake = f"ducklake:postgres:{database}?data={Path(store.path).parent}"
    return AnswerStore(path=store.path, lake=lake)


@pytest.fixture(params=["sqlite", "postgres"])
def any_store(request: pytest.FixtureRequest, store: AnswerStore) -> AnswerStore:
    """In a file, and in Postgres."""
    if request.param == "sqlite":
        return store
    return request.getfixturevalue("shared")


def other_process(store: AnswerStore, body: str) -> subprocess.Popen:
    """A process that opens the store, does something, says so and waits for its end."""
    script = f"""
    import time
    from embed_assets.resources.answers import AnswerStore, reply_now
    with AnswerStore(path={store.path!r}, lake={store.lake!r}).open("m", "1", "theirs") as answers:
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

        kept: Any = answers.kept
        patient = replace(answers, kept=replace(kept, file=replace(kept.file, log=let_go)))
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


def test_an_answer_is_there_for_the_next_run(any_store):
    with any_store.open("m", "1", "first") as answers:
        answers.put("key", reply_now("the reply", 7, 3))
    with any_store.open("m", "1", "second") as answers:
        [(key, reply)] = answers.replies(["key", "unknown"])
    assert (key, reply.text, reply.input_tokens, reply.output_tokens) == ("key", "the reply", 7, 3)


def test_answers_are_found_among_more_keys_than_a_statement_takes(any_store):
    keys = [f"key {i}" for i in range(2500)]
    with any_store.open("m", "1", "s") as answers:
        for key in keys[::2]:
            answers.put(key, reply_now(key, 1, 1))
        assert answers.known(keys) == set(keys[::2])
        assert {key: reply.text for key, reply in answers.replies(keys)} == {
            key: key for key in keys[::2]
        }


def test_spending_is_counted_by_session(any_store):
    with any_store.open("m", "1", "first") as answers:
        answers.spend(10, 1)
        answers.spend(20, 2)
    with any_store.open("other", "2", "first") as answers:
        assert answers.spent() == (30, 3)
    with any_store.open("m", "1", "second") as answers:
        assert answers.spent() == (0, 0)


def test_what_one_run_claims_no_other_takes(any_store):
    with any_store.open("m", "1", "a") as first, any_store.open("m", "1", "b") as second:
        assert first.claim("key")
        assert not second.claim("key")
        first.give_back("key")
        assert second.claim("key")


def test_what_has_an_answer_is_not_claimed(any_store):
    with any_store.open("m", "1", "a") as answers:
        answers.put("key", reply_now("reply", 1, 1))
        assert not answers.claim("key")


def test_a_run_that_ends_gives_back_what_it_claimed(any_store):
    with any_store.open("m", "1", "a") as first:
        first.claim("key")
    with any_store.open("m", "1", "b") as second:
        assert second.claim("key")


def test_a_run_that_fails_leaves_no_claim_s_lock_behind(store):
    with pytest.raises(ZeroDivisionError), store.open("m", "1", "a"):
        raise ZeroDivisionError
    assert owners(store) == []


def test_claims_of_a_killed_process_are_freed_and_its_answers_stay(any_store):
    process = other_process(
        any_store, "answers.put('answered', reply_now('r', 1, 1)); answers.claim('in flight')"
    )
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with any_store.open("m", "1", "mine") as answers:
        answers.release_dead()
        assert answers.known(["answered", "in flight"]) == {"answered"}
        assert answers.claim("in flight")
    assert owners(any_store) == []


def test_claims_of_a_living_process_are_left_to_it(any_store):
    process = other_process(any_store, "answers.claim('in flight')")
    try:
        with any_store.open("m", "1", "mine") as answers:
            answers.release_dead()
            assert not answers.claim("in flight")
    finally:
        process.kill()
        process.wait()


def test_answers_about_a_document_are_forgotten_but_not_those_about_another_too(any_store):
    with any_store.open("m", "1", "s") as answers:
        for key in ("only", "both", "before", "other"):
            answers.put(key, reply_now(f"asks about {key}", 1, 1))
        answers.use([("a", "only"), ("a", "both"), ("b", "both"), ("b", "other")])
    # `before` is of a time when nobody noted whom an answer is about.
    assert any_store.forget(["a"], lambda reply: "before" in reply) == 2
    with any_store.open("m", "1", "s") as answers:
        assert answers.known(["only", "both", "before", "other"]) == {"both", "other"}
    assert any_store.forget(["a"], lambda _: False) == 0
    assert any_store.forget(["b"], lambda _: False) == 2


def test_an_answer_noted_to_be_about_another_document_stays_whatever_it_says(any_store):
    with any_store.open("m", "1", "s") as answers:
        answers.put("k", reply_now("a sentence that both have", 1, 1))
        answers.use([("b", "k")])
    assert any_store.forget(["a"], lambda _: True) == 0


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


# Of many machines.


def address(store: AnswerStore) -> str:
    return store.lake.removeprefix("ducklake:postgres:").partition("?data=")[0]


def end_sessions(store: AnswerStore) -> None:
    """End every connection, as a restart of Postgres does."""
    sql(
        address(store),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


def test_an_answer_that_comes_when_the_connection_is_lost_is_kept(shared):
    with shared.open("m", "1", "s") as answers:
        assert answers.claim("key")
        end_sessions(shared)
        answers.put("key", reply_now("the reply", 7, 3))
        end_sessions(shared)
        assert answers.known(["key"]) == {"key"}


def test_a_run_whose_connection_was_lost_still_lives_for_others(shared):
    with shared.open("m", "1", "a") as first, shared.open("m", "1", "b") as second:
        assert first.claim("key")
        end_sessions(shared)
        assert first.known(["key"]) == set()
        second.release_dead()
        assert not second.claim("key")


def test_what_was_committed_before_its_answer_was_lost_counts_once(shared, monkeypatch):
    def lose_the_first_answer(use, *_: object, **__: object):
        use()
        return use()

    with shared.open("m", "1", "s") as answers:
        monkeypatch.setattr(answers_postgres, "persistently", lose_the_first_answer)
        assert answers.claim("key")
        answers.spend(10, 1)
        assert answers.spent() == (10, 1)


def test_a_run_that_waits_for_a_reply_lives_through_a_restart(shared, monkeypatch):
    with shared.open("m", "1", "a") as first, shared.open("m", "1", "b") as second:
        assert first.claim("key")
        end_sessions(shared)
        second.release_dead()  # the first has not looked at Postgres since
        assert not second.claim("key")


def test_runs_that_claim_the_same_at_once_share_it_out(shared):
    keys = [f"key {i}" for i in range(60)]

    def claim_all(_: int) -> list[str]:
        with shared.open("m", "1", "s") as answers:
            mine = [key for key in keys if answers.claim(key)]
            for key in mine:
                answers.put(key, reply_now(key, 1, 1))
            return mine

    with ThreadPoolExecutor(4) as pool:
        taken = [key for mine in pool.map(claim_all, range(4)) for key in mine]
    assert sorted(taken) == sorted(keys)


def test_answers_out_of_reach_are_one_line_that_says_so(tmp_path):
    lake = f"ducklake:postgres:host=127.0.0.1 port=1 dbname=x?data={tmp_path}"
    store = AnswerStore(path=str(tmp_path / "a"), lake=lake, patience=0.3)
    with pytest.raises(BusyError, match="port=1"), store.open("m", "1", "s"):
        pass
