"""What base_eval and finetuned_model say side by side: figures, differences, won and lost."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from embed_assets.comparison.report import Example, Retrieved
from embed_assets.errors import ProjectError
from embed_assets.evaluation.baselines import COMPARED
from embed_assets.evaluation.bm25 import BM25
from embed_assets.evaluation.retrieval import LISTED, quality_kept
from embed_assets.evaluation.significance import Verdict, compare_models
from embed_assets.pairs.splits import LABELLED, TEST_SPLITS, VALIDATION
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import TABLES

EXAMPLES = 5
SHOWN = 5
SPLIT_TITLES = {
    "test_labelled": "questions that people wrote",
    "test_unseen_documents": "questions on held-out documents",
    "test_seen_documents": "questions on other chunks of the documents trained on",
}


_AGAINST = pl.Schema({k: v for k, v in TABLES["model_comparisons"].schema.items() if k != "run_id"})


class IncomparableError(ProjectError):
    """The two models were measured on different questions or chunks."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Base and tuned model on the same questions, and what else they were put beside.

    scores: split, dimension, metric, k, base, tuned, difference_percent. kept: model, split,
    dimension, ndcg_at_10, kept, bytes_per_vector, storage_saved. significance: as compare_models
    gives it. queries: one row per split, dimension and question, with both models' results.
    baselines: rows of model_comparisons without its run_id.
    """

    scores: pl.DataFrame
    kept: pl.DataFrame
    significance: pl.DataFrame
    queries: pl.DataFrame
    baselines: pl.DataFrame

    @property
    def headline_split(self) -> str:
        """The best evidence there is: people's questions, else held-out documents."""
        return best_evidence(self.scores["split"].to_list())

    @property
    def headline(self) -> dict[str, Any]:
        """Row of `significance` for the headline split at the largest dimension."""
        rows = self.significance.filter(pl.col("split") == self.headline_split)
        return rows.sort("dimension", descending=True).row(0, named=True)

    @property
    def against(self) -> pl.DataFrame:
        """Rows of model_comparisons without its run_id: base at every dimension, and baselines."""
        return _in_order(pl.concat([_against("base", self.significance), self.baselines]))

    def headline_against(self, model: str) -> dict[str, Any] | None:
        """Row of `baselines` for a model on the headline split, if it was scored."""
        rows = self.baselines.filter(model=model, split=self.headline_split)
        return None if rows.is_empty() else rows.row(0, named=True)


def compare(warehouse: Warehouse, base_run: str, tuned_run: str) -> Comparison:
    """Put two MLflow runs' stored results side by side. IncomparableError if they don't fit."""
    runs = [base_run, tuned_run]
    results = warehouse.read(
        "SELECT model, split, dimension, metric, k, score FROM evaluation_results "
        "WHERE run_id IN (SELECT unnest(?::VARCHAR[])) AND model IN (SELECT unnest(?::VARCHAR[]))",
        [runs, list(COMPARED)],
    )
    scores = results.pivot(on="model", index=["split", "dimension", "metric", "k"], values="score")
    queries = _queries_side_by_side(warehouse, base_run, tuned_run)
    if scores.null_count().sum_horizontal().item() or queries.height == 0:
        raise IncomparableError(
            "base_eval and finetuned_model were measured on different splits or dimensions: "
            "materialize both again."
        )
    difference = 100 * (pl.col("tuned") - pl.col("base")) / pl.col("base")
    return Comparison(
        scores=scores.with_columns(
            difference_percent=pl.when(pl.col("base") > 0).then(difference)
        ).sort(
            pl.col("split").cast(pl.Enum(_split_order(scores))),
            pl.col("dimension") * -1,
            "metric",
            "k",
        ),
        kept=quality_kept(results),
        significance=compare_models(
            queries.select(
                "split",
                "dimension",
                "question_id",
                "document_id",
                "base_ndcg_at_10",
                "tuned_ndcg_at_10",
            )
        ),
        queries=queries,
        baselines=_AGAINST.to_frame(),
    )


def beside_baselines(
    warehouse: Warehouse, comparison: Comparison, run_ids: Sequence[str]
) -> Comparison:
    """The comparison with the baselines that these MLflow runs have measured.

    Each at its full size, beside the tuned model at its own.
    """
    measured = warehouse.read(
        "SELECT model, split, dimension, question_id, ndcg_at_10 AS base_ndcg_at_10 "
        "FROM query_results WHERE run_id IN (SELECT unnest(?::VARCHAR[])) "
        "AND model NOT IN (SELECT unnest(?::VARCHAR[])) ORDER BY model",
        [list(run_ids), list(COMPARED)],
    )
    tuned = comparison.queries.filter(pl.col("dimension") == pl.col("dimension").max()).select(
        "split", "question_id", "document_id", "tuned_ndcg_at_10"
    )
    rows = [_AGAINST.to_frame()]
    for (model,), of_model in measured.group_by("model", maintain_order=True):
        # Every question of the tuned model: one that the baseline lacks is an error.
        questions = tuned.join(of_model, on=["split", "question_id"], how="left")
        rows.append(_against(str(model), compare_models(questions)))
    return replace(comparison, baselines=pl.concat(rows))


def stored_comparison(warehouse: Warehouse, run_id: str) -> pl.DataFrame:
    """Rows of model_comparisons that an MLflow run has stored, in the order of `against`."""
    return _in_order(warehouse.read("SELECT * FROM model_comparisons WHERE run_id = ?", [run_id]))


def _in_order(against: pl.DataFrame) -> pl.DataFrame:
    """The best evidence first; on each split the base model first, at its largest dimension."""
    return against.sort(
        pl.col("split").cast(pl.Enum([*TEST_SPLITS, VALIDATION])),
        pl.col("model") != "base",
        "model",
        -pl.col("dimension"),
    )


def _against(model: str, significance: pl.DataFrame) -> pl.DataFrame:
    """What compare_models gives, as rows of model_comparisons without its run_id."""
    return (
        significance.rename({"base": "score"})
        .with_columns(model=pl.lit(model), metric=pl.lit("ndcg"), k=pl.lit(LISTED, dtype=pl.Int64))
        .select(_AGAINST.names())
    )


def full_size(against: pl.DataFrame) -> pl.DataFrame:
    """Of rows of model_comparisons, those of each model at its largest dimension."""
    return against.filter(pl.col("dimension") == pl.col("dimension").max().over("model", "split"))


def best_evidence(splits: Collection[str]) -> str:
    """The split that is the headline."""
    return next(split for split in TEST_SPLITS if split in splits)


def _split_order(scores: pl.DataFrame) -> list[str]:
    present = scores["split"].unique().to_list()
    return [s for s in (*TEST_SPLITS, VALIDATION) if s in present]


def _queries_side_by_side(warehouse: Warehouse, base_run: str, tuned_run: str) -> pl.DataFrame:
    rows = warehouse.read(
        "SELECT b.split, b.dimension, b.question_id, p.document_id, p.anchor, "
        "p.relevant_chunk_ids, b.rank AS base_rank, t.rank AS tuned_rank, "
        "b.ndcg_at_10 AS base_ndcg_at_10, t.ndcg_at_10 AS tuned_ndcg_at_10, "
        "b.top_ids AS base_top, t.top_ids AS tuned_top "
        "FROM (SELECT * FROM query_results WHERE run_id = ? AND model = 'base') b "
        "FULL JOIN (SELECT * FROM query_results WHERE run_id = ? AND model = 'tuned') t "
        "USING (split, dimension, question_id) LEFT JOIN training_pairs p USING (question_id)",
        [base_run, tuned_run],
    )
    lost = rows.filter(
        pl.any_horizontal(pl.col(c).is_null() for c in ("base_ndcg_at_10", "tuned_ndcg_at_10"))
        | pl.col("anchor").is_null()
    )
    if lost.height:
        raise IncomparableError(
            f"base_eval and finetuned_model were measured on different questions ({lost.height} "
            "don't match): materialize both again."
        )
    return rows


def verdict_sentence(comparison: Comparison) -> str:
    """The outcome with the headline number and its interval."""
    row = comparison.headline
    base, tuned = row["base"], row["tuned"]
    change = f"NDCG@10 {base:.3f} → {tuned:.3f}"
    if base > 0:
        change += f" ({100 * (tuned - base) / base:+.1f} %)"
    return (
        f"{outcome(comparison)}: {change}, 95 % interval of the difference "
        f"{row['low']:+.3f} to {row['high']:+.3f}."
    )


def reservations(against: pl.DataFrame) -> list[str]:
    """What speaks against the fine-tuned model on the test splits, a sentence each.

    against: rows of model_comparisons. A baseline that isn't clearly beaten counts on the headline
    split; one that is clearly better, and a base model that is, on every test split.
    """
    tests = against.filter(pl.col("split").is_in(TEST_SPLITS))
    sentences = []
    headline = best_evidence(set(tests["split"])) if tests.height else None
    for row in tests.filter(pl.col("model") != "base").iter_rows(named=True):
        place, model = SPLIT_TITLES[row["split"]], row["model"]
        tuned, score = f"{row['tuned']:.3f}", f"{row['score']:.3f}"
        if row["verdict"] == Verdict.WORSE:
            sentences.append(
                f"{model} beats the fine-tuned model on {place}: NDCG@10 {score} against {tuned}."
            )
        elif row["verdict"] != Verdict.BETTER and row["split"] == headline:
            sentences.append(
                f"The fine-tuned model does not clearly beat {model} on {place}: "
                f"NDCG@10 {tuned} against {score}."
            )
    if tests.filter(pl.col("split") != LABELLED, model=BM25, verdict=Verdict.WORSE).height:
        sentences.append("Questions made from the chunks share their words: they flatter bm25.")
    worse = tests.filter(model="base", verdict=Verdict.WORSE)
    for (split,), rows in worse.group_by("split", maintain_order=True):
        dimensions = ", ".join(map(str, rows["dimension"]))
        sentences.append(
            f"The fine-tuned model is clearly worse than the base model on "
            f"{SPLIT_TITLES[str(split)]} at {dimensions} dimensions."
        )
    return sentences


def outcome(comparison: Comparison) -> str:
    """Which model is better on the headline split, if either clearly is."""
    row = comparison.headline
    said = {
        Verdict.BETTER: "The fine-tuned model is better than the base model",
        Verdict.WORSE: "The fine-tuned model is WORSE than the base model",
        Verdict.NO_CLEAR_DIFFERENCE: "There is no clear difference between the two models",
        Verdict.TOO_FEW: f"{counted_documents(row)} too few to tell which model is better",
    }[row["verdict"]]
    return f"{said} on {row['questions']} {SPLIT_TITLES[comparison.headline_split]}"


def counted_documents(row: Mapping[str, Any]) -> str:
    """Of a row of `significance`, how many documents there are, with a verb: 3 documents are."""
    return "1 document is" if row["documents"] == 1 else f"{row['documents']} documents are"


def most_changed(
    warehouse: Warehouse, comparison: Comparison
) -> tuple[list[Example], list[Example]]:
    """Questions of the headline split that the tuned model won most, and lost most."""
    largest = comparison.queries["dimension"].max()
    gain = pl.col("tuned_ndcg_at_10") - pl.col("base_ndcg_at_10")
    rows = comparison.queries.filter(
        (pl.col("split") == comparison.headline_split) & (pl.col("dimension") == largest)
    ).with_columns(gain=gain)
    won = rows.filter(pl.col("gain") > 0).sort("gain", "question_id", descending=[True, False])
    lost = rows.filter(pl.col("gain") < 0).sort("gain", "question_id")
    shown = pl.concat([won.head(EXAMPLES), lost.head(EXAMPLES)])
    chunks = _chunks(warehouse, shown)
    return (
        [_example(row, chunks) for row in won.head(EXAMPLES).iter_rows(named=True)],
        [_example(row, chunks) for row in lost.head(EXAMPLES).iter_rows(named=True)],
    )


def _chunks(warehouse: Warehouse, rows: pl.DataFrame) -> dict[str, dict[str, object]]:
    ids = {c for column in ("base_top", "tuned_top") for top in rows[column] for c in top[:SHOWN]}
    found = warehouse.read(
        "SELECT chunk_id, any_value(file_name) AS file_name, any_value(page_start) AS page_start, "
        "any_value(page_end) AS page_end, any_value(chunk_text) AS chunk_text FROM chunks "
        "WHERE chunk_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY chunk_id",
        [sorted(ids)],
    )
    return {row["chunk_id"]: row for row in found.iter_rows(named=True)}


def _example(row: dict[str, object], chunks: dict[str, dict[str, object]]) -> Example:
    relevant = set(row["relevant_chunk_ids"])  # type: ignore[arg-type]
    return Example(
        question=str(row["anchor"]),
        split=str(row["split"]),
        base_rank=row["base_rank"],  # type: ignore[arg-type]
        tuned_rank=row["tuned_rank"],  # type: ignore[arg-type]
        base_retrieved=_retrieved(row["base_top"], relevant, chunks),  # type: ignore[arg-type]
        tuned_retrieved=_retrieved(row["tuned_top"], relevant, chunks),  # type: ignore[arg-type]
    )


def _retrieved(
    top: Sequence[str], relevant: set[str], chunks: dict[str, dict[str, object]]
) -> tuple[Retrieved, ...]:
    return tuple(
        Retrieved(
            file_name=str(chunk["file_name"]),
            page_start=int(str(chunk["page_start"])),
            page_end=int(str(chunk["page_end"])),
            text=str(chunk["chunk_text"]),
            relevant=chunk_id in relevant,
        )
        for chunk_id in top[:SHOWN]
        if (chunk := chunks.get(chunk_id))
    )
