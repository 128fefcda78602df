"""Folders of PDFs in four places: by path, and on three filesystems of fsspec's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from embed_assets.places import Place, RemotePath, to_place


@dataclass(frozen=True)
class Folder:
    """A folder, and how a test changes what is in it."""

    place: Place
    write: Callable[[str, bytes], None]
    delete: Callable[[str], None]

    def put(self, *paths: str, content: bytes = b"%PDF-1.7") -> None:
        for path in paths:
            self.write(path, content)

    def move(self, path: str, to: str) -> None:
        self.write(to, (self.place / path).read_bytes())
        self.delete(path)


class Store(AbstractFileSystem):
    """A store of objects: it lists all at once and remembers that, and knows no folders.

    buckets: objects of each, and when they were written, by key.
    """

    protocol = "store"
    buckets: ClassVar[dict[str, dict[str, tuple[bytes, datetime]]]] = {}

    def find(self, path: str, *_: Any, **__: Any) -> dict[str, dict[str, Any]]:
        bucket, _slash, folder = path.partition("/")
        if path not in self.dircache:
            objects = self.buckets.get(bucket, {})
            keys = [k for k in objects if not folder or k == folder or k.startswith(f"{folder}/")]
            self.dircache[path] = {f"{bucket}/{k}": self.info(f"{bucket}/{k}") for k in keys}
        return self.dircache[path]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        bucket, _slash, key = path.partition("/")
        if bucket not in self.buckets or (key and key not in self.buckets[bucket]):
            raise FileNotFoundError(path)
        if not key:
            return {"name": path, "size": 0, "type": "directory"}
        content, written = self.buckets[bucket][key]
        etag = f'"{hash(content)}"'
        named = {"name": path, "size": len(content), "type": "file"}
        return named | {"LastModified": written, "ETag": etag}

    def cat_file(self, path: str, *_: Any, **__: Any) -> bytes:
        bucket, _slash, key = path.partition("/")
        self.info(path)
        return self.buckets[bucket][key][0]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.dircache.clear()


fsspec.register_implementation("store", Store)


def _local(place: Place, folder: Path) -> Folder:
    def write(path: str, content: bytes) -> None:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    return Folder(place, write, lambda path: (folder / path).unlink())


@contextmanager
def folder_by_url(folder: Path) -> Iterator[Folder]:
    """By a `file://` URL."""
    yield _local(to_place(folder.as_uri()), folder)


@contextmanager
def folder_by_fsspec(folder: Path) -> Iterator[Folder]:
    """On fsspec's local filesystem."""
    yield _local(RemotePath(f"file://{folder}"), folder)


@contextmanager
def folder_in_memory(_: Path | None = None) -> Iterator[Folder]:
    """On fsspec's filesystem in memory, with another folder beside it."""
    fs = MemoryFileSystem()
    fs.makedirs("/bucket/pdfs")
    fs.pipe("/bucket/pdfs of others/a.pdf", b"theirs")
    try:
        yield Folder(
            to_place("memory://bucket/pdfs"),
            lambda path, content: fs.pipe(f"/bucket/pdfs/{path}", content),
            lambda path: fs.rm(f"/bucket/pdfs/{path}"),
        )
    finally:
        fs.rm("/bucket", recursive=True)


@contextmanager
def folder_in_store(_: Path | None = None) -> Iterator[Folder]:
    """In a bucket, beside another folder."""
    Store.buckets["bucket"] = {"pdfs of others/a.pdf": (b"theirs", datetime.now(UTC))}

    def write(path: str, content: bytes) -> None:
        Store.buckets["bucket"][f"pdfs/{path}"] = (content, datetime.now(UTC))

    try:
        yield Folder(
            to_place("store://bucket/pdfs/"),
            write,
            lambda path: Store.buckets["bucket"].__delitem__(f"pdfs/{path}"),
        )
    finally:
        Store.buckets.clear()
