"""Odd entries of a PDF folder: each is said with its reason, and stops nothing else."""

import errno
import os
import socket
import stat
import subprocess
import sys
import unicodedata
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pytest

from embed_assets.documents import entries as entries_module
from embed_assets.documents.entries import (
    LEADS_OUT,
    Rules,
    read_pdf,
    spellings,
    stored_name,
    system_name,
)
from embed_assets.documents.folder import load_documents, scan, survey
from embed_assets.partitions import document_id
from embed_assets.resources.ledger import Cause
from embed_assets.tables import TABLES
from embed_assets_tests.documents.test_folder import closed, open_folder, put

__all__ = ["open_folder"]  # a fixture

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="macOS refuses such names")
LATIN_1 = "caf\udce9 menu.pdf"


def found(folder: Path, rules: Rules | None = None) -> list[str]:
    return [document.path for document in scan(folder, rules).values()]


def odd(folder: Path, rules: Rules | None = None) -> dict[str, str]:
    return dict(survey(folder, rules).odd)


def loaded(folder: Path, rules: Rules | None = None) -> dict[str, bytes]:
    """Content by path of what a run reads of a folder."""
    slices = load_documents(folder, list(scan(folder, rules)), "run", rules=rules)
    rows = TABLES["raw_pdfs"].conform(slices.rows)
    return dict(rows.select("path", "content").iter_rows())


@pytest.fixture
def never_opened(monkeypatch):
    """Paths that were opened, though nothing may open what is no regular file."""
    opened, real = [], os.open

    def watched(path, flags, *rest, **options):
        descriptor = real(path, flags | os.O_NONBLOCK, *rest, **options)
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            opened.append(path)
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    yield
    assert opened == []


# Kinds of entries.


@pytest.mark.usefixtures("never_opened")
def test_pipes_sockets_and_devices_are_said_and_never_opened(tmp_path, monkeypatch):
    put(tmp_path, "a.pdf")
    os.mkfifo(tmp_path / "pipe.pdf")
    (tmp_path / "zero.pdf").symlink_to("/dev/zero")
    (tmp_path / "to-pipe.pdf").symlink_to("pipe.pdf")
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.pdf")
        assert loaded(tmp_path) == {"a.pdf": b"%PDF-1.7"}
        assert odd(tmp_path) == {
            "pipe.pdf": "a pipe, and no file: not opened",
            "to-pipe.pdf": "a pipe, and no file: not opened",
            "socket.pdf": "a socket, and no file: not opened",
            "zero.pdf": "a device, and no file: not opened",
        }


def test_a_folder_named_as_a_pdf_is_gone_into_and_said_where_that_finds_nothing(tmp_path):
    put(tmp_path, "full.pdf/inside.pdf", "hollow.pdf/readme.txt")
    assert found(tmp_path) == ["full.pdf/inside.pdf"]
    assert odd(tmp_path) == {"hollow.pdf": "a folder, and no PDF is in it"}
    assert not survey(tmp_path).hide("hollow.pdf/left.pdf"), "it was looked through: that is gone"


def test_a_pipe_without_the_name_of_a_pdf_is_no_matter(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to("gone")
    assert odd(tmp_path) == {}


# Links.


def test_a_link_within_the_folder_is_followed(tmp_path):
    put(tmp_path, "sub/a.pdf", ".store/b", content=b"%PDF")
    (tmp_path / "link.pdf").symlink_to("sub/a.pdf")
    (tmp_path / "stored.pdf").symlink_to(".store/b")
    assert set(loaded(tmp_path)) == {"sub/a.pdf", "link.pdf", "stored.pdf"}
    assert odd(tmp_path) == {}


def test_links_that_lead_out_of_the_folder_are_said_and_followed_only_where_a_person_says(tmp_path):
    put(tmp_path, "out/secret.pdf", "out/more/b.pdf", "pdfs/a.pdf")
    folder = tmp_path / "pdfs"
    (folder / "passwd.pdf").symlink_to(tmp_path / "out" / "secret.pdf")
    (folder / "share").symlink_to(tmp_path / "out")
    assert set(loaded(folder)) == {"a.pdf"}
    assert odd(folder) == {"passwd.pdf": LEADS_OUT, "share": LEADS_OUT}
    follow = Rules(follow_links=True)
    assert set(loaded(folder, follow)) == {
        *("a.pdf", "passwd.pdf", "share/secret.pdf", "share/more/b.pdf")
    }
    assert odd(folder, follow) == {}


def test_a_folder_whose_name_begins_like_the_pdf_folder_lies_outside_of_it(tmp_path):
    put(tmp_path, "pdfs/a.pdf", "pdfs-of-others/b.pdf")
    (tmp_path / "pdfs" / "b.pdf").symlink_to(tmp_path / "pdfs-of-others" / "b.pdf")
    assert odd(tmp_path / "pdfs") == {"b.pdf": LEADS_OUT}


def test_a_pdf_folder_that_is_itself_reached_by_a_link_is_the_folder_it_leads_to(tmp_path):
    put(tmp_path, "real/a.pdf")
    (tmp_path / "real" / "again.pdf").symlink_to(tmp_path / "real" / "a.pdf")
    (tmp_path / "pdfs").symlink_to("real")
    assert set(loaded(tmp_path / "pdfs")) == {"a.pdf", "again.pdf"}


@pytest.mark.parametrize("follow", [False, True])
def test_loops_of_links_end_and_each_folder_is_gone_through_once(tmp_path, follow):
    put(tmp_path, "pdfs/a.pdf", "pdfs/sub/b.pdf")
    folder = tmp_path / "pdfs"
    (folder / "self.pdf").symlink_to("self.pdf")
    (folder / "there.pdf").symlink_to("back.pdf")
    (folder / "back.pdf").symlink_to("there.pdf")
    (folder / "loop").symlink_to(".")
    (folder / "sub" / "up").symlink_to("..")
    (folder / "sub" / "out").symlink_to("../..")
    rules = Rules(follow_links=follow)
    assert set(loaded(folder, rules)) == {"a.pdf", "sub/b.pdf"}
    said = dict.fromkeys(["self.pdf", "there.pdf", "back.pdf"], "a link that leads to itself")
    assert odd(folder, rules) == said | ({} if follow else {"sub/out": LEADS_OUT})


def test_a_link_to_nothing_is_said(tmp_path):
    (tmp_path / "gone.pdf").symlink_to("nowhere.pdf")
    assert odd(tmp_path) == {"gone.pdf": "a link to what isn't there"}


@pytest.mark.parametrize("swapped", ["sub/a.pdf", "sub"])
def test_a_link_put_in_the_place_of_a_file_after_it_was_looked_at_is_not_followed(
    tmp_path, monkeypatch, swapped
):
    put(tmp_path, "pdfs/sub/a.pdf", "out/a.pdf", content=b"secret")
    folder = tmp_path / "pdfs"
    [document] = scan(folder).values()
    resolve = os.path.realpath

    def then_swap(path, **options):
        place = resolve(path, **options)
        if str(place).endswith("a.pdf"):
            (folder / swapped).rename(tmp_path / "before")
            target = tmp_path / "out" / "a.pdf" if swapped.endswith("pdf") else tmp_path / "out"
            (folder / swapped).symlink_to(target)
        return place

    monkeypatch.setattr(entries_module.os.path, "realpath", then_swap)
    with pytest.raises(OSError, match=r"symbolic links|Not a directory|a link, and no file"):
        read_pdf(folder, document, Rules())


@pytest.mark.usefixtures("never_opened")
@pytest.mark.parametrize("by_descriptors", [True, False])
def test_files_are_read_also_where_the_system_opens_none_by_its_folder(
    tmp_path, monkeypatch, by_descriptors
):
    monkeypatch.setattr(entries_module, "BY_DESCRIPTORS", by_descriptors)
    put(tmp_path, "sub/a.pdf", content=b"%PDF-1.7 a")
    [document] = scan(tmp_path).values()
    content, _ = read_pdf(tmp_path, document, Rules())
    assert content == b"%PDF-1.7 a"


def test_a_pipe_put_in_the_place_of_a_file_is_not_opened(tmp_path):
    put(tmp_path, "a.pdf")
    [document] = scan(tmp_path).values()
    (tmp_path / "a.pdf").unlink()
    os.mkfifo(tmp_path / "a.pdf")
    with pytest.raises(OSError, match="a pipe, and no file"):
        read_pdf(tmp_path, document, Rules())


# What the system refuses.


def test_a_closed_subfolder_is_said_and_the_others_are_read(open_folder):
    put(open_folder, "a.pdf", "closed/b.pdf")
    with closed(open_folder / "closed"):
        assert set(loaded(open_folder)) == {"a.pdf"}
        assert odd(open_folder) == {"closed": "the folder can't be listed: Permission denied"}


def test_a_share_that_fails_while_it_is_listed_is_said_and_hides_what_was_not_seen(
    tmp_path, monkeypatch
):
    put(tmp_path, "a.pdf", "share/b.pdf")
    scandir = os.scandir

    def fail(place):
        if str(place).endswith("share"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", fail)
    entries = survey(tmp_path)
    assert [document.path for document in entries.pdfs] == ["a.pdf"]
    assert entries.odd == {"share": "the folder can't be listed: Input/output error"}
    assert entries.hide("share/b.pdf")
    assert entries.hide("share/deep/c.pdf")
    assert not entries.hide("shared.pdf")


def test_a_file_that_fails_while_it_is_read_is_tried_again_and_the_others_are_read(
    tmp_path, monkeypatch
):
    put(tmp_path, "a.pdf", "b.pdf")
    real = os.open

    def fail(path, *rest, **options):
        if path == "b.pdf":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", fail)
    slices = load_documents(tmp_path, list(scan(tmp_path)), "run")
    assert slices.rows["path"].to_list() == ["a.pdf"]
    [failure] = slices.not_made.values()
    assert failure.cause is Cause.UNREADABLE_FILE
    assert failure.error == "the file may not be read: Input/output error"


def test_a_file_that_grows_while_it_is_read_is_not_taken_and_is_tried_again(tmp_path, monkeypatch):
    put(tmp_path, "a.pdf")
    fdopen = os.fdopen

    def then_grow(descriptor, *rest, **options):
        with (tmp_path / "a.pdf").open("ab") as file:
            file.write(b"more")
        return fdopen(descriptor, *rest, **options)

    monkeypatch.setattr(os, "fdopen", then_grow)
    # Its size is asked of what was opened: it grows between that and the reading.
    fstat, asked = os.fstat, []

    def as_it_was(descriptor):
        state = fstat(descriptor)
        asked.append(state)
        if len(asked) > 1:
            return state
        return os.stat_result([*state[:6], state.st_size - 4, *state[7:]])

    monkeypatch.setattr(os, "fstat", as_it_was)
    slices = load_documents(tmp_path, list(scan(tmp_path)), "run")
    assert slices.rows.is_empty()
    [failure] = slices.not_made.values()
    assert failure.error == "the file may not be read: it changed while it was read"


def test_what_is_on_record_of_a_file_is_what_was_read_though_it_changed_since_it_was_seen(
    tmp_path, monkeypatch
):
    put(tmp_path, "a.pdf", content=b"one")
    [document] = scan(tmp_path).values()
    put(tmp_path, "a.pdf", content=b"two and more")
    os.utime(tmp_path / "a.pdf", (0, 1_000_000_000))
    content, seen = read_pdf(tmp_path, document, Rules())
    assert (content, seen.size_bytes) == (b"two and more", 12)
    assert seen.modified_at == datetime.fromtimestamp(1_000_000_000, UTC)


def test_a_file_of_terabytes_that_holds_nothing_is_said_and_not_read(tmp_path):
    put(tmp_path, "a.pdf", "empty.pdf", content=b"")
    with (tmp_path / "vast.pdf").open("wb") as file:
        file.truncate(3_000_000_000_000)
    assert set(loaded(tmp_path)) == {"a.pdf", "empty.pdf"}
    assert odd(tmp_path) == {
        "vast.pdf": "3,000,000 MB: more than EMBED_ASSETS_LARGEST_PDF_MB=1000 allows"
    }


def test_a_time_that_no_calendar_has_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(entries_module, "datetime", OneCalendar)
    put(tmp_path, "a.pdf")
    assert set(loaded(tmp_path)) == {"a.pdf"}


class OneCalendar(datetime):
    """Knows no time but the first."""

    @classmethod
    def fromtimestamp(cls, timestamp, tz=None):
        if timestamp:
            raise OverflowError
        return datetime.fromtimestamp(timestamp, tz)


# Names.


@LINUX
def test_names_that_are_no_utf_8_are_read_listed_and_told_apart(tmp_path):
    for name in (LATIN_1, "caf\\xe9 menu.pdf", "caf\\x5cxe9 menu.pdf", "café menu.pdf"):
        (tmp_path / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    contents = loaded(tmp_path)
    assert set(contents) == {
        "café menu.pdf",
        "caf\\xe9 menu.pdf",
        "caf\\x5cxe9 menu.pdf",
        "caf\\x5cx5cxe9 menu.pdf",
    }
    assert contents["caf\\xe9 menu.pdf"] == b"caf\xe9 menu.pdf"
    for path, content in contents.items():
        assert system_name(path).encode("utf-8", "surrogateescape") == content


@LINUX
def test_a_folder_whose_name_is_no_utf_8_is_gone_into(tmp_path):
    put(tmp_path, "b\udcfccher/a.pdf")
    assert set(loaded(tmp_path)) == {"b\\xfccher/a.pdf"}


@pytest.mark.parametrize(
    "name",
    [
        *("plain.pdf", "a\\b.pdf", "\\xe9", "\\x5c", "\\x5cxe9", "\\xE9", "\\x41", "\udce9"),
        *("\\\udce9", "\\x\udce9", "\\x5\udcff", "\\x5cx\udce9", "\\\\xe9", "x\\xe", "\n\x1b"),
    ],
)
def test_a_stored_name_is_text_and_gives_the_name_back(name):
    stored = stored_name(name)
    stored.encode()
    assert system_name(stored) == name


def test_names_that_differ_only_in_case_or_in_their_unicode_form_are_documents_of_their_own(
    tmp_path,
):
    composed = "Prüfbericht.pdf"
    names = [composed, unicodedata.normalize("NFD", composed), composed.lower(), composed.upper()]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes([number]))
    there = len({os.fsencode(entry) for entry in os.listdir(tmp_path)})
    assert len(loaded(tmp_path)) == len(scan(tmp_path)) == there


@LINUX
@pytest.mark.parametrize(
    "name",
    [
        *("two\nlines.pdf", "tab\t.pdf", "\x1b]0;title\x07.pdf", "--pdfs.pdf", "-.pdf", " .pdf"),
        *("x" * 251 + ".pdf", "{}.pdf", "%s.pdf", "*?[a].pdf", "a:b.pdf", "\u202efdp.pdf"),
    ],
)
def test_a_name_is_only_a_name(tmp_path, name):
    put(tmp_path, name, content=b"%PDF")
    assert loaded(tmp_path) == {name: b"%PDF"}
    assert list(scan(tmp_path)) == [document_id(PurePosixPath(name))]


def test_a_typed_path_means_the_file_in_whatever_form_the_keyboard_gives_it():
    composed, apart = "ü.pdf", unicodedata.normalize("NFD", "ü.pdf")
    assert spellings(composed)[0] == composed
    assert apart in spellings(composed)
    assert composed in spellings(f"./{apart}")
    assert spellings(LATIN_1)[0] == "caf\\xe9 menu.pdf"


@LINUX
def test_json_of_what_a_folder_holds_is_utf_8(tmp_path):
    (tmp_path / LATIN_1).write_bytes(b"%PDF")
    os.mkfifo(tmp_path / "p\udcffpe.pdf")
    script = (
        "import json, sys; from pathlib import Path\n"
        "from embed_assets.documents.folder import survey\n"
        "found = survey(Path(sys.argv[1]))\n"
        "print(json.dumps([d.path for d in found.pdfs] + list(found.odd), ensure_ascii=False))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, check=True)
    assert done.stdout.decode() == '["caf\\\\xe9 menu.pdf", "p\\\\xffpe.pdf"]\n'
