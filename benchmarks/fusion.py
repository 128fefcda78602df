"""How should search by meaning and by words become one list? Scores each way, as a markdown table.

Every way fuses the 100 best of both lists. NDCG@10; the best of each column is bold.

    python -m benchmarks.fusion --beir /data/ir/cranfield /data/ir/scifact --home data/home \
        [--cache HOME] [--model all-MiniLM-L6-v2]

What the sets are: retrieval_sets.py.

- `rrf K`: the sum of 1 / (K + rank). Cormack, Clarke & Buettcher 2009.
- `min-max W`: scores of each list from 0 (its last) to 1 (its first). Lee 1997.
- `from least W`: scores from 0 (the least possible: -1 for a cosine, 0 for BM25) to 1 (the first of
  the list). Bruch, Gai & Ingber 2023.
- `z-score W`: scores less their mean, over their standard deviation; what a list lacks has its
  least. Montague & Aslam 2001.

W is the weight of the dense list, 1 - W that of BM25's. In `min-max` and `from least`, what a list
lacks has 0. The last two rows: each document's questions by the `min-max` weight that is best on
other documents, and what that gives beside the weight that is set (comparison/hybrid_weights.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl

from benchmarks.retrieval_sets import RetrievalSet, named_sets
from embed_assets.comparison.hybrid_weights import CHOSEN, measure_weights
from embed_assets.comparison.verdict import interval
from embed_assets.evaluation.fusion import CANDIDATES, fuse
from embed_assets.evaluation.retrieval import NO_DIMENSION, evaluate_rankings, top_k, without_own
from embed_assets.evaluation.scoring import RetrievalTask
from embed_assets.lexical import Found, LexicalIndex
from embed_assets.pairs.splits import LABELLED
from embed_assets.settings import Settings

WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7)
RANK_CONSTANTS = (5, 10, 20, 60)
Scores = dict[int, float]
Way = Callable[[Found, Found], Sequence[int]]


@dataclass(frozen=True)
class Lists:
    """What both searches found for each question of a set."""

    name: str
    ids: Sequence[str]
    questions: Sequence[str]
    relevant: Mapping[str, set[str]]
    own: Mapping[str, str]
    dense: Sequence[Found]
    lexical: Sequence[Found]

    def ndcg(self, way: Way) -> float:
        rankings = [
            [self.ids[row] for row in way(*both)][: CANDIDATES + bool(self.own)]
            for both in zip(self.dense, self.lexical, strict=True)
        ]
        rankings = without_own(rankings, self.questions, self.own)
        found = evaluate_rankings(rankings, self.questions, self.relevant, NO_DIMENSION)
        return found.scores.filter(metric="ndcg", k=10)["score"].item()


def search(of: RetrievalSet) -> Lists:
    task, encoder = of.task, of.encoder
    texts = dict(sorted(task.texts.items()))
    k = CANDIDATES + bool(task.own)
    rows, cosines = top_k(
        encoder.encode_queries(list(task.queries.values()), "Encoding questions"),
        encoder.encode_documents(list(texts.values()), "Encoding texts"),
        k,
    )
    index = LexicalIndex.of(list(texts.values()))
    return Lists(
        of.name,
        list(texts),
        list(task.queries),
        task.relevant,
        task.own,
        list(zip(rows, cosines, strict=True)),
        [index.top(query, k) for query in task.queries.values()],
    )


def rrf(constant: int, dense: Found, lexical: Found) -> Sequence[int]:
    return weighted(by_rank(constant, dense), by_rank(constant, lexical), 0.5)


def by_rank(constant: int, found: Found) -> Scores:
    return {int(row): 1 / (constant + rank) for rank, row in enumerate(found[0], start=1)}


def normalised_sum(
    normalise: Callable[[np.ndarray, float], np.ndarray],
    lacking_is_least: bool,
    weight: float,
    dense: Found,
    lexical: Found,
) -> Sequence[int]:
    of_both = []
    for (rows, scores), least in ((dense, -1.0), (lexical, 0.0)):
        values = normalise(scores.astype(np.float64), least) if len(rows) else scores
        of_both.append(dict(zip(rows.tolist(), values.tolist(), strict=True)))
    lacking = [min(of.values(), default=0.0) if lacking_is_least else 0.0 for of in of_both]
    return weighted(of_both[0], of_both[1], weight, lacking[0], lacking[1])


def min_max(scores: np.ndarray, _: float) -> np.ndarray:
    spread = scores.max() - scores.min()
    return (scores - scores.min()) / spread if spread else np.ones(len(scores))


def from_least(scores: np.ndarray, least: float) -> np.ndarray:
    return (scores - least) / (scores.max() - least)


def z_score(scores: np.ndarray, _: float) -> np.ndarray:
    return (scores - scores.mean()) / (scores.std() or 1.0)


def weighted(
    dense: Scores,
    lexical: Scores,
    weight: float,
    no_dense: float = 0.0,
    no_lexical: float = 0.0,
) -> Sequence[int]:
    sums = {
        row: weight * dense.get(row, no_dense) + (1 - weight) * lexical.get(row, no_lexical)
        for row in dense.keys() | lexical.keys()
    }
    return sorted(sums, key=lambda row: (-sums[row], row))


def ways() -> dict[str, Way]:
    found: dict[str, Way] = {
        "dense alone": lambda dense, _: dense[0].tolist(),
        "BM25 alone": lambda _, lexical: lexical[0].tolist(),
    }
    found |= {f"rrf {k}": partial(rrf, k) for k in RANK_CONSTANTS}
    for name, normalise, lacking_is_least in (
        ("min-max", min_max, False),
        ("from least", from_least, False),
        ("z-score", z_score, True),
    ):
        for weight in WEIGHTS:
            found[f"{name} {weight}"] = partial(normalised_sum, normalise, lacking_is_least, weight)
    found["`fuse`"] = lambda dense, lexical: fuse(
        dense, lexical, 2 * CANDIDATES, Settings().dense_weight
    )[0].tolist()
    return found


def chosen_weights(of: RetrievalSet) -> tuple[str, str]:
    """NDCG@10 with weights chosen on other documents, and its change, as cells."""
    task, questions = of.task, of.task.questions
    if "document_id" not in questions.columns:
        first = pl.col("relevant_chunk_ids").list.first()
        questions = questions.with_columns(document_id=first.str.replace("#.*$", ""))
    asked = RetrievalTask(questions.with_columns(split=pl.lit(LABELLED)), task.corpus, task.own)
    weights = measure_weights(asked, of.encoder, Settings().dense_weight)
    row = weights.filter(weight=CHOSEN).row(0, named=True)
    return f"{row['score']:.4f}", interval(row)


def table(sets: Sequence[Lists], chosen: Sequence[tuple[str, str]]) -> str:
    scores = {way: [lists.ndcg(fused) for lists in sets] for way, fused in ways().items()}
    best = [max(column) for column in zip(*scores.values(), strict=True)]
    lines = [
        f"| | {' | '.join(lists.name for lists in sets)} |",
        f"| --- |{' ---: |' * len(sets)}",
        f"| questions | {' | '.join(f'{len(lists.questions):,}' for lists in sets)} |",
        f"| texts | {' | '.join(f'{len(lists.ids):,}' for lists in sets)} |",
    ]
    for way, row in scores.items():
        cells = (
            f"**{score:.4f}**" if score == most else f"{score:.4f}"
            for score, most in zip(row, best, strict=True)
        )
        lines.append(f"| {way} | {' | '.join(cells)} |")
    for name, row in zip(("min-max, chosen", "its change"), zip(*chosen, strict=True), strict=True):
        lines.append(f"| {name} | {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    with named_sets(__doc__ or "") as sets:
        print(table([search(of) for of in sets], [chosen_weights(of) for of in sets]))


if __name__ == "__main__":
    main()
