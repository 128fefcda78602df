"""A language model behind an OpenAI-compatible API: OpenAI, vLLM, Ollama, TGI, llama.cpp, …

How it is called, and called again, is in `resources.openai_server`; here are what it is asked, what
may be spent, and what a reply is.

What a server can't do (structured output, a name of a parameter) shows in its first refusals; it
is asked in a plainer way from then on. A server that refuses the key or doesn't know the model
ends the run at once, as does one that answers no call any more. A call that fails for another
reason costs its own chunk only.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embed_assets.errors import one_line
from embed_assets.questions.written.prompts import Message, Prompt
from embed_assets.resources.answers import Reply, reply_now
from embed_assets.resources.openai_server import (
    Connection,
    OpenAIServer,
    RefusedError,
    ServerError,
    TransientError,
)
from embed_assets.settings import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

READINGS = 3
"""Replies asked for while they can't be read."""
FAILED_IN_A_ROW = 10
"""Prompts that fail one after the other, with no success in between, before a run gives up."""
CHARACTERS_PER_TOKEN = 3  # where the server doesn't count


Keep = Callable[[Prompt, Reply | Exception], None]
"""Takes a prompt's reply, or why it has none."""
Spend = Callable[[int, int], None]
"""Puts input and output tokens of a call on the bill."""
Spent = Callable[[], tuple[int, int]]
"""Gives input and output tokens on the bill so far."""


def cost(settings: Settings, input_tokens: int, output_tokens: int) -> float:
    """What so many tokens cost, in the currency of the prices, which are per million tokens."""
    read, written = settings.llm_input_price, settings.llm_output_price
    return (input_tokens * read + output_tokens * written) / 1e6


class Budget:
    """Keeps spending under the limits, with what calls in flight are expected to take.

    A call is expected to take what the largest so far took, so that a limit is passed by little if
    at all.
    """

    def __init__(self, settings: Settings, spent: Spent) -> None:
        """spent: tokens on the session's bill at this moment, other runs' calls included."""
        self._settings, self._spent = settings, spent
        self._largest: tuple[int, int] | None = None
        self._in_flight = 0
        self._closed = False
        self._changed = asyncio.Condition()
        self.exhausted = False

    async def admit(self) -> bool:
        """Wait until one more call fits, and count it as in flight. False: it never will."""
        async with self._changed:
            while not self._closed:
                if self._fits(self._in_flight + 1):
                    self._in_flight += 1
                    return True
                if self._in_flight == 0:
                    self.exhausted = self._closed = True
                    self._changed.notify_all()
                else:
                    await self._changed.wait()
            return False

    async def settle(self, input_tokens: int, output_tokens: int) -> None:
        """A call has ended, and took so much (nothing, if it failed)."""
        async with self._changed:
            self._in_flight -= 1
            if input_tokens or output_tokens:
                read, written = self._largest or (0, 0)
                self._largest = max(read, input_tokens), max(written, output_tokens)
            self._changed.notify_all()

    async def close(self) -> None:
        """Admit no more."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, calls: int) -> bool:
        tokens, money = self._settings.llm_token_budget, self._settings.llm_cost_budget
        if not (tokens or money):
            return True
        read, written = self._spent()
        if self._largest is None:
            # What a call takes shows in the first, which goes alone.
            if calls > 1:
                return False
            written += 1
        else:
            read += calls * self._largest[0]
            written += calls * self._largest[1]
        too_many = tokens and read + written > tokens
        return not (too_many or (money and cost(self._settings, read, written) > money))


@dataclass(frozen=True)
class OpenAIWriter:
    """Asks a model for replies, many at a time. log: told why calls wait.

    setting: the variable that named the model, for errors.
    """

    setting: str
    model: str
    settings: Settings
    temperature: float
    log: Callable[[str], None]

    @property
    def name(self) -> str:
        """The model and what asks for it, for errors."""
        return f"{self.setting}: openai:{self.model}"

    def write(self, prompts: Iterator[Prompt], keep: Keep, spend: Spend, spent: Spent) -> bool:
        """Give each prompt's reply, or why there is none, to `keep` as soon as it is there.

        A prompt is drawn when there is room for its call, so that what isn't drawn wasn't paid.
        spend: told of each call's tokens. spent: the session's so far. Returns whether the budget
        held for all. Raises ServerError when the server can't be used, once the calls in flight
        have ended and their replies are kept.
        """
        return asyncio.run(self._write(prompts, keep, spend, spent))

    async def _write(
        self, prompts: Iterator[Prompt], keep: Keep, spend: Spend, spent: Spent
    ) -> bool:
        budget = Budget(self.settings, spent)
        async with Connection(
            OpenAIServer(),
            self.name,
            timeout=self.settings.llm_timeout,
            requests_per_minute=self.settings.llm_requests_per_minute,
            log=self.log,
        ) as connection:
            calls = _Calls(self, connection, budget, spend)

            async def work() -> None:
                while await budget.admit():
                    prompt = next(prompts, None)
                    if prompt is None:
                        await budget.settle(0, 0)
                        return
                    answer = await calls.answer(prompt)
                    if answer is not None:
                        keep(prompt, answer)

            tasks = [asyncio.create_task(work()) for _ in range(self.settings.llm_concurrency)]
            try:
                await asyncio.gather(*tasks)
            except ServerError:
                # Replies to the calls in flight are on their way, and on the bill.
                connection.give_up()
                await budget.close()
                await asyncio.gather(*tasks, return_exceptions=True)
                raise
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return not budget.exhausted


_FORMAT = re.compile(r"response_format|json|\bschema\b|\bgrammar\b|structured output")


class Dialect:
    """What this server understands, found out from what it refuses."""

    def __init__(self, temperature: float) -> None:
        self._temperature: float | None = temperature
        self._limit_name = "max_tokens"
        self._formats = ["json_schema", "json_object", "text"]

    def arguments(self, schema: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
        """Arguments of a call besides model and messages."""
        arguments: dict[str, Any] = {self._limit_name: max_tokens}
        if self._temperature is not None:
            arguments["temperature"] = self._temperature
        if self._formats[0] == "json_schema":
            named = {"name": "reply", "schema": schema, "strict": True}
            arguments["response_format"] = {"type": "json_schema", "json_schema": named}
        elif self._formats[0] == "json_object":
            arguments["response_format"] = {"type": "json_object"}
        return arguments

    def learn(self, refusal: str) -> bool:
        """Speak more plainly after a refusal. False if it was as plain as can be."""
        text = refusal.lower()
        renamed = "max_completion_tokens" in text and ("unsupported" in text or "instead" in text)
        if renamed and self._limit_name == "max_tokens":
            self._limit_name = "max_completion_tokens"
        elif "temperature" in text and self._temperature is not None:
            self._temperature = None
        elif len(self._formats) > 1 and _FORMAT.search(text):
            self._formats.pop(0)
        else:
            return False
        return True


class _Calls:
    """The calls of one run, and what they found out about the server."""

    def __init__(
        self, writer: OpenAIWriter, connection: Connection, budget: Budget, spend: Spend
    ) -> None:
        self._writer, self._connection = writer, connection
        self._budget, self._spend = budget, spend
        self._dialect = Dialect(writer.temperature)
        self._max_tokens = writer.settings.llm_max_tokens
        self._answered = False
        self._failed_in_a_row = 0

    async def answer(self, prompt: Prompt) -> Reply | Exception | None:
        """The reply to a prompt that was admitted, or why it has none. None: the budget has ended.

        A reply that can't be read is asked for again.
        """
        messages = prompt.messages()
        read = written = 0
        text = ""
        for reading in range(READINGS):
            if reading and not await self._budget.admit():
                return None
            used = (0, 0)
            try:
                completion = await self._completion(messages, prompt.schema)
                used = _usage(completion, messages)
                self._spend(*used)
            except (TransientError, RefusedError) as error:
                if reading and isinstance(error, RefusedError):
                    break  # the reply in hand was paid for
                self._count_failure(error)
                return error
            finally:
                await self._budget.settle(*used)
            self._answered, self._failed_in_a_row = True, 0
            read, written = read + used[0], written + used[1]
            text, ended = _text(completion)
            if prompt.entries(text) or ended in ("refusal", "content_filter"):
                break
            if ended == "length":
                self._connection.tell(
                    f"A reply was cut off at {self._max_tokens} tokens: raise "
                    "EMBED_ASSETS_LLM_MAX_TOKENS if there are many."
                )
        # One that can't be read is kept too: it was paid for, and the next would hardly be better.
        return reply_now(text, read, written)

    def _count_failure(self, error: Exception) -> None:
        """ServerError if no prompt gets an answer any more."""
        transient = isinstance(error, TransientError)
        if transient or not self._answered:
            # What is refused by itself says nothing of the server, once it has answered others.
            self._failed_in_a_row += 1
        gone = isinstance(error, TransientError) and error.unreachable and not self._answered
        if gone or self._failed_in_a_row >= FAILED_IN_A_ROW:
            count = "no call" if gone else f"none of the last {self._failed_in_a_row} calls"
            raise ServerError(
                f"{self._writer.name}: {count} was answered: {error}. Answers so far are kept; "
                "run it again when the server can be reached."
            )

    async def _completion(
        self, messages: list[Message], schema: Mapping[str, Any]
    ) -> "ChatCompletion":
        """The server's reply, asked for in words that it understands."""
        # As extra_body: the client would walk through every node of the schema, each time.
        request: dict[str, Any] = {"model": self._writer.model, "messages": messages}
        arguments: dict[str, Any] = {}

        async def send(client: "AsyncOpenAI") -> "ChatCompletion":
            nonlocal arguments
            arguments = self._dialect.arguments(schema, self._max_tokens)
            try:
                completion = await client.chat.completions.create(**request, extra_body=arguments)
            except asyncio.CancelledError:
                # Too late, or stopped: the server may have read it, and put it on the bill.
                self._spend(_estimate(messages), 0)
                raise
            return _checked(completion)

        while True:
            try:
                return await self._connection.call(send)
            except RefusedError as refusal:
                # Other calls may have learnt in the meantime: what they found out is tried first.
                newest = self._dialect.arguments(schema, self._max_tokens)
                if arguments == newest and not self._dialect.learn(str(refusal)):
                    raise


def _checked(completion: "ChatCompletion") -> "ChatCompletion":
    """What the client made of the reply. ValueError where that isn't the API's (a web page)."""
    from openai.types.chat import ChatCompletion

    if not isinstance(completion, ChatCompletion):
        raise ValueError(one_line(str(completion), 80) or "an empty body")
    return completion


def _text(completion: "ChatCompletion") -> tuple[str, str]:
    """What the model wrote, and why it ended: stop, length, content_filter, refusal, …"""
    if not completion.choices:
        return "", ""
    choice = completion.choices[0]
    if choice.message.refusal:
        return choice.message.refusal, "refusal"
    return choice.message.content or "", choice.finish_reason or ""


def _usage(completion: "ChatCompletion", messages: list[Message]) -> tuple[int, int]:
    """Input and output tokens; by the length of the texts where the server doesn't count."""
    if completion.usage is not None and completion.usage.prompt_tokens:
        return completion.usage.prompt_tokens, completion.usage.completion_tokens or 0
    return _estimate(messages), len(_text(completion)[0]) // CHARACTERS_PER_TOKEN


def _estimate(messages: list[Message]) -> int:
    """Input tokens, by the length of the texts."""
    return sum(len(message["content"]) for message in messages) // CHARACTERS_PER_TOKEN
