"""comparison: base and baselines beside tuned, the report, and the champion in the registry."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from embed_assets.charts import to_markdown
from embed_assets.comparison.card import rewrite_card
from embed_assets.comparison.contents import ComparedIn, write_report
from embed_assets.comparison.described import describe_judged
from embed_assets.comparison.general import general_version
from embed_assets.comparison.measuring import measure_models
from embed_assets.comparison.promotion import Evidence, Promotion, promote
from embed_assets.comparison.tables import (
    baselines_table,
    charts,
    conditions_table,
    headline_table,
)
from embed_assets.comparison.tracked import (
    log_comparison,
    log_promotion,
    log_sentences,
    log_to_training,
)
from embed_assets.comparison.verdict import (
    Comparison,
    headline_row,
    reservations,
    store_comparison,
    verdict_sentence,
)
from embed_assets.errors import ProjectError
from embed_assets.evaluation.baselines import compares_champion, lasting_baselines, unscored
from embed_assets.models.card import model_card
from embed_assets.models.embeddings import CachedEncoder, forget_embeddings
from embed_assets.models.names import is_version
from embed_assets.models.registry import (
    champion_before,
    champion_version,
    newest_model,
    why_withdrawn,
)
from embed_assets.pairs.leakage import find_leaks
from embed_assets.partitions import asset
from embed_assets.resources.materializing import materializing
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings

COMPARISON_VERSION = "4"
CHECKS = ("better_than_base",)
"""Of comparison."""


@asset("comparison", kinds={"python", "mlflow"})
def comparison(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    tracking: Tracking,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """Whether the fine-tuned model retrieves better than its base and the baselines."""
    with materializing(context, warehouse, tracking, checks=CHECKS) as making:
        warehouse = making.warehouse
        model = newest_model(warehouse)
        version = model["version"]
        before = champion_before(tracking, version)
        figures = measure_models(warehouse, settings, model, before, making.run_id)
        result, failed = figures.result, figures.failed
        log_to_training(model, figures, before, context.log.warning)
        evidence = Evidence(
            result,
            champion=before,
            champion_now=champion_before(tracking, version),
            failed=failed,
            losses=figures.losses,
            general=figures.general,
            leaks=find_leaks(warehouse).count,
            withdrawn=why_withdrawn(warehouse, tracking, version),
        )
        promotion = promote(tracking, evidence, version, settings)
        log_promotion(promotion)
        # Afterwards, since the report says what became of the version. Killed in between, the
        # comparison is made again, and promotes as it did.
        compared_in = ComparedIn(making.run_id, context.run.run_id)
        report = write_report(warehouse, settings, tracking, figures, promotion, compared_in)
        drawn = charts(result)
        log_comparison(making.run_id, model, figures, before, report, drawn)
        said = log_sentences(tracking, making.run_id, result, promotion)
        with making.storing(incomplete=unscored(failed)) as transaction:
            store_comparison(transaction, result, making.run_id)
        rewrite_card(settings, version, result, context.log.warning)
        _describe(context, settings, tracking, version)
    _tell(context, before, failed, said)
    _forget_replaced(warehouse, settings, {version, before, champion_version(tracking)})
    return making.result(**_metadata(result, failed, promotion, report, drawn))


def _describe(
    context: dg.AssetExecutionContext, settings: Settings, tracking: Tracking, version: str
) -> None:
    """Describe the version in the registry. Its verdict is on record by then: a server that is down
    costs the description.
    """
    try:
        describe_judged(settings, tracking, version)
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
        context.log.warning(f"{called} could not be scored and is left out: {reason}")
    for sentence in said:
        context.log.info(sentence)


def _metadata(
    result: Comparison,
    failed: Mapping[str, str],
    promotion: Promotion,
    report: Path,
    drawn: Mapping[str, bytes],
) -> dict[str, Any]:
    """What the UI shows of a comparison."""
    against = "\n".join(f"- {sentence}" for sentence in reservations(result.against))
    return {
        "verdict": verdict_sentence(headline_row(result.against)),
        **({"reservations": dg.MetadataValue.md(against)} if against else {}),
        "promotion": promotion.said,
        "conditions": dg.MetadataValue.md(conditions_table(promotion.conditions)),
        "report": dg.MetadataValue.path(report),
        "dagster/row_count": result.scores.height,
        "table": dg.MetadataValue.md(headline_table(result)),
        "baselines": dg.MetadataValue.md(baselines_table(result, failed)),
        **{name: dg.MetadataValue.md(to_markdown(name, png)) for name, png in drawn.items()},
    }


def _forget_replaced(
    warehouse: Warehouse, settings: Settings, compared: Collection[str | None]
) -> None:
    """Leave the embeddings of the base model, and of versions that are compared, now or again."""
    named = [name.removeprefix("v") for name in lasting_baselines(settings) if is_version(name)]
    card = model_card(settings)
    base = CachedEncoder(warehouse, card, settings.precision)
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
