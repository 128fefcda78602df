"""Who may ask the server: its own pages, programs, and whoever has the key.

Any page that is open in a browser can send requests to servers on this machine, and a stranger's
name can be made to lead to 127.0.0.1 (DNS rebinding): see `resources/guard.py`.
"""

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from embed_assets.errors import SettingsError
from embed_assets.resources.guard import LOOPBACK, refusal
from embed_assets.search.server.links import PDF, is_signed
from embed_assets.search.server.openai_form import ApiError
from embed_assets.secrets import LEAST_KEY
from embed_assets.settings import PREFIX, Settings

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.types import Scope

SERVE_KEY, SERVE_HOSTS = f"{PREFIX}SERVE_KEY", f"{PREFIX}SERVE_HOSTS"
OPEN = frozenset({"/", "/health"})
"""What is served without the key: a page without data, and that the server is well."""


@dataclass(frozen=True)
class Access:
    """names: Host headers that are answered, without port; None: every one."""

    key: str = field(default="", repr=False)
    names: frozenset[str] | None = frozenset(LOOPBACK)

    def check(self, scope: "Scope") -> None:
        """ApiError where a request is refused."""
        from starlette.datastructures import Headers

        headers = Headers(scope=scope)
        asked = [host.lower() for host in headers.getlist("host")]
        if len(asked) != 1 or not self._is_named(asked[0]):
            said = f"This server has other names. That of a proxy is given with {SERVE_HOSTS}."
            raise ApiError(403, said, code="host_refused")
        # Whatever its name: a page of that very host and port may ask.
        if said := refusal(scope, asked):
            raise ApiError(403, said, code="origin_refused")
        if self.key and scope["path"] not in OPEN and not self._may_pass(scope, headers):
            raise ApiError(
                401,
                f"The key is missing or wrong: send that of {SERVE_KEY} as "
                "`Authorization: Bearer …`.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _is_named(self, host: str) -> bool:
        return self.names is None or host in self.names or _without_port(host) in self.names

    def _may_pass(self, scope: "Scope", headers: "Headers") -> bool:
        if scope["path"] == PDF:
            query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
            return self._has_key(headers) or is_signed(query, self.key)
        return self._has_key(headers)

    def _has_key(self, headers: "Headers") -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # In constant time: how long it takes tells nothing of the key.
        same = hmac.compare_digest(given.strip().encode(), self.key.encode())
        return scheme.lower() == "bearer" and same


def access(settings: Settings, host: str) -> Access:
    """Who may ask a server that listens on a host. SettingsError where the key is no key."""
    key = settings.serve_key.get_secret_value() if settings.serve_key else ""
    if key and (len(key) < LEAST_KEY or not key.isascii() or not key.isprintable() or " " in key):
        raise SettingsError(
            f"a key has {LEAST_KEY} characters or more, of ASCII, without spaces.", SERVE_KEY
        )
    named = [name.strip().lower() for name in settings.serve_hosts.split(",") if name.strip()]
    if not named and not is_loopback(host):
        return Access(key, None)
    own = f"[{host}]" if ":" in host else host.lower()
    return Access(key, frozenset([*LOOPBACK, own, *named]))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on that host."""
    return host in (*LOOPBACK, "::1") or host.startswith("127.")


def _without_port(host: str) -> str:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
    return f"[{name}]" if ":" in name else name
