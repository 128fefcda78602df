"""comparison: base and baselines beside tuned, the report, and the champion in the registry."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl

from embed_assets.comparison.card import rewrite_card
from embed_assets.comparison.contents import ComparedIn, write_report
from embed_assets.comparison.described import describe_judged
from embed_assets.comparison.general import general_version
from embed_assets.comparison.hybrid_weights import (
    store_weights,
    weight_sentence,
    weights_table,
)
from embed_assets.comparison.learning_curve import (
    CURVE,
    NoCurveError,
    measure_curve,
    no_curve,
    store_curve,
    would_help_most,
)
from embed_assets.comparison.measuring import Measured, measure_models
from embed_assets.comparison.promotion import AskWays, Evidence, Promotion, carry_out, decide
from embed_assets.comparison.tables import (
    baselines_table,
    charts,
    conditions_list,
    conditions_table,
    curve_table,
    figures,
    headline_bars,
    headline_table,
    result_line,
)
from embed_assets.comparison.tracked import (
    log_comparison,
    log_curve,
    log_promotion,
    log_sentences,
    log_to_training,
)
from embed_assets.comparison.verdict import (
    Comparison,
    headline_row,
    hybrid_sentence,
    reservations,
    store_comparison,
    verdict_sentence,
)
from embed_assets.errors import BusyError, ProjectError
from embed_assets.evaluation.baselines import (
    compares_champion,
    lasting_baselines,
    store_failed,
    unscored,
)
from embed_assets.evaluation.scoring import figure_count
from embed_assets.models.card import model_card
from embed_assets.models.embeddings import CachedEncoder, forget_embeddings
from embed_assets.models.names import is_version, reason_of
from embed_assets.models.registry import (
    champion_before,
    champion_version,
    newest_model,
    trained_version,
    why_withdrawn,
)
from embed_assets.pairs.leakage import find_leaks
from embed_assets.partitions import asset
from embed_assets.resources.current_index import note_champion
from embed_assets.resources.materializing import materializing
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings
from embed_assets.wording import printable

COMPARISON_VERSION = "4"
CHECKS = ("better_than_base", "became_champion")
"""Of comparison."""


@asset("comparison", kinds={"python", "mlflow"})
def comparison(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    tracking: Tracking,
    settings: dg.ResourceParam[Settings],
    ask_ways: dg.ResourceParam[AskWays],
) -> dg.MaterializeResult:
    """Whether the newest version is better than its base and the champion, and what became of it.

    Look at result and chart, then open the report. Plots show the quality version by version.
    """
    with materializing(context, warehouse, tracking, checks=CHECKS) as making:
        warehouse = making.warehouse
        model = newest_model(warehouse)
        version = model["version"]
        before = champion_before(tracking, version)
        measured = measure_models(warehouse, settings, model, before, making.run_id)
        result = measured.result
        log_to_training(model, measured, before, context.log.warning)
        # Before anything is decided: it takes long, and the champion may change meanwhile.
        curve, why_none = _curve(context, warehouse, settings, model, measured, making.run_id)
        without = {CURVE: reason_of(why_none)} if why_none else {}
        failed = {**measured.failed, **without}
        evidence = Evidence(
            result,
            champion=before,
            champion_now=champion_before(tracking, version),
            failed=measured.failed,
            losses=measured.losses,
            general=measured.general,
            leaks=find_leaks(warehouse).count,
            withdrawn=why_withdrawn(warehouse, tracking, version),
            is_champion=champion_version(tracking) == version,
            registered_as=tracking.name,
            served=ask_ways(settings, tracking, trained_version(model)),
        )
        promotion = decide(evidence, version, settings)
        log_promotion(promotion)
        compared_in = ComparedIn(making.run_id, context.run.run_id)
        report = write_report(
            warehouse,
            settings,
            tracking,
            replace(measured, failed=failed),
            promotion,
            compared_in,
            curve,
        )
        log_comparison(making.run_id, model, measured, before, report, charts(result, curve))
        log_curve(curve, result.headline_split)
        advice = would_help_most(curve), weight_sentence(measured.weights)
        said = log_sentences(tracking, making.run_id, result, promotion, advice)
        # Last, that no champion is without report. Killed before the comparison is stored, it is
        # made again, and promotes as it did.
        carry_out(tracking, promotion, evidence)
        tried_again = {} if isinstance(why_none, NoCurveError) else without
        missing = unscored({**measured.failed, **tried_again, **evidence.served.failed})
        with making.storing(incomplete=missing) as transaction:
            store_comparison(transaction, result, making.run_id)
            store_curve(transaction, curve, making.run_id)
            store_weights(transaction, measured.weights, making.run_id)
            store_failed(transaction, failed, making.run_id)
        rewrite_card(warehouse, settings, version, result, context.log.warning)
        _describe(context, warehouse, settings, tracking, version)
    _tell(context, before, failed, said)
    champion = champion_version(tracking)
    note_champion(settings.home, champion)  # also where nothing was promoted
    _forget_replaced(warehouse, settings, {version, before, champion})
    return making.result(
        result=result_line(result, promotion, champion),
        chart=dg.MetadataValue.md(headline_bars(result, version)),
        **_metadata(result, failed, promotion, curve),
        **_weights_metadata(measured.weights),
        report=_link("Open it", tracking.run_url(making.run_id, report.name)),
        report_file=report.relative_to(settings.home).as_posix(),
        **{name: round(figure, 4) for name, figure in figures(result, before).items()},
        **{"dagster/row_count": figure_count(warehouse, making.run_id)},
    )


def _curve(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    settings: Settings,
    model: Mapping[str, Any],
    measured: Measured,
    run_id: str,
) -> tuple[pl.DataFrame, Exception | None]:
    """The learning curve, if one is asked for, and why it could not be drawn.

    A comparison goes on without it.
    """
    if not settings.learning_curve:
        return no_curve(), None
    try:
        curve = measure_curve(warehouse, settings, model, measured, run_id, context.log.info)
    except BusyError:
        raise
    except (ProjectError, ValueError, RuntimeError, OSError) as error:
        return no_curve(), error
    return curve, None


def _describe(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    settings: Settings,
    tracking: Tracking,
    version: str,
) -> None:
    """Describe the version in the registry. Its verdict is on record by then: a server that is down
    costs the description.
    """
    try:
        describe_judged(warehouse, settings, tracking, version)
    except ProjectError as error:
        context.log.warning(str(error))


def _tell(
    context: dg.AssetExecutionContext,
    before: str | None,
    failed: Mapping[str, str],
    said: Sequence[str],
) -> None:
    """Say in the run's log what came out, and what could not be compared."""
    if before is None:
        context.log.info("There is no champion before this model to compare it with.")
    for called, reason in failed.items():
        said_why = printable(f"{called} could not be measured and is left out: {reason}")
        context.log.warning(said_why)
    for sentence in said:
        context.log.info(sentence)


def _metadata(
    result: Comparison, failed: Mapping[str, str], promotion: Promotion, curve: pl.DataFrame
) -> dict[str, Any]:
    """What the UI says of a comparison, the most important first."""
    in_hybrid = hybrid_sentence(result.hybrid)
    against = "\n".join(f"- {sentence}" for sentence in reservations(result.against, result.hybrid))
    return {
        "verdict": verdict_sentence(headline_row(result.against)),
        **({"hybrid": in_hybrid} if in_hybrid else {}),
        **({"reservations": dg.MetadataValue.md(against)} if against else {}),
        "promotion": promotion.said,
        "by_dimension": dg.MetadataValue.md(headline_table(result)),
        **_curve_metadata(curve),
        "beside_other_models": dg.MetadataValue.md(baselines_table(result, failed)),
        "conditions": dg.MetadataValue.md(conditions_list(promotion.conditions)),
        "conditions_in_figures": dg.MetadataValue.md(conditions_table(promotion.conditions)),
    }


def _curve_metadata(curve: pl.DataFrame) -> dict[str, Any]:
    if curve.is_empty():
        return {}
    return {
        "would_help_most": would_help_most(curve),
        "learning_curve": dg.MetadataValue.md(curve_table(curve)),
    }


def _weights_metadata(weights: pl.DataFrame) -> dict[str, Any]:
    if weights.is_empty():
        return {}
    return {
        "hybrid_weight": weight_sentence(weights),
        "hybrid_by_weight": dg.MetadataValue.md(weights_table(weights)),
    }


def _link(words: str, address: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"[{words}]({address})")


def _forget_replaced(
    warehouse: Warehouse, settings: Settings, compared: Collection[str | None]
) -> None:
    """Leave the embeddings of the base model, and of versions that are compared, now or again."""
    named = [name.removeprefix("v") for name in lasting_baselines(settings) if is_version(name)]
    card = model_card(settings)
    base = CachedEncoder(warehouse, card, settings)
    forget_embeddings(warehouse, [*filter(None, compared), *named], base.fingerprints)


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the comparison, of the general set, and whether the champion takes part."""
    general = general_version(settings)
    shape = settings.shape(
        "comparison",
        baselines=compares_champion(settings),
        general=general,
        general_loss=general and settings.general_loss,
    )
    return {"comparison": f"{COMPARISON_VERSION}, {digest(shape)}"}
