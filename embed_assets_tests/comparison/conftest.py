"""A made-up comparison: four splits, four dimensions, the tuned model a little better."""

import polars as pl
import pytest

SPLITS = ["validation", "test_labelled", "test_seen_documents", "test_unseen_documents"]
DIMENSIONS = [384, 256, 128, 64]
METRICS = [
    (m, k) for m in ("accuracy", "hit_rate", "precision", "recall", "f1") for k in (1, 3, 5, 10)
]
RANKINGS = [("ndcg", 10), ("mrr", 10), ("map", 100)]


@pytest.fixture
def scores() -> pl.DataFrame:
    base = (pl.col("dimension") / 384) ** 0.1 * (0.4 + pl.col("k") / 250)
    return (
        pl.DataFrame({"split": SPLITS})
        .join(pl.DataFrame({"dimension": DIMENSIONS}), how="cross")
        .join(pl.DataFrame(METRICS + RANKINGS, schema=["metric", "k"], orient="row"), how="cross")
        .with_columns(base=base, tuned=base * 1.25, difference_percent=pl.lit(25.0))
    )


@pytest.fixture
def quality_kept(scores: pl.DataFrame) -> pl.DataFrame:
    return (
        scores.filter(metric="ndcg")
        .unpivot(
            on=["base", "tuned"],
            index=["split", "dimension"],
            variable_name="model",
            value_name="ndcg_at_10",
        )
        .with_columns(
            kept=pl.col("ndcg_at_10") / pl.col("ndcg_at_10").max().over("split", "model"),
            bytes_per_vector=pl.col("dimension") * 4,
            storage_saved=1 - pl.col("dimension") / 384,
        )
    )
