"""What a person reads at the end of a run: what came out first, where to look next last."""

from typing import Any

import pytest

from embed_assets.command.pipeline import Done
from embed_assets.command.summary import TITLES, ingest_text, run_summary, run_text
from embed_assets.pairs.splits import TEST_SPLITS, VALIDATION
from embed_assets.questions.statuses import NO_SUCH_FILE
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets_tests.rows import filled, model

SUMMARY: dict[str, Any] = {
    "changed": True,
    "trained": True,
    "documents": {"SUCCESS": 3, "EMPTY": 0, "ERROR": 0},
    "pages": 3,
    "chunks": 9,
    "questions": 20,
    "questions_of_people": 0,
    "failed": [],
    "empty": [],
    "partly": [],
    "needing_ocr": [],
    "questions_not_asked": 0,
    "questions_failed": 0,
    "dropped": {},
    "unmatched_labelled": [],
    "waiting": [],
    "seconds": {},
    "comparison": [],
    "baselines": [],
    "baselines_failed": [],
    "hybrid": [],
    "reservations": [],
    "verdict": "The fine-tuned model is better.",
    "verdict_hybrid": None,
    "learning_curve": [],
    "would_help_most": None,
    "hybrid_weight": "No other weight is worth setting.",
    "better_weight": None,
    "promotion": "Version 2 was made the champion.",
    "champion": "2",
    "model": {"path": "/home/v2", "version": "2", "base": "mine"},
    "report": "/home/report.html",
}
BM25 = {
    "split": "test_labelled",
    "model": "bm25",
    "metric": "ndcg",
    "k": 10,
    "dimension": 0,
    "score": 0.61,
    "tuned": 0.5,
    "difference": -0.11,
    "low": -0.2,
    "high": -0.02,
    "p_value": 0.01,
    "verdict": "worse",
}


NDCG = {"split": "test_labelled", "dimension": 384, "metric": "ndcg", "base": 0.5, "tuned": 0.55}


def test_the_verdict_comes_first_then_what_became_of_the_version_then_what_search_uses():
    assert run_text(SUMMARY).splitlines()[:3] == [
        "The fine-tuned model is better.",
        "Version 2 was made the champion.",
        "Search uses version 2, the champion.",
    ]


@pytest.mark.parametrize(
    ("champion", "used"),
    [("1", "version 1, the champion; the newest is version 2"), (None, "the base model, mine: ")],
)
def test_what_search_uses_is_said_where_it_is_not_the_newest(champion: str | None, used: str):
    lines = run_text({**SUMMARY, "promotion": None, "champion": champion}).splitlines()
    assert lines[1].startswith(f"Search uses {used}")


def test_a_finished_run_has_its_verdict_though_mlflow_is_away(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    settings = Settings(pdfs=tmp_path, home=tmp_path / "home")
    warehouse = Warehouse.of(settings)
    warehouse.replace("models", model("1"))
    headline = {"split": "test_labelled", "model": "base", "dimension": 384, "verdict": "better"}
    warehouse.replace("model_comparisons", filled("model_comparisons", [headline]))
    summary = run_summary(settings, Done({"comparison": 1.0}))
    assert (summary["champion"], summary["promotion"]) == (None, None)
    [silent] = summary["waiting"]
    assert silent["what"] == "models"
    assert silent["reason"].startswith("MLflow can't say")
    assert "better than the base model" in summary["verdict"]
    said = run_text(summary).splitlines()
    assert said[0] == summary["verdict"]
    assert said[1] == "Search uses the champion, whichever that is: MLflow does not answer."
    assert f"  1 waiting: models: {silent['reason']}" in said


def test_where_to_look_next_comes_last_and_what_could_not_be_used_before_it():
    failed = [{"path": "a.pdf", "error": "no PDF", "attempts": 1, "final": True}]
    lines = run_text({**SUMMARY, "failed": failed, "comparison": [NDCG]}).splitlines()
    table = next(place for place, line in enumerate(lines) if "tuned" in line and "base" in line)
    unused = lines.index("  1 document could not be read: a.pdf: no PDF")
    assert table < unused < lines.index("Model   /home/v2")
    assert [line.split()[0] for line in lines[-3:]] == ["Model", "Report", "Next"]


@pytest.mark.parametrize("trained", [True, False])
def test_a_run_that_trained_nothing_says_so_and_shows_all_the_same_what_holds(trained: bool):
    said = run_text({**SUMMARY, "changed": False, "trained": trained, "comparison": [NDCG]})
    assert said.startswith("The fine-tuned model is better.\n")
    assert "+10.0 %" in said
    assert ("nothing was trained" in said) is not trained


def test_splits_are_told_in_words():
    assert set(TITLES) == {*TEST_SPLITS, VALIDATION}
    said = run_text({**SUMMARY, "comparison": [NDCG], "baselines": [BM25]})
    assert said.count("people's questions") == 2
    assert "test_labelled" not in said


def test_baselines_are_a_table_of_their_own_with_the_interval_and_the_verdict():
    lines = run_text({**SUMMARY, "baselines": [BM25]}).splitlines()
    [row] = [line for line in lines if " bm25 " in line]
    told = [
        "people's",
        "questions",
        "bm25",
        "0.6100",
        "0.5000",
        "-0.1100",
        "-0.200",
        "to",
        "-0.020",
    ]
    assert row.split() == [*told, "worse"]


def test_hybrid_search_is_a_sentence_below_the_verdict_and_a_table_of_base_against_tuned():
    hybrid = [{**BM25, "model": "base + bm25"}, {**BM25, "model": "tuned"}]
    said = {"hybrid": hybrid, "verdict_hybrid": "Hybrid search: better."}
    lines = run_text({**SUMMARY, **said}).splitlines()
    assert lines[1] == "Hybrid search: better."
    [head] = [line for line in lines if "hybrid search" in line]
    [row] = [line for line in lines if " base + bm25 " in line]
    assert head.split()[:6] == ["questions", "hybrid", "search", "score", "tuned", "+"]
    assert head.index("difference") + len("difference") == row.index("-0.1100") + len("-0.1100")
    assert not [line for line in lines if line.startswith("people's questions  tuned")]


def test_what_would_help_most_stands_below_what_speaks_against_the_model():
    said = {
        "reservations": ["bm25 beats it."],
        "would_help_most": "More documents would.",
        "hybrid_weight": "0.6 does better.",
        "better_weight": 0.6,
    }
    lines = run_text({**SUMMARY, **said}).splitlines()
    below = lines.index("bm25 beats it.") + 1
    assert lines[below : below + 2] == ["More documents would.", "0.6 does better."]
    assert SUMMARY["hybrid_weight"] not in run_text(SUMMARY)


def test_where_documents_are_too_few_it_says_how_many_are_needed():
    said = run_text({**SUMMARY, "baselines": [BM25 | {"verdict": "too few to tell"}]})
    assert "questions about 7 documents" in said
    assert "questions about 7 documents" not in run_text({**SUMMARY, "baselines": [BM25]})


def test_without_baselines_there_is_no_table_of_them():
    assert "baseline" not in run_text(SUMMARY)


def test_what_speaks_against_the_model_is_said_in_full():
    assert "\nbm25 beats it.\n" in run_text({**SUMMARY, "reservations": ["bm25 beats it."]})


UNUSED: dict[str, Any] = {
    "failed": [
        {"path": "a.pdf", "error": "needs a password", "attempts": 1, "final": True},
        {"path": "b.pdf", "error": "its process ended", "attempts": 2, "final": False},
    ],
    "empty": [{"path": "c.pdf", "error": "no text"}],
    "needing_ocr": ["g.pdf"],
    "partly": [{"path": "f.pdf", "pages": [2, 5], "share": 0.5, "error": "scanned"}],
    "labelled_rows": 12,
    "unmatched_labelled": [
        {
            "source": "q.jsonl",
            "place": None,
            "file_name": "d.pdf",
            "question": "Why?",
            "reason": reason,
            "why": None,
        }
        for reason in ("EVIDENCE_NOT_FOUND", NO_SUCH_FILE)
    ],
    "dropped": {"NEAR_DUPLICATE": 1200, "VERBATIM": 3},
    "questions_not_asked": 1,
    "questions_failed": 2,
    "baselines_failed": [{"model": "openai:m", "error": "no answer"}],
    "learning_curve_failed": "no room",
    "waiting": [{"what": "e.pdf", "reason": "still changing"}],
}


def test_what_could_not_be_used_is_counted_and_told_where_it_is_one_thing():
    said = run_text({**SUMMARY, **UNUSED})
    for line in (
        "2 documents could not be read",
        "1 document without text: c.pdf: no text",
        "1 document that OCR may read (EMBED_ASSETS_OCR=auto, where Tesseract is installed): g.pdf",
        "1 document read in part: f.pdf: 50% of its text; pages 2, 5: scanned",
        "2 questions of people not used, of 12",
        "1,203 questions dropped",
        "1 chunk not asked about, since the budget was spent: run it again to go on",
        "1 baseline could not be scored: openai:m: no answer",
        "No learning curve: no room",
        "1 waiting: e.pdf: still changing",
    ):
        assert f"\n  {line}\n" in said
    assert "--details" in said
    assert "a.pdf" not in said


def test_with_details_each_is_listed_with_its_reason_in_words():
    said = ingest_text({**SUMMARY, **UNUSED}, details=True)
    for line in (
        "a.pdf: needs a password",
        "b.pdf: its process ended (tried 2 times; will be again)",
        "d.pdf: Why? (evidence not found)",
        "d.pdf: Why? (no such file in the folder)",
        "near-duplicate: 1,200",
    ):
        assert f"\n  {line}\n" in f"{said}\n"
    assert "--details" not in said


def test_bad_rows_of_peoples_files_are_shown_until_there_are_many():
    def bad(number: int) -> dict[str, Any]:
        place = {"source": "q.csv", "place": f"row {number}", "why": "lacks 'question'"}
        return {**place, "file_name": None, "question": "", "reason": "BAD_ROW"}

    some = {"labelled_rows": 9, "unmatched_labelled": [bad(n) for n in range(2, 7)]}
    said = run_text({**SUMMARY, **some})
    assert (
        "\n  5 of 9 rows of people's questions can't be read\n    q.csv, row 2: lacks 'question'\n"
        in said
    )
    assert "\n    q.csv, row 4: lacks 'question'\n    and 2 more" in said
    assert "row 5" not in said
    assert "\n  q.csv, row 6: lacks 'question'" in ingest_text({**SUMMARY, **some}, details=True)
    one = {**some, "unmatched_labelled": [bad(2)]}
    assert "\n  1 of 9 rows of people's questions can't be read: q.csv, row 2: lacks" in run_text(
        {**SUMMARY, **one}
    )


def test_what_waits_is_said_though_nothing_has_changed():
    waiting = [{"what": "a.pdf", "reason": "gone, and a run may still use it"}]
    said = ingest_text({**SUMMARY, "changed": False, "waiting": waiting})
    assert said.startswith("Nothing has changed since the last time.\n")
    assert "  1 waiting: a.pdf: gone, and a run may still use it" in said


def test_one_of_a_kind_is_no_plural():
    one = {"documents": {"SUCCESS": 1, "EMPTY": 0, "ERROR": 0}, "pages": 1, "chunks": 1}
    said = ingest_text({**SUMMARY, **one, "questions": 1})
    assert said == "1 document, 1 of them with text; 1 page, 1 chunk, 1 question."
