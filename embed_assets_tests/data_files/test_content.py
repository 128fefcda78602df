"""What a file is, by its bytes: unpacked, decoded, or refused by what it looks like."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from embed_assets.data_files.content import data_suffix, looks_like, read_content
from embed_assets.data_files.reading import DataFileError

WANTED = "Rows are wanted."


def zipped(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return content.getvalue()


def tarred() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("q.jsonl"))
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook"),
        (zipped("word/document.xml"), "a Word document"),
        (zipped("mimetype", "content.xml"), "an OpenDocument file"),
        (zipped("archive/data.pkl"), "a PyTorch file, which is never loaded"),
        (zipped("a.csv", "b.csv"), "a zip archive of 2 files"),
        (b"PK", "a zip archive .* that is damaged"),
        (b"\xd0\xcf\x11\xe0 old office", "an old Office file"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\x89PNG\r\n\x1a\n", "a picture"),
        (b"\xff\xd8\xff\xe0", "a picture"),
        (b"\n <!DOCTYPE html><title>Log in</title>", "a web page"),
        (b'<?xml version="1.0"?><rows/>', "an XML file"),
        (b"SQLite format 3\x00", "an SQLite database"),
        (tarred(), "a tar archive"),
        (gzip.compress(tarred()), "a tar archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (bytes(range(32)) * 9, "binary data"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_file_that_holds_no_rows_says_what_it_looks_like_and_what_was_wanted(
    tmp_path: Path, content: bytes, words: str
):
    file = tmp_path / "q.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataFileError, match=f"looks like {words}.*Rows are wanted") as caught:
        read_content(file, WANTED)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_known_and_never_loaded(protocol: int):
    assert "never loaded" in str(looks_like(pickle.dumps({"question": "Why?"}, protocol)))


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(b"Why?", mtime=0),
        gzip.compress(b"Wh", mtime=0) + gzip.compress(b"y?", mtime=0),
        bz2.compress(b"Why?"),
        lzma.compress(b"Why?"),
        pa.compress(b"Why?", codec="zstd", asbytes=True),
    ],
    ids=["gzip", "two members", "bz2", "xz", "zstd"],
)
def test_what_is_compressed_is_unpacked_whatever_its_name(tmp_path: Path, packed: bytes):
    (tmp_path / "q").write_bytes(packed)
    assert read_content(tmp_path / "q", WANTED) == b"Why?"
    (tmp_path / "q").write_bytes(packed[:-3])
    with pytest.raises(DataFileError, match="damaged or cut off"):
        read_content(tmp_path / "q", WANTED)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("embed_assets.data_files.content.LARGEST_SMALL", 1000)
    (tmp_path / "q.gz").write_bytes(gzip.compress(bytes(1_000_000)))
    with pytest.raises(DataFileError, match="over 200 times as large unpacked"):
        read_content(tmp_path / "q.gz", WANTED)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_text_is_utf_8_whatever_mark_it_begins_with(tmp_path: Path, encoding: str):
    (tmp_path / "q.csv").write_bytes("question\tfile_name\r\nWarum läuft er?".encode(encoding))
    content = read_content(tmp_path / "q.csv", WANTED)
    assert content.decode() == "question\tfile_name\r\nWarum läuft er?"


def test_what_is_no_file_or_has_nothing_in_it_is_said(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataFileError, match=r"pipe\.jsonl: is no regular file"):
        read_content(tmp_path / "pipe.jsonl", WANTED)
    with pytest.raises(DataFileError, match=r"gone\.jsonl: No such file"):
        read_content(tmp_path / "gone.jsonl", WANTED)
    (tmp_path / "empty.jsonl").write_text(" \n\n")
    with pytest.raises(DataFileError, match=r"empty\.jsonl: is empty\. Rows are wanted"):
        read_content(tmp_path / "empty.jsonl", WANTED)


def test_the_suffix_of_a_compressed_file_is_that_of_what_is_in_it():
    names = ["q.jsonl", "Q.JSONL.GZ", "a.b.csv.zst", "q", "q.gz"]
    assert [data_suffix(Path(name)) for name in names] == [".jsonl", ".jsonl", ".csv", "", ""]
