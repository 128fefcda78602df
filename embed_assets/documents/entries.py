"""The entries of a PDF folder: which of them are PDFs, which are odd and why, and how one is read.

Of the folder nothing but regular files is ever opened, and nothing outside it unless a person
allows that: what an entry is, is asked before it is opened and once more of what was opened.

A name is any bytes but `/` and NUL, and a table holds text: see `stored_name`.
"""

import errno
import functools
import os
import posixpath
import re
import stat
import unicodedata
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from embed_assets.partitions import document_id
from embed_assets.places import Place, RemotePath
from embed_assets.settings import Settings

MEGABYTE = 1_000_000
_ESCAPED = re.compile(r"\\x([89a-f][0-9a-f]|5c)")
_NO_TEXT = re.compile("[\udc80-\udcff]")
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
}
LEADS_OUT = (
    "a link that leads out of the PDF folder: not followed, unless EMBED_ASSETS_FOLLOW_LINKS=true"
)
BY_DESCRIPTORS = os.open in os.supports_dir_fd
"""Whether a file can be opened in a folder that is open, as on all systems but Windows."""
_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


class OddEntryError(OSError):
    """What has the name of a PDF isn't read: its message says why."""


@dataclass(frozen=True)
class Rules:
    """What of a folder is read. follow_links: also those that lead out of it."""

    follow_links: bool = False
    largest_bytes: int = 1000 * MEGABYTE

    @classmethod
    def of(cls, settings: Settings) -> "Rules":
        """As a person has set them."""
        return cls(settings.follow_links, settings.largest_pdf_mb * MEGABYTE)

    def why_not(self, size_bytes: int) -> str | None:
        """Why a file of this size isn't read, if it isn't."""
        if size_bytes <= self.largest_bytes:
            return None
        return (
            f"{size_bytes / MEGABYTE:,.0f} MB: more than EMBED_ASSETS_LARGEST_PDF_MB="
            f"{self.largest_bytes // MEGABYTE} allows"
        )


@dataclass(frozen=True)
class FoundDocument:
    """A PDF in the folder: its id, its place, and by what a change of it is noticed.

    path: relative to the folder, as it is stored.
    """

    document_id: str
    path: str
    size_bytes: int
    modified_at: datetime
    etag: str | None = None

    @property
    def version(self) -> str:
        """What tells a changed file without reading it."""
        version = f"{self.size_bytes} bytes of {self.modified_at.isoformat()}"
        return f"{version}, {self.etag}" if self.etag else version


@dataclass(frozen=True)
class Entries:
    """What is in a folder.

    odd: path of what can't be read -> why. hollow: those of them that are folders which were looked
    through; of what lies below all others nothing is known.
    """

    pdfs: list[FoundDocument] = field(default_factory=list)
    odd: dict[str, str] = field(default_factory=dict)
    hollow: set[str] = field(default_factory=set)

    @property
    def documents(self) -> dict[str, FoundDocument]:
        """The PDFs by id, in the order of their paths."""
        in_order = sorted(self.pdfs, key=lambda document: document.path)
        return {document.document_id: document for document in in_order}

    def hide(self, path: str) -> bool:
        """Whether what lies at a stored path can't be seen, for all that is known."""
        if not self.odd:
            return False
        places = (path, *(parent.as_posix() for parent in PurePosixPath(path).parents))
        return any(place in self.odd and place not in self.hollow for place in places)


def stored_name(path: str) -> str:
    r"""A path of the file system as text that a table can hold and a person can read.

    A byte that is no UTF-8 is written `\xe9`. The backslash of a name that says that itself is
    written `\x5c`, so that no two files have one name. Every other path is stored as it is.
    """
    plain = _ESCAPED.sub(lambda found: f"\\x5c{found[0][1:]}", path)
    return _NO_TEXT.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", plain)


def system_name(path: str) -> str:
    """The path of the file system that is stored so."""

    def plain(found: re.Match[str]) -> str:
        byte = int(found[1], 16)
        return chr(byte) if byte < 0x80 else chr(0xDC00 + byte)

    return _ESCAPED.sub(plain, path)


def spellings(path: str) -> list[str]:
    """What a path may be stored as that a person typed: as it stands, then in other Unicode forms.

    macOS decomposes accents, keyboards compose them.
    """
    try:
        path.encode()
    except UnicodeEncodeError:  # the shell gave the bytes themselves
        path = stored_name(path)
    plain = posixpath.normpath(path)
    forms = (unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))
    return list(dict.fromkeys([path, plain, *forms]))


def is_pdf(name: str) -> bool:
    """Whether a file is named as a PDF, and not hidden."""
    return name.rstrip().lower().endswith(".pdf") and not name.startswith(".")


def entries_of(folder: Place, rules: Rules) -> Entries:
    """The entries of a folder and of its subfolders, hidden ones left out.

    OSError if the folder itself can't be listed; a subfolder that can't is an odd entry. On this
    machine a link to a folder is followed where that isn't gone through anyway, and each folder is
    gone through once; elsewhere the file system does with links what it does.
    """
    if isinstance(folder, RemotePath):
        return _remote_entries(folder, rules)
    return _Walk(Path(os.path.realpath(folder)), rules).go()


def _remote_entries(folder: RemotePath, rules: Rules) -> Entries:
    listing = folder.find()
    found = Entries(odd={stored_name(path): why for path, why in listing.odd.items()})
    for file in listing.files:
        *folders, name = file.path.split("/")
        # No part may be empty either: a key is any text, and `a//b.pdf` is no path.
        if not is_pdf(name) or not all(part and not part.startswith(".") for part in folders):
            continue
        if why_not := file.kind or rules.why_not(file.size_bytes):
            found.odd[stored_name(file.path)] = why_not
        else:
            pdf = _document(file.path, file.size_bytes, file.modified_at, file.etag)
            found.pdfs.append(pdf)
    return found


def _document(
    path: str, size_bytes: int, modified_at: datetime, etag: str | None = None
) -> FoundDocument:
    name = stored_name(path)
    return FoundDocument(_id_of(name), name, size_bytes, modified_at, etag)


@functools.lru_cache(maxsize=200_000)
def _id_of(name: str) -> str:
    """Id of the document that is stored so; a folder is looked through again and again."""
    return document_id(PurePosixPath(name))


class _Walk:
    """Goes through a folder on this machine. root: its real path."""

    def __init__(self, root: Path, rules: Rules) -> None:
        self._root, self._rules = root, rules
        self._found = Entries()
        self._seen = set[str]()
        self._folders = deque([("", str(root))])
        self._links = deque[tuple[str, str]]()
        self._named_as_pdfs: list[str] = []

    def go(self) -> Entries:
        while self._folders or self._links:
            path, place = self._folders.pop() if self._folders else self._links.popleft()
            if place not in self._seen:
                self._seen.add(place)
                self._list(path, place)
        paths = [entry.path for entry in self._found.pdfs]
        for folder in self._named_as_pdfs:
            if not any(path.startswith(f"{stored_name(folder)}/") for path in paths):
                self._odd(folder, "a folder, and no PDF is in it")
                self._found.hollow.add(stored_name(folder))
        return self._found

    def _list(self, path: str, place: str) -> None:
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        self._look(f"{path}/{entry.name}" if path else entry.name, entry)
        except OSError as error:
            if not path:
                raise
            self._odd(path, f"the folder can't be listed: {reason(error)}")

    def _look(self, path: str, entry: os.DirEntry[str]) -> None:
        try:
            state = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # it left while we looked
            return
        except OSError as error:
            if is_pdf(entry.name) or not _is_file(entry):
                self._odd(path, reason(error))
            return
        if stat.S_ISLNK(state.st_mode):
            self._follow(path, entry)
        elif stat.S_ISDIR(state.st_mode):
            self._folders.append((path, entry.path))
            if is_pdf(entry.name):
                self._named_as_pdfs.append(path)
        elif is_pdf(entry.name):
            self._take(path, state)

    def _follow(self, path: str, entry: os.DirEntry[str]) -> None:
        try:
            state, place = os.stat(entry.path), os.path.realpath(entry.path, strict=True)
        except OSError as error:
            if is_pdf(entry.name) or self._rules.follow_links:
                self._odd(path, _broken(error))
            return
        within = _within(place, self._root)
        if stat.S_ISDIR(state.st_mode):
            if not (within or self._rules.follow_links):
                self._odd(path, LEADS_OUT)
            elif not within or _is_hidden(os.path.relpath(place, self._root)):
                self._links.append((path, place))
        elif is_pdf(entry.name):
            if within or self._rules.follow_links or not stat.S_ISREG(state.st_mode):
                self._take(path, state)
            else:
                self._odd(path, LEADS_OUT)

    def _take(self, path: str, state: os.stat_result) -> None:
        why_not = _kind(state) or self._rules.why_not(state.st_size)
        if why_not:
            self._odd(path, why_not)
        else:
            self._found.pdfs.append(_document(path, state.st_size, _modified_at(state)))

    def _odd(self, path: str, why: str) -> None:
        self._found.odd[stored_name(path)] = why


def read_pdf(folder: Place, document: FoundDocument, rules: Rules) -> tuple[bytes, FoundDocument]:
    """Bytes of a PDF, and what is noticed of the file that they were read from.

    OSError where it can't be read, or changes meanwhile.
    """
    if isinstance(folder, RemotePath):
        return (folder / system_name(document.path)).read_bytes(), document
    descriptor = _open(Path(os.path.realpath(folder)), system_name(document.path), rules)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if why_not := _kind(before) or rules.why_not(before.st_size):
            raise OddEntryError(why_not)
        parts: list[bytes] = []
        left = before.st_size + 1  # of a file that never ends no more is taken than there was
        while left and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
        after = os.fstat(descriptor)
    if left != 1 or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise OSError(errno.EAGAIN, "it changed while it was read")
    content = parts[0] if len(parts) == 1 else b"".join(parts)
    seen = replace(document, size_bytes=before.st_size, modified_at=_modified_at(before))
    return content, seen


def reason(error: OSError) -> str:
    """What the system says of an error."""
    return error.strerror or str(error) or type(error).__name__


def _open(root: Path, path: str, rules: Rules) -> int:
    """Descriptor of a file of the folder, that waits for nothing and is reached by no other link.

    Links are resolved before; then each part is opened in the one before it, so that nobody can put
    a link in its place.
    """
    place = os.path.realpath(root / path, strict=True)
    within = _within(place, root)
    if not (within or rules.follow_links):
        raise OddEntryError(LEADS_OUT)
    if kind := _kind(os.lstat(place)):
        raise OddEntryError(kind)
    if not (within and BY_DESCRIPTORS):
        return os.open(place, os.O_RDONLY | _NO_LINK | _NO_WAIT)
    *folders, name = os.path.relpath(place, root).split(os.sep)
    above = os.open(root, _DIRECTORY | _NO_LINK)
    try:
        for part in folders:
            below = os.open(part, _DIRECTORY | _NO_LINK, dir_fd=above)
            os.close(above)
            above = below
        return os.open(name, os.O_RDONLY | _NO_LINK | _NO_WAIT, dir_fd=above)
    finally:
        os.close(above)


def _kind(state: os.stat_result) -> str | None:
    """What stands in place of a regular file, if something does."""
    if stat.S_ISREG(state.st_mode):
        return None
    return f"{_KINDS.get(stat.S_IFMT(state.st_mode), 'something else')}, and no file: not opened"


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:
        return False


def _broken(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "a link that leads to itself"
    if error.errno == errno.ENOENT:
        return "a link to what isn't there"
    return f"a link that can't be followed: {reason(error)}"


def _within(place: str, root: Path) -> bool:
    return place == str(root) or place.startswith(os.path.join(root, ""))


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") and part != os.curdir for part in path.split(os.sep))


def _modified_at(state: os.stat_result) -> datetime:
    """When a file was last written; some file systems hold times that no calendar has."""
    try:
        return datetime.fromtimestamp(state.st_mtime, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
