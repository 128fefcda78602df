"""The recipe that people copy, in our own words: what this project is measured against.

Two publications, of which the second says that it adapts the first:

- `BLOG`: Philipp Schmid, 'Fine-tune Embedding models for Retrieval Augmented Generation (RAG)',
  https://www.philschmid.de/fine-tune-embedding-model-for-rag (June 2024)
- `NOTEBOOK`: 'Finetune an Embeddings Model using Databricks GPU Serverless',
  https://github.com/revodatanl/revodata-gen-ai-toolkit, finetuning/finetuning-embeddings.ipynb.
  Its comments say which of the blog's values it had before it cut them down for a test run.

    python benchmarks/recipe.py --pdfs DIR --folder DIR [--max-pairs N] [--epochs N]
        [--variant blog|notebook] [--model all-MiniLM-L6-v2]

runs it from PDFs to a model and prints one JSON line. benchmarks/pipeline.py sets it beside
`embed-assets run`. `train_recipe` and `evaluate_recipe` are its training and its evaluation alone.

Kept, since they are part of what is measured:

- the texts are encoded again for every dimension, before the training, after each epoch of it and
  at its end, in the order in which they come
- the best epoch is the one that is best on the test questions
- the blog selects the columns as (positive, anchor), which trains passage to question: the library
  goes by their order
- a random split over rows, so that questions of one chunk may stand on both sides of it
- every row is a corpus entry of its own; a text that stands twice is encoded twice
- no prompts are put before the texts, whatever the model asks for
- NO_DUPLICATES batches in random order, padded to the longest text of each
- gradients are accumulated, which adds no negatives
- chunks are counted in characters; MiniLM cuts what is over its 256 tokens off
- PDFs are parsed one after another; nothing is kept from one run to the next

Changed, since it would not run here, or not do the same:

- a CPU has no tf32; it has bf16 where it computes in it (AMX, AVX512-BF16), else fp32
- dimensions are those that the model has; the best epoch goes by the nearest to the published one
- weights are loaded in fp32, which was the default of the versions it was written for
- seeds are set
- no language model is at hand: the questions are those of this project's extractive generator, one
  for each chunk, as in the notebook; a chunk that it has no question for is left out

Left out, to the recipe's advantage: Spark, its tables, and the two models that the notebook logs to
MLflow. (To its disadvantage: Spark would parse in several processes on a large cluster.)
"""

import argparse
import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHUNK_CHARACTERS = int(8912 * 0.25 * 0.9)
CHUNK_OVERLAP = int(8912 * 0.25 * 0.1)
"""The notebook's chunks: nine tenths of a quarter of 8912, counted in characters."""

HEADINGS = [("#", "Header 1"), ("##", "Header 2"), ("###", "Header 3"), ("####", "Header 4")]
TEST_SHARE = 0.1


@dataclass(frozen=True)
class Variant:
    """The arguments of one publication. best_dimension: whose NDCG@10 chooses the epoch."""

    epochs: int
    batch_size: int
    gradient_accumulation: int
    learning_rate: float
    warmup_share: float
    schedule: str
    columns: tuple[str, str]
    best_dimension: int
    evaluation_batch_size: int
    logging_steps: int
    checkpoints_kept: int


BLOG = Variant(
    epochs=4,
    batch_size=32,
    gradient_accumulation=16,
    learning_rate=2e-5,
    warmup_share=0.1,
    schedule="cosine",
    columns=("positive", "anchor"),
    best_dimension=128,
    evaluation_batch_size=16,
    logging_steps=10,
    checkpoints_kept=3,
)
NOTEBOOK = Variant(
    epochs=1,
    batch_size=16,
    gradient_accumulation=2,
    learning_rate=2e-5,
    warmup_share=0.05,
    schedule="linear",
    columns=("anchor", "positive"),
    best_dimension=768,
    evaluation_batch_size=32,
    logging_steps=5,
    checkpoints_kept=1,
)
VARIANTS: Mapping[str, Variant] = {"blog": BLOG, "notebook": NOTEBOOK}


@dataclass(frozen=True, eq=False)
class RecipeResult:
    """A trained model and what it took.

    seconds: of training, checkpoints included, validation not. pairs_per_second: over these.
    validation: figures by name after each epoch. best_epoch: from 1; the model is that epoch's.
    """

    model: Any
    seconds: float
    pairs_per_second: float
    validation_seconds: list[float]
    validation: list[dict[str, float]]
    best_epoch: int
    best_metric: str
    precision: str


def train_recipe(
    source: str,
    pairs: Sequence[tuple[str, str]],
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    relevant: Mapping[str, Iterable[str]],
    dimensions: Sequence[int],
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    gradient_accumulation: int | None = None,
    learning_rate: float | None = None,
    seed: int = 42,
    folder: Path,
    variant: Variant = BLOG,
    precision: str | None = None,
    evaluator: Any = None,
) -> RecipeResult:
    """Fine-tune as published; all that it writes is in `folder`.

    pairs: (anchor, positive). queries, corpus: text by id; relevant: corpus ids by query id, what
    the best epoch is chosen on. dimensions: largest first. What is not given is the variant's, and
    the precision and the evaluator those which were published.
    """
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.losses import (
        MatryoshkaLoss,
        MultipleNegativesRankingLoss,
    )
    from transformers import PrinterCallback

    epochs = epochs or variant.epochs
    model = load(source, attn_implementation="sdpa")
    rows = Dataset.from_dict({"anchor": [a for a, _ in pairs], "positive": [p for _, p in pairs]})
    precision = precision or published_precision()
    best_metric = f"dim_{_nearest(dimensions, variant.best_dimension)}_cosine_ndcg@10"
    clock = _clock()
    published = evaluator or recipe_evaluator(queries, corpus, relevant, dimensions)
    evaluator = _timed(published, clock)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=_arguments(
            variant,
            folder / "checkpoints",
            precision=precision,
            num_train_epochs=epochs,
            per_device_train_batch_size=batch_size or variant.batch_size,
            gradient_accumulation_steps=gradient_accumulation or variant.gradient_accumulation,
            learning_rate=learning_rate or variant.learning_rate,
            metric_for_best_model=f"eval_{best_metric}",
            seed=seed,
        ),
        train_dataset=rows.select_columns(list(variant.columns)),
        loss=MatryoshkaLoss(
            model, MultipleNegativesRankingLoss(model), matryoshka_dims=list(dimensions)
        ),
        evaluator=evaluator,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model(str(folder / "model"))
    chosen = [figures[best_metric] for figures in evaluator.figures]
    return RecipeResult(
        # Loaded anew, as published: during training its forward pass was under autocast.
        model=SentenceTransformer(str(folder / "model")),
        seconds=clock.seconds,
        pairs_per_second=len(pairs) * epochs / clock.seconds,
        validation_seconds=evaluator.seconds,
        validation=evaluator.figures,
        best_epoch=1 + chosen.index(max(chosen)),
        best_metric=best_metric,
        precision=precision,
    )


def evaluate_recipe(
    model: Any,
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    relevant: Mapping[str, Iterable[str]],
    dimensions: Sequence[int],
) -> dict[str, float]:
    """Figures by sentence-transformers' names, each dimension from an encoding of its own."""
    figures = recipe_evaluator(queries, corpus, relevant, dimensions)(model)
    return {name: float(value) for name, value in figures.items()}


def recipe_evaluator(
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    relevant: Mapping[str, Iterable[str]],
    dimensions: Sequence[int],
) -> Any:
    """A SequentialEvaluator of one InformationRetrievalEvaluator for each dimension."""
    from sentence_transformers.sentence_transformer.evaluation import (
        InformationRetrievalEvaluator,
        SequentialEvaluator,
    )
    from sentence_transformers.util import cos_sim

    return SequentialEvaluator(
        [
            InformationRetrievalEvaluator(
                queries=dict(queries),
                corpus=dict(corpus),
                relevant_docs={query: set(ids) for query, ids in relevant.items()},
                name=f"dim_{dimension}",
                truncate_dim=dimension,
                score_functions={"cosine": cos_sim},
            )
            for dimension in dimensions
        ]
    )


def load(source: str, **model_arguments: Any) -> Any:
    """The model at a folder or of a hub name, as it comes: its own length limit, no prompts."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    return SentenceTransformer(source, model_kwargs={"dtype": torch.float32, **model_arguments})


def published_precision() -> str:
    """bf16, which the recipe asks for, wherever the machine computes in it; else fp32."""
    from embed_assets.models.encoder import resolved_precision

    return resolved_precision("auto")


def _arguments(variant: Variant, folder: Path, *, precision: str, **given: Any) -> Any:
    import torch
    from sentence_transformers import SentenceTransformerTrainingArguments
    from sentence_transformers.base.sampler import BatchSamplers

    gpu = torch.cuda.is_available()
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_eval_batch_size=variant.evaluation_batch_size,
        warmup_steps=variant.warmup_share,  # a share, as warmup_ratio was
        lr_scheduler_type=variant.schedule,
        optim="adamw_torch_fused",
        tf32=precision == "bf16" if gpu else None,
        bf16=precision == "bf16",
        use_cpu=not gpu,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_steps=variant.logging_steps,
        save_total_limit=variant.checkpoints_kept,
        load_best_model_at_end=True,
        report_to="none",
        disable_tqdm=True,
        **given,
    )


def _nearest(dimensions: Sequence[int], wanted: int) -> int:
    return min(dimensions, key=lambda dimension: abs(dimension - wanted))


def _clock() -> Any:
    """A trainer callback that counts the seconds of training; `paused` stops it for a while."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds = 0.0
            self._since = 0.0

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self._since = time.perf_counter()

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds += time.perf_counter() - self._since

        @contextmanager
        def paused(self) -> Iterator[None]:
            self.seconds += time.perf_counter() - self._since
            yield
            self._since = time.perf_counter()

    return Clock()


def _timed(evaluator: Any, clock: Any) -> Any:
    """The evaluator, with the figures and seconds of each pass; the clock stands still in it."""
    from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

    class TimedEvaluator(SentenceEvaluator):
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []
            self.figures: list[dict[str, float]] = []

        def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
            with clock.paused():
                start = time.perf_counter()
                figures = evaluator(model, *args, **kwargs)
                self.seconds.append(time.perf_counter() - start)
            self.primary_metric = evaluator.primary_metric
            self.figures.append({name: float(value) for name, value in figures.items()})
            return figures

    return TimedEvaluator()


# From here on: the rest of the recipe, from PDFs to pairs, as the notebook has it.


@dataclass
class Stages:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Row:
    """A question and its chunk, as the recipe's data set has them."""

    anchor: str
    positive: str
    chunk_id: str


def parse(pdf: Path) -> str:
    """Markdown of a whole PDF; empty where it can't be read."""
    import pymupdf
    import pymupdf4llm

    try:
        with pymupdf.open(stream=pdf.read_bytes(), filetype="pdf") as document:
            markdown = pymupdf4llm.to_markdown(document)
            assert isinstance(markdown, str)  # a list only by page_chunks
            return markdown.strip()
    except Exception as error:
        warnings.warn(f"{pdf.name}: {error}", stacklevel=2)
        return ""


def chunk(markdown: str, characters: int, overlap: int) -> list[tuple[str, str]]:
    """(heading path, text) of each chunk: cut at headings, then by length in characters."""
    from langchain_text_splitters import (
        MarkdownHeaderTextSplitter,
        RecursiveCharacterTextSplitter,
    )

    sections = MarkdownHeaderTextSplitter(HEADINGS, strip_headers=False).split_text(markdown)
    by_length = RecursiveCharacterTextSplitter(chunk_size=characters, chunk_overlap=overlap)
    return [
        (" > ".join(piece.metadata.values()), piece.page_content)
        for piece in by_length.split_documents(sections)
    ]


def ask(chunks_by_file: Mapping[str, Sequence[tuple[str, str]]]) -> list[Row]:
    """One question for each chunk: the first of those that this project's generator has."""
    import polars as pl

    from embed_assets.questions.extractive.mix import extractive_questions

    rows = [
        (file, index, hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), text, path)
        for file, chunks in chunks_by_file.items()
        for index, (path, text) in enumerate(chunks)
    ]
    columns = ["document_id", "chunk_index", "chunk_id", "chunk_text", "heading_path"]
    chunks = pl.DataFrame(rows, schema=columns, orient="row")
    first = extractive_questions(chunks).unique(["document_id", "chunk_id"], keep="first")
    asked = chunks.join(
        first.select("document_id", "chunk_id", "question"),
        on=["document_id", "chunk_id"],
        maintain_order="left",
    )
    return [Row(*row) for row in asked.select("question", "chunk_text", "chunk_id").iter_rows()]


def run_recipe(
    pdfs: Sequence[Path],
    source: str,
    folder: Path,
    *,
    max_pairs: int,
    epochs: int | None,
    variant: Variant,
    seed: int = 42,
) -> dict[str, Any]:
    """The whole recipe. Gives seconds by stage, counts and figures."""
    stages = Stages()
    with stages.stage("imports"):
        import pymupdf4llm  # noqa: F401
        from datasets import Dataset

        from embed_assets.models.card import embedding_size, matryoshka_dimensions

        dimensions = matryoshka_dimensions(embedding_size(source), None)
    with stages.stage("parse"):
        texts = {pdf.name: parse(pdf) for pdf in pdfs}
    with stages.stage("chunk"):
        chunks = {
            name: chunk(text, CHUNK_CHARACTERS, CHUNK_OVERLAP) for name, text in texts.items()
        }
    with stages.stage("questions"):
        rows = ask(chunks)
    with stages.stage("pairs"):
        numbers = Dataset.from_dict({"row": list(range(len(rows)))})
        split = numbers.train_test_split(test_size=TEST_SHARE, seed=seed)
        train, test = split["train"]["row"], split["test"]["row"]
        corpus = {str(number): rows[number].positive for number in [*train, *test]}
        queries = {str(number): rows[number].anchor for number in test}
        relevant = {
            str(number): [
                other for other in corpus if rows[int(other)].chunk_id == rows[number].chunk_id
            ]
            for number in test
        }
        pairs = [(rows[n].anchor, rows[n].positive) for n in list(train)[: max_pairs or None]]
    with stages.stage("base evaluation"):
        base = evaluate_recipe(load(source), queries, corpus, relevant, dimensions)
    start = time.perf_counter()
    result = train_recipe(
        source,
        pairs,
        queries,
        corpus,
        relevant,
        dimensions,
        epochs=epochs,
        seed=seed,
        folder=folder,
        variant=variant,
    )
    taken = time.perf_counter() - start
    validation = sum(result.validation_seconds)
    stages.seconds |= {
        "training": result.seconds,
        "validation": validation,
        "model": taken - result.seconds - validation,  # loaded, saved, loaded again
    }
    with stages.stage("final evaluation"):
        tuned = evaluate_recipe(result.model, queries, corpus, relevant, dimensions)
    return {
        "seconds": stages.seconds,
        "documents": len(pdfs),
        "chunks": sum(map(len, chunks.values())),
        "corpus": len(corpus),
        "queries": len(queries),
        "pairs": len(pairs),
        "epochs": epochs or variant.epochs,
        "dimensions": dimensions,
        "precision": result.precision,
        "pairs_per_second": result.pairs_per_second,
        "validation_seconds": result.validation_seconds,
        "best_epoch": result.best_epoch,
        "base": base[result.best_metric],
        "tuned": tuned[result.best_metric],
        "metric": result.best_metric,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pdfs", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="what it writes")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--max-pairs", type=int, default=0, help="0: all")
    parser.add_argument("--epochs", type=int, help="as published if not given")
    parser.add_argument("--variant", choices=list(VARIANTS), default="blog")
    arguments = parser.parse_args()
    result_to = os.fdopen(os.dup(1), "w")  # libraries print: stdout is for the result
    os.dup2(2, 1)
    from embed_assets.models.card import model_source

    pdfs = sorted(arguments.pdfs.glob("*.pdf"))
    if not pdfs:
        sys.exit(f"There are no PDFs in {arguments.pdfs}.")
    result = run_recipe(
        pdfs,
        model_source(arguments.model),
        arguments.folder,
        max_pairs=arguments.max_pairs,
        epochs=arguments.epochs,
        variant=VARIANTS[arguments.variant],
    )
    print(json.dumps(result), file=result_to)


if __name__ == "__main__":
    main()
