"""Score a model on your own questions and a folder of texts, at every Matryoshka dimension.

    python examples/score_questions.py MODEL FOLDER QUESTIONS

MODEL is a version's folder or any sentence-transformers model. FOLDER has markdown or text files.
QUESTIONS has a JSON object per line: `question`, and the `file_name` that answers it (its suffix
does not count: lease.pdf is lease.md). Every chunk of that file counts as an answer.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from sentence_transformers import SentenceTransformer

from embed_assets.documents.chunking import chunk_markdown
from embed_assets.evaluation.retrieval import evaluate

MATRYOSHKA = (512, 256, 128, 64)


def read_chunks(folder: Path, model: SentenceTransformer) -> dict[str, dict[str, str]]:
    """Text by chunk_id of each file, by the file's name without its suffix."""
    limit = int(model.max_seq_length or 512)
    return {
        file.stem: {
            chunk["chunk_id"]: chunk["chunk_text"]
            for chunk in chunk_markdown(
                [(1, file.read_text(encoding="utf-8"))],
                lambda text: len(model.tokenizer.tokenize(text)),
                limit,
            )
        }
        for file in sorted(folder.iterdir())
        if file.suffix in (".md", ".txt")
    }


def score(
    model: SentenceTransformer,
    questions: Sequence[tuple[str, str]],
    chunks: dict[str, dict[str, str]],
) -> pl.DataFrame:
    """Scores (dimension, metric, k, score). questions: each with the file that answers it."""
    corpus = {chunk_id: text for of_file in chunks.values() for chunk_id, text in of_file.items()}
    asked = {f"q{i}": pair for i, pair in enumerate(questions) if chunks.get(pair[1])}
    size = model.get_embedding_dimension() or 0
    return evaluate(
        np.asarray(model.encode_query([question for question, _ in asked.values()])),
        np.asarray(model.encode_document(list(corpus.values()))),
        list(asked),
        list(corpus),
        {question_id: chunks[file].keys() for question_id, (_, file) in asked.items()},
        [size, *(dimension for dimension in MATRYOSHKA if dimension < size)],
    ).scores


def main(arguments: Sequence[str] | None = None) -> None:
    """Print NDCG@10 at every dimension."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("questions", type=Path)
    options = parser.parse_args(arguments)
    rows = map(json.loads, options.questions.read_text(encoding="utf-8").splitlines())
    questions = [(row["question"], Path(row["file_name"]).stem) for row in rows]
    model = SentenceTransformer(options.model)
    scores = score(model, questions, read_chunks(options.folder, model))
    ndcg = scores.filter(pl.col("metric") == "ndcg", pl.col("k") == 10)
    for dimension, value in ndcg.select("dimension", "score").iter_rows():
        print(f"NDCG@10 at {dimension:4} dimensions: {value:.4f}")


if __name__ == "__main__":
    main()
