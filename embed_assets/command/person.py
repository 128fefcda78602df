"""Who calls a command, for the record of what a person decides."""

import getpass
import socket


def this_person() -> str:
    """user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
