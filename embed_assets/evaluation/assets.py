"""base_eval: how well the base model and the baselines retrieve, before any training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from embed_assets.evaluation.baselines import (
    baseline_versions,
    compares_hybrid,
    lasting_baselines,
    measure_baselines,
    reasons,
    single_baselines,
    unscored,
    weight_compared,
)
from embed_assets.evaluation.hybrid import BASE_HYBRID
from embed_assets.evaluation.retrieval import Evaluation
from embed_assets.evaluation.scoring import (
    EVALUATION_VERSION,
    RetrievalTask,
    figure_count,
    full_ndcg,
    measured,
    ndcg_by_model,
    ndcg_table,
    retrieval_task,
)
from embed_assets.evaluation.tracked import log_evaluation, log_task, log_task_data
from embed_assets.models.card import model_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.identity import model_shape
from embed_assets.pairs.splits import IN_WORDS, TEST_SPLITS
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
    """How well the base model and the baselines find the right chunks before any training.

    Each question that tests is searched for among all chunks; 1 is perfect.
    """
    import mlflow

    with materializing(context, warehouse, tracking, Path(settings.model).name) as making:
        warehouse = making.warehouse
        card = model_card(settings)
        dimensions = card.dimensions(settings.dimensions)
        task = retrieval_task(warehouse)
        log_task(task, card, dimensions, lasting_baselines(settings))
        log_task_data(task, making.run_id)
        encoder = CachedEncoder(warehouse, card, settings)
        base = measured(warehouse, task, encoder, dimensions, run_id=making.run_id, model="base")
        hybrid = {BASE_HYBRID: (encoder, making.run_id)} if compares_hybrid(settings) else {}
        beside, failed = measure_baselines(
            warehouse, settings, task, single_baselines(settings), making.run_id, hybrid=hybrid
        )
        log_evaluation(task, base, beside)
        mlflow.set_tags(_failed(failed))
        with making.storing(incomplete=unscored(failed)):
            pass
    for line in reasons(failed):
        context.log.warning(f"A baseline could not be scored and is left out. {line}")
    return making.result(
        **_metadata(task, base, beside),
        **_failed(failed),
        **{"dagster/row_count": figure_count(warehouse, making.run_id)},
    )


def _metadata(
    task: RetrievalTask, base: Evaluation, beside: Mapping[str, Evaluation]
) -> dict[str, Any]:
    """What the UI shows of the base model and the baselines beside it."""
    full = full_ndcg(base.scores)
    return {
        "by_model": dg.MetadataValue.md(ndcg_by_model({"base": base, **beside})),
        "by_dimension": dg.MetadataValue.md(ndcg_table(base.scores)),
        **{
            f"ndcg_at_10_{IN_WORDS[split].short}": round(full[split], 4)
            for split in TEST_SPLITS
            if split in full
        },
        "questions_asked": task.questions.height,
        "chunks_searched": task.corpus.height,
    }


def _failed(failed: Mapping[str, str]) -> dict[str, str]:
    """Which baselines failed and why, for MLflow and the UI."""
    return {"failed_baselines": "\n".join(reasons(failed))} if failed else {}


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the evaluation and of the model and settings that it depends on."""
    shape = settings.shape(
        "base_eval",
        **model_shape(settings),
        baselines=baseline_versions(settings),
        dense_weight=weight_compared(settings),
    )
    return {"base_eval": f"{EVALUATION_VERSION}, {digest(shape)}"}
