"""The questions that the fine-tuned model won most, and lost most, and what both models found."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from embed_assets.comparison.report import Example, Retrieved
from embed_assets.comparison.verdict import Comparison
from embed_assets.resources.warehouse import Warehouse

EXAMPLES = 5
SHOWN = 5


def most_changed(
    warehouse: Warehouse, comparison: Comparison
) -> tuple[list[Example], list[Example]]:
    """Questions of the headline split that the tuned model won most, and lost most."""
    largest = comparison.queries["dimension"].max()
    gain = pl.col("tuned_ndcg_at_10") - pl.col("base_ndcg_at_10")
    headline = comparison.queries.filter(split=comparison.headline_split, dimension=largest)
    rows = headline.with_columns(gain=gain)
    won = rows.filter(pl.col("gain") > 0).sort(-pl.col("gain"), "question_id").head(EXAMPLES)
    lost = rows.filter(pl.col("gain") < 0).sort("gain", "question_id").head(EXAMPLES)
    chunks = _chunks(warehouse, pl.concat([won, lost]))
    return (
        [_example(row, chunks) for row in won.iter_rows(named=True)],
        [_example(row, chunks) for row in lost.iter_rows(named=True)],
    )


def _chunks(warehouse: Warehouse, rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    ids = {c for column in ("base_top", "tuned_top") for top in rows[column] for c in top[:SHOWN]}
    found = warehouse.read(
        "SELECT chunk_id, any_value(file_name) AS file_name, any_value(page_start) AS page_start, "
        "any_value(page_end) AS page_end, any_value(chunk_text) AS chunk_text FROM chunks "
        "WHERE chunk_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY chunk_id",
        [sorted(ids)],
    )
    return {row["chunk_id"]: row for row in found.iter_rows(named=True)}


def _example(row: dict[str, Any], chunks: dict[str, dict[str, Any]]) -> Example:
    relevant = set(row["relevant_chunk_ids"])
    return Example(
        question_id=row["question_id"],
        question=row["anchor"],
        split=row["split"],
        base_rank=row["base_rank"],
        tuned_rank=row["tuned_rank"],
        base_retrieved=_retrieved(row["base_top"], relevant, chunks),
        tuned_retrieved=_retrieved(row["tuned_top"], relevant, chunks),
    )


def _retrieved(
    top: Sequence[str], relevant: set[str], chunks: dict[str, dict[str, Any]]
) -> tuple[Retrieved, ...]:
    return tuple(
        Retrieved(
            chunk_id=chunk_id,
            file_name=chunk["file_name"],
            page_start=chunk["page_start"],
            page_end=chunk["page_end"],
            text=chunk["chunk_text"],
            relevant=chunk_id in relevant,
        )
        for chunk_id in top[:SHOWN]
        if (chunk := chunks.get(chunk_id))
    )
