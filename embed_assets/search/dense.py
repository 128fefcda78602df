"""Search: the best chunks for a text, by the newest model that proved better, else the base."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from embed_assets.errors import ProjectError
from embed_assets.evaluation.retrieval import top_k
from embed_assets.models.card import model_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.registry import champion, newest_model
from embed_assets.resources.patience import answer_at_once
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.wording import in_lines


def search_chunks(settings: Settings, text: str, k: int) -> dict[str, Any]:
    """What `search --json` prints: the k best chunks. ProjectError if nothing is ingested."""
    warehouse = Warehouse(path=str(settings.warehouse))
    corpus = warehouse.corpus()
    if corpus.is_empty():
        raise ProjectError(
            f"There is nothing to search in {settings.home}. `embed-assets ingest` reads PDFs."
        )
    answer_at_once()
    version = champion(warehouse, settings)
    card = version.card if version else model_card(settings)
    encoder = CachedEncoder(warehouse, card, settings.precision)
    found, scores = top_k(
        encoder.encoder.encode([text], "query"),
        encoder.encode_documents(corpus["chunk_text"].to_list(), "Encoding chunks"),
        k,
    )
    best = pl.DataFrame({"chunk_id": corpus["chunk_id"].gather(found[0]), "score": scores[0]})
    places = warehouse.read(
        "SELECT chunk_id, file_name, page_start, page_end, chunk_text FROM chunks "
        "WHERE chunk_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY document_id, chunk_index",
        [best["chunk_id"].to_list()],
    ).unique("chunk_id", keep="first")
    results = best.join(places, on="chunk_id", maintain_order="left").select(
        *("file_name", "page_start", "page_end", "chunk_text"),
        pl.col("score").cast(pl.Float64).round(6),
    )
    return {
        "query": text,
        "model": f"{version.base} fine-tuned, version {version.number}" if version else card.name,
        "version": version.number if version else None,
        "newest": newest_model(warehouse)["version"] if warehouse.count("models") else None,
        "results": results.to_dicts(),
    }


def _by(result: Mapping[str, Any]) -> str:
    """Which model searched, and which is the newest where that is another."""
    version, newest = result["version"], result["newest"]
    if version is None:
        why = "no version is champion yet" if newest else "no version was trained yet"
        return f"With the base model, {result['model']}: {why}"
    other = f"; the newest is version {newest}" if newest != version else ""
    return f"With version {version}, the champion ({result['model']}){other}"


def search_text(result: Mapping[str, Any]) -> str:
    """The results for a person."""
    lines = [f"{_by(result)}:"]
    for row in result["results"]:
        start, end = row["page_start"], row["page_end"]
        pages = f"page {start}" if start == end else f"pages {start}–{end}"
        text = " ".join(row["chunk_text"].split())
        text = text if len(text) <= 300 else f"{text[:300]}…"
        lines += ["", f"{row['score']:.3f}  {row['file_name']}, {pages}", f"       {text}"]
    return in_lines(lines)
