"""base_eval: how well the base model and the baselines retrieve, before any training."""

from pathlib import Path

import dagster as dg

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
from embed_assets.resources.tracking import Tracking, as_params
from embed_assets.resources.warehouse import Warehouse, record_materialization
from embed_assets.settings import Settings

EVALUATION_VERSION = "1"


@dg.asset(
    deps=["training_pairs", "chunks"],
    group_name="evaluation",
    kinds={"huggingface", "mlflow", "duckdb"},
)
def base_eval(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    tracking: Tracking,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """What the base model and the baselines retrieve for every held-out question."""
    import mlflow

    input_version = warehouse.version_of("training_pairs", "chunks")
    task = retrieval_task(warehouse)
    card = model_card(settings)
    dimensions = matryoshka_dimensions(embedding_size(card.source), settings.dimensions)
    baselines = lasting_baselines(settings)
    with tracking.run(context, f"base_eval {Path(card.name).name}") as run_id:
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
        mlflow.set_tag("dagster/data_version", run_id)
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
    for line in failed:
        context.log.warning(f"A baseline could not be scored and is left out. {line}")
    record_materialization(context, warehouse, input_version=input_version, data_version=run_id)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(run_id),
        metadata={
            **tracking.metadata(run_id),
            "dagster/row_count": evaluation.scores.height,
            "questions": task.questions.height,
            "corpus": task.corpus.height,
            "ndcg_at_10": dg.MetadataValue.md(ndcg_table(evaluation.scores)),
            "ndcg_at_10_by_model": dg.MetadataValue.md(
                ndcg_by_model({"base": evaluation.scores, **beside})
            ),
            **({"failed_baselines": "\n".join(failed)} if failed else {}),
        },
    )


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the evaluation and of the model and settings that it depends on."""
    card = model_card(settings)
    shape = (
        card.name,
        card.query_prompt,
        card.document_prompt,
        settings.dimensions or "default",
        settings.precision,
        *sorted(lasting_baselines(settings)),
    )
    return {"base_eval": f"{EVALUATION_VERSION}, {', '.join(shape)}"}
