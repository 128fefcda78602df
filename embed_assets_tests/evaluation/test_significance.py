from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from embed_assets.evaluation.significance import (
    FEWEST_DOCUMENTS,
    LARGEST_LOSS_RATE,
    SIGNIFICANCE_SCHEMA,
    Verdict,
    compare_models,
    find_losses,
    judge,
)

SCHEMA = {
    "split": pl.String,
    "dimension": pl.Int64,
    "question_id": pl.String,
    "document_id": pl.String,
    "base_ndcg_at_10": pl.Float64,
    "tuned_ndcg_at_10": pl.Float64,
}


def questions(
    gains: np.ndarray, document_of: Callable[[int], int], dimension: int = 384
) -> pl.DataFrame:
    """One question per gain, each with a base score of 0.4."""
    return pl.DataFrame(
        [
            ("test_labelled", dimension, f"q{i}", f"document-{document_of(i)}", 0.4, 0.4 + gain)
            for i, gain in enumerate(gains.tolist())
        ],
        schema=SCHEMA,
        orient="row",
    )


def only_row(per_query: pl.DataFrame) -> dict:
    return compare_models(per_query).row(0, named=True)


def test_a_constant_gain_is_better():
    row = only_row(questions(np.full(40, 0.1), lambda i: i % 10))

    assert row["verdict"] == "better"
    assert row["difference"] == pytest.approx(0.1)
    assert row["low"] == pytest.approx(0.1)
    assert row["high"] == pytest.approx(0.1)
    assert row["p_value"] == pytest.approx(2 / 2**10)
    assert (row["questions"], row["documents"], row["resampled"]) == (40, 10, "documents")


def test_a_constant_loss_is_worse():
    assert only_row(questions(np.full(40, -0.1), lambda i: i % 10))["verdict"] == "worse"


def test_two_equal_models_show_no_clear_difference():
    row = only_row(questions(np.zeros(40), lambda i: i % 10))

    assert row["verdict"] == "no clear difference"
    assert (row["low"], row["high"], row["p_value"]) == (0, 0, 1)


def test_noise_is_no_clear_difference():
    noise = np.random.default_rng(5).normal(0, 0.2, 200)
    row = only_row(questions(noise - noise.mean() + 0.001, lambda i: i % 20))

    assert row["verdict"] == "no clear difference"
    assert row["low"] < 0.001 < row["high"]
    assert row["p_value"] > 0.5


def test_documents_whose_questions_move_together_widen_the_interval():
    gains = np.repeat(np.random.default_rng(3).normal(0.05, 0.15, 12), 10)
    together = only_row(questions(gains, lambda i: i // 10))
    apart = only_row(questions(gains, lambda i: i))

    assert together["difference"] == pytest.approx(apart["difference"])
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])
    assert together["p_value"] > apart["p_value"]


def test_a_single_document_is_resampled_by_question_and_says_so():
    row = only_row(questions(np.linspace(0.05, 0.15, 30), lambda i: 1))

    assert (row["resampled"], row["documents"]) == ("questions", 1)
    assert 0.05 < row["low"] < row["difference"] < row["high"] < 0.15


def test_a_single_question_proves_nothing():
    row = only_row(questions(np.array([0.5]), lambda i: i))

    assert (row["low"], row["high"], row["p_value"]) == (-1, 1, 1)
    assert row["verdict"] == Verdict.TOO_FEW


@pytest.mark.parametrize("documents", range(1, FEWEST_DOCUMENTS))
def test_few_documents_are_too_few_to_tell_however_large_the_gain(documents):
    for gain in (0.5, -0.5, 0.0):
        row = only_row(questions(np.full(200, gain), lambda i: i % documents))
        assert row["verdict"] == Verdict.TOO_FEW


def test_the_fewest_documents_can_tell_a_model_that_wins_in_each():
    row = only_row(questions(np.linspace(0.1, 0.2, 7), lambda i: i))
    assert (row["documents"], row["verdict"]) == (FEWEST_DOCUMENTS, Verdict.BETTER)


@pytest.mark.parametrize(
    ("low", "high", "p_value", "verdict"),
    [
        (0.01, 0.2, 0.02, Verdict.BETTER),
        (-0.2, -0.01, 0.02, Verdict.WORSE),
        (0.01, 0.2, 0.021, Verdict.NO_CLEAR_DIFFERENCE),
        (-0.2, -0.01, 0.5, Verdict.NO_CLEAR_DIFFERENCE),
        (-0.01, 0.2, 0.001, Verdict.NO_CLEAR_DIFFERENCE),
        (0, 0, 1, Verdict.NO_CLEAR_DIFFERENCE),
    ],
)
def test_a_verdict_needs_the_interval_and_the_permutation_test_to_agree(
    low, high, p_value, verdict
):
    assert judge(low, high, p_value, documents=20) == verdict


def test_a_document_with_many_questions_weighs_as_many():
    gains = np.array([0.2] * 30 + [0.0] * 10)
    row = only_row(questions(gains, lambda i: 0 if i < 30 else i))

    assert row["difference"] == pytest.approx(0.15)
    assert row["base"] == pytest.approx(0.4)
    assert row["tuned"] == pytest.approx(0.55)


def test_the_result_is_the_same_in_whatever_order_the_rows_come():
    gains = np.random.default_rng(2).normal(0.03, 0.2, 300)
    per_query = pl.concat(
        questions(gains, lambda i: i % 23, dimension) for dimension in (64, 384, 128)
    )

    result = compare_models(per_query)

    assert result["dimension"].to_list() == [384, 128, 64]
    for seed in range(3):
        shuffled = per_query.sample(fraction=1, shuffle=True, seed=seed)
        assert compare_models(shuffled).equals(result)


def test_no_questions_make_an_empty_frame_with_every_column():
    empty = compare_models(pl.DataFrame(schema=SCHEMA))

    assert empty.is_empty()
    assert empty.schema == SIGNIFICANCE_SCHEMA


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_question_without_a_score_is_refused_by_name(missing):
    per_query = questions(np.zeros(3), lambda i: i).with_columns(
        tuned_ndcg_at_10=pl.Series([0.4, missing, 0.4])
    )

    with pytest.raises(ValueError, match="1 of 3 questions have no NDCG@10, the first is 'q1'"):
        compare_models(per_query)


# Losses beyond a margin, of many splits and dimensions together.


def slices(*gains: tuple[str, int, np.ndarray]) -> pl.DataFrame:
    """A question per gain in each split and dimension, each about a document of its own."""
    return pl.concat(
        questions(values, lambda i: i, dimension).with_columns(split=pl.lit(split))
        for split, dimension, values in gains
    )


def test_a_loss_larger_than_the_margin_is_clear_and_a_smaller_one_is_none():
    lost = np.linspace(-0.03, -0.02, 20)
    [row] = find_losses(slices(("a", 64, lost)), margin=0.01).to_dicts()
    assert row["clear"]
    assert row["difference"] == pytest.approx(-0.025)
    assert (row["questions"], row["documents"]) == (20, 20)
    assert not find_losses(slices(("a", 64, lost)), margin=0.03)["clear"].any()


def test_a_loss_of_the_very_margin_is_none():
    exactly = np.full(20, -0.01)
    assert find_losses(slices(("a", 64, exactly)), margin=0.01)["p_value"].to_list() == [1]


def test_a_loss_that_alone_would_be_clear_may_be_chance_among_many():
    rng = np.random.default_rng(4)
    unsure = np.array([-0.05] * 16 + [0.07] * 4)
    alone = find_losses(slices(("a", 64, unsure)), margin=0)
    assert alone["clear"].to_list() == [True]
    others = [("b", d, rng.normal(0, 0.1, 20)) for d in range(14)]
    among = find_losses(slices(("a", 64, unsure), *others), margin=0)
    assert among["p_value"].min() == alone["p_value"].item()
    assert not among["clear"].any()


def test_the_step_down_stops_at_the_first_that_is_not_clear():
    sure, unsure = np.full(20, -0.05), np.array([-0.05] * 13 + [0.05] * 7)
    found = find_losses(slices(("a", 1, sure), ("a", 2, unsure), ("a", 3, np.zeros(20))), 0)
    assert found["clear"].to_list() == [True, False, False]
    assert found["limit"].to_list() == pytest.approx(
        [LARGEST_LOSS_RATE / 3, LARGEST_LOSS_RATE / 2, LARGEST_LOSS_RATE]
    )


def test_a_split_of_few_documents_tells_no_loss_and_takes_no_share():
    few, many = np.full(FEWEST_DOCUMENTS - 1, -0.5), np.full(20, -0.05)
    found = find_losses(slices(("few", 64, few), ("many", 64, many)), margin=0.01)
    rows = {row["split"]: row for row in found.to_dicts()}
    assert (rows["few"]["p_value"], rows["few"]["clear"]) == (1, False)
    assert rows["many"]["clear"]
    assert rows["many"]["limit"] == LARGEST_LOSS_RATE


def test_losses_are_the_same_in_whatever_order_the_rows_come():
    rng = np.random.default_rng(3)
    rows = slices(*(("a", d, rng.normal(-0.02, 0.1, 30)) for d in (64, 128, 256)))
    found = find_losses(rows, 0.01)
    for seed in range(3):
        assert find_losses(rows.sample(fraction=1, shuffle=True, seed=seed), 0.01).equals(found)
    assert find_losses(pl.DataFrame(schema=SCHEMA), 0.01).is_empty()


def test_a_loss_of_a_question_without_a_score_is_refused_by_name():
    with pytest.raises(ValueError, match="have no NDCG@10, the first is 'q0'"):
        find_losses(questions(np.array([np.nan]), lambda i: i), 0.01)
