"""Search in many chunks: a warm query, a cold start and memory, beside numpy and bm25s alone.

    python benchmarks/search.py --chunks 100000 --size 384
    python benchmarks/search.py --chunks 1000000 --without-words --vectors spread

Vectors and texts are made up: words drawn by Zipf's law, vectors around some thousand centres, or
far from them (`spread`), or without any (`noise`, as no text is); queries are near some vectors.
From a million chunks on LanceDB gives the candidates; recall is of the ten that are nearest by all
exact cosines.

The goals of a query in 100,000 chunks, without its encoding: 100 ms for both ways together, 30 ms
for the dense way; memory of 1.5 x the vectors; 3 s from a cold start, without the model's loading.
In a million: recall@10 of .95.

Memory is what a process takes beyond its libraries: held, which nobody else can have, and mapped,
pages of files that the system takes back when it needs them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import psutil

from embed_assets.resources.current_index import change_current, search_folder
from embed_assets.search.index import LANCE, VECTORS, CardOnDisk, Manifest, write_index
from embed_assets.search.searching import Cut, Mode, open_searcher
from embed_assets.settings import Settings

WORDS, VOCABULARY = 120, 60_000
QUERIES = 100
FOUND = 10
CENTRES = 2500
DEVIATIONS = {"clustered": 0.9, "spread": 2.0, "noise": None}
"""Length of what is added to a centre of length 1; None: there are no centres."""
FROM_CHUNK = 0.6
"""Length of what a query adds to a vector."""
ASKED, NEAREST = "queries.npy", "nearest.npy"


def texts(count: int, seed: int = 0) -> Iterator[str]:
    generator = np.random.default_rng(seed)
    names = np.array([f"w{n:x}q" for n in range(VOCABULARY)])
    for _ in range(count):
        drawn = np.minimum(generator.zipf(1.2, WORDS), VOCABULARY) - 1
        yield " ".join(names[drawn])


def vectors(count: int, size: int, deviation: float | None) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(1)
    centres = of_length_1(generator.standard_normal((CENTRES, size), dtype=np.float32))
    shares = generator.dirichlet(np.ones(CENTRES))
    for start in range(0, count, 10_000):
        rows = min(10_000, count - start)
        drawn = generator.standard_normal((rows, size), dtype=np.float32)
        if deviation is not None:
            drawn *= np.float32(deviation / size**0.5)
            drawn += centres[generator.choice(CENTRES, rows, p=shares)]
        yield drawn


def queries_near(known: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng(3)
    near = known[np.sort(generator.choice(len(known), QUERIES, replace=False))]
    drawn = generator.standard_normal(near.shape, dtype=np.float32)
    return of_length_1(near + drawn * np.float32(FROM_CHUNK / near.shape[1] ** 0.5))


def of_length_1(drawn: np.ndarray) -> np.ndarray:
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def make(home: Path, count: int, size: int, spread: str, words: bool) -> dict[str, float]:
    """Write an index and queries; gives seconds, and megabytes held at most and on disk."""
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
            "chunk_text": list(texts(count)) if words else "w1q w2q w3q",
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
        lance=0 < Settings().lance_from <= count,
    )
    folder = search_folder(home) / "index"
    begun, before = time.perf_counter(), held_and_mapped()[0]
    with most_held() as most:
        write_index(folder, manifest, places, {VECTORS: vectors(count, size, DEVIATIONS[spread])})
    taken = time.perf_counter() - begun
    change_current(home, lambda now: type(now)(index="index", champion=""))
    np.save(home / ASKED, queries_near(np.load(folder / VECTORS, mmap_mode="r")))
    sizes = Manifest.read(folder).files
    of_lance = sum(size for name, size in sizes.items() if name.startswith(f"{LANCE}/"))
    return {
        "s": taken,
        "held MB at most": (max(most) - before) / 1e6,
        "MB on disk": sum(sizes.values()) / 1e6,
        "MB of it LanceDB's": of_lance / 1e6,
    }


@contextmanager
def most_held() -> Iterator[list[int]]:
    """Gives the bytes that this process holds, ten times a second."""
    ended, seen = threading.Event(), [held_and_mapped()[0]]

    def watch() -> None:
        while not ended.wait(0.1):
            seen.append(held_and_mapped()[0])

    watching = threading.Thread(target=watch)
    watching.start()
    yield seen
    ended.set()
    watching.join()


def held_and_mapped() -> tuple[int, int]:
    memory = psutil.Process().memory_info()
    return memory.rss - memory.shared, memory.shared


def timed(name: str, act: Callable[[int], object]) -> dict[str, float]:
    """Milliseconds of a query: the middle, and what one in twenty takes longer than."""
    taken = []
    for place in range(QUERIES):
        begun = time.perf_counter()
        act(place)
        taken.append(1000 * (time.perf_counter() - begun))
    return {f"{name} ms": float(np.median(taken)), "p95": float(np.quantile(taken, 0.95))}


class Memory:
    """What is taken from now on."""

    def __init__(self, home: Path) -> None:
        self._vectors = (search_folder(home) / "index" / VECTORS).stat().st_size
        self._before = held_and_mapped()

    def taken(self) -> dict[str, float]:
        held, mapped = np.subtract(held_and_mapped(), self._before)
        return {
            "held MB": held / 1e6,
            "mapped MB": mapped / 1e6,
            "x vectors": (held + mapped) / self._vectors,
        }


def asked_words() -> list[str]:
    return [" ".join(text.split()[:8]) for text in texts(QUERIES, seed=2)]


def measure_numpy(home: Path, words: bool) -> Mapping[str, float]:
    embedded, memory = np.load(home / ASKED), Memory(home)
    held = np.load(search_folder(home) / "index" / VECTORS)

    def act(place: int) -> np.ndarray:
        cosines = held @ embedded[place]
        best = np.argpartition(-cosines, FOUND)[:FOUND]
        return best[np.argsort(-cosines[best])]

    np.save(home / NEAREST, np.array([act(place) for place in range(QUERIES)]))
    return {**timed("dense", act), **memory.taken()}


def measure_bm25s(home: Path, words: bool) -> Mapping[str, float]:
    import bm25s

    if not words:
        return {}
    asked, memory = asked_words(), Memory(home)
    index = bm25s.BM25.load(search_folder(home) / "index" / "lexical", mmap=True)

    def act(place: int) -> object:
        return index.retrieve([asked[place].split()], k=FOUND, show_progress=False)

    act(0)
    return {**timed("lexical", act), **memory.taken()}


def measure_ours(home: Path, words: bool) -> Mapping[str, float]:
    import bm25s  # noqa: F401 # a library is no memory of the index
    import pyarrow  # noqa: F401

    settings, asked, embedded = Settings(home=home), asked_words(), np.load(home / ASKED)
    if Manifest.read(search_folder(home) / "index").lance:
        import lancedb  # noqa: F401
    memory = Memory(home)
    searcher = open_searcher(settings)

    def ask(mode: Mode) -> Callable[[int], object]:
        def act(place: int) -> object:
            vector = None if mode == "lexical" else embedded[place]
            return searcher._results(asked[place], vector, Cut(FOUND), mode, "champion", 100)

        return act

    modes: tuple[Mode, ...] = ("dense", "lexical", "hybrid") if words else ("dense",)
    took: dict[str, float] = {}
    for mode in modes:
        ask(mode)(0)
        took |= {k.replace("p95", f"{mode} p95"): v for k, v in timed(mode, ask(mode)).items()}
    taken = memory.taken()
    exact = np.load(home / NEAREST)
    found = [searcher._nearest(searcher.index.vectors, query, 100)[0] for query in embedded]
    shares = [np.isin(near, rows[:FOUND]).mean() for near, rows in zip(exact, found, strict=True)]
    return {**took, **taken, "recall@10": float(np.mean(shares))}


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


MEASURES = {"numpy": measure_numpy, "bm25s": measure_bm25s, "ours": measure_ours}


def line(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:,.2f}" for name, value in figures.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--vectors", choices=DEVIATIONS, default="clustered")
    parser.add_argument("--without-words", action="store_true", help="the dense way alone")
    parser.add_argument("--measure", choices=MEASURES)
    parser.add_argument("--home", type=Path)
    chosen = parser.parse_args()
    words = not chosen.without_words
    if chosen.measure:
        print(json.dumps(MEASURES[chosen.measure](chosen.home, words)))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        made = make(home, chosen.chunks, chosen.size, chosen.vectors, words)
        print(f"{chosen.chunks:,} chunks, vectors {chosen.vectors}: {line(made)}")
        for name in MEASURES:  # each in a process of its own, for its memory
            arguments = ["--measure", name, "--home", folder, *["--without-words"] * (not words)]
            command = [sys.executable, __file__, *arguments]
            said = json.loads(subprocess.check_output(command, encoding="utf-8"))
            print(f"{name:6}", line(said))
        print(f"cold `search --mode lexical`: {min(cold(home) for _ in range(3)):.2f} s")
        print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
