"""Which documents a file's name in people's questions means.

A name is taken as it stands, in whatever Unicode form: macOS decomposes accents (NFD), and people
type them composed (NFC). Only where that is no file, what people write otherwise is tried:
backslashes, folders above the PDF folder, a part of the path, no suffix, another case.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping


class FileNames:
    """The documents of a folder by what people call them. paths: document_id -> path."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._exact: dict[str, list[str]] = defaultdict(list)
        self._ends: dict[str, dict[str, str]] = defaultdict(dict)
        for document_id, path in paths.items():
            name = composed(path)
            for called in {name, f"./{name}", name.rpartition("/")[2]}:
                self._exact[called].append(document_id)
            for end in _ends(name):
                for called in _spellings(end):
                    self._ends[_folded(called)][document_id] = path

    def __contains__(self, name: str | None) -> bool:
        """Whether a name means a document, or could mean several."""
        return bool(self.named(name) or self.could_be(name))

    def exactly(self, name: str) -> list[str]:
        """Documents of this very name: that of a file, a path, or `./` and a path.

        The last tells a file of the folder itself from one of that name further down.
        """
        return self._exact.get(composed(name), [])

    def named(self, name: str | None) -> list[str]:
        """Documents that a name means: all of this very name, or the only one that it could."""
        if not name:
            return []
        found = self.exactly(name) or list(self._meant(name))
        return found if len(found) == 1 or self.exactly(name) else []

    def could_be(self, name: str | None) -> list[str]:
        """Paths of several documents that a name could mean; none where it is one's very name."""
        found = {} if not name or self.exactly(name) else self._meant(name)
        return list(found.values()) if len(found) > 1 else []

    def _meant(self, name: str) -> Mapping[str, str]:
        """Paths by id of documents whose path ends like a name, or which a name ends like."""
        plain = composed(name).strip().replace("\\", "/")
        of_the_folder = plain.startswith("./")
        plain = plain.removeprefix("./").strip("/")
        for end in [plain] if of_the_folder else _ends(plain):
            found = self._ends.get(_folded(end), {})
            if end != plain or of_the_folder:  # what is before it are folders above the PDF folder
                whole = {key: map(_folded, _spellings(path)) for key, path in found.items()}
                found = {key: found[key] for key in whole if _folded(end) in whole[key]}
            same_case = {
                key: path
                for key, path in found.items()
                if any(end in _spellings(tail) for tail in _ends(composed(path)))
            }
            if found:
                return same_case or found
        return {}


def composed(name: str) -> str:
    """A name in the Unicode form in which equal names are equal."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return composed(name.casefold())


def _ends(path: str) -> Iterator[str]:
    """A path, then without its first folder, and so on to the file's name."""
    while path:
        yield path
        path = path.partition("/")[2]


def _spellings(path: str) -> tuple[str, ...]:
    """A path with and without its suffix."""
    return (path, path[:-4]) if path.lower().endswith(".pdf") else (path,)
