"""base_eval: how well the base model and the baselines retrieve, before any training."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from embed_assets.evaluation.baselines import lasting_baselines, measure_baselines, unscored
from embed_assets.evaluation.scoring import (
    EVALUATION_VERSION,
    RetrievalTask,
    baseline_metrics,
    measured,
    mlflow_metrics,
    ndcg_by_model,
    ndcg_table,
    retrieval_task,
)
from embed_assets.models.card import ModelCard, model_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.identity import model_shape
from embed_assets.partitions import asset
from embed_assets.resources.materializing import materializing
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings


@asset("base_eval", kinds={"huggingface", "mlflow", "duckdb"})
def base_eval(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    tracking: Tracking,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """What the base model and the baselines retrieve for every held-out question."""
    import mlflow

    with materializing(context, warehouse, tracking, Path(settings.model).name) as making:
        card = model_card(settings)
        dimensions = card.dimensions(settings.dimensions)
        named = {name: name for name in lasting_baselines(settings)}
        task = retrieval_task(warehouse)
        mlflow.log_params(evaluation_params(task, card, dimensions, tuple(named)))
        encoder = CachedEncoder(warehouse, card, settings.precision)
        base = measured(warehouse, task, encoder, dimensions, run_id=making.run_id, model="base")
        beside = measure_baselines(warehouse, settings, task, named, making.run_id)
        mlflow.log_metrics({**mlflow_metrics(base.scores), **baseline_metrics(beside.evaluations)})
        if beside.failed:
            mlflow.set_tag("failed_baselines", "\n".join(beside.failures))
        with making.storing(incomplete=unscored(beside.failed)):
            pass
    for line in beside.failures:
        context.log.warning(f"A baseline could not be scored and is left out. {line}")
    return making.result(
        **{"dagster/row_count": base.scores.height},
        questions=task.questions.height,
        corpus=task.corpus.height,
        ndcg_at_10=dg.MetadataValue.md(ndcg_table(base.scores)),
        ndcg_at_10_by_model=dg.MetadataValue.md(
            ndcg_by_model({"base": base, **beside.evaluations})
        ),
        **({"failed_baselines": "\n".join(beside.failures)} if beside.failed else {}),
    )


def evaluation_params(
    task: RetrievalTask, card: ModelCard, dimensions: Sequence[int], baselines: Sequence[str]
) -> dict[str, object]:
    """What an evaluation was made with, for MLflow."""
    return {
        "model": card.name,
        "query_prompt": card.query_prompt,
        "document_prompt": card.document_prompt,
        "dimensions": dimensions,
        "baselines": ", ".join(baselines),
        "questions": task.questions.height,
        "questions_version": task.questions_version,
        "corpus": task.corpus.height,
        "corpus_version": task.corpus_version,
    }


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the evaluation and of the model and settings that it depends on."""
    shape = settings.shape(
        "base_eval", **model_shape(settings), baselines=sorted(lasting_baselines(settings))
    )
    return {"base_eval": f"{EVALUATION_VERSION}, {digest(shape)}"}
