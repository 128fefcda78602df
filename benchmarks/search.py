"""Search in many chunks: a warm query, a cold start and memory, beside numpy and bm25s alone.

    python benchmarks/search.py --chunks 100000 --size 384

Vectors and texts are made up: words drawn by Zipf's law, vectors at random. The goals of a query
without its encoding: 100 ms for both ways together, 30 ms for the dense way; memory of 1.5 x the
vectors; 3 s from a cold start, without the model's loading.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import psutil

from embed_assets.resources.current_index import change_current, search_folder
from embed_assets.search.index import VECTORS, CardOnDisk, Index, Manifest, write_index
from embed_assets.search.searching import Cut, Mode, open_searcher
from embed_assets.settings import Settings

MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
WORDS, VOCABULARY = 120, 60_000
QUERIES = 50


def texts(count: int, seed: int = 0) -> Iterator[str]:
    generator = np.random.default_rng(seed)
    names = np.array([f"w{n:x}q" for n in range(VOCABULARY)])
    for _ in range(count):
        drawn = np.minimum(generator.zipf(1.2, WORDS), VOCABULARY) - 1
        yield " ".join(names[drawn])


def vectors(count: int, size: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(1)
    for start in range(0, count, 10_000):
        yield generator.standard_normal((min(10_000, count - start), size), dtype=np.float32)


def queries(size: int) -> tuple[list[str], np.ndarray]:
    asked = [" ".join(text.split()[:8]) for text in texts(QUERIES, seed=2)]
    drawn = np.random.default_rng(3).standard_normal((QUERIES, size)).astype(np.float32)
    return asked, drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def make(home: Path, count: int, size: int) -> float:
    """Write an index into a home; gives the seconds."""
    begun = time.perf_counter()
    places = pl.DataFrame(
        {
            "row": range(count),
            "chunk_id": [f"{n:032x}" for n in range(count)],
            "document_id": [f"d{n // 50}" for n in range(count)],
            "path": [f"d{n // 50}.pdf" for n in range(count)],
            "file_name": [f"d{n // 50}.pdf" for n in range(count)],
            "heading_path": "Heading",
            "page_start": 1,
            "page_end": 1,
            "chunk_text": list(texts(count)),
        }
    )
    manifest = Manifest(
        version=None,
        base="made up",
        identity="made up",
        of_chunks="made up",
        model=CardOnDisk("made up", None, 256, "", ""),
        dimensions=(size,),
        chunks=count,
        made_at="2026-01-01T00:00:00+00:00",
    )
    folder = search_folder(home) / "index"
    write_index(folder, manifest, places, {VECTORS: vectors(count, size)})
    change_current(home, lambda now: type(now)(index="index", champion=""))
    return time.perf_counter() - begun


def median(act: Callable[[int], object]) -> float:
    taken = []
    for place in range(QUERIES):
        begun = time.perf_counter()
        act(place)
        taken.append(time.perf_counter() - begun)
    return 1000 * float(np.median(taken))


def resident() -> int:
    return psutil.Process().memory_info().rss


def measure_ours(home: Path, size: int) -> dict[str, float]:
    settings, before = Settings(home=home), resident()
    asked, embedded = queries(size)
    searcher = open_searcher(settings)

    def ask(mode: Mode) -> Callable[[int], object]:
        def act(place: int) -> object:
            vector = None if mode == "lexical" else embedded[place]
            return searcher._results(asked[place], vector, Cut(10), mode, "champion", 100)

        return act

    ask("hybrid")(0)
    found = {f"{mode} ms": median(ask(mode)) for mode in MODES}
    own = resident() - before
    return {**found, "memory MB": own / 1e6, "x vectors": own / searcher.index.vectors.nbytes}


def measure_numpy(home: Path, size: int) -> dict[str, float]:
    before = resident()
    held = np.load(search_folder(home) / "index" / VECTORS)
    _, embedded = queries(size)

    def act(place: int) -> object:
        cosines = held @ embedded[place]
        best = np.argpartition(-cosines, 10)[:10]
        return best[np.argsort(-cosines[best])]

    act(0)
    own = resident() - before
    return {"dense ms": median(act), "memory MB": own / 1e6, "x vectors": own / held.nbytes}


def measure_bm25s(home: Path, size: int) -> dict[str, float]:
    import bm25s

    before = resident()
    index = Index(search_folder(home) / "index")
    folder = index.folder / "lexical"
    words = bm25s.BM25.load(folder, mmap=True)
    asked, _ = queries(size)

    def act(place: int) -> object:
        return words.retrieve([asked[place].split()], k=10, show_progress=False)

    act(0)
    return {"lexical ms": median(act), "memory MB": (resident() - before) / 1e6}


def cold(home: Path) -> float:
    """Seconds of `search --mode lexical` from start to end: no model is loaded."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "embed_assets.command.cli", "search", "w1q w2q w3q"]
    subprocess.run(
        [*command, "--mode", "lexical", "--home", str(home)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    return time.perf_counter() - begun


MEASURES = {"ours": measure_ours, "numpy": measure_numpy, "bm25s": measure_bm25s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--measure", choices=MEASURES)
    parser.add_argument("--home", type=Path)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(MEASURES[chosen.measure](chosen.home, chosen.size)))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        print(f"index of {chosen.chunks:,} made in {make(home, chosen.chunks, chosen.size):.0f} s")
        for name in MEASURES:  # each in a process of its own, for its memory
            arguments = ["--measure", name, "--home", folder, "--size", str(chosen.size)]
            done = subprocess.run(
                [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True
            )
            said = json.loads(done.stdout)
            print(f"{name:6}", ", ".join(f"{key} {value:.2f}" for key, value in said.items()))
        print(f"cold `search --mode lexical`: {min(cold(home) for _ in range(3)):.2f} s")


if __name__ == "__main__":
    main()
