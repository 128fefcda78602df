"""Significance: is the fine-tuned model better on these questions, or was it luck?

Works on NDCG@10 question by question. What a split is, and how NDCG is computed, belongs elsewhere.

Questions about one document rise and fall together, so a document counts as one draw, not each of
its questions. A plain bootstrap over few documents is far too sure of itself: of simulated noise it
called 51 % a clear difference over 2 documents, 16 % over 5, 7 % over 30. So the interval is
widened for few documents, as Student's t widens the normal interval. The interval alone still calls
up to 14 % of noise a difference where gains are skewed, and nearly all of it over one document. So
a verdict needs a permutation test too, and enough documents: `benchmarks/significance.py` prints
that at most 5 % of noise is called better or worse, over 1 to 40 documents and 1 to 200 questions.
"""

from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

CONFIDENCE = 0.95
LARGEST_P_VALUE = 0.02
"""The most that the permutation test's p-value may be for a verdict.

The test takes ups and downs for equally likely. Where many documents lose a little and few win
much, a limit of 0.05 calls up to 8 % of noise a difference, and 0.02 up to 4 %.
"""
FEWEST_DOCUMENTS = 7
"""The fewest documents that a verdict may rest on.

n documents give a p-value of 2 / 2ⁿ at least: with six, no gain reaches LARGEST_P_VALUE.
"""
LARGEST_LOSS_RATE = 0.02
"""How often a model that lost nothing may be called lower, over all splits and dimensions together.

5 % is meant, and 2 % is set for the reason of LARGEST_P_VALUE: where many documents lose a little
and few win much, a limit of 0.05 calls up to 7 % of like models lower, and 0.02 up to 5 %.
`benchmarks/promotion.py` simulates it.
"""
RESAMPLES = 2_000
SEED = 20_261_122
_LARGEST_DRAW = 4_000_000  # cells of the resampling matrix held in memory at once
_ROUNDING = 1e-9  # a gain below this is floating point, not a better model


class Verdict(StrEnum):
    """Of the fine-tuned model beside another one."""

    BETTER = "better"
    WORSE = "worse"
    NO_CLEAR_DIFFERENCE = "no clear difference"
    TOO_FEW = "too few to tell"
    """Fewer than FEWEST_DOCUMENTS: neither better nor worse, nor as good."""


SIGNIFICANCE_SCHEMA = pl.Schema(
    {
        "split": pl.String,
        "dimension": pl.Int64,
        "questions": pl.Int64,
        "documents": pl.Int64,
        "base": pl.Float64,
        "tuned": pl.Float64,
        "difference": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "p_value": pl.Float64,
        "verdict": pl.String,
        "resampled": pl.String,
    }
)


LOSSES_SCHEMA = pl.Schema(
    {
        "split": pl.String,
        "dimension": pl.Int64,
        "questions": pl.Int64,
        "documents": pl.Int64,
        "base": pl.Float64,
        "tuned": pl.Float64,
        "difference": pl.Float64,
        "p_value": pl.Float64,
        "limit": pl.Float64,
        "clear": pl.Boolean,
    }
)


def compare_models(per_query: pl.DataFrame) -> pl.DataFrame:
    """Mean NDCG@10 of both models per split and dimension, and whether they clearly differ.

    per_query: split, dimension, question_id, document_id, base_ndcg_at_10, tuned_ndcg_at_10.

    Returns one row per (split, dimension), largest dimension first, with the columns of
    SIGNIFICANCE_SCHEMA: `difference` is tuned minus base, `low` and `high` bound it with 95 %
    confidence (paired bootstrap over documents), `p_value` is that of a two-sided sign-flip
    permutation test, and `verdict` is what `judge` makes of both. The test flips whole documents,
    which assumes nothing about the questions within one.

    A split with fewer than two documents is resampled by question instead, and `resampled` says so
    (`documents` or `questions`): its interval speaks of other questions on that document, not of
    other documents, and its verdict is `too few to tell`. A single question says nothing: its
    interval is all of [-1, 1].

    Raises ValueError if a score is missing. Same input, same output, in whatever order of rows.
    """
    _check_scored(per_query)
    slices = per_query.sort("split", "dimension", descending=[False, True]).group_by(
        "split", "dimension", maintain_order=True
    )
    rows = [
        {"split": split, "dimension": dimension, **_compare_slice(questions)}
        for (split, dimension), questions in slices
    ]
    return pl.DataFrame(rows, schema=SIGNIFICANCE_SCHEMA)


def _check_scored(per_query: pl.DataFrame) -> None:
    """ValueError if a score is missing."""
    scored = pl.col("base_ndcg_at_10").is_finite() & pl.col("tuned_ndcg_at_10").is_finite()
    unscored = per_query.filter(scored.fill_null(False).not_())
    if not unscored.is_empty():
        raise ValueError(
            f"{unscored.height} of {per_query.height} questions have no NDCG@10, the first is "
            f"{unscored['question_id'][0]!r}: score every question with both models, then compare."
        )


def _compare_slice(questions: pl.DataFrame) -> dict[str, object]:
    """The row of one split at one dimension, without its key."""
    documents = questions["document_id"].n_unique()
    resampled = "documents" if documents > 1 else "questions"
    clusters = (
        questions.group_by("document_id" if documents > 1 else "question_id")
        .agg(
            # Sorted, because the last bit of a sum of floats depends on the order of its terms.
            gain=(pl.col("tuned_ndcg_at_10") - pl.col("base_ndcg_at_10")).sort().sum(),
            questions=pl.len(),
        )
        .sort(pl.first())
    )
    gains = clusters["gain"].to_numpy()
    difference = float(gains.sum() / questions.height)
    low, high = bootstrap_interval(gains, clusters["questions"].to_numpy())
    p_value = sign_flip_p_value(gains)
    return {
        "questions": questions.height,
        "documents": documents,
        "base": questions["base_ndcg_at_10"].sort().mean(),
        "tuned": questions["tuned_ndcg_at_10"].sort().mean(),
        "difference": difference,
        "low": low,
        "high": high,
        "p_value": p_value,
        "verdict": judge(low, high, p_value, documents),
        "resampled": resampled,
    }


def judge(low: float, high: float, p_value: float, documents: int) -> Verdict:
    """The verdict on a difference: better or worse where interval and permutation test agree.

    low, high: the interval of the difference. p_value: the test's. documents: that the questions
    are about.
    """
    if documents < FEWEST_DOCUMENTS:
        return Verdict.TOO_FEW
    if p_value <= LARGEST_P_VALUE and low > _ROUNDING:
        return Verdict.BETTER
    if p_value <= LARGEST_P_VALUE and high < -_ROUNDING:
        return Verdict.WORSE
    return Verdict.NO_CLEAR_DIFFERENCE


def find_losses(per_query: pl.DataFrame, margin: float) -> pl.DataFrame:
    """Where the tuned model is lower than another one by more than a margin, beyond chance.

    per_query: as in `compare_models`, of the splits and dimensions that count. margin: NDCG@10.

    Returns one row per (split, dimension), the surest loss first, with the columns of
    LOSSES_SCHEMA. `p_value` is one-sided, of a difference of minus the margin or more: the
    permutation test flips whole documents, after the margin was added to each question's gain.
    `clear` says that it is at most `limit`, which is that of Holm's step-down (Holm 1979): of all
    rows together at most LARGEST_LOSS_RATE call a loss that is none, however splits and dimensions
    hang together. A split of fewer than FEWEST_DOCUMENTS can't tell: its p-value is 1, and it takes
    no share of that rate.
    """
    _check_scored(per_query)
    slices = per_query.group_by("split", "dimension")
    rows = [
        {"split": split, "dimension": dimension, **_loss_of(questions, margin)}
        for (split, dimension), questions in slices
    ]
    return _step_down(
        pl.DataFrame(rows, schema=LOSSES_SCHEMA).sort("p_value", "difference", "split", "dimension")
    )


def _loss_of(questions: pl.DataFrame, margin: float) -> dict[str, Any]:
    """The row of one split at one dimension, without its key, `limit` and `clear`."""
    base, tuned = (questions[f"{name}_ndcg_at_10"].sort().mean() for name in ("base", "tuned"))
    gain = (pl.col("tuned_ndcg_at_10") - pl.col("base_ndcg_at_10") + margin).sort().sum()
    shifted = questions.group_by("document_id").agg(gain=gain).sort("document_id")["gain"]
    tells = shifted.len() >= FEWEST_DOCUMENTS and shifted.sum() < -_ROUNDING * questions.height
    return {
        "questions": questions.height,
        "documents": shifted.len(),
        "base": base,
        "tuned": tuned,
        "difference": (questions["tuned_ndcg_at_10"] - questions["base_ndcg_at_10"]).sort().mean(),
        "p_value": sign_flip_p_value(shifted.to_numpy(), "less") if tells else 1.0,
    }


def _step_down(losses: pl.DataFrame) -> pl.DataFrame:
    """Rows with `limit` and `clear`. losses: rows in the order of their p-values."""
    tests = losses.filter(pl.col("documents") >= FEWEST_DOCUMENTS).height
    left = tests - pl.int_range(pl.len())
    limit = LARGEST_LOSS_RATE / pl.max_horizontal(left, 1)
    return losses.with_columns(limit=limit).with_columns(
        clear=(pl.col("p_value") <= pl.col("limit")).cum_min().cast(pl.Boolean)
    )


def bootstrap_interval(
    gains: NDArray[np.float64], questions: NDArray[np.integer]
) -> tuple[float, float]:
    """95 % interval of the mean gain per question, clusters drawn with replacement.

    gains: (clusters,) sum of tuned minus base NDCG@10 over a cluster's questions.
    questions: (clusters,) how many questions that is.

    Percentile interval (Efron & Tibshirani 1993, chapter 13), widened about the mean by
    sqrt(n / (n - 1)) · t / z for n clusters (after Hesterberg 2015, 'What Teachers Should Know
    About the Bootstrap', on how narrow it is for small n).
    """
    from scipy import stats

    n = len(gains)
    if n < 2:
        return -1.0, 1.0
    means = _means_of_draws(gains, questions)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    mean = gains.sum() / questions.sum()
    widened = np.sqrt(n / (n - 1)) * stats.t.ppf(1 - tail, n - 1) / stats.norm.ppf(1 - tail)
    return (
        float(max(-1.0, mean - widened * (mean - low))),
        float(min(1.0, mean + widened * (high - mean))),
    )


def _means_of_draws(
    gains: NDArray[np.float64], questions: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Mean gain per question of each draw of clusters, (RESAMPLES,)."""
    n = len(gains)
    if n * RESAMPLES <= _LARGEST_DRAW:
        times_drawn = _times_drawn(n)
        return (times_drawn @ gains) / (times_drawn @ questions)
    rng = np.random.default_rng(SEED)
    draws_at_once = max(1, _LARGEST_DRAW // n)
    means = []
    for done in range(0, RESAMPLES, draws_at_once):
        draws = min(draws_at_once, RESAMPLES - done)
        times_drawn = rng.multinomial(n, np.full(n, 1 / n), size=draws)
        means.append((times_drawn @ gains) / (times_drawn @ questions))
    return np.concatenate(means)


@lru_cache(maxsize=1)
def _times_drawn(clusters: int) -> NDArray[np.int64]:
    """How often each draw holds each cluster, (RESAMPLES, clusters): alike at every dimension."""
    chances = np.full(clusters, 1 / clusters)
    return np.random.default_rng(SEED).multinomial(clusters, chances, size=RESAMPLES)


def sign_flip_p_value(
    gains: NDArray[np.float64], alternative: Literal["two-sided", "less"] = "two-sided"
) -> float:
    """p-value of gains (clusters,) if tuned and base could swap names in any cluster."""
    from scipy import stats

    if len(gains) < 2:
        return 1.0
    test = stats.permutation_test(
        (gains,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        alternative=alternative,
        n_resamples=9_999,
        batch=max(1, _LARGEST_DRAW // len(gains)),
        rng=np.random.default_rng(SEED),
    )
    return float(test.pvalue)
