"""Which model is the champion: clearly better than its base, and not worse than the one before."""

from collections.abc import Mapping

from embed_assets.comparison.verdict import Comparison, counted_documents
from embed_assets.evaluation.significance import Verdict
from embed_assets.models.registry import champion_version, make_champion
from embed_assets.resources.tracking import CHAMPION, Tracking


def champion_name(version: str) -> str:
    """What the tables call the champion before."""
    return f"{CHAMPION} v{version}"


def promote(
    tracking: Tracking,
    result: Comparison,
    version: str,
    before: str | None,
    failed: Mapping[str, str],
) -> str:
    """Make the model the champion if nothing speaks against it. Says what was done, and why.

    before: the version that was champion before this one. failed: why models could not be scored,
    by what they are called.
    """
    objection = _objection(result, before, failed)
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


def _objection(result: Comparison, before: str | None, failed: Mapping[str, str]) -> str | None:
    """Why the model may not be champion, if anything speaks against it."""
    base = result.headline
    if base["verdict"] == Verdict.TOO_FEW:
        return f"{counted_documents(base)} too few to tell whether it is better than the base model"
    if base["verdict"] != Verdict.BETTER:
        return "it is not clearly better than the base model"
    if before is None:
        return None
    called = champion_name(before)
    if called in failed:
        return (
            f"it is better than the base model, but version {before}, the champion before it, "
            f"could not be scored ({failed[called].rstrip('.')}). Without `{CHAMPION}` in "
            "EMBED_ASSETS_BASELINES it need not be"
        )
    row = result.headline_against(called)
    if row is None or row["verdict"] != Verdict.WORSE:
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
    if row["verdict"] == Verdict.BETTER:
        return f" and than {the_one_before}"
    return f", and not clearly worse than {the_one_before}"
