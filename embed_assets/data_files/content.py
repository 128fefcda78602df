"""The bytes of a file, unpacked, and what they are: a file's name is not believed.

Nothing is executed and nothing is unpickled.
"""

import codecs
import errno
import io
import os
import zipfile
from pathlib import Path, PurePosixPath

from embed_assets.data_files.reading import DataFileError
from embed_assets.places import Place
from embed_assets.wording import counted

COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
"""Suffixes of compressed files, and what they are compressed with."""
LARGEST_SMALL = 256 << 20
LARGEST_RATIO = 200
"""A compressed file may be this many times as large unpacked, or LARGEST_SMALL bytes: no bombs."""

_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_SIGNATURES = (
    (b"%PDF-", "a PDF"),
    (b"\xd0\xcf\x11\xe0", "an old Office file (.xls, .doc): save the sheet as 'CSV UTF-8'"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"Obj\x01", "an Avro file"),
    (b"ORC", "an ORC file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"{\\rtf", "an RTF document"),
    (b"version https://git-lfs", "a pointer of Git LFS: `git lfs pull` gets the file itself"),
)
_OFFICE = {
    "xl/": "an Excel workbook (.xlsx): save the sheet as 'CSV UTF-8'",
    "word/": "a Word document",
    "ppt/": "a PowerPoint presentation",
    "content.xml": "an OpenDocument file: save the sheet as CSV in UTF-8",
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_TABLES = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")
"""How Parquet, Arrow's files (Feather) and Arrow's streams begin."""
_HEAD = 4096


def data_suffix(file: Place) -> str:
    """Suffix that says what a file holds, in small letters: `.jsonl` of q.jsonl and q.jsonl.gz."""
    name = PurePosixPath(file.name)
    suffix = name.suffix.lower()
    return PurePosixPath(name.stem).suffix.lower() if suffix in COMPRESSED else suffix


def read_content(file: Place, wanted: str) -> bytes:
    """Bytes of a file: text as UTF-8 without a mark, tables of Arrow and Parquet as they are.

    Compressed files are unpacked. Text that isn't valid stays so: its rows are. DataFileError where
    the file is neither, which says what it looks like. wanted: what it should hold.
    """
    content = _unpacked(file, _read_bytes(file))
    if is_table(content):
        return content
    if not content.strip():
        raise DataFileError(file, f"is empty. {wanted}")
    if look := looks_like(content):
        raise DataFileError(file, f"looks like {look}. {wanted}")
    return _as_utf8(content)


def is_table(content: bytes) -> bool:
    """Whether it is a table of Parquet or Arrow."""
    return content.startswith(_TABLES)


def looks_like(content: bytes) -> str | None:
    """What bytes are that are not text, in words; None where they may be text."""
    if content.startswith(b"PK"):
        return _zip(content)
    for start, name in _SIGNATURES:
        if content.startswith(start):
            return name
    if content[:1] == b"\x80" and content[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle, which is never loaded: it may run any program"
    if content[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    head = content[:_HEAD]
    begin = head.lstrip(codecs.BOM_UTF8).lstrip()[:15].lower()
    if begin.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page (a download that wants a login?)"
    if begin.startswith(b"<?xml"):
        return "an XML file"
    controls = sum(byte < 9 or 13 < byte < 32 for byte in head)
    if controls > len(head) // 10 and _encoding(content) is None:
        return "binary data"
    return None


def _read_bytes(file: Place) -> bytes:
    try:
        if isinstance(file, Path) and file.exists() and not file.is_file():
            what = "a folder" if file.is_dir() else "no regular file"
            raise DataFileError(file, f"is {what}")
        return file.read_bytes()
    except OSError as error:
        raise DataFileError(file, error.strerror or str(error)) from error


def _unpacked(file: Place, content: bytes) -> bytes:
    kind = next((kind for start, kind in _PACKED if content.startswith(start)), None)
    if kind is None:
        return content
    largest = max(LARGEST_SMALL, LARGEST_RATIO * len(content))
    try:
        unpacked = _unpack(kind, content, largest + 1)
    except (OSError, EOFError, ValueError) as error:
        raise DataFileError(file, f"is a {kind} file that is damaged or cut off") from error
    if len(unpacked) > largest:
        raise DataFileError(
            file, f"is a {kind} file that would be over {LARGEST_RATIO} times as large unpacked"
        )
    return unpacked


def _unpack(kind: str, content: bytes, limit: int) -> bytes:
    """At most `limit` bytes of it. OSError, EOFError or ValueError where it is damaged."""
    import bz2
    import gzip
    import lzma
    import zlib

    if kind == "zstd":
        import pyarrow as pa

        with pa.input_stream(pa.BufferReader(content), compression="zstd") as stream:
            return stream.read(limit)
    opened = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}[kind]
    try:
        with opened(io.BytesIO(content)) as stream:
            return stream.read(limit)
    except (zlib.error, lzma.LZMAError) as error:
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from error


def _zip(content: bytes) -> str:
    """What a zip archive is by the names of what is in it."""
    try:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "a zip archive (an Excel workbook?) that is damaged"
    for start, what in _OFFICE.items():
        if any(name.startswith(start) for name in names):
            return what
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file, which is never loaded: it may run any program"
    return f"a zip archive of {counted(len(names), 'file')}: unpack it first"


def _encoding(content: bytes) -> str | None:
    """Encoding of text that is not UTF-8: by its mark, or by where its zeros stand."""
    for mark, encoding in _MARKS[1:]:
        if content.startswith(mark):
            return encoding
    head = content[:_HEAD]
    half = len(head) // 2
    if half and head[1::2].count(0) > 0.4 * half and not head[0::2].count(0):
        return "utf-16-le"
    if half and head[0::2].count(0) > 0.4 * half and not head[1::2].count(0):
        return "utf-16-be"
    return None


def _as_utf8(content: bytes) -> bytes:
    encoding = _encoding(content)
    if encoding is None:
        return content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode(encoding, "surrogatepass")  # half a character is its row's fault
    except UnicodeDecodeError:
        text = content.decode(encoding, "replace")
    return text.removeprefix("\ufeff").encode("utf-8", "surrogatepass")
