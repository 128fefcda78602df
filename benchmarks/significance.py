"""The verdict: how often models that are equally good are called better or worse.

Simulated are the NDCG@10 of two models on the questions of a split. Neither model is better: over
all documents there could be, the mean gain is zero. What differs is how the gains are made:

- alike: two trainings of one recipe. Luck moves single questions up or down.
- clusters: luck moves whole documents, so that a document's questions rise and fall together.
- sparse: only three documents in ten are moved at all.
- skewed: most documents lose a little and few win much, the questions of a document together.

Two in five questions have an NDCG@10 of 0, and documents have from one question to most of them.
Printed is the share of the trials that is called better or worse, in percent: by the interval
alone, and by the verdict. 5 % is meant. The last line is the most that any row has.

    python benchmarks/significance.py [--trials 200] [--seed 1]

takes about half a minute, and a share of 5 % is known to 3 points more or less; with --trials 2000,
to one point.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from embed_assets.evaluation.significance import (
    Verdict,
    bootstrap_interval,
    judge,
    sign_flip_p_value,
)

DOCUMENTS = (1, 2, 4, 6, 7, 8, 10, 13, 20, 40)
MOST_QUESTIONS = 200
SKEWED_GAIN = 0.1
"""Standard deviation of a document's gain where gains are skewed."""

Values = NDArray[np.float64]
Gains = Callable[[np.random.Generator, NDArray[np.int64]], Values]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200, help="trials of each cell")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation")
    arguments = parser.parse_args()
    print(f"{'documents':>9} {'questions':>9}" + "".join(f"{name:>18}" for name in KINDS))
    most = dict.fromkeys(KINDS, (0.0, 0.0))
    for documents in DOCUMENTS:
        for questions in sorted({documents, 3 * documents, MOST_QUESTIONS}):
            called = {
                name: called_shares(gains, documents, questions, arguments.trials, arguments.seed)
                for name, gains in KINDS.items()
            }
            most = {name: tuple(np.maximum(most[name], called[name])) for name in KINDS}
            print(f"{documents:>9} {questions:>9}" + row(called), flush=True)
    print(f"{'the most':>19}" + row(most))


def row(shares: dict[str, tuple[float, ...]]) -> str:
    cells = (f"{100 * alone:.1f} → {100 * both:.1f}" for alone, both in shares.values())
    return "".join(f"{cell:>18}" for cell in cells)


def called_shares(
    gains_of: Gains, documents: int, questions: int, trials: int, seed: int
) -> tuple[float, float]:
    """Shares of trials called better or worse: by the interval alone, and by the verdict."""
    rng = np.random.default_rng(seed)
    alone = both = 0
    for _ in range(trials):
        document_of = questions_by_document(rng, documents, questions)
        gains = gains_of(rng, document_of)
        # As the project does it: questions are the draws where there is one document only.
        cluster_of = document_of if documents > 1 else np.arange(questions)
        # Sums of floats, whatever the stubs of numpy say.
        clusters: Values = np.bincount(cluster_of, gains)  # pyright: ignore[reportAssignmentType]
        low, high = bootstrap_interval(clusters, np.bincount(cluster_of))
        if low <= 0 <= high:
            continue
        alone += 1
        verdict = judge(low, high, sign_flip_p_value(clusters), documents)
        both += verdict in (Verdict.BETTER, Verdict.WORSE)
    return alone / trials, both / trials


def questions_by_document(
    rng: np.random.Generator, documents: int, questions: int
) -> NDArray[np.int64]:
    """Document of each question: every document has one question, the rest are shared unevenly."""
    shares = rng.dirichlet(np.full(documents, 0.7))
    sizes = 1 + rng.multinomial(questions - documents, shares)
    return np.repeat(np.arange(documents), sizes)


def alike(rng: np.random.Generator, document_of: NDArray[np.int64]) -> Values:
    difficulty = difficulties(rng, document_of)
    return lucky(rng, difficulty, 0.4) - lucky(rng, difficulty, 0.4)


def clustered(rng: np.random.Generator, document_of: NDArray[np.int64]) -> Values:
    difficulty = difficulties(rng, document_of)
    base, tuned = (lucky(rng, difficulty + moved(rng, document_of, 0.5), 0.4) for _ in range(2))
    return tuned - base


def sparse(rng: np.random.Generator, document_of: NDArray[np.int64]) -> Values:
    difficulty = difficulties(rng, document_of)
    changed = rng.random(document_of.max() + 1) < 0.3
    base, tuned = (
        ndcg_at_10(difficulty + changed[document_of] * moved(rng, document_of, 1)) for _ in range(2)
    )
    return tuned - base


def skewed(rng: np.random.Generator, document_of: NDArray[np.int64]) -> Values:
    by_document = SKEWED_GAIN * (rng.exponential(1, document_of.max() + 1) - 1)
    return alike(rng, document_of) + by_document[document_of]


KINDS: dict[str, Gains] = {
    "alike": alike,
    "clusters": clustered,
    "sparse": sparse,
    "skewed": skewed,
}


def difficulties(rng: np.random.Generator, document_of: NDArray[np.int64]) -> Values:
    """Of each question: its document's, and its own."""
    own = rng.normal(1.9, 1.5, len(document_of))
    return moved(rng, document_of, 1) + own


def moved(rng: np.random.Generator, document_of: NDArray[np.int64], spread: float) -> Values:
    """A normal number for each document, at each of its questions."""
    return rng.normal(0, spread, document_of.max() + 1)[document_of]


def lucky(rng: np.random.Generator, difficulty: Values, spread: float) -> Values:
    return ndcg_at_10(difficulty + rng.normal(0, spread, len(difficulty)))


def ndcg_at_10(difficulty: Values) -> Values:
    """Of questions with one relevant chunk, whose rank grows with the difficulty."""
    rank = np.floor(np.exp(np.clip(difficulty, 0, 9)))
    return np.where(rank <= 10, 1 / np.log2(1 + rank), 0)


if __name__ == "__main__":
    main()
