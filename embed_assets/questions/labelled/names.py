"""Which documents a file's name in people's questions means.

A name is taken as it stands, in whatever Unicode form: macOS decomposes accents (NFD), and people
type them composed (NFC). Only where that is no file, what people write otherwise is tried:
backslashes, folders above the PDF folder, no suffix, another case.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping


class FileNames:
    """The documents of a folder by what people call them. paths: document_id -> path."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._exact: dict[str, list[str]] = defaultdict(list)
        self._loose: dict[str, dict[str, str]] = defaultdict(dict)
        for document_id, path in paths.items():
            path = _composed(path)
            for name in {path, f"./{path}", path.rpartition("/")[2]}:
                self._exact[name].append(document_id)
            for name in _tails(path):
                for form in (_loose(name), _loose(_without_suffix(name))):
                    self._loose[form][document_id] = path

    def __contains__(self, name: str | None) -> bool:
        return bool(self.named(name))

    def exactly(self, name: str) -> list[str]:
        """Documents of this very name: that of a file, a path, or `./` and a path.

        The last tells a file of the folder itself from one of that name further down.
        """
        return self._exact.get(_composed(name), [])

    def named(self, name: str | None) -> list[str]:
        """Documents that a name means; none where several could be meant that it is no name of."""
        if not name:
            return []
        if exact := self.exactly(name):
            return exact
        found = self._meant(name)
        return list(found) if len(found) == 1 else []

    def could_be(self, name: str | None) -> list[str]:
        """Paths of the several documents that a name could mean; none where it is one's very name."""
        if not name or self.exactly(name):
            return []
        found = self._meant(name)
        return list(found.values()) if len(found) > 1 else []

    def _meant(self, name: str) -> Mapping[str, str]:
        """Paths of documents that end like a name, by id: the longest end that is one of any."""
        plain = _composed(name).strip().replace("\\", "/")
        forms: tuple[Callable[[str], str], ...] = (str, _loose)
        for tail in _tails(plain.removeprefix("./").strip("/")):
            found = self._loose.get(_loose(tail), {})
            for form in forms:
                same = {
                    key: path
                    for key, path in found.items()
                    if form(tail) in {form(name) for name in _spellings(path)}
                }
                if same:
                    return same
        return {}


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _loose(name: str) -> str:
    """A name without its case, composed."""
    return _composed(name.casefold())


def _without_suffix(name: str) -> str:
    return name[:-4] if name.lower().endswith(".pdf") else name


def _tails(path: str) -> Iterator[str]:
    """A path, then without its first folder, and so on to the file's name."""
    while path:
        yield path
        path = path.partition("/")[2]


def _spellings(path: str) -> Iterator[str]:
    for tail in _tails(path):
        yield tail
        yield _without_suffix(tail)
