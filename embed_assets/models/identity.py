"""What a model and a text are: digests of everything that decides what comes of them."""

import functools
import hashlib
import json
from pathlib import Path

from embed_assets.models.card import Task

ROUTER = "router_config.json"
"""What sentence-transformers writes where queries and documents take different ways."""


def text_id(text: str) -> str:
    """What identifies a text; a chunk's text has its chunk_id."""
    return hashlib.md5(text.encode()).hexdigest()


@functools.cache
def weights_digest(source: str, task: Task) -> str:
    """Digest of the weights that texts of this task pass through, in whatever files they are.

    A query adapter leaves the documents' as they are in the base model, and so their embeddings.
    """
    folders = _modules(Path(source), task) if Path(source).is_dir() else []
    files = [file for folder in folders for file in sorted(folder.glob("**/*.safetensors"))]
    if not files:
        return source
    total = hashlib.sha256()
    for file in files:
        total.update(_tensors(file))
    return total.hexdigest()


def _modules(folder: Path, task: Task) -> list[Path]:
    """Folders of the modules that texts of this task pass through, where a router parts them."""
    router = folder / ROUTER
    if not router.is_file():
        return [folder]
    route = json.loads(router.read_text(encoding="utf-8"))["structure"][task]
    return [folder / module for module in route]


def _tensors(file: Path) -> bytes:
    """Digest of a safetensors file's tensors: names, types, shapes and bytes, by name.

    Its header may hold more, such as who wrote it. The format: 8 bytes that say how long the header
    is, the header as JSON, the bytes of the tensors.
    """
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name in sorted(header):
            start, end = header[name].pop("data_offsets")
            stream.seek(8 + length + start)
            digest.update(json.dumps([name, header[name]], sort_keys=True).encode())
            digest.update(stream.read(end - start))
    return digest.digest()
