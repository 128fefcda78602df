"""A server that listens: its socket, and uvicorn in a thread of its own.

Signals come to the main thread, which ends the server in order.
"""

import errno
import os
import socket
import threading
from typing import TYPE_CHECKING

from embed_assets.errors import ProjectError, SettingsError
from embed_assets.search.server.app import build_app
from embed_assets.search.server.serving import Serving

if TYPE_CHECKING:
    import uvicorn

KEPT_ALIVE = 65
"""Seconds that an idle connection stays open: longer than clients and proxies keep theirs."""
LONGEST_END = 30
"""Seconds in which requests at work may be finished when the server is told to end."""
BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A socket that will listen there: until then who connects is refused, not kept waiting.

    port: 0 has the system choose one. SettingsError where nothing can listen there.
    """
    sock = None
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":  # elsewhere it would let two servers have one port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)
    except OSError as error:
        if sock is not None:
            sock.close()
        if error.errno == errno.EADDRINUSE:
            said = f"port {port} of {host} is taken. Give another one."
            raise SettingsError(said, "--port") from error
        said = f"nothing can listen at {host}, port {port}: {error.strerror or error}."
        raise SettingsError(said, "--host") from error
    return sock


def address(sock: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Listening:
    """A server at work. As a context it ends in order: what is at work is finished."""

    def __init__(self, serving: Serving, sock: socket.socket) -> None:
        """Start it. It takes the socket over."""
        self.url = address(sock)
        self._server = _server(serving)
        self._thread = threading.Thread(
            target=self._server.run, args=[[sock]], name="server", daemon=True
        )

    def __enter__(self) -> "Listening":
        """Wait until it answers. ProjectError where it doesn't start."""
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise ProjectError("The server did not start; the lines above say why.")
            self._thread.join(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        """Take no more, finish what is at work, within LONGEST_END seconds."""
        self._server.should_exit = True
        self._thread.join()

    def stay(self) -> None:
        """Stay until a signal raises in this thread. ProjectError where the server ends before."""
        while self._thread.is_alive():
            self._thread.join(1)
        raise ProjectError("The server ended by itself; the lines above say why.")


def _server(serving: Serving) -> "uvicorn.Server":
    import uvicorn

    config = uvicorn.Config(
        build_app(serving),
        access_log=False,
        log_config=None,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=LONGEST_END,
        timeout_keep_alive=KEPT_ALIVE,
        backlog=BACKLOG,
    )
    return uvicorn.Server(config)
