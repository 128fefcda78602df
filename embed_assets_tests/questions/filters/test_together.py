"""Which of the questions that are alike is kept, and what the base model finds."""

from collections.abc import Set as AbstractSet

import numpy as np
import polars as pl
import pytest

from embed_assets.models.card import model_source
from embed_assets.questions.filters.together import (
    MACHINE,
    TEST,
    TRAINING,
    centre,
    exact_duplicates,
    filter_together,
    near_duplicates,
    rank_questions,
    round_trip,
)
from embed_assets.questions.statuses import (
    DUPLICATE,
    KEPT,
    NEAR_DUPLICATE,
    POINTS_AT_TEXT,
    ROUND_TRIP_FAILED,
    VERBATIM,
)
from embed_assets_tests.questions.filters.test_each import ALL, question
from embed_assets_tests.tiny_model import WORDS, make_tiny_model

MACHINES = np.full(4, MACHINE)


def test_duplicates_are_equal_but_for_case_and_signs():
    questions = ["How hot is it?", "how hot — is it", "How hot was it?", "HOW HOT IS IT"]

    assert exact_duplicates(questions, MACHINES).tolist() == [-1, 0, -1, 0]


def test_questions_of_signs_alone_are_not_each_other_s_duplicates():
    assert (exact_duplicates(["?", "!", "…", "—"], MACHINES) < 0).all()


def test_a_machine_s_question_yields_to_a_person_s_and_that_to_a_test():
    same = ["How hot is it?"] * 4
    ranks = np.array([TEST, TEST, TRAINING, MACHINE])

    assert exact_duplicates(same, ranks).tolist() == [-1, -1, 0, 0]
    assert near_duplicates(np.ones((4, 3)), ranks).tolist() == [-1, -1, 0, 0]


def test_people_may_ask_alike():
    assert (exact_duplicates(["How hot is it?"] * 3, np.full(3, TRAINING)) < 0).all()
    assert (near_duplicates(np.ones((3, 2)), np.full(3, TEST)) < 0).all()
    after_a_machine = np.array([MACHINE, TRAINING])
    assert (near_duplicates(np.ones((2, 2)), after_a_machine) < 0).all()


def test_ranks_follow_who_asked_and_what_for():
    questions = pl.DataFrame(
        [
            question("a", kind="labelled", purpose="test"),
            question("b", kind="labelled", purpose="train"),
            question("c"),
        ]
    )

    assert rank_questions(questions).tolist() == [TEST, TRAINING, MACHINE]


def test_a_question_may_name_a_chunk_that_is_gone():
    rows = [question("How hot?", relevant_chunk_ids=["gone", "winch"])]

    assert together(rows, {"round_trip"}, k=1) == [KEPT]


def on_a_circle(*degrees: float) -> np.ndarray:
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


def test_of_a_chain_each_is_compared_with_those_kept():
    chain = on_a_circle(0, 4, 8, 12)  # cos 5° = 0.9962

    repeats = near_duplicates(chain, MACHINES, threshold=0.9962)

    assert repeats.tolist() == [-1, 0, -1, 2]


def test_the_length_of_an_embedding_says_nothing():
    vectors = on_a_circle(0, 1, 40, 80) * np.array([[1], [1e6], [1e-6], [3]])

    assert near_duplicates(vectors, MACHINES).tolist() == [-1, 0, -1, -1]


@pytest.mark.parametrize("block_size", [1, 7, 64, 1000])
def test_near_duplicates_are_those_of_comparing_one_by_one(block_size):
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(12, 8))[rng.integers(0, 12, 200)] + 0.12 * rng.normal(size=(200, 8))
    ranks = rng.choice([TEST, TRAINING, MACHINE, MACHINE, MACHINE], size=200)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected, kept = list[int](), list[int]()
    for row in range(200):
        others = [
            other
            for other in kept
            if ranks[row] == MACHINE or (ranks[row] == TRAINING and ranks[other] == TEST)
        ]
        like = (other for other in others if unit[row] @ unit[other] >= 0.95)
        expected.append(next(like, -1))
        if expected[row] < 0:
            kept.append(row)

    repeats = near_duplicates(vectors, ranks, 0.95, block_size)

    assert 20 < (repeats >= 0).sum() < 180
    assert repeats.tolist() == expected


@pytest.mark.parametrize("block_size", [1, 3, 50])
def test_a_question_passes_if_fewer_than_k_chunks_are_nearer_than_its_own(block_size):
    chunks = on_a_circle(0, 10, 20, 30, 40)
    questions = on_a_circle(0, 0, 0, 45)

    found = round_trip(questions, chunks, [[0], [1], [2], [0, 3]], k=2, block_size=block_size)

    assert found.tolist() == [True, True, False, True]


def test_a_tie_counts_in_favour():
    same = np.repeat(on_a_circle(10), 5, axis=0)

    assert round_trip(on_a_circle(0), same, [[4]], k=1).tolist() == [True]


def test_a_question_without_a_chunk_has_no_round_trip():
    with pytest.raises(ValueError, match="no relevant chunk"):
        round_trip(on_a_circle(0), on_a_circle(0), [[]])


def judged(
    rows, enabled: AbstractSet[str] = ALL, chunk_degrees=None, degrees=None, **options
) -> pl.DataFrame:
    """degrees, chunk_degrees: where the embedding of each question and chunk lies on a circle."""
    degrees, chunk_degrees = degrees or {}, chunk_degrees or {}
    return filter_together(
        pl.DataFrame(rows),
        enabled,
        lambda texts: on_a_circle(*(degrees.get(text, 0) for text in texts)),
        lambda ids: on_a_circle(*(chunk_degrees.get(key, 0) for key in ids)),
        **options,
    )


def together(rows, enabled: AbstractSet[str] = ALL, **options) -> list[str]:
    return judged(rows, enabled, **options)["status"].to_list()


def test_the_whole_corpus_drops_each_for_its_first_reason():
    rows = [
        question("d How hot?"),
        question("a how hot", question_id="a"),
        question("b How hot", question_id="b"),
        question("b how hot?", question_id="c"),
        question("far", question_id="e"),
        question("person", question_id="f", kind="labelled", chunk_id="x"),
        question("poor", status=POINTS_AT_TEXT),
    ]
    degrees = {"a how hot": 0, "b How hot": 90, "d How hot?": 92, "far": 225, "person": 300}

    statuses = together(
        rows, degrees=degrees, chunk_degrees={"winch": 45, "x": 225}, near=0.99, k=1
    )

    assert statuses == [
        NEAR_DUPLICATE,
        KEPT,
        KEPT,
        DUPLICATE,
        ROUND_TRIP_FAILED,
        KEPT,
        POINTS_AT_TEXT,
    ]


def test_the_question_that_is_kept_takes_over_the_chunks_of_those_that_repeat_it():
    rows = [
        question("How hot?", question_id="a", relevant_chunk_ids=["winch"]),
        question("how hot", question_id="b", relevant_chunk_ids=["brake", "winch"]),
        question("How warm?", question_id="c", relevant_chunk_ids=["float"]),
        question("HOW WARM", question_id="d", relevant_chunk_ids=["rope"]),
        question("far", question_id="e", relevant_chunk_ids=["e"]),
    ]

    found = judged(rows, {"duplicates", "near_duplicates"}, degrees={"far": 90})

    kept = found.filter(status=KEPT)
    assert dict(kept.select("question_id", "relevant_chunk_ids").iter_rows()) == {
        "a": ["winch", "brake", "float", "rope"],  # d leaves its chunk to c, and c to a
        "e": ["e"],
    }


def test_a_person_s_test_takes_chunks_from_the_same_words_and_not_from_nearly_the_same():
    rows = [
        question("How hot?", kind="labelled", purpose="test", turn=0, may_train=False),
        question("how hot", relevant_chunk_ids=["brake"]),
        question("How warm?", relevant_chunk_ids=["float"]),
        question("far", relevant_chunk_ids=["e"]),
    ]

    found = judged(rows, {"duplicates", "near_duplicates"}, degrees={"far": 90})

    assert found["status"].to_list() == [KEPT, DUPLICATE, NEAR_DUPLICATE, KEPT]
    assert found["relevant_chunk_ids"].to_list()[0] == ["winch", "brake"]


def test_a_machine_s_test_yields_to_a_like_question_that_trains_and_leaves_it_nothing():
    test = {"turn": 2, "may_train": False, "question_id": "a", "relevant_chunk_ids": ["held out"]}
    rows = [question("how hot", **test), question("How hot?"), question("far")]

    for enabled in ({"duplicates"}, {"near_duplicates"}):
        found = judged(rows, enabled, degrees={"far": 90})
        assert found["status"].to_list()[1:] == [KEPT, KEPT]
        assert found["status"][0] != KEPT
        assert found["relevant_chunk_ids"].to_list()[1:] == [["winch"], ["winch"]]


def test_what_tests_moves_neither_what_training_questions_share_nor_where_they_are_looked_for():
    rows = [question(name) for name in ("a", "b", "c")]
    degrees = {"a": 0, "b": 4, "c": 90}
    tests = [question(f"test {n}", turn=2, may_train=False, chunk_id="held out") for n in range(9)]
    degrees |= {row["question"]: 180 for row in tests}
    options = {"degrees": degrees, "chunk_degrees": {"winch": 90, "held out": 0}, "k": 1}

    alone, beside = together(rows, **options), together([*rows, *tests], **options)

    assert beside[:3] == alone


def test_what_was_dropped_drops_no_other():
    rows = [question("How hot is it?", question_id="a", status=VERBATIM), question("How hot is it")]

    assert together(rows) == [VERBATIM, KEPT]


def test_which_of_the_alike_is_kept_does_not_depend_on_the_order_of_rows():
    rows = [question("How hot?", question_id=name) for name in "cab"]

    assert together(rows) == [DUPLICATE, KEPT, DUPLICATE]
    assert together(rows[::-1]) == [DUPLICATE, KEPT, DUPLICATE][::-1]


def test_the_round_trip_judges_only_a_machine_s_training_questions():
    rows = [
        question("machine, training"),
        question("machine, testing", may_train=False),
        question("person", kind="labelled", chunk_id="nearer"),
    ]
    degrees = {row["question"]: 90 for row in rows}

    statuses = together(
        rows,
        {"round_trip"},
        degrees=degrees,
        chunk_degrees={"winch": 0, "nearer": 90},
        k=1,
    )

    assert statuses == [ROUND_TRIP_FAILED, KEPT, KEPT]


def test_nothing_is_encoded_unless_a_filter_needs_it():
    def refuse(*texts):
        raise AssertionError("encoded")

    questions = pl.DataFrame(
        [question("How hot is it?"), question("how hot is it", may_train=True)]
    )

    kept = filter_together(questions, {"duplicates", "verbatim"}, refuse, refuse)

    assert sorted(kept["status"]) == [DUPLICATE, KEPT]


def test_a_real_model_finds_rewordings_and_the_chunk_of_a_question():
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(model_source("all-MiniLM-L6-v2"), device="cpu")
    chunks = [
        "The watch is reset by holding both buttons for ten seconds.",
        "Either party may end the lease with three months' notice.",
        "Patients of the placebo group received saline.",
        "The winch brake is released by hand.",
    ]
    asked = [
        ("How do I reset the watch?", "0", KEPT),
        ("how do I reset the watch", "0", DUPLICATE),
        ("How can I reset the watch?", "0", NEAR_DUPLICATE),
        ("How long is the notice period of the lease?", "1", KEPT),
        ("What were patients of the placebo group given?", "2", KEPT),
        ("Who releases the winch brake?", "2", ROUND_TRIP_FAILED),
    ]
    questions = [
        question(text, question_id=str(place), chunk_id=chunk, relevant_chunk_ids=[chunk])
        for place, (text, chunk, _) in enumerate(asked)
    ]
    # Of every chunk a person asks something that trains.
    people = [
        question(text, question_id=f"p{place}", chunk_id=str(place), kind="labelled")
        for place, text in enumerate(chunks)
    ]
    found = filter_together(
        pl.DataFrame([*questions, *people]),
        ALL,
        lambda texts: model.encode(list(texts)),
        lambda ids: model.encode([chunks[int(key)] for key in ids]),
        near=0.9,
        k=1,
    )
    statuses = found["status"].to_list()
    assert statuses[: len(asked)] == [status for _, _, status in asked]


def test_a_model_that_finds_all_texts_alike_loses_no_questions(tmp_path):
    from sentence_transformers import SentenceTransformer

    texts = [
        f"How is valve {i} of the {name} closed?" for i in range(9) for name in WORDS.split()[:9]
    ]
    vectors = SentenceTransformer(str(make_tiny_model(tmp_path))).encode(texts)
    ranks = np.full(len(texts), MACHINE)
    assert (near_duplicates(vectors, ranks) >= 0).mean() > 0.9
    training = np.full(len(texts), fill_value=True)
    assert (near_duplicates(centre(vectors, training), ranks) >= 0).mean() < 0.5
