"""Each metric against values worked out by hand."""

from math import log2

import numpy as np
import pytest

from embed_assets.evaluation import metrics

# Three questions, five places. The first has its answers second and fourth, and a third answer that
# was not found; the second has its only answer on top; the third finds nothing.
HITS = np.array(
    [
        [False, True, False, True, False],
        [True, False, False, False, False],
        [False, False, False, False, False],
    ]
)
RELEVANT_COUNTS = np.array([3, 1, 2])


def test_the_hit_rate_is_one_as_soon_as_any_answer_is_found():
    assert metrics.hit_rate(HITS, 1).tolist() == [0, 1, 0]
    assert metrics.hit_rate(HITS, 3).tolist() == [1, 1, 0]


def test_precision_divides_by_the_places_and_recall_by_the_answers():
    assert metrics.precision(HITS, 5).tolist() == pytest.approx([2 / 5, 1 / 5, 0])
    assert metrics.recall(HITS, RELEVANT_COUNTS, 5).tolist() == pytest.approx([2 / 3, 1, 0])


def test_f1_is_the_harmonic_mean_of_a_questions_own_precision_and_recall():
    precision = metrics.precision(HITS, 5)[:2]
    recall = metrics.recall(HITS, RELEVANT_COUNTS, 5)[:2]
    harmonic = 2 * precision * recall / (precision + recall)

    f1 = metrics.f1(HITS, RELEVANT_COUNTS, 5)

    assert f1.tolist() == pytest.approx([1 / 2, 1 / 3, 0])
    assert f1[:2].tolist() == pytest.approx(harmonic.tolist())


def test_the_reciprocal_rank_is_that_of_the_first_answer_within_k():
    assert metrics.reciprocal_rank(HITS, 5).tolist() == [1 / 2, 1, 0]
    assert metrics.reciprocal_rank(HITS, 1).tolist() == [0, 1, 0]


def test_ndcg_discounts_by_the_logarithm_of_the_rank():
    ideal_of_three = 1 + 1 / log2(3) + 1 / log2(4)
    expected = [(1 / log2(3) + 1 / log2(5)) / ideal_of_three, 1, 0]

    assert metrics.ndcg(HITS, RELEVANT_COUNTS, 5).tolist() == pytest.approx(expected)


def test_ndcg_is_one_when_all_k_places_are_answers_and_more_answers_exist():
    full = np.ones((1, 2), dtype=bool)

    assert metrics.ndcg(full, np.array([5]), 2).tolist() == pytest.approx([1])


def test_average_precision_divides_by_the_answers_that_could_be_in_k_places():
    assert metrics.average_precision(HITS, RELEVANT_COUNTS, 5).tolist() == pytest.approx(
        [(1 / 2 + 2 / 4) / 3, 1, 0]
    )
    assert metrics.average_precision(HITS, RELEVANT_COUNTS, 2).tolist() == pytest.approx(
        [(1 / 2) / 2, 1, 0]
    )


def test_places_that_a_small_corpus_cannot_fill_are_misses():
    one_place = np.array([[True]])
    one_answer = np.array([1])

    assert metrics.precision(one_place, 10).tolist() == [1 / 10]
    assert metrics.recall(one_place, one_answer, 10).tolist() == [1]
    assert metrics.f1(one_place, one_answer, 10).tolist() == pytest.approx([2 / 11])
    assert metrics.ndcg(one_place, one_answer, 10).tolist() == [1]
    assert metrics.average_precision(one_place, one_answer, 100).tolist() == [1]


def test_the_first_rank_counts_from_one_and_is_zero_for_nothing_found():
    assert metrics.first_ranks(HITS).tolist() == [2, 1, 0]


def test_every_metric_is_reported_at_its_cutoffs():
    scored = metrics.score_questions(HITS, RELEVANT_COUNTS)

    cutoffs: dict[str, list[int]] = {}
    for metric, k in scored:
        cutoffs.setdefault(metric, []).append(k)
    shallow = [1, 3, 5, 10]
    assert cutoffs == {
        "accuracy": shallow,
        "hit_rate": shallow,
        "precision": shallow,
        "recall": shallow,
        "f1": shallow,
        "ndcg": [10],
        "mrr": [10],
        "map": [100],
    }
    assert scored["accuracy", 3].tolist() == scored["hit_rate", 3].tolist() == [1, 1, 0]
    assert scored["mrr", 10].tolist() == [1 / 2, 1, 0]
