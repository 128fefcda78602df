"""What does it take to find the evidence of people's questions that name no file?

Prints seconds and the memory that was added, for corpora of several sizes. Chunks are made up, a
hundred to a document; each question quotes a part of one of them.

    python benchmarks/labelled_matching.py --chunks 10000 100000 --questions 1 200
"""

import argparse
import random
import resource
import time
from collections.abc import Iterator

import polars as pl

from embed_assets.questions.labelled.evidence import find_evidence
from embed_assets.questions.labelled.files import LabelledQuestion

WORDS = [f"word{number}" for number in range(20_000)]
CHUNKS_OF_A_DOCUMENT = 100


def words_of_chunk(document: int, place: int) -> list[str]:
    return random.Random(f"{document} {place}").choices(WORDS, k=150)


def frames(documents: int) -> Iterator[pl.DataFrame]:
    """Ten documents at a time, as they come from the warehouse."""
    for start in range(0, documents, 10):
        yield pl.DataFrame(
            [
                (f"d{document}", f"{document}-{place}", " ".join(words_of_chunk(document, place)))
                for document in range(start, min(start + 10, documents))
                for place in range(CHUNKS_OF_A_DOCUMENT)
            ],
            schema=["document_id", "chunk_id", "chunk_text"],
            orient="row",
        ).with_columns(page_start=1, page_end=1)


def question(number: int, documents: int) -> LabelledQuestion:
    quoted = words_of_chunk(number * 37 % documents, number % CHUNKS_OF_A_DOCUMENT)[20:60]
    return LabelledQuestion(
        question=f"Question {number}?",
        evidence_text=" ".join(quoted),
        purpose="test",
        source="questions.jsonl",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--questions", nargs="+", type=int, default=[1, 200])
    options = parser.parse_args()
    for chunks in options.chunks:
        documents = max(1, chunks // CHUNKS_OF_A_DOCUMENT)
        paths = {f"d{number}": f"d{number}.pdf" for number in range(documents)}
        for count in options.questions:
            questions = [question(number, documents) for number in range(count)]
            begun, before = time.perf_counter(), peak()
            found = find_evidence(frames(documents), questions, paths)
            seconds, added = time.perf_counter() - begun, peak() - before
            print(
                f"{chunks:,} chunks, {count} questions: {len(found)} found, {seconds:.1f} s with "
                f"the making of the chunks, {added:.0f} MiB more"
            )


def peak() -> float:
    """Largest memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
