"""Documents become rows of chunks in the worker pool: one that hangs the chunker costs itself."""

from collections.abc import Mapping
from functools import partial

import polars as pl

from embed_assets.documents.chunking import Uncut, chunk_document
from embed_assets.models.card import ModelCard
from embed_assets.resources.ledger import Failure, Slices
from embed_assets.resources.workers import WorkerPool
from embed_assets.settings import Headings
from embed_assets.tables import TABLES

PAGES_AT_ONCE = 100
"""Pages whose chunks are made in the time that a second worker takes to start."""


def cut_documents(
    parsed_markdown: pl.DataFrame,
    file_names: Mapping[str, str],
    card: ModelCard,
    pool: WorkerPool,
    headings: Headings = "first",
) -> Slices:
    """Rows of chunks for every document that has text, each within the pool's limits.

    Of one that can't be cut nothing is made. file_names: by document_id. card: of the model whose
    tokens count.
    """
    readable = parsed_markdown.filter(pl.col("parser_status") == "SUCCESS")
    documents = [
        Uncut(key, file_names.get(key, ""), pages)
        for (key,), pages in readable.sort("document_id", "page").group_by(
            "document_id", maintain_order=True
        )
        if isinstance(key, str)
    ]
    rows = [TABLES["chunks"].empty()]
    not_made: dict[str, Failure] = {}
    if documents:
        cut = partial(chunk_document, card.source, card.token_limit, headings)
        with pool.start(min(len(documents), 1 + readable.height // PAGES_AT_ONCE)) as workers:
            for outcome in workers.map(cut, documents):
                if outcome.failure is not None:
                    not_made[outcome.item.document_id] = outcome.failure
                elif outcome.result is not None:
                    rows.append(outcome.result)
    return Slices(pl.concat(rows), not_made=not_made)
