"""Two rankings become one."""

import numpy as np

from embed_assets.evaluation.fusion import Found, fuse


def found(*rows: int) -> Found:
    """Rows, the best first, with falling scores."""
    return np.array(rows, dtype=np.int64), np.linspace(1, 0.1, len(rows), dtype=np.float32)


def test_what_both_lists_hold_comes_before_what_one_holds():
    rows, scores = fuse(found(7, 3, 5), found(9, 3), 10)
    assert rows.tolist()[0] == 3
    assert sorted(rows.tolist()) == [3, 5, 7, 9]
    assert (np.diff(scores) <= 0).all()


def test_equal_scores_stand_in_the_order_of_the_rows():
    assert fuse(found(4, 2), found(2, 4), 2)[0].tolist() == [2, 4]


def test_no_more_than_k_rows_are_given():
    assert fuse(found(1, 2, 3), found(1, 2, 4), 2)[0].tolist() == [1, 2]


def test_an_empty_list_leaves_the_other_as_it_is():
    assert fuse(found(5, 1), found(), 9)[0].tolist() == [5, 1]
    assert fuse(found(), found(5, 1), 9)[0].tolist() == [5, 1]
    assert fuse(found(), found(), 9)[0].tolist() == []
