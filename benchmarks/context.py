"""What does it give to embed a chunk with its headings, or its file's name, before it?

NDCG@10 of the base model by dimension, of hybrid search where BM25 reads the chunk alone, and of
both where BM25 reads the context too, as a markdown table.

    python -m benchmarks.context --home data/home MANUALS PAPERS [--model all-MiniLM-L6-v2]

Homes are asked what people asked of them (retrieval_sets.py). `headings` is the path of headings
above a chunk, `heading` the last of them, `file` the file's name without its suffix.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from benchmarks.retrieval_sets import StandIns, home_task
from embed_assets.evaluation.bm25 import evaluate_bm25
from embed_assets.evaluation.hybrid import score_hybrid
from embed_assets.evaluation.retrieval import Evaluation
from embed_assets.evaluation.scoring import RetrievalTask, score_encoder
from embed_assets.models.card import model_card
from embed_assets.models.encoder import LocalEncoder
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

CONTEXTS: Mapping[str, Callable[[str, str], str]] = {
    "none": lambda headings, file: "",
    "headings": lambda headings, file: headings,
    "heading": lambda headings, file: headings.rpartition(" > ")[2],
    "file": lambda headings, file: file,
    "file and headings": lambda headings, file: " > ".join(filter(None, [file, headings])),
}
"""What stands before a chunk, by its path of headings and the name of its file."""


def rows_of(name: str, home: Path, model: str) -> list[list[str]]:
    warehouse = Warehouse(path=str(home / "warehouse.duckdb"))
    asked = home_task(warehouse)
    task = RetrievalTask(asked.questions, asked.corpus.sort("chunk_id"))
    card = model_card(Settings(model=model))
    model_of_all = LocalEncoder(card, "fp32")
    places = warehouse.read(
        "SELECT chunk_id, coalesce(any_value(heading_path), '') AS headings, "
        "any_value(file_name) AS file FROM chunks GROUP BY chunk_id"
    )
    rows = []
    for context, of in CONTEXTS.items():
        stands_before = {
            chunk: of(headings, Path(file).stem.replace("-", " ").replace("_", " "))
            for chunk, headings, file in places.iter_rows()
        }
        texts = {
            chunk: "\n".join(filter(None, [stands_before[chunk], text]))
            for chunk, text in task.texts.items()
        }
        before = {text: texts[chunk] for chunk, text in task.texts.items()}
        encoder = StandIns(before, lambda: model_of_all)
        shown = task.corpus.with_columns(chunk_text=pl.col("chunk_id").replace_strict(texts))
        read_by_both = replace(task, corpus=shown)
        found = [
            score_encoder(task, encoder, card.dimensions(None)),
            score_hybrid(task, encoder, Settings().dense_weight),
            evaluate_bm25(task.queries, texts, task.relevant),
            score_hybrid(read_by_both, encoder, Settings().dense_weight),
        ]
        rows.append([name, context, *(f"{score:.4f}" for of in found for score in ndcg(of))])
    return rows


def ndcg(found: Evaluation) -> list[float]:
    """NDCG@10 over all questions, the largest dimension first."""
    by_dimension = found.queries.group_by("dimension").agg(pl.col("ndcg_at_10").mean())
    return by_dimension.sort("dimension", descending=True)["ndcg_at_10"].to_list()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", nargs="+", type=Path, required=True)
    parser.add_argument("--model", default=Settings().model)
    options = parser.parse_args()
    sizes = model_card(Settings(model=options.model)).dimensions(None)
    names = [*map(str, sizes), "hybrid", "BM25 reads it", "hybrid, both read it"]
    print(f"| set | before a chunk | {' | '.join(names)} |")
    print(f"| --- | --- |{' ---: |' * len(names)}")
    for home in options.home:
        for row in rows_of(home.name, home, options.model):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
