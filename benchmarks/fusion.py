"""How should search by meaning and by words become one list? Scores each way, as a markdown table.

Every way fuses the 100 best of both lists. NDCG@10; the best of each column is bold.

    python benchmarks/fusion.py --beir /data/ir/cranfield /data/ir/scifact --home data/home \
        [--cache HOME] [--model all-MiniLM-L6-v2]

--beir: folders in BEIR's form. --home: homes of the project, asked the questions that people wrote
for it (all that test, where there are none), with the base model and with the newest version.
--cache: a home in whose warehouse the embeddings of the BEIR sets are kept.

- `rrf K`: the sum of 1 / (K + rank). Cormack, Clarke & Buettcher 2009.
- `min-max W`: scores of each list from 0 (its last) to 1 (its first). Lee 1997.
- `from least W`: scores from 0 (the least possible: -1 for a cosine, 0 for BM25) to 1 (the first of
  the list). Bruch, Gai & Ingber 2023.
- `z-score W`: scores less their mean, over their standard deviation; what a list lacks has its
  least. Montague & Aslam 2001.

W is the weight of the dense list, 1 - W that of BM25's. In `min-max` and `from least`, what a list
lacks has 0.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import polars as pl

from embed_assets.evaluation.beir import read_beir
from embed_assets.evaluation.bm25 import LexicalIndex
from embed_assets.evaluation.fusion import CANDIDATES, Found, fuse
from embed_assets.evaluation.retrieval import NO_DIMENSION, evaluate_rankings, top_k, without_own
from embed_assets.evaluation.scoring import RetrievalTask, retrieval_task
from embed_assets.models.names import find_encoder
from embed_assets.models.registry import newest_model
from embed_assets.pairs.splits import LABELLED, TEST_SPLITS
from embed_assets.resources.warehouse import Warehouse
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


def search(name: str, task: RetrievalTask, warehouse: Warehouse, model: str) -> Lists:
    settings = Settings(model=model)
    encoder = find_encoder(warehouse, settings, model, "--model")[1]
    texts = dict(sorted(task.texts.items()))
    k = CANDIDATES + bool(task.own)
    rows, cosines = top_k(
        encoder.encode_queries(list(task.queries.values()), "Encoding questions"),
        encoder.encode_documents(list(texts.values()), "Encoding texts"),
        k,
    )
    index = LexicalIndex.of(list(texts.values()))
    return Lists(
        name,
        list(texts),
        list(task.queries),
        task.relevant,
        task.own,
        list(zip(rows, cosines, strict=True)),
        [index.top(query, k) for query in task.queries.values()],
    )


def beir_task(folder: Path) -> RetrievalTask:
    found = read_beir(folder)
    questions = {
        "question_id": list(found.queries),
        "anchor": list(found.queries.values()),
        "relevant_chunk_ids": [list(found.relevant[query]) for query in found.queries],
    }
    corpus = {"chunk_id": list(found.corpus), "chunk_text": list(found.corpus.values())}
    return RetrievalTask(pl.DataFrame(questions), pl.DataFrame(corpus), found.own)


def home_task(warehouse: Warehouse) -> RetrievalTask:
    """What people asked of a home; where nobody did, all that tests."""
    task = retrieval_task(warehouse)
    asked = task.questions.filter(split=LABELLED)
    if asked.is_empty():
        asked = task.questions.filter(pl.col("split").is_in(TEST_SPLITS))
    return RetrievalTask(asked, task.corpus)


def home_models(warehouse: Warehouse, base: str) -> dict[str, str]:
    """The base model and a home's newest version, by what a table adds to the home's name."""
    if not warehouse.count("models"):
        return {"": base}
    return {"": base, ", tuned": f"v{newest_model(warehouse)['version']}"}


def home_lists(home: Path, model: str) -> list[Lists]:
    warehouse = Warehouse(path=str(home / "warehouse.duckdb"))
    return [
        search(home.name + of, home_task(warehouse), warehouse, model)
        for of, model in home_models(warehouse, model).items()
    ]


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
    found["`fuse`"] = lambda dense, lexical: fuse(dense, lexical, 2 * CANDIDATES)[0].tolist()
    return found


def table(sets: Sequence[Lists]) -> str:
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
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beir", nargs="*", type=Path, default=[])
    parser.add_argument("--home", nargs="*", type=Path, default=[])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--model", default=Settings().model)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as unkept:
        cache = options.cache or Path(unkept)
        cache.mkdir(parents=True, exist_ok=True)
        warehouse = Warehouse(path=str(cache / "warehouse.duckdb"))
        sets = [
            search(folder.name, beir_task(folder), warehouse, options.model)
            for folder in options.beir
        ]
        sets += [lists for home in options.home for lists in home_lists(home, options.model)]
    print(table(sets))


if __name__ == "__main__":
    main()
