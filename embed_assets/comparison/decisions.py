"""What a person decides about the champion, whatever a comparison says."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from embed_assets.comparison.described import describe_judged
from embed_assets.comparison.promotion import AskWays
from embed_assets.errors import ProjectError
from embed_assets.models.registry import (
    Decision,
    champion_before,
    champion_version,
    forgotten_by,
    make_champion,
    newest_model,
    roll_back,
    serving_versions,
    trained_version,
    withdraw,
)
from embed_assets.pairs.splits import split_title
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

CHOSEN, WENT_BACK = "a person chose this version", "a person went back to the version before"
"""Reasons, where a person gives none."""
REFUSED = "MLflow did not take the change of the champion"


@dataclass(frozen=True)
class Change:
    """The champion now and what a rollback returns to, if anything; None stands for the base model.

    said: what was done, in a sentence. scores: NDCG@10 of the champion now by split, as it was
    measured last, and of the one before on the same questions and corpus.
    """

    champion: str | None
    previous: str | None
    said: str
    decision: Decision
    scores: Mapping[str, tuple[float, float | None]]

    @property
    def table(self) -> str:
        """The scores in markdown."""
        lines = ["| questions | NDCG@10 | of the champion before |", "| --- | ---: | ---: |"]
        for split, (now, before) in self.scores.items():
            earlier = "–" if before is None else f"{before:.4f}"
            lines.append(f"| {split_title(split)} | {now:.4f} | {earlier} |")
        return "\n".join(lines)


def promote_by_hand(
    settings: Settings, tracking: Tracking, version: str, decision: Decision, ask_ways: AskWays
) -> Change:
    """Make a version the champion.

    ProjectError where the home has no such version, its folder is gone, it was trained on a
    document that was forgotten, or not all that serve it give the same vectors.
    """
    warehouse = Warehouse.of(settings)
    known = trained_version(newest_model(warehouse, version))
    forgotten = forgotten_by(warehouse, known.number)
    if forgotten:
        raise ProjectError(
            f"Version {known.number} was trained on {forgotten}: it can't be champion. "
            "`embed-assets run` trains one without."
        )
    _ = known.card  # ProjectError where its folder is gone
    if objection := ask_ways(settings, tracking, known).objection:
        raise ProjectError(f"Version {known.number} can't be champion: {objection}.")
    before = champion_version(tracking)
    with tracking.explained(REFUSED):
        make_champion(tracking, known.number, decision, serving_versions(warehouse))
    was = f"in place of version {before}" if before else "where the base model served"
    if before == known.number:
        was = "as it was before"
    said = f"Version {known.number} is the champion, {was}."
    said += _describe(warehouse, settings, tracking, {known.number})
    return _change(warehouse, tracking, before, said, decision)


def roll_back_by_hand(settings: Settings, tracking: Tracking, decision: Decision) -> Change:
    """Go back to the version that the champion replaced, or to the base model.

    ProjectError where there is no champion.
    """
    warehouse = Warehouse.of(settings)
    before = champion_version(tracking)
    with tracking.explained(REFUSED):
        now = roll_back(tracking, decision, serving_versions(warehouse))
    serves = f"version {now} is the champion again" if now else "no version was before it"
    said = f"Version {before} was withdrawn: {serves}{'' if now else ', the base model serves'}."
    said += _describe(warehouse, settings, tracking, {before, now})
    return _change(warehouse, tracking, before, said, decision)


def withdraw_versions(
    settings: Settings, tracking: Tracking, versions: Collection[str], decision: Decision
) -> tuple[list[str], Change | None]:
    """Withdraw versions; gives those that had an alias, and what became of the champion if it was
    one of them.
    """
    if not versions or tracking.is_empty:
        return [], None
    warehouse = Warehouse.of(settings)
    before = champion_version(tracking)
    taken = withdraw(tracking, versions, decision, serving_versions(warehouse))
    now = champion_version(tracking)
    trouble = _describe(warehouse, settings, tracking, {*versions, now})
    if before not in versions:
        return taken, None
    serves = f"version {now} is the champion again" if now else "the base model serves"
    said = f"Version {before} was withdrawn: {serves}.{trouble}"
    return taken, _change(warehouse, tracking, before, said, decision)


def _describe(
    warehouse: Warehouse,
    settings: Settings,
    tracking: Tracking,
    versions: Collection[str | None],
) -> str:
    """Describe versions anew in the registry; what MLflow did not take, as more to say.

    The change of the champion stands all the same.
    """
    known = warehouse.read("SELECT version FROM models")["version"]
    try:
        for version in sorted({*known} & {*versions}):
            describe_judged(warehouse, settings, tracking, version)
    except ProjectError as error:
        return f" {error}"
    return ""


def _change(
    warehouse: Warehouse, tracking: Tracking, before: str | None, said: str, decision: Decision
) -> Change:
    now = champion_version(tracking)
    previous = champion_before(tracking, now, serving_versions(warehouse)) if now else None
    scores = _scores(warehouse, now, before)
    return Change(now, previous, said, decision, scores)


def _scores(
    warehouse: Warehouse, now: str | None, before: str | None
) -> dict[str, tuple[float, float | None]]:
    """NDCG@10 at full size by split. Figures stand side by side on the same questions and corpus.

    Of the trainings' own evaluations; of the version before, of any.
    """
    rows = warehouse.read(
        "WITH figures AS (SELECT e.identity, e.questions_version, e.corpus_version, e.measured_at, "
        "r.split, r.score, e.run_id, e.model FROM evaluations e "
        "JOIN evaluation_results r USING (run_id, model) "
        "WHERE r.metric = 'ndcg' AND r.k = 10 AND r.dimension = list_max(e.dimensions)), "
        "own AS (SELECT f.*, m.version FROM figures f "
        "JOIN models m ON f.run_id = m.mlflow_run_id AND f.model = 'tuned') "
        "SELECT a.split, a.score, any_value(b.score) AS before FROM own a LEFT JOIN figures b "
        "ON b.identity = (SELECT any_value(identity) FROM own WHERE version = ?) "
        "AND (a.questions_version, a.corpus_version, a.split) = "
        "(b.questions_version, b.corpus_version, b.split) "
        "WHERE a.version = ? GROUP BY a.split, a.score ORDER BY a.split",
        [before, now],
    )
    return {split: (score, other) for split, score, other in rows.iter_rows()}
