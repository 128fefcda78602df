"""base_eval: how well the base model and the baselines retrieve, before any training."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from embed_assets.errors import one_line
from embed_assets.evaluation.baselines import (
    lasting_baselines,
    score_baselines,
    store_baselines,
)
from embed_assets.evaluation.scoring import (
    baseline_metrics,
    mlflow_metrics,
    ndcg_by_model,
    ndcg_table,
    retrieval_task,
    score_encoder,
    store,
)
from embed_assets.models.card import embedding_size, matryoshka_dimensions, model_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.identity import model_shape
from embed_assets.partitions import asset
from embed_assets.resources.ledger import Cause, Failure
from embed_assets.resources.materializing import materializing
from embed_assets.resources.tracking import Tracking, as_params
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings

EVALUATION_VERSION = "1"


@asset("base_eval", kinds={"huggingface", "mlflow", "duckdb"})
def base_eval(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    tracking: Tracking,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """What the base model and the baselines retrieve for every held-out question."""
    import mlflow

    task = retrieval_task(warehouse)
    card = model_card(settings)
    dimensions = matryoshka_dimensions(embedding_size(card.source), settings.dimensions)
    baselines = lasting_baselines(settings)
    with materializing(context, warehouse, tracking, Path(card.name).name) as making:
        run_id = making.run_id
        params = {
            "model": card.name,
            "query_prompt": card.query_prompt,
            "document_prompt": card.document_prompt,
            "dimensions": dimensions,
            "baselines": ", ".join(baselines),
            "questions": task.questions.height,
            "corpus": task.corpus.height,
        }
        mlflow.log_params(as_params(params))
        evaluation = score_encoder(
            task, CachedEncoder(warehouse, card, settings.precision), dimensions
        )
        mlflow.log_metrics(mlflow_metrics(evaluation.scores))
        store(warehouse, evaluation, "base", run_id)
        measured = score_baselines(warehouse, settings, task, {name: name for name in baselines})
        store_baselines(warehouse, measured, run_id)
        beside = {name: found.scores for name, found in measured.evaluations.items()}
        mlflow.log_metrics(baseline_metrics(beside))
        failed = [f"{name}: {reason}" for name, reason in measured.failed.items()]
        if failed:
            mlflow.set_tag("failed_baselines", "\n".join(failed))
        with making.storing(incomplete=_incomplete(failed)):
            pass
    for line in failed:
        context.log.warning(f"A baseline could not be scored and is left out. {line}")
    return making.result(
        **{"dagster/row_count": evaluation.scores.height},
        questions=task.questions.height,
        corpus=task.corpus.height,
        ndcg_at_10=dg.MetadataValue.md(ndcg_table(evaluation.scores)),
        ndcg_at_10_by_model=dg.MetadataValue.md(
            ndcg_by_model({"base": evaluation.scores, **beside})
        ),
        **({"failed_baselines": "\n".join(failed)} if failed else {}),
    )


def _incomplete(failed: Sequence[str]) -> Failure | None:
    """A baseline that could not be scored may answer next time."""
    return Failure(Cause.CALL_FAILED, one_line("; ".join(failed))) if failed else None


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the evaluation and of the model and settings that it depends on."""
    shape = settings.shape(
        "base_eval", **model_shape(settings), baselines=sorted(lasting_baselines(settings))
    )
    return {"base_eval": f"{EVALUATION_VERSION}, {digest(shape)}"}
