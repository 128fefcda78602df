"""The promotion: how often a like model is refused, and how often one that has lost something.

Simulated are the NDCG@10 of a champion and of a challenger on three test splits at five dimensions.
A question's gains hang together over the dimensions: its difficulty and most of its luck are the
same at each, the smaller ones are harder. Documents are as in `benchmarks/significance.py`, and so
are the ways in which gains come about:

- alike: two trainings of one recipe. Luck moves single questions up or down.
- clusters: luck moves whole documents, so that a document's questions rise and fall together.
- sparse: only three documents in ten are moved at all.
- skewed: most documents lose a little and few win much, by the same at every dimension.

In the first table neither model is better. Printed is the share of the trials that are refused, in
percent: for a clear loss beyond the margin (Holm's step-down over all fifteen comparisons), and for
that or for being clearly worse on the first split at the largest dimension, as a promotion has it.
5 % is meant. In the second, of 'alike' and 'clusters', the challenger is lower by two and by five
margins at one dimension of one split, at one dimension of all splits, or at all dimensions of one:
printed is the share that is refused for a clear loss.

    python -m benchmarks.promotion [--trials 200] [--seed 1] [--margin 0.01]

takes a quarter of an hour, and a share of 5 % is known to 3 points more or less; with --trials
2000, to one point.
"""

import argparse
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from benchmarks.significance import (
    SKEWED_GAIN,
    Values,
    difficulties,
    moved,
    ndcg_at_10,
    questions_by_document,
)
from embed_assets.evaluation.significance import Verdict, compare_models, find_losses

SHAPES = ((7, 20), (7, 200), (10, 60), (10, 200), (13, 60), (13, 200), (20, 60), (40, 200))
"""Documents and questions of a split."""
FOR_LOSSES = ((7, 200), (13, 200), (40, 200))
"""The same, of the second table."""
SPLITS, DIMENSIONS = ("test_labelled", "test_unseen_documents", "test_seen_documents"), 5
HARDER = 0.15
"""By which each smaller dimension adds to the logarithm of ranks."""
SHARED_LUCK, OWN_LUCK = 0.35, 0.2
"""Spreads of a question's luck: the same at every dimension, and each dimension's own."""

Cells = Callable[[str, int], bool]
LOWER: Mapping[str, Cells] = {
    "one cell": lambda split, dimension: (split, dimension) == (SPLITS[0], 4),
    "a dimension": lambda _, dimension: dimension == 4,
    "a split": lambda split, _: split == SPLITS[0],
}
"""Where a model is lower: by split and place of the dimension."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200, help="trials of each cell")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation")
    parser.add_argument("--margin", type=float, default=0.01, help="NDCG@10 that may be lost")
    arguments = parser.parse_args()
    trials, seed, margin = arguments.trials, arguments.seed, arguments.margin
    print(f"{'documents':>9} {'questions':>9}" + "".join(f"{kind:>18}" for kind in KINDS))
    most = dict.fromkeys(KINDS, (0.0, 0.0))
    for documents, questions in SHAPES:
        refused = {
            kind: refused_shares(kind, documents, questions, trials, seed, margin) for kind in KINDS
        }
        most = {kind: tuple(np.maximum(most[kind], refused[kind])) for kind in KINDS}
        print(f"{documents:>9} {questions:>9}" + _row(refused), flush=True)
    print(f"{'the most':>19}" + _row(most))
    print(f"\n{'documents':>9} {'questions':>9} {'lower by':>9} {'on':>12}   alike clusters")
    for documents, questions in FOR_LOSSES:
        for times in (2, 5):
            for place, cells in LOWER.items():
                found = [
                    100
                    * refused_shares(
                        kind, documents, questions, trials, seed, margin, times * margin, cells
                    )[0]
                    for kind in ("alike", "clusters")
                ]
                print(
                    f"{documents:>9} {questions:>9} {times * margin:>9.3g} {place:>12}"
                    f"{found[0]:>8.0f}{found[1]:>9.0f}",
                    flush=True,
                )


def _row(shares: Mapping[str, tuple[float, ...]]) -> str:
    cells = (f"{100 * losses:.1f} → {100 * either:.1f}" for losses, either in shares.values())
    return "".join(f"{cell:>18}" for cell in cells)


def refused_shares(
    kind: str,
    documents: int,
    questions: int,
    trials: int,
    seed: int,
    margin: float,
    lower_by: float = 0.0,
    cells: Cells = lambda split, dimension: False,
) -> tuple[float, float]:
    """Shares of trials refused: for a clear loss, and for that or a verdict on the first split."""
    rng = np.random.default_rng(seed)
    lost = either = 0
    for _ in range(trials):
        per_query = simulated(rng, kind, documents, questions, lower_by, cells)
        is_lost = bool(find_losses(per_query, margin)["clear"].any())
        headline = per_query.filter(split=SPLITS[0], dimension=DIMENSIONS)
        is_worse = not is_lost and compare_models(headline)["verdict"].item() == Verdict.WORSE
        lost += is_lost
        either += is_lost or is_worse
    return lost / trials, either / trials


def simulated(
    rng: np.random.Generator,
    kind: str,
    documents: int,
    questions: int,
    lower_by: float,
    cells: Cells,
) -> pl.DataFrame:
    """NDCG@10 of both models as `find_losses` takes them; dimensions are 5 (the largest) to 1."""
    frames = []
    for split in SPLITS:
        document_of = questions_by_document(rng, documents, questions)
        ids = {
            "question_id": [f"{split} {n}" for n in range(questions)],
            "document_id": [f"{split} {document}" for document in document_of],
        }
        for place, (champion, tuned) in enumerate(KINDS[kind](rng, document_of)):
            lower = lower_by if cells(split, place) else 0.0
            scores = {"base_ndcg_at_10": champion, "tuned_ndcg_at_10": tuned - lower}
            cell = {"split": pl.lit(split), "dimension": pl.lit(DIMENSIONS - place)}
            frames.append(pl.DataFrame({**ids, **scores}).with_columns(**cell))
    return pl.concat(frames)


Models = list[tuple[Values, Values]]
"""NDCG@10 of champion and challenger by question, at each dimension."""


def _at_each_dimension(
    rng: np.random.Generator, difficulty: Values, luck: tuple[Values, Values], own: float
) -> Models:
    def ndcg(place: int, shared: Values) -> Values:
        return ndcg_at_10(
            difficulty + HARDER * place + shared + rng.normal(0, own, len(difficulty))
        )

    return [(ndcg(place, luck[0]), ndcg(place, luck[1])) for place in range(DIMENSIONS)]


def _alike(rng: np.random.Generator, document_of: np.ndarray, spread: float = 0.0) -> Models:
    difficulty = difficulties(rng, document_of)

    def luck() -> Values:
        own = rng.normal(0, SHARED_LUCK, len(difficulty))
        return own + moved(rng, document_of, spread)

    return _at_each_dimension(rng, difficulty, (luck(), luck()), OWN_LUCK)


def _clustered(rng: np.random.Generator, document_of: np.ndarray) -> Models:
    return _alike(rng, document_of, spread=0.5)


def _sparse(rng: np.random.Generator, document_of: np.ndarray) -> Models:
    changed = (rng.random(document_of.max() + 1) < 0.3)[document_of]
    luck = changed * moved(rng, document_of, 1), changed * moved(rng, document_of, 1)
    return _at_each_dimension(rng, difficulties(rng, document_of), luck, 0.0)


def _skewed(rng: np.random.Generator, document_of: np.ndarray) -> Models:
    gained = (SKEWED_GAIN * (rng.exponential(1, document_of.max() + 1) - 1))[document_of]
    return [(champion, tuned + gained) for champion, tuned in _alike(rng, document_of)]


KINDS: Mapping[str, Callable[[np.random.Generator, np.ndarray], Models]] = {
    "alike": _alike,
    "clusters": _clustered,
    "sparse": _sparse,
    "skewed": _skewed,
}


if __name__ == "__main__":
    main()
