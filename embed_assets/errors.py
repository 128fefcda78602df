"""Errors that are written for a person: what happened, to what, and what to do."""

from urllib.parse import parse_qs, quote, unquote, urlsplit


class ProjectError(Exception):
    """Its message tells a person what happened and what to do, in one line: no traceback needed.

    status: what the command exits with; 1 says that the work failed, 2 that the call was wrong.
    """

    status = 1

    def __init__(self, reason: str, about: str = "") -> None:
        """`about`: the setting, option or model that the reason is about, which begins the message.

        To name another setting, raise it again: `type(e)(e.reason, about)`.
        """
        super().__init__(f"{about}: {reason}" if about else reason)
        self.reason, self.about = reason, about


class BusyError(ProjectError):
    """Somebody else is at work there: nothing has failed, and later it may be done."""


class SettingsError(ProjectError):
    """A setting is wrong: the message names it and says what to do."""

    status = 2


def one_line(text: str, limit: int = 300) -> str:
    """Text on one line, shortened to a limit in characters."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def hide_password(text: str, address: str) -> str:
    """Text without the password that an address holds, if it holds one."""
    try:
        parts = urlsplit(address)
    except ValueError:  # what in it is a password can't be told
        return text.replace(address, "…")
    secrets = [parts.password or "", *parse_qs(parts.query).get("password", [])]
    for secret in filter(None, {form for s in secrets for form in (s, unquote(s), quote(s, ""))}):
        text = text.replace(secret, "…")
    return text
