import numpy as np
import pytest

from embed_assets.errors import ProjectError
from embed_assets.training.negatives import mine_negatives

IDS = ["answer", "twin", "near", "far", "opposite"]
ANGLES = {"answer": 10, "twin": 11, "near": 40, "far": 80, "opposite": 170}


def at(*degrees: float) -> np.ndarray:
    """Vectors of unlike length at these angles."""
    angles, lengths = np.radians(degrees), np.arange(1, len(degrees) + 1)
    return np.stack([np.cos(angles) * lengths, np.sin(angles) * lengths], axis=1)


CHUNKS = at(*(ANGLES[name] for name in IDS))


def mined(related: set[str], count: int, question: float = 0.0) -> list[str]:
    return mine_negatives(at(question), CHUNKS, IDS, ["answer"], [related], count)[0]


def test_what_scores_nearly_as_well_as_the_answer_is_no_negative() -> None:
    assert mined(set(), 2) == ["near", "far"]


def test_neighbours_and_other_answers_are_no_negatives() -> None:
    assert mined({"near"}, 2) == ["far", "opposite"]


def test_where_few_score_low_enough_the_least_alike_of_the_rest_fill_up() -> None:
    assert mined(set(), 4) == ["near", "far", "opposite", "twin"]


@pytest.mark.parametrize("of_question", [True, False])
def test_embeddings_that_are_no_numbers_are_an_error(of_question: bool) -> None:
    questions, chunks = at(0.0), CHUNKS.copy()
    (questions if of_question else chunks)[0] = np.nan
    with pytest.raises(ProjectError, match=r"^Embeddings hold NaN or infinity"):
        mine_negatives(questions, chunks, IDS, ["answer"], [set()], 1)


def test_nothing_is_mined_where_nothing_is_asked() -> None:
    assert mined(set(), 0) == []
    assert mine_negatives(at(), CHUNKS, IDS, [], [], 2) == []


def test_too_few_chunks_say_so() -> None:
    with pytest.raises(ValueError, match="5 hard negatives are wanted and only 4 chunks"):
        mined(set(), 5)


@pytest.mark.parametrize(("chunks", "questions"), [(1, 100), (2, 1), (3, 3)])
def test_parts_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch, chunks: int, questions: int
) -> None:
    asked = at(*range(0, 180, 7))
    related = [{IDS[place % 3]} for place in range(len(asked))]
    positives = [IDS[place % 4] for place in range(len(asked))]
    whole = mine_negatives(asked, CHUNKS, IDS, positives, related, 3)
    monkeypatch.setattr("embed_assets.training.negatives.CHUNKS", chunks)
    monkeypatch.setattr("embed_assets.training.negatives.QUESTIONS", questions)
    assert mine_negatives(asked, CHUNKS, IDS, positives, related, 3) == whole
