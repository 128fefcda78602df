"""What a person reads at the end of a run."""

from typing import Any

from embed_assets.command.summary import ingest_text, run_text

SUMMARY: dict[str, Any] = {
    "changed": True,
    "trained": True,
    "documents": {"SUCCESS": 3, "EMPTY": 0, "ERROR": 0},
    "pages": 3,
    "chunks": 9,
    "questions": 20,
    "failed": [],
    "empty": [],
    "questions_not_asked": 0,
    "questions_failed": 0,
    "unmatched_labelled": [],
    "waiting": [],
    "seconds": {},
    "comparison": [],
    "baselines": [],
    "baselines_failed": [],
    "reservations": [],
    "verdict": "The fine-tuned model is better.",
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


def test_baselines_are_a_table_of_their_own_with_the_interval_and_the_verdict():
    lines = run_text({**SUMMARY, "baselines": [BM25]}).splitlines()
    [row] = [line for line in lines if " bm25 " in line]
    told = ["test_labelled", "bm25", "0.6100", "0.5000", "-0.1100", "-0.200", "to", "-0.020"]
    assert row.split() == [*told, "worse"]


def test_it_ends_with_the_verdict_and_with_what_search_uses():
    end = (
        "\nThe fine-tuned model is better.\nVersion 2 was made the champion.\nChampion version 2\n"
    )
    assert end in run_text(SUMMARY)
    assert "better.\nChampion version 2\n" in run_text({**SUMMARY, "promotion": None})
    assert "\nChampion none yet: search uses mine\n" in run_text({**SUMMARY, "champion": None})


def test_where_documents_are_too_few_it_says_how_many_are_needed():
    said = run_text({**SUMMARY, "baselines": [BM25 | {"verdict": "too few to tell"}]})
    assert "questions about 7 documents" in said
    assert "questions about 7 documents" not in run_text({**SUMMARY, "baselines": [BM25]})


def test_without_baselines_there_is_no_table_of_them():
    assert "baseline" not in run_text(SUMMARY)


def test_what_speaks_against_the_model_and_what_failed_is_said_in_full():
    failed = [{"model": "openai:m", "error": "no answer"}]
    said = run_text({**SUMMARY, "reservations": ["bm25 beats it."], "baselines_failed": failed})
    assert "\nbm25 beats it.\nopenai:m could not be scored: no answer\n" in said


def test_what_waits_for_another_run_is_said_though_nothing_has_changed():
    waiting = [{"what": "a.pdf", "reason": "gone, and a run may still use it"}]
    said = ingest_text({**SUMMARY, "changed": False, "waiting": waiting})
    assert said.startswith("Nothing has changed since the last time.\n")
    listed = "Waits:\n  a.pdf: gone, and a run may still use it"
    assert listed in said


def test_a_document_that_could_not_be_read_says_whether_it_will_be_tried_again():
    failed = [
        {"path": "a.pdf", "error": "needs a password", "attempts": 1, "final": True},
        {"path": "b.pdf", "error": "its process ended", "attempts": 2, "final": False},
    ]
    lines = ingest_text({**SUMMARY, "failed": failed}).splitlines()
    assert "  a.pdf: needs a password" in lines
    assert "  b.pdf: its process ended (tried 2 times; will be again)" in lines
