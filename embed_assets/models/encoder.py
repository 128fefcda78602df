"""Encoders: what turns texts into embeddings, and the model on this machine among them."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, Literal, Protocol

from embed_assets.errors import one_line
from embed_assets.machine import Machine, this_machine
from embed_assets.models.card import ModelCard
from embed_assets.models.files import (
    TRUSTED_MODELS,
    NoModelError,
    Task,
    foreign_code,
    may_run_code,
)
from embed_assets.settings import Precision
from embed_assets.terminal import progress_bar

if TYPE_CHECKING:
    import numpy as np
    import torch

CPU_BATCH_TOKENS = 2048
"""What a batch may hold on a CPU: beyond it activations leave the cache, and encoding slows."""
GPU_BATCH_TOKENS = 16384
"""What a batch may hold on a GPU: it wants much work at a time, and has its own memory."""
LEAST_BATCH_TOKENS = 128
"""So little is not parted among cores, and done by one: they would wait for each other."""
TOKENISED_AT_ONCE = 1024
MOST_BATCHES_AT_ONCE = 8
"""Batches that a CPU encodes side by side, each on its share of the cores, in memory of its own."""


class Encoder(Protocol):
    """Whatever embeds texts: a model on this machine, or one behind a server."""

    @property
    def identity(self) -> str:
        """Digest of everything that decides the embeddings: equal identities, equal embeddings."""
        ...

    def encode_queries(self, texts: Sequence[str], progress: str | None = None) -> "np.ndarray":
        """Embeddings of queries, float32 (queries, size), not normalised."""
        ...

    def encode_documents(self, texts: Sequence[str], progress: str | None = None) -> "np.ndarray":
        """Embeddings of documents, float32 (documents, size), not normalised."""
        ...


def resolved_precision(
    precision: Precision, machine: Machine | None = None
) -> Literal["fp32", "bf16"]:
    """`auto` resolved for a machine, this one if none is given."""
    if precision != "auto":
        return precision
    return "bf16" if (machine or this_machine()).computes_bf16 else "fp32"


class LocalEncoder:
    """A loaded model on this machine that puts the right prompt before each text."""

    def __init__(
        self,
        card: ModelCard,
        precision: Literal["fp32", "bf16"],
        machine: Machine | None = None,
    ) -> None:
        """Load the weights of the card's model."""
        self._card, self._precision = card, precision
        self._machine = machine or this_machine()
        self._model = load_model(card.source, card.token_limit, self._machine)

    @property
    def device(self) -> "torch.device":
        """Where the model computes."""
        return self._model.device

    def encode(self, texts: Sequence[str], task: Task, progress: str | None = None) -> "np.ndarray":
        """Embeddings of queries or documents, float32 (texts, size), not normalised."""
        prompt = self._card.prompt(task)
        return encode(
            self._model, texts, task, prompt, self._precision, progress, machine=self._machine
        )


class TransientEncoder:
    """A model that is of use for a while: it embeds each list of texts once, and keeps no more than
    its memory does. It is loaded for the first of them.
    """

    def __init__(self, identity: str, load: Callable[[], LocalEncoder]) -> None:
        """identity: digest of everything that decides the embeddings. load: gives the model."""
        self.identity = identity
        self._load = load
        self._model: LocalEncoder | None = None
        self._kept: dict[tuple[Task, tuple[str, ...]], np.ndarray] = {}

    def encode_queries(self, texts: Sequence[str], progress: str | None = None) -> "np.ndarray":
        """Embeddings of queries, float32 (queries, size), not normalised."""
        return self._once(texts, "query")

    def encode_documents(self, texts: Sequence[str], progress: str | None = None) -> "np.ndarray":
        """Embeddings of documents, float32 (documents, size), not normalised."""
        return self._once(texts, "document")

    def _once(self, texts: Sequence[str], task: Task) -> "np.ndarray":
        key = (task, tuple(texts))
        if key not in self._kept:
            self._model = self._model or self._load()
            self._kept[key] = self._model.encode(texts, task)
        return self._kept[key]


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
    lengths = _lengths(model, texts, prompt)
    batch_tokens = GPU_BATCH_TOKENS
    if on_cpu:  # a batch for each core at least
        share = math.ceil(lengths.sum() / torch.get_num_threads())
        batch_tokens = min(max(share, LEAST_BATCH_TOKENS), CPU_BATCH_TOKENS)
    work = list(batches(lengths, batch_tokens))
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
            few = lengths.sum() <= LEAST_BATCH_TOKENS
            _side_by_side(encode_batches, work, 1 if few else torch.get_num_threads())
        else:
            encode_batches(iter(work))
    return embeddings


def _side_by_side(
    work: "Callable[[Iterator[np.ndarray]], None]", items: "Sequence[np.ndarray]", threads: int
) -> None:
    """Have several threads `work` through the items, each taking the next that is left.

    So cores don't wait for each other within an item. `benchmarks/encoding.py` measures it. To be
    called by one thread of a process at a time: torch counts threads for all of it. threads: that
    torch may use for all of it.
    """
    import torch

    before = torch.get_num_threads()
    workers = min(threads, len(items), MOST_BATCHES_AT_ONCE)
    left = iter(items)
    if not items or (workers < 2 and threads == before):
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
        torch.set_num_threads(before)


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
    NoModelError where it can't be loaded, or only by code that comes with it and isn't trusted: no
    code in a file of weights is ever run.
    """
    from pickle import UnpicklingError

    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    machine = machine or this_machine()
    torch.set_num_threads(min(torch.get_num_threads(), machine.cores))
    trusted = may_run_code(source)
    try:
        model = SentenceTransformer(
            source,
            # None: the GPU of this process. Apple's GPUs are left alone: nobody tried them.
            device=None if machine.gpus else "cpu",
            model_kwargs={"dtype": torch.float32},
            trust_remote_code=trusted,
        )
    except (OSError, ValueError, UnpicklingError) as error:
        code = () if trusted else foreign_code(source)
        raise NoModelError(_why_not_loaded(source, error, code)) from error
    if token_limit is not None and model.max_seq_length != math.inf:
        model.max_seq_length = min(model.max_seq_length or token_limit, token_limit)
    return model


def _why_not_loaded(source: str, error: Exception, code: Sequence[str]) -> str:
    """What a person is told. code: classes from code beside the weights, which were not run."""
    if code:
        return (
            f"{source} runs code that comes with it ({', '.join(code)}), which may do anything. "
            f"If you trust who wrote it, name the model in {TRUSTED_MODELS}."
        )
    return f"{source} can't be loaded: {one_line(str(error)) or type(error).__name__}"
