"""Where files lie: on this machine, or on a filesystem that fsspec reaches by a URL (a bucket)."""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from embed_assets.errors import hide_password, one_line

_URL = re.compile(r"^([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_LOCAL = ("file", "local")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
"""Under which filesystems say when a file was last written, the surest first."""
_ETAGS = ("VersionId", "version_id", "generation", "ETag", "etag")
"""Under which they name one version of a file, the surest first."""


@dataclass(frozen=True)
class RemoteFile:
    """A file in a folder: its path there, and by what a change of it is noticed.

    etag: what the filesystem calls this version of the file, where it does. kind: what it is, where
    it is no file.
    """

    path: str
    size_bytes: int
    modified_at: datetime
    etag: str | None
    kind: str | None = None


@dataclass(frozen=True)
class Listing:
    """What is in a folder. odd: subfolders that can't be listed -> why."""

    files: list[RemoteFile]
    odd: Mapping[str, str]


@dataclass(frozen=True, repr=False)
class RemotePath:
    """A folder on another filesystem, or what lies at a path in it. Shows no password.

    What goes wrong there is an OSError in one line, whatever that filesystem raises:
    FileNotFoundError and NotADirectoryError mean what they say.
    """

    folder: str
    path: str = ""

    def __str__(self) -> str:
        return hide_password(self._url, self._url)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __truediv__(self, path: str) -> "RemotePath":
        return RemotePath(self.folder, f"{self.path}/{path}" if self.path else path)

    @property
    def name(self) -> str:
        """The last part of the path; of a whole bucket its name."""
        return str(self).rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The suffix of the name, with its dot."""
        return PurePosixPath(self.path).suffix

    @property
    def _url(self) -> str:
        return f"{self.folder}/{self.path}" if self.path else self.folder

    def find(self) -> Listing:
        """All files in the folder and its subfolders, as they are now.

        An object store knows no folders: one without objects is empty if its bucket is there.
        """
        closed: dict[str, str] = {}
        with self._in_one_line():
            fs, root = self._open()
            fs.invalidate_cache()
            walks = _walks(fs)
            listed = self._walk(fs, root, closed) if walks else fs.find(root, detail=True)
            start = f"{root.rstrip('/')}/"
            below = [name for name in listed if name.startswith(start)]
            if not below and not closed:
                if root in listed and not fs.isdir(root):
                    raise NotADirectoryError
                if not walks:
                    with suppress(PermissionError):  # only a part of it may be looked into
                        fs.info(root.lstrip("/").partition("/")[0])
            return Listing(
                [
                    _file(name.removeprefix(start), listed[name])
                    for name in below
                    if listed[name]["type"] != "directory"
                ],
                {name.removeprefix(start): why for name, why in closed.items()},
            )

    def look(self) -> RemoteFile | None:
        """The file at this path as it is now; nothing where there is none."""
        with self._in_one_line():
            fs, path = self._open()
            fs.invalidate_cache()
            try:
                info = fs.info(path)
            except FileNotFoundError:
                return None
            return _file(self.path, info) if info["type"] == "file" else None

    def is_file(self) -> bool:
        """Whether there is a file at this path."""
        return self.look() is not None

    def read_bytes(self) -> bytes:
        """Content of the file."""
        with self._in_one_line():
            fs, path = self._open()
            return fs.cat_file(path)

    def read_text(self, encoding: str) -> str:
        """Content of a file of text."""
        return self.read_bytes().decode(encoding)

    def _open(self) -> tuple[Any, str]:
        """The filesystem, and what it calls this path."""
        from fsspec.core import url_to_fs

        fs, root = url_to_fs(self.folder)
        return fs, f"{root.rstrip('/')}/{self.path}" if self.path else root

    def _walk(self, fs: Any, folder: str, closed: dict[str, str]) -> dict[str, Mapping[str, Any]]:
        """All files below a folder by name; adds to `closed` the subfolders that can't be listed.

        fsspec's own passes over them without a word.
        """
        files: dict[str, Mapping[str, Any]] = {}
        for info in fs.ls(folder, detail=True):
            name = info["name"]
            if info["type"] != "directory":
                files[name] = info
                continue
            try:
                with self._in_one_line():
                    files |= self._walk(fs, name, closed)
            except OSError as error:
                said = error.strerror or str(error)
                closed[name] = f"the folder can't be listed: {said}"
        return files

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        # Not `from error`: Dagster shows the causes of a failure, and they may show a password.
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        except NotADirectoryError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        except ImportError as error:
            raise OSError(self._package_wanted(error)) from None
        except Exception as error:  # each filesystem has errors of its own
            said = str(getattr(error, "strerror", None) or error) or type(error).__name__
            raise OSError(one_line(hide_password(said, self.folder)).rstrip(".")) from None

    def _package_wanted(self, error: ImportError) -> str:
        from fsspec.registry import known_implementations

        known = known_implementations.get(self.folder.partition("://")[0], {})
        package = known.get("class", "").partition(".")[0]
        if package in ("", "fsspec"):
            return one_line(str(error))
        return f"the package {package} can't be imported (pip install {package})"


Place = Path | RemotePath
"""A file or a folder, wherever it lies."""


def to_place(address: str | Place) -> Place:
    """The place at a path, which is made absolute, or at a URL."""
    if isinstance(address, RemotePath):
        return address
    text = absolute(str(address))
    return RemotePath(text) if _URL.fullmatch(text) else Path(text)


def absolute(address: str) -> str:
    """A path or URL as any process understands it, in whatever folder; a path for `file://`."""
    url = _URL.fullmatch(address)
    if url is None:
        return os.path.abspath(os.path.expanduser(address))
    scheme, rest = url[1].lower(), url[2]
    if scheme in _LOCAL:
        return os.path.abspath(unquote(rest, errors="surrogateescape"))
    return f"{scheme}://{rest.rstrip('/')}"


def _walks(fs: Any) -> bool:
    """Whether a filesystem has folders to go through, rather than objects of which it lists all."""
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    find = getattr(type(fs), "_find", type(fs).find)
    return find in (AbstractFileSystem.find, AsyncFileSystem._find)


def _file(path: str, info: Mapping[str, Any]) -> RemoteFile:
    etag = next((info[name] for name in _ETAGS if info.get(name)), None)
    kind = None if info["type"] in ("file", "link") else f"{info['type']}, and no file"
    size = info.get("size") or 0
    return RemoteFile(path, size, _modified_at(info), etag and str(etag), kind)


def _modified_at(info: Mapping[str, Any]) -> datetime:
    """When a file was last written, as far as its filesystem says so."""
    given = next((info[name] for name in _TIMES if info.get(name)), 0.0)
    if isinstance(given, datetime):
        return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
    return datetime.fromtimestamp(given, UTC)
