"""Keys, tokens and passwords: which there are, and texts without them.

Whatever is shown, logged or kept of an error or of a library's words goes through `hide_secrets`.
Secrets come by the environment or by `.env`; a variable's name tells that its value is one, and an
address in any variable may hold a password.
"""

import base64
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

HIDDEN = "…"
LEAST_KEY, LEAST_PASSWORD = 8, 4
"""Characters of what is looked for: a key such as `none` or `ollama` is no secret."""
DOTENV = Path(".env")
SIGNING_KEY = "EMBED_ASSETS_SIGNING_KEY"
"""A variable that names the file of a key."""
USERNAME, PASSWORD = "USERNAME", "PASSWORD"
"""How the names of two variables end that belong together."""
_KEYS = re.compile(r"(KEY|KEYS|TOKEN|SECRET|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
_PASSWORDS = re.compile(r"(PASSWORDS?|PASSWD|PGPASS)$", re.IGNORECASE)
_PAIRS = re.compile(r"(HEADERS|CONNECTION_STRING)$", re.IGNORECASE)
"""Names of variables whose values are secrets, or hold some as `name=value`."""
_PARAMETERS = frozenset({"password", "sslpassword", "token", "api_key", "access_token"})
"""Parts of an address's query string that are secrets."""
_IN_ADDRESS = re.compile(r"(?<=://)([^\s/:@\"'<>]*):[^\s/\"'<>]*@")
"""Name and password in an address."""
_ALONE_IN_ADDRESS = re.compile(r"(?<=://)[^\s/:@\"'<>]{16,}@")
"""A token in place of a name, in an address without a password."""
_BETWEEN = re.compile(r"[,;\n]")


def hide_secrets(text: str) -> str:
    """The text without secrets of the environment, and without passwords in addresses."""
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    if "://" not in text:
        return text
    return _ALONE_IN_ADDRESS.sub(f"{HIDDEN}@", _IN_ADDRESS.sub(rf"\1:{HIDDEN}@", text))


def _secrets() -> tuple[str, ...]:
    """Every secret in each form in which it may be written, the longest first."""
    return _all_forms(tuple(os.environ.items()), _dotenv(*_state_of(DOTENV)))


@lru_cache(maxsize=1)
def _all_forms(*variables: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    known = {name: value for part in reversed(variables) for name, value in part}
    forms = {form for name in known for form in _forms(name, known)}
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))


@lru_cache(maxsize=1)
def _dotenv(path: Path, _mtime_ns: int) -> tuple[tuple[str, str], ...]:
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path, encoding="utf-8")
    except (OSError, ValueError):  # the settings say what is wrong with it
        return ()
    return tuple((name, value) for name, value in values.items() if value)


def _state_of(path: Path) -> tuple[Path, int]:
    try:
        return path.absolute(), path.stat().st_mtime_ns
    except OSError:
        return path, 0


def _forms(name: str, known: Mapping[str, str]) -> Iterator[str]:
    """Secrets in a variable: as they are, and as addresses, JSON and HTTP headers have them."""
    value = known[name]
    if _PAIRS.search(name):
        for pair in _BETWEEN.split(value):
            secret = pair.partition("=")[2].strip()
            yield from _written(secret, LEAST_KEY)
            yield from _written(secret.rpartition(" ")[2], LEAST_KEY)  # `Bearer …`
    elif _KEYS.search(name) and name != SIGNING_KEY and not _is_path(value):
        yield from _written(value.strip(), LEAST_KEY)
    elif _PASSWORDS.search(name) and not _is_path(value):
        for password in (value, *_BETWEEN.split(value)):
            yield from _written(password.strip(), LEAST_PASSWORD)
        yield _basic(known.get(name.removesuffix(PASSWORD) + USERNAME, ""), value)
    if "://" in value:
        yield from _in_address(value)


def _in_address(address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address)
    except ValueError:
        return
    if parts.password:
        user, password = unquote(parts.username or ""), unquote(parts.password)
        yield from _written(password, LEAST_PASSWORD)
        yield _basic(user, password)
    for name, secret in parse_qsl(parts.query):
        if name.lower() in _PARAMETERS:
            yield from _written(secret, LEAST_PASSWORD)


def _written(secret: str, least: int) -> set[str]:
    if len(secret) < least:
        return set()
    return {secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1]}


def _basic(user: str, password: str) -> str:
    """What HTTP's basic authentication makes of them. Servers like to quote it."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def _is_path(value: str) -> bool:
    """Whether a value names a file that holds a secret, and is none."""
    try:
        return Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def hide_in_logs() -> None:
    """Have every log line of this process written without secrets, whichever library writes it."""
    make = logging.getLogRecordFactory()
    if getattr(make, "hides_secrets", False):
        return

    def make_hidden(*given: Any, **options: Any) -> logging.LogRecord:
        record = make(*given, **options)
        try:
            said = record.getMessage()
        except Exception:  # its handlers say what is wrong with it
            return record
        if (hidden := hide_secrets(said)) != said:
            record.msg, record.args = hidden, None
        if record.exc_info and record.exc_info[0] is not None:
            text = logging.Formatter().formatException(record.exc_info)
            if (hidden := hide_secrets(text)) != text:
                record.exc_info, record.exc_text = None, hidden
        return record

    make_hidden.hides_secrets = True  # pyright: ignore[reportFunctionMemberAccess]
    logging.setLogRecordFactory(make_hidden)
