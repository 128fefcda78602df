"""`dagster dev` and `dagster-webserver` with a guard in front of the webserver.

Dagster lets nobody add middleware to its server: in each of its two commands one function is
replaced. Another release of Dagster might not call these functions, so `embed-assets ui` makes sure
that the server refuses before it says that it is up.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embed_assets.resources.guard import UI_HOSTS, Guard, own_hosts
from embed_assets.secrets import hide_in_logs

if TYPE_CHECKING:
    from starlette.applications import Starlette

MODULE = "embed_assets.command.guarded"
"""This one, as `python -m` takes it."""
WEBSERVER = "dagster_webserver"
"""Argument of `python -m`: what `dagster dev` starts, and the first argument of this module's."""


def dev() -> None:
    """Run `dagster dev`, whose webserver is started from here."""
    import dagster_shared.ipc
    from dagster._cli import dev as command
    from dagster._cli import main

    hide_in_logs()
    start = dagster_shared.ipc.open_ipc_subprocess

    def start_guarded(parts: Sequence[str], **options: Any) -> Any:
        return start(_guarded(parts), **options)

    command.open_ipc_subprocess = start_guarded  # pyright: ignore[reportPrivateImportUsage]
    main()


def _guarded(parts: Sequence[str]) -> list[str]:
    """The command line of a process of Dagster's; of the webserver, that of the guarded one."""
    if parts[1:3] != ["-m", WEBSERVER]:
        return [*parts]
    return [parts[0], "-m", MODULE, WEBSERVER, *parts[3:]]


def webserver() -> None:
    """Run `dagster-webserver` with the guard around its application."""
    from dagster_webserver import app, cli

    hide_in_logs()
    create = app.create_app_from_workspace_process_context
    port = _port(sys.argv[1:])

    def create_guarded(*given: Any, **options: Any) -> "Starlette":
        made = create(*given, **options)
        made.add_middleware(Guard, hosts=own_hosts(port, os.environ.get(UI_HOSTS, "")))
        return made

    setattr(cli, create.__name__, create_guarded)
    cli.main()


def _port(arguments: Sequence[str]) -> int:
    """The port among the arguments of `dagster-webserver`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-p", "--port", type=int, default=3000)
    return parser.parse_known_args(arguments)[0].port


if __name__ == "__main__":
    if sys.argv[1:2] == [WEBSERVER]:
        del sys.argv[1]
        webserver()
    else:
        dev()
