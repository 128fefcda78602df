"""Which model is the champion: the conditions of a promotion with their numbers, and the act.

Conditions are made from figures alone. They are measured in `measuring.py`; what a person decides
is in `decisions.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl

from embed_assets.comparison.general import GeneralFigures
from embed_assets.comparison.verdict import SPLIT_TITLES, Comparison, counted_documents
from embed_assets.errors import ProjectError
from embed_assets.evaluation.retrieval import Evaluation
from embed_assets.evaluation.significance import (
    FEWEST_DOCUMENTS,
    LARGEST_P_VALUE,
    Verdict,
    find_losses,
)
from embed_assets.models.registry import (
    Decision,
    Version,
    champion_before,
    make_challenger,
    make_champion,
)
from embed_assets.pairs.splits import TEST_SPLITS
from embed_assets.resources.tracking import CHAMPION, Tracking
from embed_assets.settings import Settings
from embed_assets.wording import counted

BY_ITSELF = "comparison"
"""Who promotes where no person does."""
MOST_APART = 1e-5
"""Between a number of a vector as it is served and as it was judged: rounding makes 1e-7 or so."""
CLEARLY = f"p ≤ {LARGEST_P_VALUE}, interval beyond 0, {FEWEST_DOCUMENTS} documents"


@dataclass(frozen=True)
class Condition:
    """What must hold of a model that becomes champion by itself.

    what: in words. figure: what was found. limit: what is allowed. objection: what is said where it
    doesn't hold. numbers: the same for programs.
    """

    name: str
    what: str
    figure: str
    limit: str
    holds: bool
    objection: str
    numbers: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class ServedWays:
    """How a version's vectors differ by how they are asked for: its folder, MLflow, the server.

    apart: by way, the largest difference from those that were judged. failed: why a way gave none.
    """

    apart: Mapping[str, float]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def objection(self) -> str | None:
        """Why nobody may be served by the version, if anything."""
        if self.failed:
            name, why = next(iter(self.failed.items()))
            return f"{name} gives no vectors of it ({why.rstrip('.')})"
        name, far = self.farthest
        return None if far <= MOST_APART else f"{name} gives other vectors, {far:.1e} apart"

    @property
    def farthest(self) -> tuple[str, float]:
        """The way that differs most, and by how much."""
        return max(self.apart.items(), key=lambda pair: pair[1])


AskWays = Callable[[Settings, Tracking, Version], ServedWays]
"""Asks all ways of serving a version. Serving comes after comparison: `definitions` hands it in."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a promotion goes by.

    champion: version that was champion before this one and was compared with it. champion_now: the
    same as it is when the promotion is decided. failed: why models could not be scored, by what
    they are called. losses: as `losses` gives them. general: the figures on general questions.
    leaks: between splits. withdrawn: when, by whom and why the version was withdrawn. is_champion:
    whether the version itself is champion already. registered_as: name of the registered model.
    served: its vectors as they are served.
    """

    result: Comparison
    champion: str | None
    champion_now: str | None
    failed: Mapping[str, str]
    losses: pl.DataFrame
    general: GeneralFigures | None
    leaks: int
    withdrawn: str | None
    is_champion: bool
    registered_as: str
    served: ServedWays


@dataclass(frozen=True)
class Promotion:
    """What became of a version that was judged, and why."""

    version: str
    promoted: bool
    said: str
    conditions: tuple[Condition, ...]


def champion_name(version: str) -> str:
    """What the tables call the champion before."""
    return f"{CHAMPION} v{version}"


def losses(result: Comparison, champion: Evaluation | None, margin: float) -> pl.DataFrame:
    """`find_losses` on every test split, at every dimension of the tuned model.

    champion: what the model is held against; the base model without. At a dimension that it hasn't,
    its next smaller one counts.
    """
    tests = result.queries.filter(pl.col("split").is_in(TEST_SPLITS))
    if champion is None:
        return find_losses(tests, margin)
    own = champion.queries["dimension"].unique().to_list()
    nearest = {d: max(o for o in own if o <= max(d, min(own))) for d in tests["dimension"].unique()}
    of_champion = champion.queries.select(
        "split", "question_id", own="dimension", base_ndcg_at_10="ndcg_at_10"
    )
    held = tests.drop("base_ndcg_at_10").with_columns(
        own=pl.col("dimension").replace_strict(nearest, return_dtype=pl.Int64)
    )
    return find_losses(
        held.join(of_champion, on=["split", "question_id", "own"], how="left"), margin
    )


def decide(evidence: Evidence, version: str, settings: Settings) -> Promotion:
    """What becomes of the version: champion if every condition holds. Changes nothing."""
    found = conditions(evidence, settings)
    objections = "; ".join(condition.objection for condition in found if not condition.holds)
    before = evidence.champion
    if not objections:
        said = (
            f"Version {version} was made the champion of {evidence.registered_as}: it is clearly "
            f"better than the base model{_beside_champion(evidence)}."
        )
    elif evidence.is_champion:
        said = f"Version {version} stays champion, but would not be made so now: {objections}."
    else:
        stays = f" Version {before} stays champion." if before else ""
        said = f"Version {version} was not made champion: {objections}.{stays}"
    return Promotion(version, not objections, said, tuple(found))


def carry_out(tracking: Tracking, promotion: Promotion, evidence: Evidence) -> None:
    """Make the version the challenger, and the champion where that was decided.

    ProjectError, before anything is changed, where there is another champion than at the decision.
    """
    version = promotion.version
    if champion_before(tracking, version) != evidence.champion_now:
        raise ProjectError(
            f"Version {version} was not judged: the champion was changed while its report was "
            "written. Materialize comparison again."
        )
    if evidence.withdrawn is None:
        make_challenger(tracking, version)
    if promotion.promoted:
        make_champion(tracking, version, Decision(BY_ITSELF, promotion.said))


def conditions(evidence: Evidence, settings: Settings) -> list[Condition]:
    """Every condition of a promotion, whether it holds or not."""
    found = [
        _better_than_base(evidence),
        _champion_scored(evidence),
        _not_worse_than_champion(evidence),
        _no_clear_loss(evidence, settings.promotion_margin),
        _general_kept(evidence, settings.general_loss),
        _no_leakage(evidence),
        _served_alike(evidence.served),
        _not_withdrawn(evidence),
    ]
    return [condition for condition in found if condition is not None]


def _better_than_base(evidence: Evidence) -> Condition:
    row = evidence.result.headline
    objection = "it is not clearly better than the base model"
    if row["verdict"] == Verdict.TOO_FEW:
        objection = (
            f"{counted_documents(row)} too few to tell whether it is better than the base model"
        )
    return Condition(
        "better_than_base",
        f"clearly better than the base model on {SPLIT_TITLES[row['split']]}",
        f"{row['base']:.4f} → {row['tuned']:.4f}, {row['low']:+.3f} … {row['high']:+.3f}, "
        f"p = {row['p_value']:.4f}, {counted(row['documents'], 'document')}",
        CLEARLY,
        row["verdict"] == Verdict.BETTER,
        objection,
        {name: row[name] for name in ("base", "tuned", "low", "high", "p_value", "documents")},
    )


def _champion_scored(evidence: Evidence) -> Condition | None:
    """None where there is no champion before, then and now."""
    before, now = evidence.champion, evidence.champion_now
    if before is None and now is None:
        return None
    why = evidence.failed.get(champion_name(before)) if before else None
    objection = (
        f"version {before}, the champion before it, could not be scored "
        f"({why.rstrip('.')}). Without `{CHAMPION}` in EMBED_ASSETS_BASELINES it need not be"
        if why
        else "the champion was changed while it was compared: materialize comparison again"
    )
    return Condition(
        "champion_scored",
        "compared with today's champion",
        f"compared with {_named(before)}, now {_named(now)}" + (f": {why}" if why else ""),
        "the same, and scored",
        why is None and before == now,
        objection,
    )


def _named(version: str | None) -> str:
    return f"version {version}" if version else "none"


def _not_worse_than_champion(evidence: Evidence) -> Condition | None:
    """None where there is no champion before, or it was not compared."""
    if evidence.champion is None:
        return None
    row = evidence.result.headline_against(champion_name(evidence.champion))
    if row is None:
        return None
    return Condition(
        "not_worse_than_champion",
        f"not clearly worse than version {evidence.champion} on {SPLIT_TITLES[row['split']]}",
        f"{row['score']:.4f} → {row['tuned']:.4f}, {row['low']:+.3f} … {row['high']:+.3f}, "
        f"p = {row['p_value']:.4f}",
        CLEARLY,
        row["verdict"] != Verdict.WORSE,
        f"it is clearly worse than version {evidence.champion} "
        f"(NDCG@10 {row['tuned']:.3f} against {row['score']:.3f})",
        {name: row[name] for name in ("score", "tuned", "low", "high", "p_value", "documents")},
    )


def _no_clear_loss(evidence: Evidence, margin: float) -> Condition:
    """The surest of all losses stands for them; where none is clear, it is the nearest to it."""
    other = (
        f"version {evidence.champion}"
        if evidence.champion and evidence.result.headline_against(champion_name(evidence.champion))
        else "the base model"
    )
    clear = evidence.losses.filter("clear")
    places = ", ".join(
        f"{SPLIT_TITLES[row['split']]} at {row['dimension']} dimensions "
        f"({row['base']:.3f} → {row['tuned']:.3f})"
        for row in clear.iter_rows(named=True)
    )
    row = evidence.losses.row(0, named=True)
    return Condition(
        "no_clear_loss",
        f"not clearly lower than {other} on any test split, at any dimension",
        f"{row['difference']:+.4f} on {row['split']} at {row['dimension']}, "
        f"p = {row['p_value']:.4f}, {evidence.losses.height} compared",
        f"-{margin:g}, p ≤ {row['limit']:.4f} (Holm)",
        clear.is_empty(),
        f"it is lower than {other} by more than {margin:g}, beyond chance, on {places}",
        {
            "margin": margin,
            "compared": evidence.losses.height,
            "clear": clear.height,
            **{name: row[name] for name in ("split", "dimension", "difference", "p_value")},
        },
    )


def _general_kept(evidence: Evidence, most: float) -> Condition | None:
    """None where general questions are not wanted."""
    if evidence.general is None:
        return None
    base, tuned = evidence.general.base, evidence.general.tuned
    return Condition(
        "general_kept",
        "not lower than the base model on general questions",
        f"{base:.4f} → {tuned:.4f} ({tuned - base:+.4f}), "
        f"{counted(evidence.general.questions, 'question')}",
        f"-{most:g}",
        base - tuned <= most,
        f"it has forgotten: NDCG@10 on general questions fell from {base:.3f} to {tuned:.3f}, "
        f"by more than {most:g}",
        {"base": base, "tuned": tuned, "most": most},
    )


def _no_leakage(evidence: Evidence) -> Condition:
    return Condition(
        "no_leakage",
        "nothing that tests is trained on",
        f"{evidence.leaks} leaks",
        "0",
        evidence.leaks == 0,
        f"{evidence.leaks} of what tests it leak into what trains it: the check no_leakage of "
        "training_pairs lists them",
        {"leaks": evidence.leaks},
    )


def _served_alike(served: ServedWays) -> Condition:
    farthest, far = served.farthest if served.apart else ("nothing", 0.0)
    figure = f"{far:.1e} at most, of {farthest}; {len(served.apart)} compared"
    return Condition(
        "served_alike",
        "the same vectors from its folder, MLflow and `/v1/embeddings`",
        "; ".join([figure, *(f"{name}: {why}" for name, why in served.failed.items())]),
        f"{MOST_APART:g}",
        served.objection is None,
        served.objection or "",
        {"apart": far, "compared": len(served.apart)},
    )


def _not_withdrawn(evidence: Evidence) -> Condition:
    return Condition(
        "not_withdrawn",
        "not withdrawn",
        evidence.withdrawn or "no",
        "no",
        evidence.withdrawn is None,
        f"it was withdrawn ({evidence.withdrawn}); `embed-assets promote` brings it back",
    )


def _beside_champion(evidence: Evidence) -> str:
    before = evidence.champion
    if before is None:
        return ""
    the_one_before = f"version {before}, the champion before it"
    row = evidence.result.headline_against(champion_name(before))
    if row is None:
        return f"; {the_one_before}, was not compared"
    if row["verdict"] == Verdict.BETTER:
        return f" and than {the_one_before}"
    return f", and not clearly worse than {the_one_before}"
