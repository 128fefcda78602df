"""Models side by side on the same questions and corpus: figures, differences, and what they say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from embed_assets.errors import ProjectError
from embed_assets.evaluation.baselines import TUNED
from embed_assets.evaluation.bm25 import BM25
from embed_assets.evaluation.headline import best_evidence
from embed_assets.evaluation.hybrid import BASE_HYBRID, TUNED_HYBRID
from embed_assets.evaluation.retrieval import LISTED, Evaluation, quality_kept
from embed_assets.evaluation.scoring import RetrievalTask
from embed_assets.evaluation.significance import Verdict, compare_models
from embed_assets.pairs.splits import IN_WORDS, LABELLED, TEST_SPLITS, VALIDATION
from embed_assets.resources.warehouse import Transaction, Warehouse
from embed_assets.tables import TABLES
from embed_assets.wording import change, counted

SPLIT_TITLES = {split: words.questions for split, words in IN_WORDS.items() if words.questions}
"""What the questions of a split are, in a sentence."""
TOO_EASY = 0.9
"""NDCG@10 of BM25 at and above which a machine's questions prove nothing: extractive ones have .94
and more. People's have .38 to .69 on the sample, papers, cranfield and scifact, and a language
model's .85 to .88 on manuals and ohr_law."""

_SPLIT_ORDER = pl.col("split").cast(pl.Enum([*TEST_SPLITS, VALIDATION]))
_AGAINST = pl.Schema({k: v for k, v in TABLES["model_comparisons"].schema.items() if k != "run_id"})


@dataclass(frozen=True, eq=False)
class Comparison:
    """Base and tuned model on the same questions, and what else they were put beside.

    scores: split, dimension, metric, k, base, tuned, difference_percent. kept: model, split,
    dimension, ndcg_at_10, kept, bytes_per_vector, storage_saved. significance: as compare_models
    gives it. queries: one row per split, dimension and question, with both models' results.
    baselines: rows of model_comparisons without its run_id. hybrid: rows of hybrid_comparisons
    without it, in the order of `against`; none where hybrid search was not scored.
    """

    scores: pl.DataFrame
    kept: pl.DataFrame
    significance: pl.DataFrame
    queries: pl.DataFrame
    baselines: pl.DataFrame
    hybrid: pl.DataFrame = field(default_factory=_AGAINST.to_frame)

    @property
    def headline_split(self) -> str:
        """The split with the best evidence there is."""
        return best_evidence(self.significance)

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


def compare(
    task: RetrievalTask, base: Evaluation, tuned: Evaluation, others: Mapping[str, Evaluation]
) -> Comparison:
    """Put models side by side that were all measured on this task.

    base, tuned: at the same dimensions. others: baselines by what they are called; each at its full
    size is put beside the tuned model at its own. TUNED_HYBRID, if it is among them, is put beside
    the tuned model alone and BASE_HYBRID. ProjectError if no question tests.
    """
    if not any(split in TEST_SPLITS for split in task.splits):
        raise ProjectError(
            "No question is held out for testing. Add PDFs, or questions that people wrote "
            "(EMBED_ASSETS_LABELLED)."
        )
    results = pl.concat(
        found.scores.select(pl.lit(model).alias("model"), pl.all())
        for model, found in (("base", base), ("tuned", tuned))
    )
    scores = results.pivot(on="model", index=["split", "dimension", "metric", "k"], values="score")
    difference = 100 * (pl.col("tuned") - pl.col("base")) / pl.col("base")
    queries = _queries_side_by_side(task, base, tuned)
    baselines = [
        _against(model, differences(task, tuned, others[model]))
        for model in sorted(others.keys() - {TUNED_HYBRID})
    ]
    return Comparison(
        scores=scores.with_columns(
            difference_percent=pl.when(pl.col("base") > 0).then(difference)
        ).sort(_SPLIT_ORDER, -pl.col("dimension"), "metric", "k"),
        kept=quality_kept(results),
        significance=compare_models(queries),
        queries=queries,
        baselines=pl.concat([_AGAINST.to_frame(), *baselines]),
        hybrid=_hybrid_side_by_side(task, tuned, others),
    )


def _hybrid_side_by_side(
    task: RetrievalTask, tuned: Evaluation, others: Mapping[str, Evaluation]
) -> pl.DataFrame:
    """`Comparison.hybrid`."""
    if TUNED_HYBRID not in others:
        return _AGAINST.to_frame()
    fused = others[TUNED_HYBRID]
    beside = {TUNED: tuned} | {name: others[name] for name in (BASE_HYBRID,) if name in others}
    rows = [_against(name, differences(task, fused, beside[name])) for name in sorted(beside)]
    return _in_order(pl.concat(rows))


def _queries_side_by_side(task: RetrievalTask, base: Evaluation, tuned: Evaluation) -> pl.DataFrame:
    """What both models found for each question, at each dimension."""
    key = ("split", "dimension", "question_id")
    of_base, of_tuned = (
        found.queries.rename(
            {"rank": f"{name}_rank", "ndcg_at_10": f"{name}_ndcg_at_10", "top_ids": f"{name}_top"}
        )
        for name, found in (("base", base), ("tuned", tuned))
    )
    return of_base.join(of_tuned, on=key, how="inner").join(
        task.questions.drop("split"), on="question_id", how="inner"
    )


def differences(task: RetrievalTask, tuned: Evaluation, other: Evaluation) -> pl.DataFrame:
    """What compare_models says of a model beside another, each at its full size.

    The dimension is the other's.
    """
    mine, theirs = (
        found.queries.filter(pl.col("dimension") == pl.col("dimension").max())
        for found in (tuned, other)
    )
    questions = mine.select("split", "question_id", tuned_ndcg_at_10="ndcg_at_10").join(
        task.questions.select("question_id", "document_id"), on="question_id"
    )
    of_other = theirs.select("split", "dimension", "question_id", base_ndcg_at_10="ndcg_at_10")
    return compare_models(questions.join(of_other, on=["split", "question_id"], how="left"))


def interval(row: Mapping[str, Any]) -> str:
    """A difference with its interval, in words. row: difference, low, high."""
    return f"{row['difference']:+.3f} (95 %: {row['low']:+.3f} to {row['high']:+.3f})"


def store_comparison(transaction: Transaction, comparison: Comparison, run_id: str) -> None:
    """Write `against` and `hybrid` as what an MLflow run has compared."""
    for table, rows in (
        ("model_comparisons", comparison.against),
        ("hybrid_comparisons", comparison.hybrid),
    ):
        of_run = rows.with_columns(run_id=pl.lit(run_id))
        transaction.replace(table, of_run, {"run_id": [run_id]})


def stored_comparison(warehouse: Warehouse, run_id: str) -> pl.DataFrame:
    """Rows of model_comparisons that an MLflow run has stored, in the order of `against`."""
    return _in_order(warehouse.read("SELECT * FROM model_comparisons WHERE run_id = ?", [run_id]))


def stored_hybrid(warehouse: Warehouse, run_id: str) -> pl.DataFrame:
    """Rows of hybrid_comparisons that an MLflow run has stored, in the order of `against`."""
    return _in_order(warehouse.read("SELECT * FROM hybrid_comparisons WHERE run_id = ?", [run_id]))


def compared_in(warehouse: Warehouse, model: Mapping[str, Any]) -> str | None:
    """MLflow run of the newest comparison that judged a version, if any did. model: of `models`.

    A comparison measures the base, and then the version, on the same questions and corpus.
    """
    rows = warehouse.read(
        "SELECT b.run_id FROM evaluations t JOIN evaluations b USING (questions_version, "
        "corpus_version) WHERE t.run_id = ? AND t.model = 'tuned' AND b.model = 'base' "
        "AND b.run_id IN (SELECT run_id FROM model_comparisons) "
        "AND b.measured_at BETWEEN ? AND t.measured_at ORDER BY b.measured_at DESC LIMIT 1",
        [model["mlflow_run_id"], model["trained_at"]],
    )
    return rows["run_id"][0] if rows.height else None


def _in_order(against: pl.DataFrame) -> pl.DataFrame:
    """The best evidence first; on each split the base model first, at its largest dimension."""
    return against.sort(_SPLIT_ORDER, pl.col("model") != "base", "model", -pl.col("dimension"))


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


def verdict_sentence(row: Mapping[str, Any]) -> str:
    """The outcome with the headline number and its interval. row: `headline_row`."""
    base, tuned = row["score"], row["tuned"]
    said = f"NDCG@10 {base:.3f} → {tuned:.3f}"
    if base > 0:
        said += f" ({change(base, tuned)})"
    return (
        f"{outcome(row)}: {said}, 95 % interval of the difference "
        f"{row['low']:+.3f} to {row['high']:+.3f}."
    )


def hybrid_sentence(hybrid: pl.DataFrame) -> str:
    """What tuning gains where search is hybrid, on the headline split; empty where none was scored.

    hybrid: rows of hybrid_comparisons.
    """
    rows = hybrid.filter(pl.col("split").is_in(TEST_SPLITS), model=BASE_HYBRID)
    if rows.is_empty():
        return ""
    row = rows.row(by_predicate=pl.col("split") == best_evidence(rows), named=True)
    relative = f" ({change(row['score'], row['tuned'])})" if row["score"] > 0 else ""
    return (
        f"Hybrid search, {BASE_HYBRID} → {TUNED_HYBRID}: NDCG@10 {row['score']:.3f} → "
        f"{row['tuned']:.3f}{relative}, 95 % interval of the difference {row['low']:+.3f} to "
        f"{row['high']:+.3f}: {row['verdict']}."
    )


def reservations(against: pl.DataFrame, hybrid: pl.DataFrame) -> list[str]:
    """What speaks against the fine-tuned model on the test splits, a sentence each.

    against: rows of model_comparisons. A baseline that isn't clearly beaten counts on the headline
    split; one that is clearly better, and a base model that is, on every test split. hybrid: rows
    of hybrid_comparisons, of which hybrid search with the base model counts likewise.
    """
    tests = against.filter(pl.col("split").is_in(TEST_SPLITS))
    sentences = []
    headline = best_evidence(tests) if tests.height else None
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
    sentences += _worth_of_machine_questions(tests)
    worse = tests.filter(model="base", verdict=Verdict.WORSE)
    for (split,), rows in worse.group_by("split", maintain_order=True):
        dimensions = ", ".join(map(str, rows["dimension"]))
        sentences.append(
            f"The fine-tuned model is clearly worse than the base model on "
            f"{SPLIT_TITLES[str(split)]} at {dimensions} dimensions."
        )
    return sentences + _hybrid_reservations(hybrid, headline)


def _worth_of_machine_questions(tests: pl.DataFrame) -> list[str]:
    """What the questions that aren't kept apart as people's are worth, where words find chunks."""
    others = tests.filter(pl.col("split") != LABELLED)
    easy = others.filter(pl.col("score") >= TOO_EASY, model=BM25).sort(_SPLIT_ORDER)
    sentences = []
    if easy.height:
        scores = ", ".join(
            f"{score:.3f} {IN_WORDS[split].briefly}"
            for split, score in easy.select("split", "score").iter_rows()
        )
        sentences.append(
            "Questions that share so many of their chunks' words are too easy to prove anything: "
            f"bm25 alone has NDCG@10 {scores}."
        )
    by_words = pl.col("model").is_in([BM25, BASE_HYBRID])
    if others.filter(by_words, verdict=Verdict.WORSE).join(easy, on="split", how="anti").height:
        sentences.append("Questions made from the chunks share their words: they flatter bm25.")
    return sentences


def _hybrid_reservations(hybrid: pl.DataFrame, headline: str | None) -> list[str]:
    """The same of hybrid search. headline: the split on which what isn't clearly beaten counts."""
    sentences = []
    tests = hybrid.filter(pl.col("split").is_in(TEST_SPLITS), model=BASE_HYBRID)
    for row in tests.iter_rows(named=True):
        if row["verdict"] == Verdict.WORSE:
            said = "is clearly worse than"
        elif row["verdict"] != Verdict.BETTER and row["split"] == headline:
            said = "does not clearly beat"
        else:
            continue
        sentences.append(
            f"In hybrid search the fine-tuned model {said} the base model on "
            f"{SPLIT_TITLES[row['split']]}: NDCG@10 {row['tuned']:.3f} against {row['score']:.3f}."
        )
    return sentences


def headline_row(against: pl.DataFrame) -> dict[str, Any]:
    """Of rows of model_comparisons, that of the base model that decides: on the headline split."""
    base = against.filter(model="base")
    rows = base.filter(split=best_evidence(base)).sort("dimension", descending=True)
    return rows.row(0, named=True)


def outcome(row: Mapping[str, Any]) -> str:
    """Which model is better on the headline split, if either clearly is. row: `headline_row`."""
    said = {
        Verdict.BETTER: "The fine-tuned model is better than the base model",
        Verdict.WORSE: "The fine-tuned model is WORSE than the base model",
        Verdict.NO_CLEAR_DIFFERENCE: "There is no clear difference between the two models",
        Verdict.TOO_FEW: f"{counted_documents(row)} too few to tell which model is better",
    }[row["verdict"]]
    return f"{said} on {row['questions']} {SPLIT_TITLES[row['split']]}"


def counted_documents(row: Mapping[str, Any]) -> str:
    """Of a row of `significance`, how many documents there are, with a verb: 3 documents are."""
    return f"{counted(row['documents'], 'document')} {'is' if row['documents'] == 1 else 'are'}"
