"""The evaluator: how much sooner it is done than sentence-transformers' own, and at what memory.

Both score one model on one BEIR folder at five dimensions, in one run, in fp32, from the texts on.
sentence-transformers encodes every text again for each dimension (a SequentialEvaluator of five
InformationRetrievalEvaluators); here each is encoded once. Printed are the seconds of both, the
median of `--rounds` in which they take turns, their ratio, and the largest difference between any
two figures. Nothing is taken from a cache.

    python benchmarks/evaluator.py --beir DIR [--model all-MiniLM-L6-v2] [--documents 300]
        [--dimensions 4] [--rounds 3]
    python benchmarks/evaluator.py --scale

`--documents N` keeps the first N documents and the queries that they answer, `--dimensions N` is
how many: the model's size, its half, and so on. `--scale` scores
100,000 random documents and 5,000 queries of 768 dimensions at five dimensions, and prints the
seconds and the peak of this process's memory (target: below 2 GiB).
"""

import argparse
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
from sentence_transformers import SentenceTransformer

from embed_assets.evaluation.beir import read_beir
from embed_assets.evaluation.retrieval import evaluate, sentence_transformers_name
from embed_assets.models.card import ModelCard, embedding_size, model_card
from embed_assets.models.encoder import LocalEncoder, load_model
from embed_assets.settings import Settings

SIZE = 768


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--beir", type=Path, help="folder of corpus.jsonl, queries.jsonl, qrels")
    parser.add_argument("--model", default=Settings().model, help="sentence-transformers model")
    parser.add_argument("--documents", type=int, default=0, help="documents to keep; 0: all")
    parser.add_argument("--dimensions", type=int, default=5, help="how many to score at")
    parser.add_argument("--rounds", type=int, default=1, help="how often each scores")
    parser.add_argument("--scale", action="store_true", help="memory on 100,000 x 5,000")
    arguments = parser.parse_args()
    if arguments.scale:
        measure_scale(100_000, 5_000, halvings(SIZE, arguments.dimensions))
    elif arguments.beir:
        compare(arguments)
    else:
        parser.error("give --beir DIR or --scale")


def compare(arguments: argparse.Namespace) -> None:
    """Print both times, their ratio, and how far apart the figures are."""
    task = read_beir(arguments.beir)
    corpus = dict(list(task.corpus.items())[: arguments.documents or None])
    relevant = {query: ids & corpus.keys() for query, ids in task.relevant.items()}
    relevant = {query: ids for query, ids in relevant.items() if ids}
    queries = {query: task.queries[query] for query in relevant}
    card = model_card(Settings(model=arguments.model))
    encoder = LocalEncoder(card, "fp32")
    model = load_model(card.source, card.token_limit)
    dimensions = halvings(embedding_size(card.source), arguments.dimensions)
    few = list(corpus.values())[:8]  # a model's first call is slow
    encoder.encode(few, "document")
    model.encode(few)

    ours, theirs, our_seconds, their_seconds = {}, {}, [], []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        ours = ours_on(encoder, queries, corpus, relevant, dimensions)
        our_seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        theirs = theirs_on(model, card, queries, corpus, relevant, dimensions)
        their_seconds.append(time.perf_counter() - start)

    apart = max(abs(ours[name] - value) for name, value in theirs.items())
    ours_took, theirs_took = median(our_seconds), median(their_seconds)
    print(f"{len(queries)} queries, {len(corpus)} documents, {card.name} at {dimensions}")
    print(f"here                    {ours_took:8.1f} s   {rounded(our_seconds)}")
    print(f"sentence-transformers   {theirs_took:8.1f} s   {rounded(their_seconds)}")
    print(f"{theirs_took / ours_took:.1f} times")
    print(f"largest difference of {len(theirs)} figures: {apart:.1e}")


def halvings(size: int, count: int) -> list[int]:
    """The model's size and its halves, as they are truncated in practice."""
    return [size // 2**halving for halving in range(count)]


def rounded(seconds: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in seconds)


def ours_on(
    encoder: LocalEncoder,
    queries: dict[str, str],
    corpus: dict[str, str],
    relevant: dict[str, set[str]],
    dimensions: Sequence[int],
) -> dict[str, float]:
    """Figures by name, as the evaluation of the project makes them."""
    found = evaluate(
        encoder.encode(list(queries.values()), "query"),
        encoder.encode(list(corpus.values()), "document"),
        list(queries),
        list(corpus),
        relevant,
        dimensions,
    )
    rows = found.scores.select("dimension", "metric", "k", "score").rows()
    return {sentence_transformers_name(*row[:3]): row[3] for row in rows}


def theirs_on(
    model: SentenceTransformer,
    card: ModelCard,
    queries: dict[str, str],
    corpus: dict[str, str],
    relevant: dict[str, set[str]],
    dimensions: Sequence[int],
) -> dict[str, float]:
    """Figures by name, as the recipes make them."""
    from sentence_transformers.sentence_transformer.evaluation import (
        InformationRetrievalEvaluator,
        SequentialEvaluator,
    )

    evaluators = [
        InformationRetrievalEvaluator(
            queries,
            corpus,
            relevant,
            name=f"dim_{dimension}",
            truncate_dim=dimension,
            query_prompt=card.query_prompt or None,
            corpus_prompt=card.document_prompt or None,
            write_csv=False,
        )
        for dimension in dimensions
    ]
    figures = SequentialEvaluator(evaluators)(model)
    return {name: float(value) for name, value in figures.items() if name.startswith("dim_")}


def measure_scale(documents: int, queries: int, dimensions: Sequence[int]) -> None:
    """Print the seconds and the peak memory of scoring random embeddings."""
    random = np.random.default_rng(1)
    corpus = random.standard_normal((documents, SIZE), dtype=np.float32)
    questions = random.standard_normal((queries, SIZE), dtype=np.float32)
    chunk_ids = [f"c{number}" for number in range(documents)]
    question_ids = [f"q{number}" for number in range(queries)]
    answers = random.integers(0, documents, (queries, 3))
    relevant = {
        question: {chunk_ids[int(place)] for place in places}
        for question, places in zip(question_ids, answers, strict=True)
    }
    before = peak_bytes()
    start = time.perf_counter()
    evaluate(questions, corpus, question_ids, chunk_ids, relevant, dimensions)
    seconds = time.perf_counter() - start
    gib = 2**30
    print(f"{documents} documents, {queries} queries, {dimensions}: {seconds:.0f} s")
    print(f"peak memory {peak_bytes() / gib:.2f} GiB, of which {before / gib:.2f} before scoring")


def peak_bytes() -> int:
    """The most memory that this process has held (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
