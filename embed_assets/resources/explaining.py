"""Around all work: errors reach the UI as what they say, progress its log, a stop the work."""

import functools
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from embed_assets.errors import ProjectError, one_line
from embed_assets.interruptions import none_lost
from embed_assets.secrets import hide_secrets
from embed_assets.settings import Settings
from embed_assets.storage import disk_of, trouble_with
from embed_assets.terminal import progress_told

LONGEST_MESSAGE = 1000


def said_in_the_ui(work: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of an asset's or an op's function: `explained`, and its progress in the log.

    The function takes the context first. A person who ends the run is heard.
    """

    @functools.wraps(work)
    def worked(context: Any, *args: Any, **inputs: Any) -> Any:
        with explained(context.log), progress_told(context.log.info), none_lost():
            return work(context, *args, **inputs)

    return worked


@contextmanager
def explained(log: dg.DagsterLogManager) -> Iterator[None]:
    """Where an error that is written for a person is shown in the UI as what it says, no stack.

    So is one that came of the home's disk. At level debug the log says where it was raised. Any
    other error is Dagster's to show, unless it holds a secret.
    """
    try:
        yield
    except ProjectError as error:
        raise _failure(log, error, str(error)) from None
    except Exception as error:
        said = trouble_with(disk_of(Settings().home), error)
        if said is None:
            stack = "".join(traceback.format_exception(error))
            if hide_secrets(stack) == stack:
                raise
            said = f"{type(error).__name__}: {error}"
        raise _failure(log, error, said) from None


def _failure(log: dg.DagsterLogManager, error: Exception, said: str) -> dg.Failure:
    log.debug("".join(traceback.format_exception(error)))  # all lines of the log hide secrets
    return dg.Failure(one_line(hide_secrets(said), LONGEST_MESSAGE), allow_retries=False)
