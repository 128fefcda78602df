"""Parsing: one worker against several, and pymupdf4llm alone, on one long document and on many.

    python benchmarks/parsing.py PDF [PDF …] [--pages 200] [--workers 2] [--rounds 2]

The PDFs are joined to one document of so many pages at least, and are taken as they are too. Each
round takes the ways in turn: a machine that others use slows all of them. Printed are seconds and
pages a second of each, and how much faster several workers are than one and than pymupdf4llm. What
a pool needs to start is part of its seconds. Cores that share parts, or that others use, are not as
many as they are called: the first line says what plain arithmetic gains by as many processes.
"""

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import polars as pl

from embed_assets.documents.parsing import parse_documents
from embed_assets.machine import this_machine
from embed_assets.resources.workers import WorkerPool

ALONE, ONE = "pymupdf4llm", "1 worker"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pdfs", nargs="+", type=Path)
    parser.add_argument("--pages", type=int, default=200, help="of the long document, at least")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    contents = [file.read_bytes() for file in given.pdfs]
    print(this_machine())
    print(f"{given.workers} processes of plain arithmetic are {gain(given.workers):.2f} x one")
    compare("one long document", [join(contents, given.pages)], given.workers, given.rounds)
    compare(f"{len(contents)} documents", contents, given.workers, given.rounds)


def gain(workers: int) -> float:
    """How much more several processes compute than one does; the median of five tries."""
    with ProcessPoolExecutor(workers) as pool:

        def seconds(count: int) -> float:
            begun = time.perf_counter()
            list(pool.map(count_up, range(count)))
            return time.perf_counter() - begun

        seconds(workers)  # they start
        return statistics.median(workers * seconds(1) / seconds(workers) for _ in range(5))


def count_up(_: int) -> int:
    """About a second of work that needs next to no memory."""
    return sum(number & 1 for number in range(20_000_000))


def join(contents: Sequence[bytes], pages: int) -> bytes:
    """One PDF of the pages of these, one after the other, until there are enough."""
    import pymupdf  # here: it loads the layout model, and workers import this file

    joined = pymupdf.open()
    while joined.page_count < pages:
        for content in contents:
            if joined.page_count < pages:
                with pymupdf.open(stream=content) as document:
                    joined.insert_pdf(document, annots=False, links=False)
    return joined.tobytes(garbage=3)


def compare(name: str, contents: Sequence[bytes], workers: int, rounds: int) -> None:
    """Print how long each way takes for these documents."""
    import pymupdf

    several = f"{workers} workers"
    ways: dict[str, Callable[[], None]] = {
        ALONE: partial(alone, contents),
        ONE: partial(ours, contents, 1),
        several: partial(ours, contents, workers),
    }
    pages = sum(pymupdf.open(stream=content).page_count for content in contents)
    print(f"\n{name}, {pages} pages")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, parse in ways.items():
            begun = time.perf_counter()
            parse()
            seconds[way].append(time.perf_counter() - begun)
            print(f"  {way:<12} {seconds[way][-1]:7.1f} s {pages / seconds[way][-1]:6.2f} pages/s")
    for other in (ONE, ALONE):
        ratios = [a / b for a, b in zip(seconds[other], seconds[several], strict=True)]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"  {several} are {statistics.median(ratios):.2f} x {other} (rounds: {each})")


def alone(contents: Sequence[bytes]) -> None:
    """The parser as it comes, in this process."""
    import pymupdf
    import pymupdf4llm

    for content in contents:
        with pymupdf.open(stream=content) as document:
            pymupdf4llm.to_markdown(
                document, page_chunks=True, header=False, footer=False, use_ocr=False
            )


def ours(contents: Sequence[bytes], workers: int) -> None:
    """The documents as the asset parses them."""
    ids = [str(number) for number in range(len(contents))]
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    documents = pl.DataFrame({"document_id": ids, "sha256": hashes, "content": contents})
    made = parse_documents(documents, ids, WorkerPool(processes=workers, timeout=3600))
    assert not made.not_made


if __name__ == "__main__":
    main()
