"""The bytes of PDFs where no table holds them: beside a DuckLake's tables, under their sha256.

Parquet files of PDFs would be written anew with every document that changes, and each machine that
reads a table would read them too. Equal files are kept once. fsspec reaches folders and buckets.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from embed_assets.errors import one_line
from embed_assets.resources.duckdb_connection import WarehouseError

YOUNG = timedelta(days=1)
"""Age until which bytes may be of a document whose row is yet to be written."""


@dataclass(frozen=True)
class Kept:
    """Bytes that are kept: how many, and since when."""

    size_bytes: int
    since: datetime


@dataclass
class Contents:
    """Contents in a folder, or at an s3:// URL."""

    folder: str

    def keep(self, contents: Mapping[str, bytes]) -> None:
        """Keep contents by their sha256: each is there whole, or not at all."""
        with self._explained():
            self._fs.invalidate_cache()
            for sha256, content in contents.items():
                path = self._path(sha256)
                if self._fs.exists(path):
                    known = self._fs.info(path)
                    young = datetime.now(UTC) - _since(known) < YOUNG / 2
                    if young and known["size"] == len(content):
                        continue  # what is older is written anew, else it may just be dropped
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                if self._is_local:
                    unfinished = f"{path}.{datetime.now(UTC):%H%M%S%f}.unfinished"
                    self._fs.pipe_file(unfinished, content)
                    self._fs.mv(unfinished, path)
                else:  # an object is there once all of it is
                    self._fs.pipe_file(path, content)

    def read(self, names: Collection[str]) -> dict[str, bytes]:
        """Contents by their sha256. WarehouseError where one is gone."""
        with self._explained():
            paths = {self._path(name): name for name in names}
            found = self._fs.cat(list(paths)) if paths else {}
            return {name: found[path] for path, name in paths.items()}

    def drop(self, names: Collection[str]) -> None:
        """Delete contents, those that are there, and what a kill left half-written of them."""
        with self._explained():
            self._fs.invalidate_cache()
            for name in names:
                for path in self._fs.glob(f"{self._path(name)}*"):
                    with suppress(FileNotFoundError):
                        self._fs.rm_file(path)

    def all(self) -> dict[str, Kept]:
        """Everything that is kept, by sha256."""
        with self._explained():
            self._fs.invalidate_cache()
            if not self._fs.exists(self._root):
                return {}
            listed = self._fs.find(self._root, detail=True)
            return {
                path.rpartition("/")[2]: Kept(info["size"], _since(info))
                for path, info in listed.items()
            }

    def drop_unused(self, used: Collection[str], age: timedelta) -> int:
        """Delete contents that no row names any more and that are older; gives how many."""
        before = datetime.now(UTC) - max(age, YOUNG)
        unused = [
            name for name, kept in self.all().items() if name not in used and kept.since < before
        ]
        self.drop(unused)
        return len(unused)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        return url_to_fs(self.folder)

    @property
    def _fs(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1].rstrip("/")

    @property
    def _is_local(self) -> bool:
        return "://" not in self.folder

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """WarehouseError in one line of whatever a filesystem raises."""
        try:
            yield
        except Exception as error:
            said = one_line(f"{type(error).__name__}: {error}", 200)
            raise WarehouseError(f"{self.folder}: PDFs' bytes can't be had ({said}).") from error


def _since(info: Mapping[str, Any]) -> datetime:
    written = info.get("LastModified") or info.get("mtime") or 0.0
    if isinstance(written, datetime):
        return written.astimezone(UTC)
    return datetime.fromtimestamp(written, UTC)
