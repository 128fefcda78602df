"""What is the cut-off of search worth? Half of a set's questions tell it, the others try it.

Of each set, as a markdown table: the share of the other half's questions whose best answer reaches
the cut-off (it is made for 95 %); the share that is left of the ten nearest texts, and of those
among them that answer; and, of questions of another set, which nothing here answers, the share for
which not one text reaches it, so that search says that it found nothing.

    python -m benchmarks.cutoff --beir /data/ir/cranfield /data/ir/scifact --home data/home \
        [--cache HOME] [--model all-MiniLM-L6-v2]

What the sets are: retrieval_sets.py. The questions of another set are those of the last set before
it that has other texts; for the first, of the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.retrieval_sets import RetrievalSet, named_sets
from embed_assets.evaluation.retrieval import top_k
from embed_assets.search.building import CUTOFF_SHARE

FIRST = 10


@dataclass(frozen=True)
class Worth:
    """Shares, and of how many questions they are."""

    cutoff: float
    told_by: int
    tried: int
    reached: float
    left: float
    answers_left: float
    others: int
    nothing_found: float


def worth(of: RetrievalSet, others: Sequence[str]) -> Worth:
    queries = of.encoder.encode_queries(list(of.task.queries.values()), "Encoding questions")
    texts = of.encoder.encode_documents(list(of.task.texts.values()), "Encoding texts")
    queries, texts = _normalised(queries), _normalised(texts)
    row = {key: number for number, key in enumerate(of.task.texts)}
    answers = [[row[key] for key in of.task.relevant[name]] for name in of.task.queries]
    best = np.array(
        [(texts[rows] @ query).max() for query, rows in zip(queries, answers, strict=True)]
    )
    telling = np.random.default_rng(0).permutation(len(best)) < len(best) // 2
    cutoff = float(np.quantile(best[telling], CUTOFF_SHARE))
    rows, cosines = top_k(queries[~telling], texts, FIRST)
    tried = [found for found, tells in zip(answers, telling, strict=True) if not tells]
    right = np.array([np.isin(found, wanted) for found, wanted in zip(rows, tried, strict=True)])
    asked = _normalised(of.encoder.encode_queries(list(others), "Encoding questions of others"))
    nearest = top_k(asked, texts, 1)[1][:, 0]
    return Worth(
        cutoff,
        int(telling.sum()),
        len(tried),
        float((best[~telling] >= cutoff).mean()),
        float((cosines >= cutoff).mean()),
        float((cosines[right] >= cutoff).mean()),
        len(others),
        float((nearest < cutoff).mean()),
    )


def _normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def table(sets: Sequence[RetrievalSet]) -> str:
    lines = [
        "| | cut-off | told by | tried on | best answer reaches it | left of ten "
        "| left of the answers among them | questions of another set | nothing found for them |",
        "| --- |" + " ---: |" * 8,
    ]
    for place, of in enumerate(sets):
        others = [*sets[place:], *sets[:place]]
        before = next(other for other in reversed(others) if other.task is not of.task)
        found = worth(of, list(before.task.queries.values()))
        lines.append(
            f"| {of.name} | {found.cutoff:.3f} | {found.told_by:,} | {found.tried:,} "
            f"| {found.reached:.1%} | {found.left:.1%} | {found.answers_left:.1%} "
            f"| {found.others:,} of {before.name} | {found.nothing_found:.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    with named_sets(__doc__ or "") as sets:
        if len({id(of.task) for of in sets}) < 2:
            raise SystemExit("Name two sets at least: each is asked another's questions.")
        print(table(sets))


if __name__ == "__main__":
    main()
