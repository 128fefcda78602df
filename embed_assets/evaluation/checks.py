"""Whether there is enough to tell models apart, and whether the champion's figures are of today."""

import dagster as dg

from embed_assets.evaluation.sufficiency import count_splits, figures_behind, thin_splits
from embed_assets.models.registry import champion
from embed_assets.resources.checking import Finding, check_result
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.wording import counted


@dg.asset_check(
    asset="training_pairs",
    description="No split is empty, or has fewer documents than a verdict needs.",
)
def splits_are_filled(warehouse: Warehouse) -> dg.AssetCheckResult:
    """Every split with its questions and documents."""
    return check_result(lambda: _thin(warehouse))


def _thin(warehouse: Warehouse) -> Finding:
    counts = count_splits(warehouse)
    thin = thin_splits(counts)
    return Finding(
        not thin,
        f"{'; '.join(thin)}." if thin else "Every split has enough.",
        {
            f"{split}_{what}": number
            for split, numbers in sorted(counts.items())
            for what, number in zip(("questions", "documents"), numbers, strict=True)
        },
    )


@dg.asset_check(
    asset="training_pairs",
    # After a comparison of the same run: it scores the champion.
    additional_deps=["comparison"],
    description="The champion was scored on the documents as they are, but for a few.",
)
def figures_are_fresh(
    warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """Documents that came, changed or left since the champion was scored are counted."""
    return check_result(lambda: _behind(warehouse, settings))


def _behind(warehouse: Warehouse, settings: Settings) -> Finding:
    model = champion(warehouse, settings)
    if model is None:
        return Finding(True, "There is no champion.")
    behind = figures_behind(warehouse, model)
    if behind.measured_at is None:
        return Finding(False, f"Version {model.number}, the champion, was never scored.")
    return Finding(
        behind.documents <= settings.figures_behind,
        f"Since version {model.number}, the champion, was scored on {behind.measured_at:%Y-%m-%d} "
        f"{counted(behind.came_or_changed, 'document')} came or changed, and {behind.left} left.",
        {
            "came_or_changed": behind.came_or_changed,
            "left": behind.left,
            "most": settings.figures_behind,
            "measured_at": behind.measured_at.isoformat(timespec="seconds"),
        },
    )
