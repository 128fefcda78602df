"""Which model is the champion: clearly better than its base, and not worse than the one before."""

from embed_assets.comparison.verdict import Comparison
from embed_assets.evaluation.baselines import Measured, compares_champion, score_baselines
from embed_assets.evaluation.scoring import retrieval_task
from embed_assets.models.registry import champion_version, make_champion
from embed_assets.resources.ledger import Ledger
from embed_assets.resources.tracking import CHAMPION, Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings


def score_champion(
    warehouse: Warehouse, settings: Settings, version: str | None, input_version: str
) -> Measured:
    """Figures of the champion before, where there is one and the settings ask for it.

    input_version: of the pairs and chunks that base and tuned were measured on.
    """
    if version is None or not compares_champion(settings):
        return Measured({}, {})
    called = champion_name(version)
    if Ledger(warehouse).read().input_version("finetuned_model") != input_version:
        reason = "the pairs or chunks have changed since the new model was trained on them."
        return Measured({}, {called: reason})
    return score_baselines(warehouse, settings, retrieval_task(warehouse), {called: f"v{version}"})


def champion_name(version: str) -> str:
    """What the tables call the champion before."""
    return f"{CHAMPION} v{version}"


def promote(tracking: Tracking, result: Comparison, version: str, before: str | None) -> str:
    """Make the model the champion if nothing speaks against it. Says what was done, and why.

    before: the version that was champion before this one.
    """
    objection = _objection(result, before)
    if objection is None:
        make_champion(tracking, version)
        return (
            f"Version {version} is now the champion of {tracking.name}: it is clearly better "
            f"than the base model{_beside_champion(result, before)}."
        )
    if champion_version(tracking) == version:
        return f"Version {version} stays champion, but would not be made so now: {objection}."
    stays = f" Version {before} stays champion." if before else ""
    return f"Version {version} was not made champion: {objection}.{stays}"


def _objection(result: Comparison, before: str | None) -> str | None:
    if result.headline["verdict"] != "better":
        return "it is not clearly better than the base model"
    row = result.headline_against(champion_name(before)) if before else None
    if row is None or row["verdict"] != "worse":
        return None
    return (
        f"it is better than the base model, but clearly worse than version {before} "
        f"(NDCG@10 {row['tuned']:.3f} against {row['score']:.3f})"
    )


def _beside_champion(result: Comparison, before: str | None) -> str:
    if before is None:
        return ""
    the_one_before = f"version {before}, the champion before it"
    row = result.headline_against(champion_name(before))
    if row is None:
        return f"; {the_one_before}, was not compared"
    if row["verdict"] == "better":
        return f" and than {the_one_before}"
    return f", and not clearly worse than {the_one_before}"
