"""Sessions of Postgres, and how long is waited for it where it is out of reach."""

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from embed_assets.errors import ProjectError, one_line
from embed_assets.terminal import tell

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Session

EXTRA = "pip install 'embed_assets[ducklake]'"
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
    name = f"embed-assets on {socket.gethostname()} (process {os.getpid()})"
    session = psycopg2.connect(address, application_name=name)
    session.autocommit = True
    return session


def is_out_of_reach(error: BaseException) -> bool:
    """Whether a session could not be had, or was lost."""
    from psycopg2 import InterfaceError, OperationalError

    return isinstance(error, (OperationalError, InterfaceError))


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

    name: of what is used. limit: in seconds. log: is told of the wait, beside the terminal.
    is_lost: whether it may be had later, though it raised this. lost: done before the next try.
    """
    from tenacity import (
        RetryCallState,
        Retrying,
        retry_if_exception,
        stop_after_delay,
        wait_exponential,
    )

    def say(state: RetryCallState) -> None:
        lost()
        if state.attempt_number == 2:  # every restart costs the first
            said = f"{name} can't be reached ({_why(state)}). Trying again."
            tell(said)
            if log:
                log(said)

    def give_up(state: RetryCallState) -> Any:
        raise error(
            f"{name}: it can't be used ({_why(state)}). See that Postgres and the files are there, "
            "and try again: nothing is lost."
        ) from (state.outcome and state.outcome.exception())

    trying = Retrying(
        retry=retry_if_exception(is_lost),
        stop=stop_after_delay(limit),
        wait=wait_exponential(multiplier=0.1, max=LONGEST_PAUSE),
        before_sleep=say,
        retry_error_callback=give_up,
    )
    return trying(use)


def _why(state: Any) -> str:
    return one_line(str(state.outcome.exception()), 200)
