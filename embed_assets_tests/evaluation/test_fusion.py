"""Two rankings become one."""

import numpy as np
import pytest

from embed_assets.evaluation.fusion import CANDIDATES, fuse
from embed_assets.lexical import Found


def found(**scores: float) -> Found:
    """Rows r0, r1, … and their scores, the best first."""
    ordered = sorted(scores.items(), key=lambda row: -row[1])
    rows = np.array([int(name[1:]) for name, _ in ordered], dtype=np.int64)
    return rows, np.array([score for _, score in ordered], dtype=np.float32)


def rows(dense: Found, lexical: Found, k: int = 9) -> list[int]:
    return fuse(dense, lexical, k, 0.5)[0].tolist()


def test_scores_of_both_lists_count_alike_whatever_their_range():
    ranked, scores = fuse(found(r7=0.9, r3=0.7, r5=0.5), found(r9=30.0, r3=25.0, r1=10.0), 10, 0.5)
    assert ranked.tolist() == [3, 7, 9, 1, 5]
    assert scores == pytest.approx([0.625, 0.5, 0.5, 0, 0], abs=1e-6)


def test_what_is_first_in_both_lists_has_a_score_of_one():
    ranked, scores = fuse(found(r2=0.4, r1=-0.2), found(r2=3.0, r1=1.0), 1, 0.5)
    assert (ranked.tolist(), scores.tolist()) == ([2], [1.0])


@pytest.mark.parametrize(
    ("dense_weight", "ranked", "scores"),
    [
        (0.0, [9, 3, 1, 5, 7], [1, 0.75, 0, 0, 0]),
        (0.2, [9, 3, 7, 1, 5], [0.8, 0.7, 0.2, 0, 0]),
        (1.0, [7, 3, 1, 5, 9], [1, 0.5, 0, 0, 0]),
    ],
)
def test_a_list_counts_by_its_weight(dense_weight, ranked, scores):
    lists = found(r7=0.9, r3=0.7, r5=0.5), found(r9=30.0, r3=25.0, r1=10.0)
    rows_found, fused = fuse(*lists, 10, dense_weight)
    assert rows_found.tolist() == ranked
    assert fused == pytest.approx(scores, abs=1e-6)


def test_equal_scores_stand_in_the_order_of_the_rows():
    assert rows(found(r4=0.9, r2=0.1), found(r2=7.0, r4=1.0)) == [2, 4]
    assert rows(found(r4=0.5, r2=0.5), found()) == [2, 4]


def test_a_list_of_one_or_of_equal_scores_counts_in_full():
    assert rows(found(r1=0.5, r2=0.4, r3=0.1), found(r3=2.0)) == [1, 3, 2]


def test_an_empty_list_leaves_the_other_as_it_is():
    assert rows(found(r5=0.9, r1=0.2), found()) == [5, 1]
    assert rows(found(), found(r5=9.0, r1=2.0)) == [5, 1]
    assert rows(found(), found()) == []


def test_no_more_than_k_rows_are_given_and_what_follows_the_candidates_does_not_count():
    many = found(**{f"r{n}": 1 - n / 1000 for n in range(2 * CANDIDATES)})
    first = many[0][:CANDIDATES], many[1][:CANDIDATES]
    words = found(r3=2.0, r5=1.0)
    assert rows(many, words, 7) == rows(first, words, 7)
    assert len(rows(many, words, 7)) == 7


def test_who_asks_for_more_than_the_candidates_gets_them():
    many = found(**{f"r{n}": 1 - n / 1000 for n in range(3 * CANDIDATES)})
    words = found(**{f"r{n}": float(n) for n in range(3 * CANDIDATES, 150, -1)})
    few, more = rows(many, words, CANDIDATES), rows(many, words, 280)
    assert more[:CANDIDATES] == few
    assert len(set(more)) == len(more) == 280
    assert sorted(more[: 2 * CANDIDATES]) == [*range(100), *range(201, 301)]
    assert more[2 * CANDIDATES :][:4] == [100, 200, 101, 199]
