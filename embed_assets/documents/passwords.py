"""Passwords of encrypted PDFs: secrets that stand in one file, and in nothing that a run leaves.

They go to worker processes through their pipe. The ledger keeps a slow hash of all of them: it
tells whether there are others now.
"""

import hashlib
from functools import cache
from pathlib import Path

from embed_assets.errors import SettingsError


def read_passwords(file: Path | None) -> tuple[str, ...]:
    """Passwords of a file, one a line. SettingsError where it can't be read, without its text."""
    if file is None:
        return ()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it isn't UTF-8"
        raise SettingsError(f"{file}: {why}.", "EMBED_ASSETS_PDF_PASSWORDS") from None
    return tuple(dict.fromkeys(line for line in lines if line))


@cache
def passwords_version(passwords: tuple[str, ...]) -> str:
    """A version of these passwords that gives none of them away; empty without any."""
    if not passwords:
        return ""
    together = "\n".join(sorted(passwords)).encode()
    return hashlib.scrypt(together, salt=b"embed_assets", n=2**14, r=8, p=1, dklen=8).hex()
