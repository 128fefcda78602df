"""Every asset, once: its stage, its table and what it is made from.

Definitions, the plan, summaries and deletion derive from this graph. No Dagster in here.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

TRAINING, TESTING = "training", "testing"
"""Parts of training_pairs: what a training reads, and what an evaluation reads (the corpus too)."""


@dataclass(frozen=True)
class Asset:
    """One asset. stage: its folder in the package and its group in the UI.

    part: of its first upstream, the part that decides whether it is stale; all upstreams without.
    named: whether another name of a document makes it stale. pool: of Dagster, whose limit, if an
    instance sets one, holds for all runs at work on it at once.
    """

    name: str
    stage: str
    table: str
    upstream: tuple[str, ...] = ()
    partitioned: bool = False
    part: str | None = None
    named: bool = False
    pool: str | None = None


SEARCH = "search"
"""The stage that makes no model: what it makes is searched."""
_ASSETS = (
    Asset("raw_pdfs", "documents", "raw_pdfs", partitioned=True),
    Asset(
        *("parsed_markdown", "documents", "parsed_markdown", ("raw_pdfs",)),
        partitioned=True,
        pool="parsing",
    ),
    Asset("chunks", "documents", "chunks", ("parsed_markdown",), partitioned=True),
    Asset(
        *("synthetic_questions", "questions", "synthetic_questions", ("chunks",)),
        partitioned=True,
        pool="llm",
    ),
    Asset("training_pairs", "pairs", "training_pairs", ("chunks", "synthetic_questions")),
    Asset(
        "base_eval", "evaluation", "evaluation_results", ("training_pairs", "chunks"), part=TESTING
    ),
    Asset(
        *("finetuned_model", "training", "models", ("training_pairs", "chunks")),
        part=TRAINING,
        pool="training",
    ),
    Asset("comparison", "comparison", "evaluation_results", ("base_eval", "finetuned_model")),
    Asset("chunk_embeddings", SEARCH, "chunk_embeddings", ("chunks",), partitioned=True),
    Asset("search_index", SEARCH, "search_indexes", ("chunk_embeddings", "base_eval"), named=True),
)
GRAPH: Mapping[str, Asset] = {asset.name: asset for asset in _ASSETS}
"""By name, upstream before downstream."""

DOCUMENT_ASSETS = tuple(asset.name for asset in _ASSETS if asset.partitioned)
"""Of each document, in the order in which they are made."""
CORPUS_ASSETS = tuple(a.name for a in _ASSETS if not a.partitioned and a.stage != SEARCH)
"""Made from all documents together, and from each other: a model and its figures."""
SEARCH_INDEX = "search_index"
"""Made from all documents together, whatever model there is."""


@functools.cache
def made_from(name: str) -> frozenset[str]:
    """All that an asset is made from, directly or by way of others."""
    above = GRAPH[name].upstream
    return frozenset(above).union(*map(made_from, above))
