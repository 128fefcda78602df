"""Versions of the two parts of training_pairs: what a training reads, and what an evaluation reads.

So a new test question, a held-out PDF or a new name of a file trains nothing.
"""

import polars as pl

from embed_assets.graph import TESTING, TRAINING
from embed_assets.pairs.splits import TRAIN, VALIDATION
from embed_assets.resources.warehouse import digest
from embed_assets.settings import EXTRACTIVE


def part_versions(pairs: pl.DataFrame, places: pl.DataFrame) -> dict[str, str]:
    """Version of each part by name.

    pairs: rows of training_pairs. places: document_id, chunk_index, chunk_id of every chunk.
    """
    trained = pairs.filter(pl.col("split").is_in([TRAIN, VALIDATION]))
    ids = trained["global_chunk_id"].unique()
    related = pl.col("relevant_chunk_ids").list.set_intersection(ids.implode()).list.sort()
    extractive = pl.col("generator").eq_missing(EXTRACTIVE)
    training = trained.select(
        "anchor", "global_chunk_id", "split", extractive=extractive, relevant=related
    ).sort(pl.all())
    tested = pairs.filter(pl.col("split") != TRAIN).select(
        "question_id", "anchor", "split", relevant=pl.col("relevant_chunk_ids").list.sort()
    )
    corpus = places["chunk_id"].unique().sort()
    neighbours = adjacent(places, ids)
    return {
        TRAINING: digest((training.rows(), neighbours.rows())),
        TESTING: digest((tested.sort("question_id").rows(), corpus.to_list())),
    }


def adjacent(places: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """Chunks that stand one after the other in any document, both among `ids`, each pair once."""
    following = places.with_columns(chunk_index=pl.col("chunk_index") - 1).rename(
        {"chunk_id": "next_id"}
    )
    return (
        places.join(following, on=["document_id", "chunk_index"])
        .filter(pl.col("chunk_id").is_in(ids.implode()) & pl.col("next_id").is_in(ids.implode()))
        .select("chunk_id", "next_id")
        .unique()
        .sort(pl.all())
    )
