"""The headline: which questions are the best evidence, and the first figures of a model on them."""

import polars as pl

from embed_assets.evaluation.retrieval import LISTED
from embed_assets.evaluation.scoring import RetrievalTask
from embed_assets.evaluation.significance import FEWEST_DOCUMENTS
from embed_assets.pairs.splits import TEST_SPLITS


def best_evidence(rows: pl.DataFrame) -> str:
    """The split that is the headline. rows: split, documents.

    People's questions, else those on held-out documents, else the rest: the first with documents
    enough to tell, or where none has, the first there is.
    """
    documents = dict(rows.select("split", "documents").iter_rows())
    tests = [split for split in TEST_SPLITS if split in documents]
    enough = [split for split in tests if documents[split] >= FEWEST_DOCUMENTS]
    return (enough or tests)[0]


def headline_figures(scores: pl.DataFrame, split: str) -> dict[str, float]:
    """Headline figures of one model on a split, by name. scores: as SCORES_SCHEMA says."""
    rows = scores.filter(split=split, k=LISTED).sort("dimension")
    ndcg = rows.filter(metric="ndcg")["score"]
    full = rows.filter(pl.col("dimension") == pl.col("dimension").max())
    by_metric = dict(full.select("metric", "score").iter_rows())
    return {
        "ndcg_at_10": ndcg[-1],
        "ndcg_at_10_smallest_dimension": ndcg[0],
        "recall_at_10": by_metric["recall"],
        "reciprocal_rank_at_10": by_metric["mrr"],
    }


def task_figures(task: RetrievalTask) -> tuple[str | None, dict[str, float]]:
    """The headline split of a task, if any question tests, and how much it asks."""
    asked = task.questions.filter(pl.col("split").is_in(TEST_SPLITS))
    if asked.is_empty():
        return None, {}
    counted = asked.group_by("split").agg(
        documents=pl.col("document_id").n_unique(), questions=pl.len()
    )
    split = best_evidence(counted)
    row = counted.row(by_predicate=pl.col("split") == split, named=True)
    return split, {"test_documents": row["documents"], "test_questions": row["questions"]}
