"""Parse a PDF, cut it into chunks and find those that answer a question, in a plain program.

    python examples/ask_pdf.py MODEL PDF QUESTION

MODEL is a version's folder or any sentence-transformers model. A PDF that you don't trust belongs
in a process of its own, with limits: `embed_assets.resources.workers` has them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from embed_assets.documents.chunking import chunk_markdown
from embed_assets.documents.reading import parse_pdf
from embed_assets.evaluation.retrieval import top_k

SHOWN = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the best chunks, with their pages and the headings above them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("pdf", type=Path)
    parser.add_argument("question")
    options = parser.parse_args(arguments)
    model = SentenceTransformer(options.model)
    pages = [(page.number, page.markdown) for page in parse_pdf(options.pdf.read_bytes())]
    chunks = list(
        chunk_markdown(
            pages,
            lambda text: len(model.tokenizer.tokenize(text)),
            int(model.max_seq_length or 512),
        )
    )
    found, cosines = top_k(
        np.asarray(model.encode_query([options.question])),
        np.asarray(model.encode_document([chunk["chunk_text"] for chunk in chunks])),
        k=SHOWN,
    )
    for place, cosine in zip(found[0], cosines[0], strict=True):
        chunk = chunks[place]
        print(f"{cosine:.3f}  page {chunk['page_start']}  {chunk['heading_path']}")
        print(f"       {' '.join(chunk['chunk_text'].split())[:90]}")


if __name__ == "__main__":
    main()
