"""What speaks against the fine-tuned model is said plainly, and no more than that."""

import polars as pl
import pytest

from embed_assets.comparison.verdict import full_size, hybrid_sentence
from embed_assets.comparison.verdict import reservations as reservations_of
from embed_assets.evaluation.hybrid import BASE_HYBRID
from embed_assets.tables import TABLES

SCHEMA = {k: v for k, v in TABLES["model_comparisons"].schema.items() if k != "run_id"}


def against(*rows: tuple[str, str, int, str], score: float = 0.6) -> pl.DataFrame:
    """Rows of model_comparisons by model, split, dimension and verdict."""
    blank = {name: "" if dtype == pl.String else 0 for name, dtype in SCHEMA.items()}
    given = [dict(zip(("model", "split", "dimension", "verdict"), r, strict=True)) for r in rows]
    figures = {"score": score, "tuned": 0.5}
    return pl.DataFrame([blank | figures | row for row in given], schema=SCHEMA)


def reservations(against_it: pl.DataFrame) -> list[str]:
    """Where hybrid search was not scored."""
    return reservations_of(against_it, against())


HEADLINE = ("base", "test_labelled", 32, "better")


def test_a_model_that_beats_all_has_nothing_against_it():
    assert reservations(against(HEADLINE, ("bm25", "test_labelled", 0, "better"))) == []
    assert reservations(against()) == []


def test_a_baseline_that_beats_the_model_is_named_with_both_figures():
    assert reservations(against(HEADLINE, ("bm25", "test_labelled", 0, "worse"))) == [
        "bm25 beats the fine-tuned model on questions that people wrote: NDCG@10 0.600 "
        "against 0.500."
    ]


def test_a_baseline_that_is_not_clearly_beaten_counts_on_the_headline_split_alone():
    rows = [("m", split, 32, "no clear difference") for split in ("test_labelled", "validation")]
    seen = ("m", "test_seen_documents", 32, "no clear difference")
    assert reservations(against(HEADLINE, *rows, seen)) == [
        "The fine-tuned model does not clearly beat m on questions that people wrote: NDCG@10 "
        "0.500 against 0.600."
    ]


def test_a_lead_of_bm25_on_a_machine_s_questions_is_told_with_a_grain_of_salt():
    [beaten, salt] = reservations(against(HEADLINE, ("bm25", "test_unseen_documents", 0, "worse")))
    assert "bm25 beats the fine-tuned model on questions on held-out documents" in beaten
    assert salt.endswith("they flatter bm25.")


def test_questions_of_a_machine_that_bm25_finds_nearly_always_are_said_to_prove_nothing():
    splits = ("test_seen_documents", "test_unseen_documents")
    rows = [("bm25", split, 0, "better") for split in splits]
    assert reservations(against(HEADLINE, *rows, score=0.9)) == [
        "Questions that share so many of their chunks' words are too easy to prove anything: "
        "bm25 alone has NDCG@10 0.900 on held-out documents, 0.900 on held-out chunks."
    ]
    assert reservations(against(HEADLINE, *rows, score=0.89)) == []
    assert reservations(against(HEADLINE, ("bm25", "test_labelled", 0, "better"), score=1)) == []


def test_a_base_model_that_is_better_on_any_test_split_is_told_with_the_dimensions():
    rows = [("base", "test_seen_documents", size, "worse") for size in (32, 16)]
    assert reservations(against(HEADLINE, *rows, ("base", "validation", 32, "worse"))) == [
        "The fine-tuned model is clearly worse than the base model on questions on other chunks "
        "of the documents trained on at 32, 16 dimensions."
    ]


@pytest.mark.parametrize("size", [32, 0])
def test_the_full_size_is_each_model_s_own(size):
    rows = against(
        HEADLINE, ("base", "test_labelled", 16, "worse"), ("m", "test_labelled", size, "")
    )
    assert full_size(rows).select("model", "dimension").rows() == [("base", 32), ("m", size)]


ALONE = ("tuned", "test_labelled", 32, "worse")


@pytest.mark.parametrize(
    ("verdict", "split", "said"),
    [
        ("better", "test_labelled", []),
        (
            "no clear difference",
            "test_labelled",
            [
                "In hybrid search the fine-tuned model does not clearly beat the base model on "
                "questions that people wrote: NDCG@10 0.500 against 0.600."
            ],
        ),
        ("no clear difference", "test_seen_documents", []),
        ("worse", "validation", []),
        (
            "worse",
            "test_unseen_documents",
            [
                "In hybrid search the fine-tuned model is clearly worse than the base model on "
                "questions on held-out documents: NDCG@10 0.500 against 0.600."
            ],
        ),
    ],
)
def test_in_hybrid_search_the_base_counts_and_the_model_alone_does_not(verdict, split, said):
    hybrid = against((BASE_HYBRID, split, 32, verdict), ALONE)
    assert reservations_of(against(HEADLINE), hybrid) == said


def test_hybrid_search_with_the_base_counts_as_a_baseline():
    beaten = against(HEADLINE, (BASE_HYBRID, "test_unseen_documents", 32, "worse"))
    first, salt = reservations(beaten)
    assert first.startswith("base + bm25 beats the fine-tuned model on questions on held-out")
    assert salt.endswith("they flatter bm25.")


def test_what_tuning_gains_in_hybrid_search_is_one_sentence_on_the_headline_split():
    rows = [(BASE_HYBRID, split, 32, "worse") for split in ("test_labelled", "test_seen_documents")]
    assert hybrid_sentence(against(ALONE, *rows)) == (
        "Hybrid search, base + bm25 → tuned + bm25: NDCG@10 0.600 → 0.500 (−16.7 %), 95 % interval "
        "of the difference +0.000 to +0.000: worse."
    )
    assert hybrid_sentence(against()) == hybrid_sentence(against(ALONE)) == ""
