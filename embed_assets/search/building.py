"""Makes the search index from the warehouse, beside the one that is searched, and switches to it.

All that an index holds is read by one connection: no index mixes two states of the warehouse, nor
embeddings of two models. Killed at any time, the index that was searched before still is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
from filelock import FileLock

from embed_assets.errors import ProjectError
from embed_assets.models.card import ModelCard, model_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.files import NoModelError
from embed_assets.models.identity import model_identity, task_identity
from embed_assets.pairs.splits import LABELLED, TEST_SPLITS, VALIDATION
from embed_assets.resources.current_index import (
    change_current,
    note_champion,
    point_at,
    read_current,
    search_folder,
)
from embed_assets.resources.ledger import Records, read_records
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.search.approximate import IDENTITY as LANCE_IDENTITY
from embed_assets.search.approximate import lancedb_is_there
from embed_assets.search.index import (
    BASE_VECTORS,
    NOT_WHOLE,
    PLACE,
    VECTORS,
    CardOnDisk,
    Manifest,
    known_indexes,
    remove_indexes,
    write_index,
)
from embed_assets.search.wanted import Wanted, wanted_model
from embed_assets.settings import Settings

INDEX_VERSION = "1"
TRIES = 3
AT_ONCE = 16_384
"""Embeddings in memory at a time."""
CUTOFF_SHARE = 0.05
"""Share of the questions whose answer may lie below the cut-off."""
FEWEST_QUESTIONS, MOST_QUESTIONS = 30, 500
"""Of which the cut-off is told."""

_PLACES = f"""
SELECT {", ".join(f"any_value({name}) AS {name}" for name in PLACE if name != "document_id")},
    e.document_id, any_value(c.chunk_text) AS chunk_text
FROM chunk_embeddings e JOIN chunks c USING (document_id, chunk_index, chunk_id)
JOIN (SELECT document_id, path FROM raw_pdfs) r USING (document_id)
WHERE e.model = ? GROUP BY e.chunk_id, e.document_id ORDER BY chunk_id, path
"""
_VECTORS = """
SELECT chunk_id, any_value(embedding) AS embedding FROM chunk_embeddings
WHERE model = ? AND chunk_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY chunk_id ORDER BY chunk_id
"""
_CACHED = """
SELECT text_id AS chunk_id, embedding FROM embeddings
WHERE model = ? AND text_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY text_id
"""


@dataclass(frozen=True)
class Made:
    """An index that is searched from now on. built: whether it was made, or was there."""

    name: str
    manifest: Manifest
    built: bool


def make_index(settings: Settings, warehouse: Warehouse, wanted: Wanted) -> Made:
    """Make the index of a model's embeddings of all chunks, and search by it.

    ProjectError where there are none, or where documents don't cease to change meanwhile.
    """
    cutoff, asked = _cutoff(settings, warehouse, wanted)
    with _alone(settings):
        for _ in range(TRIES):
            try:
                return _make(settings, warehouse, wanted, cutoff, asked)
            except _ChangedError:
                continue
    raise ProjectError("Documents change while the search index is made: it is made later.")


class _ChangedError(Exception):
    """Chunks left while their embeddings were read."""


def _make(
    settings: Settings, warehouse: Warehouse, wanted: Wanted, cutoff: float | None, asked: int
) -> Made:
    begun, search = datetime.now(UTC), search_folder(settings.home)
    with warehouse.at_once() as at_once:
        # Before the chunks: what a run changes in between counts as stale rather than as fresh.
        records = read_records(at_once, "chunks")
        places = at_once.read(_PLACES, [wanted.of_chunks])
    if places.is_empty():
        raise ProjectError("There is nothing to search: no chunk is embedded yet.")
    places = places.with_columns(row=pl.col("chunk_id").rle_id().cast(pl.Int64))
    ids = places["chunk_id"].unique(maintain_order=True)
    base = _base_card(settings, wanted)
    fingerprint = _base_fingerprint(settings, warehouse, wanted, base, ids)
    lance = _wants_lance(settings, len(ids))
    shown = base if base and (fingerprint or _embeds_alike(base, wanted)) else None
    manifest = Manifest(
        version=wanted.version,
        base=_base_name(warehouse, wanted),
        identity=wanted.identity,
        of_chunks=wanted.of_chunks,
        model=CardOnDisk.of(wanted.card, settings.home),
        dimensions=wanted.card.trained_dimensions(settings.dimensions),
        chunks=len(ids),
        made_at=begun.isoformat(),
        cutoff=cutoff,
        cutoff_questions=asked,
        documents={k: records.data_version("chunks", k) for k in set(places["document_id"])},
        base_model=CardOnDisk.of(shown, settings.home) if shown else None,
        base_identity=model_identity(shown) if shown else "",
        corpus=digest((INDEX_VERSION, places.select(sorted(PLACE)).hash_rows(seed=1).sum())),
        lance=lance,
    )
    about = (manifest.corpus, cutoff, str(manifest.base_model), manifest.base_identity)
    approximate = (LANCE_IDENTITY,) if lance else ()
    name = f"{wanted.identity}-{digest((INDEX_VERSION, *about, *approximate))}"
    known = known_indexes(search)
    built = name not in known
    if built:
        alike = [other for other in known if known[other].corpus == manifest.corpus]
        alike.sort(key=lambda other: known[other].of_chunks != manifest.of_chunks)
        like = next((search / other for other in alike), None)
        vectors = {VECTORS: _blocks(warehouse, _VECTORS, wanted.of_chunks, ids)}
        if fingerprint:
            vectors[BASE_VECTORS] = _blocks(warehouse, _CACHED, fingerprint, ids)
        write_index(search / name, manifest, places, vectors, like)
    _switch(settings, name, begun)
    return Made(name, manifest, built)


def _wants_lance(settings: Settings, chunks: int) -> bool:
    """Whether an index of so many chunks is to have an approximate one, and can."""
    if not 0 < settings.lance_from <= chunks:
        return False
    return lancedb_is_there(f"An index of {chunks:,} chunks")


def _switch(settings: Settings, name: str, begun: datetime, stale: Sequence[str] = ()) -> None:
    """Search by an index. The one before stays, if another model's: one may go back to it."""
    search, before = search_folder(settings.home), read_current(settings.home).index
    point_at(settings.home, name, begun, stale)
    if read_current(settings.home).champion is None:  # the base of a home without any version
        note_champion(settings.home, None)
    known = known_indexes(search)
    own = known[name].identity
    others = [other for other in known if known[other].identity != own]
    others.sort(key=lambda other: other != before)
    remove_indexes(search, (name, *others[:1]))


def switch_to(settings: Settings, warehouse: Warehouse, version: str | None) -> None:
    """Have search prepared for a version, or the base; at once, where its index is still there.

    What has left the documents since is hidden in it, and what has come is missing until the next
    index.
    """
    note_champion(settings.home, version)
    wanted = wanted_model(settings)
    if wanted is None:
        return
    with _alone(settings):
        now, known = read_current(settings.home).index, known_indexes(search_folder(settings.home))
        kept = next((name for name in known if known[name].identity == wanted.identity), None)
        if kept is not None and kept != now:
            begun = datetime.now(UTC)
            _switch(settings, kept, begun, _stale(known[kept], read_records(warehouse, "chunks")))


def searched_manifest(settings: Settings) -> Manifest | None:
    """Of the index that is searched; None where there is none, or it is damaged."""
    index = read_current(settings.home).index
    with suppress(*NOT_WHOLE):
        if index is not None:
            return Manifest.read(search_folder(settings.home) / index)
    return None


def forget_indexes(settings: Settings) -> None:
    """Remove all indexes: they hold text of documents that must go. A search finds none."""
    if search_folder(settings.home).is_dir():
        with _alone(settings):
            change_current(settings.home, lambda now: replace(now, index=None, hidden={}))
            if left := remove_indexes(search_folder(settings.home)):
                raise ProjectError(
                    f"{left[0]} can't be removed: close what reads it, and try again."
                )


def drop_kept_indexes(settings: Settings) -> None:
    """Remove all indexes but the one that is searched: documents left that stand in them too."""
    if (now := read_current(settings.home).index) is not None:
        with _alone(settings):
            remove_indexes(search_folder(settings.home), (now,))


def _stale(manifest: Manifest, records: Records) -> list[str]:
    """Documents of an index whose chunks are others now, or gone."""
    return [
        key
        for key, version in manifest.documents.items()
        if records.data_version("chunks", key) != version
    ]


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """While nobody else makes or removes indexes."""
    search_folder(settings.home).mkdir(parents=True, exist_ok=True)
    with FileLock(search_folder(settings.home) / "indexes.lock"):
        yield


def _blocks(warehouse: Warehouse, sql: str, model: str, ids: pl.Series) -> Iterator[np.ndarray]:
    """Embeddings of chunks in the order of their ids, block by block. What a model makes of a text
    is the same whenever it is read: chunks may have left meanwhile, and nothing else.
    """
    for start in range(0, len(ids), AT_ONCE):
        block = ids[start : start + AT_ONCE].to_list()
        rows = warehouse.read(sql, [model, block])
        if rows.height != len(block):
            raise _ChangedError
        size = len(rows["embedding"][0])
        yield rows["embedding"].list.to_array(size).to_numpy()


def _base_card(settings: Settings, wanted: Wanted) -> ModelCard | None:
    """Card of the base model, to be shown beside a version, if it can be looked at."""
    try:
        return model_card(settings) if wanted.version else None
    except NoModelError:
        return None


def _embeds_alike(base: ModelCard, wanted: Wanted) -> bool:
    """Whether the base embeds chunks as the model that is wanted does: an adapter's base."""
    return task_identity(base, "document") == wanted.of_chunks


def _base_fingerprint(
    settings: Settings, warehouse: Warehouse, wanted: Wanted, base: ModelCard | None, ids: pl.Series
) -> str | None:
    """What the base's embeddings of chunks are kept under, where all are there and it is another.

    An evaluation has made them: they are shown beside the champion's, and never made for that.
    """
    if base is None or _embeds_alike(base, wanted):
        return None
    fingerprint = CachedEncoder(warehouse, base, settings).fingerprint("document")
    known = warehouse.read(
        "SELECT count(*) FROM embeddings "
        "WHERE model = ? AND text_id IN (SELECT unnest(?::VARCHAR[]))",
        [fingerprint, ids.to_list()],
    )
    return fingerprint if known.item() == len(ids) else None


def _base_name(warehouse: Warehouse, wanted: Wanted) -> str:
    """Name of the model that a version was fine-tuned from."""
    rows = warehouse.read("SELECT base FROM models WHERE version = ?", [wanted.version])
    return rows.item() if rows.height else wanted.card.name


def _cutoff(settings: Settings, warehouse: Warehouse, wanted: Wanted) -> tuple[float | None, int]:
    """Cosine below which nothing relevant is likely, and of how many questions it is told.

    That of a question is the cosine of the chunk that answers it best; of 95 % of the questions it
    is higher. People's questions tell, where there are enough of them; else those that test.
    """
    rows = warehouse.read(
        "SELECT question_id, anchor, relevant_chunk_ids, split FROM training_pairs "
        "WHERE split IN (SELECT unnest(?::VARCHAR[])) ORDER BY md5(question_id)",
        [[*TEST_SPLITS, VALIDATION]],
    )
    peoples = rows.filter(split=LABELLED)
    asked = (peoples if peoples.height >= FEWEST_QUESTIONS else rows).head(MOST_QUESTIONS)
    if asked.height < FEWEST_QUESTIONS:
        return None, 0
    encoder = CachedEncoder(warehouse, wanted.card, settings)
    queries = encoder.encode_queries(asked["anchor"].to_list(), "Encoding questions")
    ids = asked["relevant_chunk_ids"].explode().unique().drop_nulls().to_list()
    known = warehouse.read(_VECTORS, [wanted.of_chunks, ids])
    vectors = dict(known.iter_rows())
    best = [
        max(_cosine(query, np.asarray(vectors[key])) for key in relevant if key in vectors)
        for query, relevant in zip(queries, asked["relevant_chunk_ids"], strict=True)
        if any(key in vectors for key in relevant)
    ]
    if len(best) < FEWEST_QUESTIONS:
        return None, 0
    return round(float(np.quantile(best, CUTOFF_SHARE)), 4), len(best)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))
