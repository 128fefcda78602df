"""Models that are equally good are seldom called better or worse, however gains are made."""

import pytest

simulated = pytest.importorskip("benchmarks.significance")


@pytest.mark.parametrize("kind", simulated.KINDS)
@pytest.mark.parametrize(
    ("documents", "questions"),
    [
        pytest.param(1, 200, marks=pytest.mark.long),
        (2, 2),
        (7, 7),
        pytest.param(10, 200, marks=pytest.mark.long),
        pytest.param(20, 60, marks=pytest.mark.long),
    ],
)
def test_at_most_one_in_twenty_comparisons_of_equal_models_is_called(kind, documents, questions):
    gains = simulated.KINDS[kind]
    _, called = simulated.called_shares(gains, documents, questions, trials=200, seed=1)
    assert called <= 0.05
