"""Hybrid search with the tuned model by the weight that its embeddings have, on people's questions.

Which weight does best follows from the questions: those that share their words with the answers
want BM25. A machine's questions share more than people's do, so they decide nothing here. The best
of several looks better than it is, so what another weight gains is that of weights chosen on other
documents than those they are scored on.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from embed_assets.comparison.verdict import differences, interval
from embed_assets.evaluation.hybrid import score_weights
from embed_assets.evaluation.retrieval import Evaluation
from embed_assets.evaluation.scoring import RetrievalTask
from embed_assets.evaluation.significance import Verdict
from embed_assets.models.encoder import Encoder
from embed_assets.pairs.splits import LABELLED, position
from embed_assets.resources.warehouse import Transaction, Warehouse
from embed_assets.tables import TABLES
from embed_assets.wording import counted

WEIGHTS = tuple(tenths / 10 for tenths in range(1, 10))
HYBRID_WEIGHTS = "hybrid weights"
"""What is named where they could not be measured."""
CHOSEN = "chosen"
"""In place of a weight: each document's questions by what is best on the others'."""
FOLDS = 5
WORTH_IT = 0.01
"""Gain in NDCG@10 below which another weight is not worth setting."""

_WEIGHTS = pl.Schema({k: v for k, v in TABLES["hybrid_weights"].schema.items() if k != "run_id"})


def no_weights() -> pl.DataFrame:
    """What is known where people's questions don't test."""
    return _WEIGHTS.to_frame()


def measure_weights(task: RetrievalTask, encoder: Encoder, dense_weight: float) -> pl.DataFrame:
    """Rows of hybrid_weights without their run_id: each weight beside the one that is set.

    None where people's questions are on fewer than two documents. encoder: the tuned model.
    """
    asked = task.questions.filter(split=LABELLED).select("question_id", "document_id")
    if asked["document_id"].n_unique() < 2:
        return no_weights()
    weights = sorted({*WEIGHTS, dense_weight})
    scored = {
        weight: Evaluation(found.scores, found.queries.filter(split=LABELLED))
        for weight, found in zip(weights, score_weights(task, encoder, weights), strict=True)
    }
    rows = [
        differences(task, found, scored[dense_weight]).with_columns(weight=pl.lit(str(weight)))
        for weight, found in scored.items()
    ]
    chosen = Evaluation(scored[dense_weight].scores, _chosen(asked, scored, dense_weight))
    rows.append(differences(task, chosen, scored[dense_weight]).with_columns(weight=pl.lit(CHOSEN)))
    return (
        pl.concat(rows)
        .rename({"base": "set_score", "tuned": "score"})
        .with_columns(set_weight=pl.lit(dense_weight))
        .select(pl.col(name).cast(of) for name, of in _WEIGHTS.items())
    )


def _chosen(
    asked: pl.DataFrame, scored: Mapping[float, Evaluation], dense_weight: float
) -> pl.DataFrame:
    """Figures of people's questions, each by the weight that is best on the other folds.

    asked: question_id, document_id. All questions of a document are in one fold.
    """
    documents = sorted(asked["document_id"].unique(), key=position)
    fold_of = {document: place % FOLDS for place, document in enumerate(documents)}
    folds = asked.with_columns(fold=pl.col("document_id").replace_strict(fold_of))
    tables = {
        weight: found.queries.join(folds, on="question_id") for weight, found in scored.items()
    }
    parts = []
    for fold in sorted(set(fold_of.values())):
        others = {
            weight: table.filter(pl.col("fold") != fold)["ndcg_at_10"].mean()
            for weight, table in tables.items()
        }
        parts.append(tables[_best(others, dense_weight)].filter(fold=fold))
    return pl.concat(parts).drop("fold", "document_id")


def _best(scores: Mapping[float, Any], dense_weight: float) -> float:
    """The weight of the highest score; of equal ones the nearest to the one that is set."""
    return max(scores, key=lambda weight: (scores[weight], -abs(weight - dense_weight)))


def best_weight(weights: pl.DataFrame) -> float | None:
    """The weight that is better than the one that is set, if one is clearly and by enough.

    Choosing must be, on other documents, and so must be what is chosen on all.
    """
    chosen = weights.filter(weight=CHOSEN)
    if chosen.is_empty():
        return None
    each = {float(row["weight"]): row for row in _single(weights).iter_rows(named=True)}
    scores = {weight: row["score"] for weight, row in each.items()}
    best = _best(scores, weights["set_weight"][0])
    rows = chosen.row(0, named=True), each[best]
    return best if all(map(_is_worth_it, rows)) else None


def _single(weights: pl.DataFrame) -> pl.DataFrame:
    return weights.filter(pl.col("weight") != CHOSEN)


def _is_worth_it(row: Mapping[str, Any]) -> bool:
    return row["verdict"] == Verdict.BETTER and row["difference"] >= WORTH_IT


def weight_sentence(weights: pl.DataFrame) -> str:
    """What another weight would give; empty where nothing is known."""
    if weights.is_empty():
        return ""
    row = weights.filter(weight=CHOSEN).row(0, named=True)
    if row["verdict"] == Verdict.TOO_FEW:
        return (
            f"People's questions on {counted(row['documents'], 'document')} are too few to tell "
            "which weight is best in hybrid search."
        )
    gain = f"weights chosen on other documents change NDCG@10 by {interval(row)}"
    if (best := best_weight(weights)) is not None:
        return (
            f"Hybrid search does better with EMBED_ASSETS_DENSE_WEIGHT={best:g} than with "
            f"{row['set_weight']:g} on people's questions: {gain}."
        )
    return (
        f"No other weight than {row['set_weight']:g} (EMBED_ASSETS_DENSE_WEIGHT) is worth setting "
        f"for hybrid search, on people's questions: {gain}."
    )


def weights_table(weights: pl.DataFrame) -> str:
    """NDCG@10 of hybrid search by weight, as a markdown table."""
    lines = ["| weight of the embeddings | NDCG@10 | beside the one that is set |"]
    lines.append("| --- | ---: | --- |")
    lines += [
        f"| {row['weight']}{' on other documents' * (row['weight'] == CHOSEN)} "
        f"| {row['score']:.4f} | {interval(row)} |"
        for row in weights.iter_rows(named=True)
    ]
    lines.append("\nThe interval of a single weight doesn't allow for the choice among them.")
    return "\n".join(lines)


def weight_points(weights: pl.DataFrame) -> list[dict[str, Any]]:
    """NDCG@10 of each weight, the least first."""
    points = _single(weights).select(pl.col("weight").cast(pl.Float64), ndcg_at_10="score")
    return points.sort("weight").to_dicts()


def store_weights(transaction: Transaction, weights: pl.DataFrame, run_id: str) -> None:
    """Write them as those of the comparison of an MLflow run."""
    of_run = weights.with_columns(run_id=pl.lit(run_id))
    transaction.replace("hybrid_weights", of_run, {"run_id": [run_id]})


def stored_weights(warehouse: Warehouse, run_id: str) -> pl.DataFrame:
    """Those of the comparison of an MLflow run, without the run_id; none without."""
    names = ", ".join(_WEIGHTS)
    rows = warehouse.read(
        f"SELECT {names} FROM hybrid_weights WHERE run_id = ? ORDER BY weight", [run_id]
    )
    return rows.cast(_WEIGHTS)
