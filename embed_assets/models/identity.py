"""What a model and a text are: digests of everything that decides what comes of them.

Nothing here loads a model: identities are asked for whenever a plan is made.
"""

import functools
import hashlib
import json
from pathlib import Path

from embed_assets.errors import ProjectError
from embed_assets.models.card import ModelCard, model_card
from embed_assets.models.files import (
    MODULES,
    NoModelError,
    Task,
    hub_commit,
    read_json,
    route,
    tokenizer_file,
)
from embed_assets.settings import Settings

SAME_AS = "same_as.json"
"""File beside an adapter: it says that documents pass through the base model's modules.

So both share document embeddings, though the files were written anew, maybe by another release.
"""
NOT_READ = (SAME_AS, MODULES, "config_sentence_transformers.json", "data_config.json")
"""JSON beside a model's modules that decides no vectors, or does so through the card or the route.
"""
READ = (".json", ".txt", ".model", ".jinja", ".py", ".safetensors", ".bin")


def model_shape(settings: Settings) -> dict[str, object]:
    """What stands for the settings of the base model in a code version: see `Settings.shape`.

    Where nobody can say now what the model is, the settings stand for themselves.
    """
    try:
        card = model_card(settings)
        identity = model_identity(card)
    except NoModelError:
        return {"model": (settings.model, "unknown")}
    return {
        "model": ("" if _is_own(card) else card.name, identity),
        "query_prompt": card.query_prompt,
        "document_prompt": card.document_prompt,
        "max_chunk_tokens": card.token_limit,
    }


def model_identity(card: ModelCard) -> str:
    """Digest of all that decides a model's vectors, but for the precision.

    A folder is read once in a process, until a file of it changes. NoModelError where nobody can
    say now what a hub model is.
    """
    return _digest(task_identity(card, "query"), task_identity(card, "document"))


def check_same_model(card: ModelCard, identity: str) -> None:
    """ProjectError where the model is another here than where its identity was asked for."""
    if model_identity(card) != identity:
        raise ProjectError(
            f"{card.source} is another model on this node than where the command runs. Have the "
            "same folder, or the same commit of the hub's model, on both."
        )


def task_identity(card: ModelCard, task: Task) -> str:
    """Digest of all that decides vectors of queries or of documents: files, prompt, token limit.

    A query adapter's documents have the identity of its base model's.
    """
    return _digest(files_digest(card.source, task), card.prompt(task), str(card.token_limit))


def tokenizer_identity(card: ModelCard) -> str:
    """Digest of all that decides how a text is cut into chunks: the tokenizer and the limit."""
    return _digest(_file_digest(tokenizer_file(card.source)), str(card.token_limit))


def tokenizer_name(settings: Settings) -> str:
    """What chunks are measured with, for a person: the model and its limit.

    A person's own folder may hold another tokenizer tomorrow, or lie elsewhere: its digest counts.
    """
    try:
        card = model_card(settings)
    except NoModelError:
        return f"{settings.model} tokens, unknown"
    name = f"tokenizer {tokenizer_identity(card)}" if _is_own(card) else f"{card.name} tokens"
    return f"{name}, limit {card.token_limit}"


def _is_own(card: ModelCard) -> bool:
    """Whether a model is a folder of the person's, known by what is in it alone."""
    return Path(card.name).expanduser().is_dir()


def files_digest(source: str, task: Task) -> str:
    """Digest of the files that texts of a task pass through; of a hub model, its commit."""
    if not Path(source).is_dir():
        return hub_commit(source)
    own = _own_digest(source, task)
    same = read_json(source, SAME_AS).get(task, {})
    return same["as"] if same.get("own") == own else own


def note_same(folder: Path, task: Task, source: str) -> None:
    """Note that texts of a task pass through a folder's modules as through another model's.

    It holds until the folder's own modules change.
    """
    same = {task: {"own": _own_digest(str(folder), task), "as": files_digest(source, task)}}
    (folder / SAME_AS).write_text(json.dumps(same, indent=2), encoding="utf-8")


def text_id(text: str) -> str:
    """What identifies a text: the chunk_id of a chunk, and the key of an embedding."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _own_digest(source: str, task: Task) -> str:
    parts = []
    for module in route(source, task):
        parts.append(module.kind)
        for file in sorted(Path(source, module.path).glob("*")):
            if file.is_file() and file.suffix in READ and file.name not in NOT_READ:
                parts += [file.name, _file_digest(file)]
    return _digest(*parts)


def _file_digest(file: Path) -> str:
    state = file.stat()
    return _digest_of(str(file), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _digest_of(path: str, size: int, mtime_ns: int) -> str:
    """Digest of a file in this state. size and mtime_ns: what would change if the file did."""
    file = Path(path)
    if file.suffix == ".safetensors":
        return _tensors(file)
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _tensors(file: Path) -> str:
    """Digest of a safetensors file's tensors: names, types, shapes and bytes, by name.

    Its header may hold more, such as who wrote it. The format: 8 bytes that say how long the header
    is, the header as JSON, the bytes of the tensors.
    """
    total = hashlib.sha256()
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name in sorted(header):
            start, end = header[name].pop("data_offsets")
            stream.seek(8 + length + start)
            total.update(json.dumps([name, header[name]], sort_keys=True).encode())
            total.update(stream.read(end - start))
    return total.hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
