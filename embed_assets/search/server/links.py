"""Links to PDFs. Where there is a key they are signed: a browser sends no key with a link."""

import hashlib
import hmac
import time
from collections.abc import Mapping
from urllib.parse import urlencode

PDF = "/pdf"
LASTS = 3600
"""Seconds that a signed link opens its PDF."""


def pdf_link(path: str, page: int | None, key: str, now: float | None = None) -> str:
    """The address of a PDF at a page, on this server."""
    query: dict[str, str | int] = {"path": path}
    if key:
        until = int((time.time() if now is None else now) + LASTS)
        query |= {"until": until, "signature": _signature(path, str(until), key)}
    return f"{PDF}?{urlencode(query)}{f'#page={page}' if page else ''}"


def is_signed(query: Mapping[str, str], key: str, now: float | None = None) -> bool:
    """Whether a link's query was signed with the key, and still holds."""
    until = query.get("until", "")
    signature = _signature(query.get("path", ""), until, key)
    same = hmac.compare_digest(signature.encode(), query.get("signature", "").encode())
    return same and until.isdecimal() and int(until) >= (time.time() if now is None else now)


def _signature(path: str, until: str, key: str) -> str:
    return hmac.new(key.encode(), f"{until} {path}".encode(), hashlib.sha256).hexdigest()
