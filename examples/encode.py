"""Find the paragraphs that answer a question, with a trained version and sentence-transformers.

    python examples/encode.py MODEL QUESTION FILE... [--dimension 128]

MODEL is a version's folder, such as data/home/models/v1. FILE is a text or markdown file. The
folder carries its prompts: `encode_query` and `encode_document` put them before the texts. Nothing
of embed_assets is imported.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer

SHOWN = 3


def best_paragraphs(
    model: SentenceTransformer, question: str, paragraphs: Sequence[str]
) -> list[tuple[float, str]]:
    """Cosine and text of the paragraphs nearest to the question, the best first."""
    of_question = model.encode_query([question])
    of_paragraphs = model.encode_document(list(paragraphs))
    cosines = model.similarity(of_question, of_paragraphs)[0].tolist()
    return sorted(zip(cosines, paragraphs, strict=True), reverse=True)[:SHOWN]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the best paragraphs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("question")
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--dimension", type=int, help="A Matryoshka dimension; all without.")
    options = parser.parse_args(arguments)
    texts = [file.read_text(encoding="utf-8") for file in options.files]
    paragraphs = [part.strip() for text in texts for part in text.split("\n\n") if part.strip()]
    model = SentenceTransformer(options.model, truncate_dim=options.dimension)
    for cosine, paragraph in best_paragraphs(model, options.question, paragraphs):
        print(f"{cosine:.3f}  {' '.join(paragraph.split())[:90]}")


if __name__ == "__main__":
    main()
