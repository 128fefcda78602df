"""The address of a DuckLake: a catalogue in Postgres, and a folder or bucket of Parquet files."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from embed_assets.errors import SettingsError

PREFIX = "ducklake:postgres:"
DATA = "?data="
EXAMPLE = f"{PREFIX}host=HOST dbname=NAME user=USER{DATA}s3://BUCKET/FOLDER"
KEEP_DAYS = 7.0
"""How long a DuckLake still knows what stood in it before, where nobody says how long."""
_PASSWORD = re.compile(r"\b(?:ssl)?password\s*=|://[^/@:]*:[^/@]*@", re.IGNORECASE)
_BUCKET = re.compile(r"s3://[^/]+")


@dataclass(frozen=True)
class LakeAddress:
    """Where a DuckLake is.

    catalog: of its Postgres, as libpq takes it (keywords and values, or a postgresql:// address).
    data: an absolute folder that all machines have, or an s3:// URL.
    """

    catalog: str
    data: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.catalog}{DATA}{self.data}"

    @property
    def tables(self) -> str:
        """Where the Parquet files are."""
        return f"{self.data}/tables/"

    @property
    def pdfs(self) -> str:
        """Where the bytes of PDFs are."""
        return f"{self.data}/pdfs"

    @property
    def folder(self) -> Path | None:
        """The folder of all data, where it is in one."""
        return None if _BUCKET.match(self.data) else Path(self.data)


def lake_address(address: str, setting: str) -> LakeAddress:
    """An address from its text: `ducklake:postgres:CATALOG?data=s3://BUCKET/FOLDER` or `=DIR`.

    SettingsError, which names the setting, where it is none or holds a password: addresses are
    shown to many.
    """
    refuse_password(address, setting)
    catalog, found, data = address.removeprefix(PREFIX).rpartition(DATA)
    if not address.startswith(PREFIX) or not found or not catalog.strip() or not data.strip():
        raise SettingsError(f"{address!r} is no address of a DuckLake: {EXAMPLE}.", setting)
    if "://" in data and not _BUCKET.match(data):
        raise SettingsError(f"{data} is neither a folder nor an s3:// URL.", setting)
    if "://" not in data:
        data = os.path.abspath(os.path.expanduser(data))
    return LakeAddress(catalog.strip(), data.rstrip("/"))


def refuse_password(address: str, setting: str) -> None:
    """SettingsError, which names the setting, where an address of Postgres holds a password."""
    if _PASSWORD.search(address):
        raise SettingsError(
            "the password does not belong into the address, which Dagster and logs show. Give it "
            "in PGPASSWORD, or in the file that PGPASSFILE names.",
            setting,
        )
