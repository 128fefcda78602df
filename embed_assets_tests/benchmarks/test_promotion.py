"""A like model is seldom refused, however gains are made; one that lost much is refused often."""

import pytest

simulated = pytest.importorskip("benchmarks.promotion")
MARGIN = 0.01


@pytest.mark.parametrize("kind", ["alike", "clusters", "sparse"])
@pytest.mark.parametrize(
    ("documents", "questions"),
    [
        (7, 20),
        pytest.param(13, 60, marks=pytest.mark.long),
        pytest.param(20, 60, marks=pytest.mark.long),
    ],
)
def test_a_like_model_is_let_through_nineteen_times_of_twenty(kind, documents, questions):
    _, refused = simulated.refused_shares(kind, documents, questions, 40, 1, MARGIN)
    assert refused <= 0.05


def test_a_model_that_lost_much_at_one_dimension_of_one_split_is_refused():
    cells = simulated.LOWER["one cell"]
    refused, _ = simulated.refused_shares("alike", 20, 60, 20, 1, MARGIN, 0.15, cells)
    assert refused >= 0.9
