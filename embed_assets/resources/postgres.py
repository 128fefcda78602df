"""Sessions of Postgres, and how long is waited for it where it is out of reach."""

import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from embed_assets.errors import ProjectError, one_line
from embed_assets.resources.waiting import SAID_AGAIN
from embed_assets.terminal import tell

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Session

EXTRA = "pip install 'embed_assets[ducklake]'"
SECONDS_TO_ANSWER = 10
KEEPALIVE = {"idle": 30, "interval": 10, "count": 3}
"""Seconds of silence until the other side is asked whether it is there, between two questions, and
how many of them go unanswered before the session is over."""
LONGEST_PAUSE = 5.0
"""Seconds between two tries to reach what can't be reached."""

Result = TypeVar("Result")


def connect(address: str) -> "Session":
    """A session, each statement of which is a transaction of its own.

    address: as libpq takes it; a password is in PGPASSWORD or PGPASSFILE. ProjectError without the
    package that is needed.
    """
    try:
        import psycopg2
    except ImportError as error:
        raise ProjectError(f"Postgres needs more packages: {EXTRA}.") from error
    session = psycopg2.connect(
        address,
        application_name=own_name(),
        connect_timeout=SECONDS_TO_ANSWER,
        keepalives_idle=KEEPALIVE["idle"],
        keepalives_interval=KEEPALIVE["interval"],
        keepalives_count=KEEPALIVE["count"],
    )
    session.autocommit = True
    if not session.info.host.startswith("/"):
        with session.cursor() as cursor:  # the server's side: a host that is gone holds no lock
            for what, value in KEEPALIVE.items():
                cursor.execute(f"SET tcp_keepalives_{what} = {value}")
    return session


def own_name() -> str:
    """What this process is called in Postgres."""
    return f"embed-assets on {socket.gethostname()} (process {os.getpid()})"


def is_out_of_reach(error: BaseException) -> bool:
    """Whether a session could not be had, or was lost."""
    from psycopg2 import InterfaceError, OperationalError
    from psycopg2.errors import DeadlockDetected, SerializationFailure

    conflicts = DeadlockDetected, SerializationFailure  # what gave way may go on now
    return isinstance(error, (OperationalError, InterfaceError, *conflicts))


def persistently(
    use: Callable[[], Result],
    name: str,
    limit: float,
    *,
    log: Callable[[str], object] | None = None,
    is_lost: Callable[[BaseException], bool] = is_out_of_reach,
    lost: Callable[[], None] = lambda: None,
    error: type[ProjectError] = ProjectError,
) -> Result:
    """What `use` gives, once it can be had. `error` in one line where it can't within the limit.

    name: of what is used. limit: in seconds, from the first loss on. log: is told of the wait,
    beside the terminal; again where the reason changes, and now and then.
    is_lost: whether it may be had later, though it raised this. lost: done before the next try.
    """
    from psycopg2 import Error
    from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

    began, told_at, told = 0.0, 0.0, ""

    def is_over(state: RetryCallState) -> bool:
        nonlocal began
        began = began or time.monotonic()
        return time.monotonic() - began >= limit

    def say(state: RetryCallState) -> None:
        nonlocal told_at, told
        lost()
        said = f"{name} can't be reached ({_why(state)}). Trying again."
        is_news = said != told or time.monotonic() - told_at > SAID_AGAIN
        if is_news and state.attempt_number > 1:  # every restart costs the first
            told_at, told = time.monotonic(), said
            tell(said)
            if log:
                log(said)

    def give_up(state: RetryCallState) -> Any:
        raise error(
            f"{name}: it can't be used ({_why(state)}). See that Postgres, the database and the "
            "files are there and may be used, and try again: nothing is lost."
        ) from (state.outcome and state.outcome.exception())

    trying = Retrying(
        retry=retry_if_exception(is_lost),
        stop=is_over,
        wait=wait_exponential(multiplier=0.1, max=LONGEST_PAUSE),
        before_sleep=say,
        retry_error_callback=give_up,
    )
    try:
        return trying(use)
    except Error as refused:
        raise error(f"{name}: {one_line(str(refused))}") from refused


def _why(state: Any) -> str:
    return one_line(str(state.outcome.exception()), 200)
