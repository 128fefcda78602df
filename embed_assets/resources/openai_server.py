"""A server that speaks the OpenAI API: where it is, and how it is called with patience.

Calls go through the official client, with its own retries off: ours let all calls wait when the
server says Retry-After, count to the rate limit, and are told to the person who waits. Rates are
kept by aiolimiter, waits and attempts by tenacity. What is asked, and what a refusal of it means,
is known to the caller.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from embed_assets.errors import ProjectError, SettingsError, one_line
from embed_assets.secrets import HIDDEN, hide_secrets

if TYPE_CHECKING:
    from openai import AsyncOpenAI

ATTEMPTS = 6
"""Calls for one request while the server is busy or broken; the waits add up to a minute."""
LONGEST_BACKOFF, LONGEST_RETRY_AFTER = 30.0, 3600.0  # seconds
OPENAI = "https://api.openai.com/v1"
_HOPELESS = ("insufficient_quota", "model_not_found", "invalid_api_key")

Reply = TypeVar("Reply")


class OpenAIServer(BaseSettings):
    """Where the API is, from the variables that the official client knows, and from `.env`."""

    # Secrets are often files, which end with a line break.
    model_config = SettingsConfigDict(
        env_prefix="OPENAI_", env_file=".env", extra="ignore", str_strip_whitespace=True
    )

    base_url: str = ""
    api_key: SecretStr = SecretStr("")

    @property
    def address(self) -> str:
        """Where the server is, without a password: another may have another model of the name."""
        parts = urlsplit(self.base_url.rstrip("/"))
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() or OPENAI

    def check(self, wanted_by: str) -> None:
        """SettingsError where there is no usable key, nor a server that may do without.

        wanted_by: the setting or option that names a model of the server.
        """
        key = self.api_key.get_secret_value()
        if not (key.isascii() and key.isprintable()) or " " in key:
            # The client would quote it, escaped, in an error of its own.
            raise SettingsError("OPENAI_API_KEY holds spaces or signs that no key can have.")
        if not key and not self.base_url:
            raise SettingsError(
                "a model of OpenAI's needs OPENAI_API_KEY; one on another server needs "
                "OPENAI_BASE_URL, for instance http://127.0.0.1:11434/v1.",
                wanted_by,
            )

    def redact(self, text: str) -> str:
        """Text without the key, on one line: servers like to quote it in their errors."""
        secret = self.api_key.get_secret_value()
        return one_line(hide_secrets(text.replace(secret, HIDDEN) if secret else text))


class ServerError(ProjectError):
    """The server can't be used at all; the message says why. It never holds the key."""


class TransientError(Exception):
    """Worth another try. retry_after: seconds that the server asked for."""

    def __init__(
        self, reason: str, retry_after: float | None = None, *, unreachable: bool = False
    ) -> None:
        """`unreachable`: nothing answers there."""
        super().__init__(reason)
        self.retry_after = retry_after
        self.unreachable = unreachable


class RefusedError(Exception):
    """The request is refused, and would be again."""


class Connection:
    """The calls of one run: they share a rate and, where the server asks for it, a wait."""

    def __init__(
        self,
        server: OpenAIServer,
        wanted_by: str,
        *,
        timeout: float,
        requests_per_minute: int,
        log: Callable[[str], None],
    ) -> None:
        """`wanted_by`: setting and model, for errors. timeout: seconds that one call may take.

        requests_per_minute: 0 for no limit. log: told why calls wait.
        """
        from aiolimiter import AsyncLimiter
        from openai import AsyncOpenAI

        self._server, self._wanted_by = server, wanted_by
        self._timeout, self._log = timeout, log
        self._client = AsyncOpenAI(
            api_key=server.api_key.get_secret_value() or "none",
            base_url=server.base_url or None,
            max_retries=0,
            timeout=timeout,
        )
        # One at a time at even intervals: a bucket of a minute's calls would let twice as many
        # through in the first minute.
        rate = requests_per_minute
        self._limiter = AsyncLimiter(1, 60 / rate) if rate else None
        self._resume_at = 0.0
        self._last_trouble = ""
        self._answered = self._over = False

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    def give_up(self) -> None:
        """Try no call again: the run ends."""
        self._over = True

    def tell(self, trouble: str) -> None:
        """Log what goes wrong, once in a row."""
        if trouble != self._last_trouble:
            self._last_trouble = trouble
            self._log(trouble)

    async def call(self, send: Callable[["AsyncOpenAI"], Awaitable[Reply]]) -> Reply:
        """What `send` gets from the client, tried again while that may help.

        send: makes one request; a ValueError of it says that the reply isn't the API's. Raises
        TransientError when the last attempt has failed, RefusedError when the server refuses this
        request, and ServerError when it would refuse any other.
        """
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TransientError),
            stop=lambda state: self._over or stop_after_attempt(ATTEMPTS)(state),
            wait=_wait,
            reraise=True,
        )
        return await retrying(self._once, send)

    async def _once(self, send: Callable[["AsyncOpenAI"], Awaitable[Reply]]) -> Reply:
        import openai

        await self._turn()
        try:
            async with asyncio.timeout(self._timeout):
                reply = await send(self._client)
                self._answered = True
                return reply
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            trouble = self._explain(error)
        if isinstance(trouble, TransientError):
            self.tell(f"{trouble}. Trying again.")
        # Raised here, without the client's error as its cause: that may quote the key.
        raise trouble

    async def _turn(self) -> None:
        """Wait for the rate limit, and for as long as the server asked all calls to wait."""
        while True:
            if self._limiter is not None:
                await self._limiter.acquire()
            left = self._resume_at - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left + random.uniform(0, min(1.0, 0.1 * left)))

    def _explain(self, error: Exception) -> Exception:
        """What an error of the client means: worth another try, refused, or the end of the run."""
        import openai

        redact = self._server.redact
        reason = redact(str(error) or type(error).__name__)
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return TransientError(f"no answer within {self._timeout:g} s")
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__
            return TransientError(
                f"no connection: {redact(str(cause)) if cause else reason}", unreachable=True
            )
        if not isinstance(error, openai.APIStatusError):
            return TransientError(f"not the API's reply: {reason}")
        # Gateways say 403 of a single prompt too, for instance one that is moderated.
        no_access = error.status_code in (403, 404) and not self._answered
        if error.status_code == 401 or no_access or error.code in _HOPELESS:
            return ServerError(f"the server refuses: {reason}", self._wanted_by)
        if error.status_code in (408, 409, 429) or error.status_code >= 500:
            wait = _retry_after(error.response.headers)
            if wait is not None:
                # It is the server that is busy, whichever call it told: none starts before.
                self._resume_at = max(self._resume_at, time.monotonic() + wait)
            return TransientError(reason, wait)
        return RefusedError(reason)


def _wait(state: Any) -> float:
    """Seconds before the next attempt: as told, and a little more so that not all come at once."""
    error = state.outcome.exception()
    told = getattr(error, "retry_after", None)
    if told is not None:
        return told + random.uniform(0, min(1.0, 0.1 * told))
    return random.uniform(0.5, 1) * min(LONGEST_BACKOFF, 2.0 ** (state.attempt_number - 1))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the headers Retry-After-Ms and Retry-After (seconds or a date)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, TypeError):
                continue
        return min(max(0.0, seconds), LONGEST_RETRY_AFTER)
    return None
