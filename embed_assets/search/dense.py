"""Search: the best chunks for a text, by the newest model that proved better, else the base."""

from collections.abc import Mapping
from typing import Any

from embed_assets.errors import ProjectError
from embed_assets.settings import Settings


def search_chunks(settings: Settings, text: str, k: int) -> dict[str, Any]:
    """What `search --json` prints: the k best chunks. ProjectError if nothing is ingested."""
    from embed_assets.evaluation.retrieval import top_k
    from embed_assets.models.card import model_card
    from embed_assets.models.embeddings import CachedEncoder
    from embed_assets.models.registry import champion
    from embed_assets.resources.warehouse import Warehouse

    warehouse = Warehouse(path=str(settings.warehouse))
    corpus = warehouse.corpus()
    if corpus.is_empty():
        raise ProjectError(
            f"There is nothing to search in {settings.home}. `embed-assets ingest` reads PDFs."
        )
    version = champion(warehouse, settings)
    card = version.card if version else model_card(settings)
    encoder = CachedEncoder(warehouse, card, settings.precision)
    found, scores = top_k(
        encoder.encoder.encode([text], "query"),
        encoder.encode_documents(corpus["chunk_text"].to_list(), "Encoding chunks"),
        k=min(k, corpus.height),
    )
    places = warehouse.read(
        "SELECT chunk_id, file_name, page_start, page_end, chunk_text FROM chunks "
        "WHERE chunk_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY document_id, chunk_index",
        [[corpus["chunk_id"][int(i)] for i in found[0]]],
    ).unique("chunk_id", keep="first")
    by_id = {row["chunk_id"]: row for row in places.iter_rows(named=True)}
    return {
        "query": text,
        "model": f"{version.base} fine-tuned, version {version.number}" if version else card.name,
        "results": [
            {
                **{name: value for name, value in row.items() if name != "chunk_id"},
                "score": round(float(score), 6),
            }
            for i, score in zip(found[0], scores[0], strict=True)
            for row in [by_id[corpus["chunk_id"][int(i)]]]
        ],
    }


def search_text(result: Mapping[str, Any]) -> str:
    """The results for a person."""
    lines = [f"By {result['model']}:"]
    for row in result["results"]:
        start, end = row["page_start"], row["page_end"]
        pages = f"page {start}" if start == end else f"pages {start}–{end}"
        text = " ".join(row["chunk_text"].split())
        text = text if len(text) <= 300 else f"{text[:300]}…"
        lines += ["", f"{row['score']:.3f}  {row['file_name']}, {pages}", f"       {text}"]
    return "\n".join(lines)
