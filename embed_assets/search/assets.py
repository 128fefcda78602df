"""chunk_embeddings and search_index: the corpus as the champion sees it, and what is searched."""

import dagster as dg
import polars as pl

from embed_assets.errors import ProjectError
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.partitions import asset
from embed_assets.resources.ledger import Slices
from embed_assets.resources.materializing import materializing
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.building import INDEX_VERSION, Made, make_index
from embed_assets.search.wanted import Wanted, wanted_model
from embed_assets.settings import Settings
from embed_assets.tables import TABLES

EMBEDDINGS_VERSION = "1"


@asset("chunk_embeddings", kinds={"huggingface", "duckdb"})
def chunk_embeddings(
    context: dg.AssetExecutionContext,
    chunks: pl.DataFrame,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> Slices:
    """Embeddings of each chunk by the champion, or by the base model where there is none.

    Those that an evaluation has made already are taken over.
    """
    wanted = _wanted(settings)
    encoder = CachedEncoder(warehouse, wanted.card, settings)
    rows = embed_chunks(chunks, encoder, wanted.of_chunks)
    return Slices(rows, code_version=code_versions_of(wanted, settings)["chunk_embeddings"])


def embed_chunks(chunks: pl.DataFrame, encoder: CachedEncoder, model: str) -> pl.DataFrame:
    """Rows of chunk_embeddings. chunks: rows of that table. model: identity that stands in each."""
    schema = TABLES["chunk_embeddings"].schema
    if chunks.is_empty():
        return pl.DataFrame(schema=schema)
    vectors = encoder.encode_documents(chunks["chunk_text"].to_list(), "Embedding chunks")
    return chunks.select(
        *("document_id", "chunk_index", "chunk_id"),
        pl.lit(model).alias("model"),
        pl.Series("embedding", vectors).arr.to_list(),
    ).cast(schema)


@asset("search_index", kinds={"python", "numpy"})
def search_index(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """What is searched: all chunks by meaning and by words, made beside the index that is.

    Search switches to it in one step; until then it answers with the one before.
    """
    with materializing(context, warehouse) as making:
        wanted = _wanted(settings)
        making.code_version = code_versions_of(wanted, settings)["search_index"]
        made = make_index(settings, making.warehouse, wanted)
        with making.storing(data_version=made.name) as transaction:
            transaction.upsert("search_indexes", _row(made))
    manifest = made.manifest
    return making.result(
        model=manifest.called,
        chunks=manifest.chunks,
        documents=len(manifest.documents),
        **({} if manifest.cutoff is None else {"cutoff": manifest.cutoff}),
        folder=f"search/{made.name}",
        was_there=not made.built,
        **{"dagster/row_count": making.warehouse.count("search_indexes")},
    )


def _row(made: Made) -> pl.DataFrame:
    manifest = made.manifest
    row = {
        "name": made.name,
        "version": manifest.version,
        "identity": manifest.identity,
        "documents": len(manifest.documents),
        "chunks": manifest.chunks,
        "cutoff": manifest.cutoff,
        "made_at": manifest.made_at,
    }
    frame = pl.DataFrame([row]).with_columns(
        pl.col("made_at").str.to_datetime(time_unit="us", time_zone="UTC"),
        pl.col("version").cast(pl.String),
        pl.col("cutoff").cast(pl.Float64),
    )
    return frame.select(list(TABLES["search_indexes"].columns))


def _wanted(settings: Settings) -> Wanted:
    wanted = wanted_model(settings)
    if wanted is None:
        raise ProjectError(
            "It is not known which model is the champion, or its folder is gone: "
            "`embed-assets run` asks MLflow."
        )
    return wanted


OWN_VERSIONS = {"chunk_embeddings": EMBEDDINGS_VERSION, "search_index": INDEX_VERSION}
"""Version of each asset's own code. Dagster is told no more: what it has loaded stands for hours,
and the champion changes meanwhile."""


def code_versions_of(wanted: Wanted, settings: Settings) -> dict[str, str]:
    """Version of each asset's code and of the model that decides what it holds."""
    lance_from = Settings.model_fields["lance_from"].default
    approximate = "" if settings.lance_from == lance_from else f", lance {settings.lance_from}"
    models = {"chunk_embeddings": wanted.of_chunks, "search_index": wanted.identity + approximate}
    return {name: f"{OWN_VERSIONS[name]}, {model}" for name, model in models.items()}


def code_versions(settings: Settings) -> dict[str, str]:
    """The same for the model that search is to be prepared for; nothing where none is known."""
    wanted = wanted_model(settings)
    return code_versions_of(wanted, settings) if wanted else {}
