"""Questions from a language model over HTTP: every answer once, whatever the server does."""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from embed_assets.errors import SettingsError
from embed_assets.questions.statuses import FAILED, JUDGED_POOR, KEPT, NOT_ASKED, UNREADABLE
from embed_assets.questions.written.openai import FAILED_IN_A_ROW, READINGS
from embed_assets.questions.written.writing import Writing, judged_questions, written_questions
from embed_assets.resources import openai_server
from embed_assets.resources.answers import AnswerStore
from embed_assets.resources.openai_server import ATTEMPTS, OpenAIServer, ServerError
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets_tests.questions.written.llm_server import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    LLMServer,
    Request,
    Response,
    completion,
    error,
    good_reply,
    questions,
)

SECRET = "sk-very-secret-key"
A_CALL = INPUT_TOKENS + OUTPUT_TOKENS


@pytest.fixture(autouse=True)
def short_waits(monkeypatch) -> None:
    monkeypatch.setattr(openai_server, "LONGEST_BACKOFF", 0.02)


@pytest.fixture
def server(monkeypatch) -> Iterator[LLMServer]:
    with LLMServer() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        yield running


def chunks(count: int = 6, document_id: str = "lock-1", first: int = 0) -> pl.DataFrame:
    texts = [f"Gate number {i} opens at noon." for i in range(first, first + count)]
    rows = [
        {
            "document_id": document_id,
            "chunk_index": index,
            "chunk_id": hashlib.md5(text.encode()).hexdigest(),
            "chunk_text": text,
            "heading_path": "Lock manual > Gates",
            "page_start": 1,
            "page_end": 1,
            "token_count": 8,
            "file_name": "lock.pdf",
        }
        for index, text in enumerate(texts)
    ]
    return pl.DataFrame(rows, schema=TABLES["chunks"].schema)


class Run:
    """Runs under some settings on one home, and what they logged."""

    def __init__(self, home: Path, session: str = "session", **settings) -> None:
        values = {"home": home, "questions": "openai:fake", **settings}
        self.log: list[str] = []
        self.writing = Writing(
            Settings(**values),
            AnswerStore(path=str(home / "answers.sqlite")),
            session,
            self.log.append,
        )

    def __call__(self, frame: pl.DataFrame | None = None) -> pl.DataFrame:
        return written_questions(chunks() if frame is None else frame, self.writing)


def statuses(rows: pl.DataFrame) -> dict[str, int]:
    return dict(rows.group_by("status").len().sort("status").iter_rows())


def one_chunk(reply) -> object:
    """The server's behaviour for the chunk about gate 3; others get good replies."""

    def behave(request: Request) -> Response:
        return reply(request) if "number 3 " in request.passage else good_reply(request)

    return behave


# Good replies.


def test_each_chunk_gets_its_questions_in_one_call(server, tmp_path):
    rows = Run(tmp_path)()
    assert statuses(rows) == {KEPT: 12}
    assert len(server.requests) == 6
    for chunk_id, text in chunks().select("chunk_id", "chunk_text").iter_rows():
        asked = rows.filter(pl.col("chunk_id") == chunk_id)
        assert all(" ".join(text.split()[5::-1]) in question for question in asked["question"])
    assert set(rows["kind"]) == {"question", "keywords"}
    assert set(rows["generator"]) == {"openai:fake"}


def test_a_calls_tokens_are_shared_among_its_questions(server, tmp_path):
    rows = Run(tmp_path)()
    assert rows["input_tokens"].sum() == 6 * INPUT_TOKENS
    assert rows["output_tokens"].sum() == 6 * OUTPUT_TOKENS


def test_the_second_run_makes_no_call_and_gives_the_same(server, tmp_path):
    first = Run(tmp_path)()
    calls = len(server.requests)
    assert Run(tmp_path, session="another")().equals(first)
    assert len(server.requests) == calls


def test_a_text_costs_once_in_whichever_document_it_stands(server, tmp_path):
    Run(tmp_path)()
    rows = Run(tmp_path)(pl.concat([chunks(document_id="copy-2"), chunks(2, "new-3", first=5)]))
    assert statuses(rows) == {KEPT: 16}
    assert len(server.requests) == 7
    assert set(rows["document_id"]) == {"copy-2", "new-3"}


def test_another_model_is_asked_anew(server, tmp_path):
    Run(tmp_path)()
    Run(tmp_path, questions="openai:other")()
    assert [request.body["model"] for request in server.requests] == ["fake"] * 6 + ["other"] * 6


def test_settings_reach_the_server(server, tmp_path):
    Run(tmp_path, llm_temperature=0.1, llm_max_tokens=99)()
    body = server.requests[0].body
    assert (body["temperature"], body["max_tokens"]) == (0.1, 99)
    assert body["response_format"]["type"] == "json_schema"
    assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"


def test_no_more_calls_are_made_at_once_than_allowed(server, tmp_path):
    server.reply = lambda request: Response(body=good_reply(request).body, delay=0.05)
    Run(tmp_path, llm_concurrency=3)(chunks(12))
    assert server.most_at_once == 3


# A server in trouble.


def test_a_busy_server_is_given_the_time_it_asks_for_by_all_calls(server, tmp_path):
    def busy_once(request: Request) -> Response:
        if len(server.requests) == 1:
            return error(429, "slow down", {"Retry-After": "0.4"})
        return good_reply(request)

    server.reply = busy_once
    rows = Run(tmp_path, llm_concurrency=1)()
    assert statuses(rows) == {KEPT: 12}
    first, second = server.requests[:2]
    assert second.at - first.at >= 0.4


def test_other_calls_wait_too_when_one_is_told_to(server, tmp_path):
    def busy_at_first(request: Request) -> Response:
        if request.times == 1 and "number 0 " in request.passage:
            return error(503, "busy", {"Retry-After": "1"})
        return Response(body=good_reply(request).body, delay=0.4)

    server.reply = busy_at_first
    Run(tmp_path, llm_concurrency=2)()
    told = next(r.at for r in server.requests if "number 0 " in r.passage)
    # The other call in flight may end; then none starts before the time is over.
    later = [r.at for r in server.requests if r.at > told + 0.2]
    assert min(later) - told >= 1


@pytest.mark.parametrize(
    "trouble",
    [
        error(500, "internal error"),
        error(502, "bad gateway"),
        error(408, "timeout"),
        Response(status=503, body="<html>busy</html>"),
        Response(body='{"id": "1", "choices": [{"mess'),
        Response(body='{"id": "1", "choices": [' + "x" * 500, cut=10),
        Response(body="<html>a proxy's page</html>", headers={"Content-Type": "text/html"}),
    ],
)
def test_trouble_that_passes_costs_nothing(server, tmp_path, trouble):
    server.reply = one_chunk(lambda r: trouble if r.times <= 2 else good_reply(r))
    assert statuses(Run(tmp_path)()) == {KEPT: 12}
    assert server.times("Gate number 3 opens at noon.") == 3


def test_a_call_that_takes_too_long_is_given_up_and_tried_again(server, tmp_path):
    server.reply = one_chunk(
        lambda r: Response(body=good_reply(r).body, delay=1.5 if r.times == 1 else 0)
    )
    run = Run(tmp_path, llm_timeout=0.3)
    assert statuses(run()) == {KEPT: 12}
    assert server.times("Gate number 3 opens at noon.") > 1
    assert any("no answer within 0.3 s" in line for line in run.log)


def test_one_chunk_that_always_fails_stops_no_other(server, tmp_path):
    server.reply = one_chunk(lambda r: error(500, "boom"))
    rows = Run(tmp_path)()
    assert statuses(rows) == {FAILED: 1, KEPT: 10}
    assert server.times("Gate number 3 opens at noon.") == ATTEMPTS
    [failed] = rows.filter(status=FAILED).to_dicts()
    assert "boom" in failed["reason"]
    assert failed["chunk_id"] == chunks()["chunk_id"][3]


def test_what_failed_is_asked_again_by_the_next_run_and_nothing_else_is(server, tmp_path):
    server.reply = one_chunk(lambda r: error(500, "boom"))
    Run(tmp_path)()
    calls = len(server.requests)
    server.reply = good_reply
    assert statuses(Run(tmp_path)()) == {KEPT: 12}
    assert len(server.requests) == calls + 1


def test_a_prompt_that_is_refused_fails_without_another_try(server, tmp_path):
    server.reply = one_chunk(lambda r: error(400, "the content policy forbids this"))
    assert statuses(Run(tmp_path)()) == {FAILED: 1, KEPT: 10}
    assert server.times("Gate number 3 opens at noon.") == 1


@pytest.mark.parametrize("status", [400, 403, 404])
def test_prompts_refused_one_after_the_other_cost_only_themselves(server, tmp_path, status):
    def moderated(request: Request) -> Response:
        number = int(request.passage.split()[2])
        return error(status, "flagged") if 2 <= number < 16 else good_reply(request)

    server.reply = moderated
    rows = Run(tmp_path, llm_concurrency=1)(chunks(20))
    assert statuses(rows) == {FAILED: 14, KEPT: 12}


def test_replies_to_calls_in_flight_are_kept_when_the_run_ends(server, tmp_path):
    def revoked(request: Request) -> Response:
        if "number 0 " in request.passage:
            return error(401, "the key was revoked")
        return Response(body=good_reply(request).body, delay=0.5)

    server.reply = revoked
    with pytest.raises(ServerError, match="revoked"):
        Run(tmp_path, llm_concurrency=4)(chunks(8))
    answered = {r.passage for r in server.requests} - {"Gate number 0 opens at noon."}
    assert len(answered) == 3
    server.reply = good_reply
    assert statuses(Run(tmp_path)(chunks(8))) == {KEPT: 16}
    assert {server.times(passage) for passage in answered} == {1}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_refuses_us_ends_the_run_at_once(server, tmp_path, status):
    server.reply = lambda r: error(status, f"no: {r.headers['authorization']}")
    with pytest.raises(ServerError, match="openai:fake") as raised:
        Run(tmp_path, llm_concurrency=1)()
    assert len(server.requests) == 1
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_a_spent_quota_ends_the_run_at_once(server, tmp_path):
    body = '{"error": {"message": "no money", "code": "insufficient_quota"}}'
    server.reply = lambda r: Response(429, body)
    with pytest.raises(ServerError, match="no money"):
        Run(tmp_path, llm_concurrency=1)()
    assert len(server.requests) == 1


def test_a_server_that_answers_nothing_any_more_ends_the_run(server, tmp_path):
    server.reply = lambda r: good_reply(r) if len(server.requests) < 5 else error(500, "down")
    with pytest.raises(ServerError, match=r"none of the last 10 calls .*down"):
        Run(tmp_path, llm_concurrency=1)(chunks(40))
    assert len({r.passage for r in server.requests}) == 4 + FAILED_IN_A_ROW


def test_no_server_at_all_is_said_soon(tmp_path, monkeypatch, free_port):
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(ServerError, match="no call was answered: no connection"):
        Run(tmp_path)(chunks(40))


def test_without_key_and_server_the_call_is_wrong(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        OpenAIServer().check("EMBED_ASSETS_QUESTIONS")


# What servers can't do.


def test_a_refusal_of_one_prompt_changes_nothing_for_the_others(server, tmp_path):
    server.reply = one_chunk(lambda r: error(400, "Rejected. For more information see our policy."))
    Run(tmp_path, llm_concurrency=1)()
    assert all("response_format" in request.body for request in server.requests)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("response_format", "response_format of type json_schema is not supported"),
        ("max_tokens", "Unsupported parameter: use max_completion_tokens instead"),
        ("temperature", "temperature does not support 0.7 with this model"),
    ],
)
def test_what_a_server_doesnt_take_is_left_out(server, tmp_path, field, message):
    server.reply = lambda r: error(400, message) if field in r.body else good_reply(r)
    assert statuses(Run(tmp_path, llm_concurrency=2)(chunks(12))) == {KEPT: 24}
    refused = [r for r in server.requests if field in r.body]
    assert len(refused) <= 2 * 2  # found out by the first calls, twice for the two json formats


# Replies of no use.


@pytest.mark.parametrize(
    "reply",
    [
        completion("HACKED"),
        completion(""),
        completion(None),
        completion('{"questions": []}'),
        Response(body='{"choices": []}'),
        Response(body="{}"),
    ],
)
def test_a_reply_that_cant_be_read_is_asked_for_again_then_recorded(server, tmp_path, reply):
    server.reply = one_chunk(lambda r: reply)
    rows = Run(tmp_path)()
    assert statuses(rows) == {KEPT: 10, UNREADABLE: 1}
    assert server.times("Gate number 3 opens at noon.") == READINGS
    assert statuses(Run(tmp_path)()) == {KEPT: 10, UNREADABLE: 1}
    assert server.times("Gate number 3 opens at noon.") == READINGS


def test_a_reply_that_is_readable_the_second_time_is_taken(server, tmp_path):
    server.reply = one_chunk(lambda r: completion("hm") if r.times == 1 else good_reply(r))
    rows = Run(tmp_path)()
    assert statuses(rows) == {KEPT: 12}
    asked = rows.filter(chunk_id=chunks()["chunk_id"][3])
    assert asked["input_tokens"].sum() == 2 * INPUT_TOKENS


def test_a_reply_that_was_cut_off_names_the_setting(server, tmp_path):
    server.reply = one_chunk(lambda r: completion('{"questions": [{"q', "length"))
    run = Run(tmp_path, llm_max_tokens=100)
    assert statuses(run()) == {KEPT: 10, UNREADABLE: 1}
    assert any("EMBED_ASSETS_LLM_MAX_TOKENS" in line for line in run.log)
    assert {request.body["max_tokens"] for request in server.requests} == {100}


def test_a_reply_in_hand_is_kept_when_the_next_is_refused(server, tmp_path):
    server.reply = one_chunk(lambda r: completion("hm") if r.times == 1 else error(400, "no"))
    for _ in range(2):
        assert statuses(Run(tmp_path)()) == {KEPT: 10, UNREADABLE: 1}
    assert server.times("Gate number 3 opens at noon.") == 2


def test_what_a_model_refuses_to_do_is_not_asked_again(server, tmp_path):
    server.reply = one_chunk(lambda r: completion("", "content_filter"))
    assert statuses(Run(tmp_path)()) == {KEPT: 10, UNREADABLE: 1}
    assert server.times("Gate number 3 opens at noon.") == 1


# Limits.


def test_the_token_budget_stops_cleanly_and_the_next_command_goes_on(server, tmp_path):
    run = Run(tmp_path, llm_token_budget=4 * A_CALL, llm_concurrency=3)
    rows = run(chunks(10))
    assert statuses(rows) == {KEPT: 8, NOT_ASKED: 6}
    assert len(server.requests) == 4
    assert any("6 of 10 calls left" in line for line in run.log)
    again = Run(tmp_path, "next", llm_token_budget=4 * A_CALL, llm_concurrency=3)
    assert statuses(again(chunks(10))) == {KEPT: 16, NOT_ASKED: 2}
    assert len(server.requests) == 8


def test_runs_of_one_command_share_its_budget(server, tmp_path):
    settings = {"llm_token_budget": 4 * A_CALL, "llm_concurrency": 1}
    Run(tmp_path, "one command", **settings)(chunks(3))
    rows = Run(tmp_path, "one command", **settings)(chunks(3, "other-2", first=3))
    assert statuses(rows) == {KEPT: 2, NOT_ASKED: 2}
    assert len(server.requests) == 4


def test_the_cost_budget_counts_money(server, tmp_path):
    # A call costs 100 x 2 + 20 x 10 = 400 millionths.
    prices = {"llm_input_price": 2.0, "llm_output_price": 10.0}
    run = Run(tmp_path, "session", llm_cost_budget=0.0013, llm_concurrency=2, **prices)
    run(chunks(10))
    assert len(server.requests) == 3
    assert any("cost 0.0012" in line for line in run.log)


def test_a_budget_smaller_than_a_first_guess_is_still_used(server, tmp_path):
    Run(tmp_path, llm_token_budget=A_CALL)(chunks(10))
    assert len(server.requests) == 1


def test_a_budget_that_ends_between_two_readings_leaves_the_chunk_for_later(server, tmp_path):
    server.reply = lambda r: completion("hm")
    assert statuses(Run(tmp_path, llm_token_budget=A_CALL)(chunks(1))) == {NOT_ASKED: 1}
    server.reply = good_reply
    assert statuses(Run(tmp_path, "next")(chunks(1))) == {KEPT: 2}


def test_a_budget_that_is_just_enough_is_not_said_to_be_too_small(server, tmp_path):
    run = Run(tmp_path, llm_token_budget=6 * A_CALL, llm_concurrency=1)
    assert statuses(run()) == {KEPT: 12}
    assert not any("left for the next" in line for line in run.log)


def test_calls_that_time_out_are_on_the_bill_with_what_was_sent(server, tmp_path):
    server.reply = lambda r: Response(body=good_reply(r).body, delay=0.4)
    run = Run(tmp_path, llm_timeout=0.1, llm_token_budget=1500, llm_concurrency=1)
    assert statuses(run(chunks(5))).keys() == {FAILED, NOT_ASKED}
    assert len(server.requests) < 5 * ATTEMPTS


def test_the_rate_limit_waits_for_a_busy_server_too(server, tmp_path):
    def busy_at_first(request: Request) -> Response:
        busy = error(429, "slow down", {"Retry-After": "2"})
        return busy if len(server.requests) == 1 else good_reply(request)

    server.reply = busy_at_first
    Run(tmp_path, llm_requests_per_minute=120, llm_concurrency=4)(chunks(4))
    first = server.requests[0].at
    # One call may have left before the server had said so.
    assert sum(request.at - first < 2 for request in server.requests) <= 2


def test_calls_keep_to_the_rate_a_minute(server, tmp_path):
    started = time.monotonic()
    Run(tmp_path, llm_requests_per_minute=600)(chunks(5))
    # Since the start, not between calls: a server that is late for one is nearer to the next.
    times = sorted(request.at for request in server.requests)
    assert all(at - started > 0.099 * before for before, at in enumerate(times))


# Keys.


def test_the_key_is_in_no_log_and_in_no_file(server, tmp_path):
    server.reply = one_chunk(lambda r: error(500, f"bad key {r.headers['authorization']}"))
    run = Run(tmp_path)
    rows = run()
    assert SECRET not in str(rows.to_dicts())
    assert not any(SECRET in line for line in run.log)
    assert any("bad key" in line for line in run.log)
    files = [Path(root) / name for root, _, names in os.walk(tmp_path) for name in names]
    assert files
    assert not any(SECRET.encode() in file.read_bytes() for file in files)


def test_a_key_that_ends_with_a_line_break_is_used_without_it(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}\n")
    assert statuses(Run(tmp_path)()) == {KEPT: 12}
    assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("key", [f"{SECRET} {SECRET}", f"{SECRET}\n{SECRET}", f"{SECRET}ü"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_named(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(SettingsError, match="OPENAI_API_KEY") as raised:
        OpenAIServer().check("EMBED_ASSETS_QUESTIONS")
    assert SECRET not in str(raised.value)


# The judge.


def judging(server: LLMServer, tmp_path: Path, reply, **settings) -> pl.DataFrame:
    run = Run(tmp_path, judge="openai:judge", judge_threshold=3.0, **settings)
    rows = run()

    def judge(request: Request) -> Response:
        return reply(request) if request.body["model"] == "judge" else good_reply(request)

    server.reply = judge
    texts = dict(chunks().select("chunk_id", "chunk_text").iter_rows())
    return judged_questions(rows, texts, run.writing)


def test_the_judge_drops_what_it_scores_below_the_threshold(server, tmp_path):
    rows = judging(server, tmp_path, lambda r: completion('{"scores": [5, 2]}'))
    assert statuses(rows) == {JUDGED_POOR: 6, KEPT: 6}
    assert set(rows.filter(status=JUDGED_POOR)["score"]) == {2.0}
    assert set(rows.filter(status=KEPT)["kind"]) == {"question"}


def test_a_judge_that_cant_be_read_drops_nothing(server, tmp_path):
    rows = judging(server, tmp_path, lambda r: completion("fine questions"))
    assert statuses(rows) == {KEPT: 12}
    assert rows["score"].null_count() == 12
    assert all("can't be read" in reason for reason in rows["reason"])


def test_what_the_judge_was_not_asked_about_does_not_train_yet(server, tmp_path):
    rows = judging(
        server,
        tmp_path,
        lambda r: completion(questions("?")),
        llm_token_budget=6 * A_CALL,
        llm_concurrency=1,
    )
    assert statuses(rows) == {NOT_ASKED: 12}
    assert all("not judged" in reason for reason in rows["reason"])


# Two runs at once.


def test_two_runs_at_once_ask_for_each_chunk_once(server, tmp_path):
    server.reply = lambda request: Response(body=good_reply(request).body, delay=0.05)
    runs = [Run(tmp_path, f"session {i}", llm_concurrency=2) for i in range(2)]
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda run: run(chunks(20)), runs)
    assert statuses(first) == {KEPT: 40}
    assert first.equals(second)
    assert Counter(r.passage for r in server.requests).most_common(1)[0][1] == 1
