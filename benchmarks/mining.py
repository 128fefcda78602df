"""What hard negatives cost: seconds and memory for so many chunks, here and on a Ray cluster.

    python benchmarks/mining.py [--chunks 200000] [--questions 1024] [--workers 2]

The embeddings are made up. The cluster is of this machine, unless RAY_ADDRESS names another. Both
find the same negatives, or it says so. Peak: of this process, its workers aside.
"""

import argparse
import resource
import sys
import time

import numpy as np

from embed_assets.training.negatives import Search, mine_negatives, search_here, search_on_ray

SIZE, COUNT = 384, 4
Mined = list[list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=int, default=200_000)
    parser.add_argument("--questions", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    chosen = np.random.default_rng(0)
    chunks = chosen.standard_normal((given.chunks, SIZE), np.float32)
    answers = chosen.integers(0, given.chunks, given.questions)
    questions = chunks[answers] + chosen.standard_normal((given.questions, SIZE), np.float32)
    ids = [f"{number:032x}" for number in range(given.chunks)]
    here, there = (
        mine(name, questions, chunks, ids, answers, search)
        for name, search in (("here", search_here), ("on Ray", search_on_ray(given.workers)))
    )
    print("the same negatives" if here == there else "OTHER NEGATIVES ON RAY")
    sys.exit(here != there)


def mine(
    name: str,
    questions: np.ndarray,
    chunks: np.ndarray,
    ids: list[str],
    answers: np.ndarray,
    search: Search,
) -> Mined:
    """Negatives of all questions, and what finding them took."""
    began, used = time.monotonic(), time.process_time()
    positives, related = [ids[place] for place in answers], [set[str]()] * len(answers)
    mined = mine_negatives(questions, chunks, ids, positives, related, COUNT, search)
    seconds, used = time.monotonic() - began, time.process_time() - used
    each = used / len(questions) / len(chunks) * 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{name}: {seconds:.1f} s, {used:.1f} s of a core ({each:.3f} for a question and a million "
        f"chunks), peak {peak:.1f} GiB"
    )
    return mined


if __name__ == "__main__":
    main()
