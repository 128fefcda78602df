"""`embed-assets serve`: the server of embeddings and search, until a person ends it."""

import signal
from collections.abc import Callable
from contextlib import closing
from typing import Any

import typer

from embed_assets.machine import share_one_arena
from embed_assets.search.server.access import SERVE_KEY, access, is_loopback
from embed_assets.search.server.limits import Limits
from embed_assets.search.server.listening import Listening, listen
from embed_assets.search.server.served import Follower
from embed_assets.search.server.serving import Serving
from embed_assets.search.votes import VOTES
from embed_assets.settings import Settings
from embed_assets.wording import counted


def serve(
    settings: Settings,
    host: str,
    port: int,
    emit: Callable[[dict[str, Any], str], None],
    follow: Callable[[Settings], Follower],
) -> None:
    """Say where the server is, and stay until interrupted. What is at work then is finished."""
    who = access(settings, host)
    if not who.key and not is_loopback(host):
        typer.echo(
            f"Whoever reaches {host} can read the documents: {SERVE_KEY} has the server ask for a "
            "key.",
            err=True,
        )
    share_one_arena()
    sock = listen(host, port)
    try:
        typer.echo("Loading the model …", err=True)
        with closing(follow(settings)) as follower:
            serving = Serving(follower, who, Limits.of(settings), settings.home / VOTES)
            with Listening(serving, sock) as server:
                try:
                    emit(*_started(server.url, follower, settings, is_locked=bool(who.key)))
                    server.stay()
                except KeyboardInterrupt:
                    typer.echo("Stopping: what is at work is finished.", err=True)
                    _hear_no_more()
    finally:
        sock.close()


def _started(
    url: str, follower: Follower, settings: Settings, *, is_locked: bool
) -> tuple[dict[str, Any], str]:
    """Where the server is and what it serves, as JSON and for a person."""
    served = follower.current()
    return (
        {
            "url": url,
            "model": served.name,
            "identity": served.identity,
            "chunks": served.chunks,
            "key": is_locked,
        },
        f"Page     {url}\nAPI      {url}/v1\n"
        f"Model    {served.name}, {counted(served.chunks, 'chunk')}\n"
        f"State    {settings.home}\nCtrl-C stops it.",
    )


def _hear_no_more() -> None:
    """A second signal must not cut the end short: make passes on what its own group got already."""
    for ended in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(ended, signal.SIG_IGN)
