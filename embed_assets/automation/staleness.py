"""What is missing or stale, by comparing what slices were made from with what is there now."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from embed_assets.resources.warehouse import UNPARTITIONED, Warehouse, input_version

DOCUMENT_ASSETS = ("raw_pdfs", "parsed_markdown", "chunks", "synthetic_questions")
UPSTREAM: Mapping[str, tuple[str, ...]] = {
    "training_pairs": ("chunks", "synthetic_questions"),
    "base_eval": ("training_pairs", "chunks"),
    "finetuned_model": ("training_pairs", "chunks"),
    "comparison": ("base_eval", "finetuned_model"),
}


@dataclass(frozen=True)
class Materialization:
    """What a slice was made by, made from, and what it holds."""

    code_version: str
    input_version: str
    data_version: str


Materializations = Mapping[tuple[str, str], Materialization]


def read_materializations(warehouse: Warehouse) -> dict[tuple[str, str], Materialization]:
    """All of them, by (asset, document_id)."""
    rows = warehouse.read(
        "SELECT asset, document_id, code_version, input_version, data_version FROM materializations"
    )
    return {(a, d): Materialization(c, i, v) for a, d, c, i, v in rows.iter_rows()}


def stale_document_assets(
    document_id: str, made: Materializations, code_versions: Mapping[str, str]
) -> tuple[str, ...]:
    """Assets of a document to make, in order: the first that is stale and all after it."""
    for place, asset in enumerate(DOCUMENT_ASSETS):
        known = made.get((asset, document_id))
        if known is None or known.code_version != code_versions[asset]:
            return DOCUMENT_ASSETS[place:]
        if place > 0:
            upstream = made[DOCUMENT_ASSETS[place - 1], document_id]
            if known.input_version != input_version([upstream.data_version]):
                return DOCUMENT_ASSETS[place:]
    return ()


def stale_training_assets(
    warehouse: Warehouse,
    made: Materializations,
    code_versions: Mapping[str, str],
    again: Collection[str] = (),
) -> tuple[str, ...]:
    """Unpartitioned assets to make now, in order. again: those to make though nothing changed.

    When the pairs are stale and all else is as they were, they alone are made first: only then is
    it known whether they changed.
    """
    stale = [
        asset
        for asset, upstream in UPSTREAM.items()
        if asset in again or _is_stale(asset, warehouse.version_of(*upstream), made, code_versions)
    ]
    if "training_pairs" in stale and ("training_pairs", UNPARTITIONED) in made:
        return ("training_pairs",)
    return tuple(_with_downstream(stale))


def _is_stale(
    asset: str, inputs: str, made: Materializations, code_versions: Mapping[str, str]
) -> bool:
    known = made.get((asset, UNPARTITIONED))
    return known is None or (known.code_version, known.input_version) != (
        code_versions[asset],
        inputs,
    )


def _with_downstream(stale: Sequence[str]) -> list[str]:
    chosen: list[str] = []
    for asset, upstream in UPSTREAM.items():
        # Pairs that are made again often come out the same; the next round finds out.
        follows = [u for u in upstream if u in chosen and u != "training_pairs"]
        if asset in stale or follows:
            chosen.append(asset)
    return chosen
