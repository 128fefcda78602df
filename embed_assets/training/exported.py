"""Whether a network that was exported for another runtime ranks like the version that it is of."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from embed_assets.errors import ProjectError
from embed_assets.evaluation.retrieval import ALL_QUESTIONS, evaluate
from embed_assets.evaluation.scoring import RetrievalTask, full_ndcg
from embed_assets.machine import this_machine
from embed_assets.models.card import version_card
from embed_assets.models.encoder import encode, load_model
from embed_assets.models.files import Task, route
from embed_assets.models.network import ABOUT, EXAMPLES, RUNTIMES, Format, export_network, run_by
from embed_assets.terminal import tell
from embed_assets.wording import counted

if TYPE_CHECKING:
    import numpy as np

MOST_QUESTIONS = 500
MOST_CHUNKS = 2000
FEWEST_QUESTIONS = 20
"""With fewer, a network that is wrong may rank as well by luck: its vectors are compared."""
LARGEST_CHANGE = 0.005
LEAST_COSINE = 0.999
PYTORCH = "pytorch"
NOTHING = "Nothing was published"
Embeddings = Mapping[Task, "np.ndarray"]


@dataclass(frozen=True)
class Check:
    """How an exported network compares with PyTorch's.

    file: in the model's folder. ndcg_at_10: by what ran the network; None where the questions were
    too few. least_cosine: of a text's two vectors, over all texts that were embedded.
    """

    format: Format
    file: str
    questions: int
    chunks: int
    ndcg_at_10: Mapping[str, float] | None
    least_cosine: float

    @property
    def same(self) -> bool:
        """Whether NDCG@10 is within half a percent; without it, whether the vectors are alike."""
        if self.ndcg_at_10 is None:
            return self.least_cosine >= LEAST_COSINE
        before, after = self.ndcg_at_10[PYTORCH], self.ndcg_at_10[self.format]
        return abs(after - before) <= LARGEST_CHANGE * before

    def __str__(self) -> str:
        cosine = f"each vector has a cosine of {self.least_cosine:.5f} or more with PyTorch's"
        if self.ndcg_at_10 is None:
            return f"too few questions to compare rankings; {cosine}"
        before, after = self.ndcg_at_10[PYTORCH], self.ndcg_at_10[self.format]
        on = f"{counted(self.questions, 'question')} and {counted(self.chunks, 'chunk')}"
        return f"NDCG@10 is {after:.4f}, and {before:.4f} in PyTorch, on {on}; {cosine}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def add_network(folder: Path, form: Format, task: RetrievalTask) -> Check:
    """Write the network of a model into its folder in another form, and check it by its runtime.

    Up to 500 of the task's questions, drawn by chance, are asked in a corpus of all chunks that
    answer them and of others, up to 2,000. Both networks embed the same texts with the model's own
    tokenizer, prompts and pooling, in fp32 on this CPU. NDCG@10 at the full size may differ by half
    a percent. With fewer than 20 questions, or where PyTorch finds nothing, no vector may have a
    cosine below .999 with PyTorch's. ProjectError where it is otherwise, or where the network can't
    be exported; then the folder is to be thrown away.
    """
    import numpy as np

    machine = replace(this_machine(), find_gpus=tuple)
    model = load_model(str(folder), machine=machine)
    tell(f"Exporting the network for {RUNTIMES[form]}")
    place = folder / route(str(folder), "document")[0].path
    file = export_network(model, form, place)
    sample, card = _drawn(task), version_card("", folder)
    texts: dict[Task, list[str]] = {
        "query": [*sample.queries.values(), *EXAMPLES],
        "document": [*sample.texts.values(), *EXAMPLES],
    }

    def embed(runtime: str) -> Embeddings:
        said = f"Embedding with {runtime}"
        return {
            task: encode(model, some, task, card.prompt(task), "fp32", said, machine=machine)
            for task, some in texts.items()
        }

    before = embed("PyTorch")
    run_by(model, form, file)
    after = embed(RUNTIMES[form])
    # By numpy: Python's own passes over a number that is none.
    least_cosine = float(np.min([_least_cosine(before[task], after[task]) for task in texts]))
    if not math.isfinite(least_cosine):
        raise ProjectError(f"{NOTHING}: {RUNTIMES[form]} computes no finite numbers.", ABOUT)
    check = Check(
        format=form,
        file=file.relative_to(folder).as_posix(),
        questions=len(sample.queries),
        chunks=len(sample.texts),
        ndcg_at_10=_ndcg(sample, {PYTORCH: before, form: after}),
        least_cosine=least_cosine,
    )
    if not check.same:
        raise ProjectError(f"{NOTHING}: {RUNTIMES[form]} ranks otherwise: {check}.", ABOUT)
    return check


def _drawn(task: RetrievalTask) -> RetrievalTask:
    """Some questions, the chunks that answer them, and others: drawn by chance, always the same."""
    asked = task.questions.sample(min(MOST_QUESTIONS, task.questions.height), seed=0)
    answers = asked["relevant_chunk_ids"].explode().to_list()
    answering = pl.col("chunk_id").is_in(answers)
    found, others = task.corpus.filter(answering), task.corpus.filter(~answering)
    more = min(max(0, MOST_CHUNKS - found.height), others.height)
    return RetrievalTask(asked, pl.concat([found, others.sample(more, seed=0)]))


def _ndcg(task: RetrievalTask, by_runtime: Mapping[str, Embeddings]) -> dict[str, float] | None:
    """NDCG@10 at the full size; None where that says little: of few questions, or if it is 0."""
    if len(task.queries) < FEWEST_QUESTIONS:
        return None
    ndcg = {}
    for runtime, embeddings in by_runtime.items():
        queries = embeddings["query"][: len(task.queries)]
        chunks = embeddings["document"][: len(task.texts)]
        ids = (list(task.queries), list(task.texts))
        scores = evaluate(queries, chunks, *ids, task.relevant, [chunks.shape[1]]).scores
        ndcg[runtime] = full_ndcg(scores)[ALL_QUESTIONS]
    return ndcg if ndcg[PYTORCH] else None


def _least_cosine(some: "np.ndarray", others: "np.ndarray") -> float:
    import numpy as np

    lengths = np.linalg.norm(some, axis=1) * np.linalg.norm(others, axis=1)
    return float(((some * others).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
