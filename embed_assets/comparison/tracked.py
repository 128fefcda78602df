"""What MLflow is told of a comparison, and what it says of one."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.comparison.learning_curve import FEWER_DOCUMENTS, curve_points
from embed_assets.comparison.measuring import Measured
from embed_assets.comparison.promotion import Promotion, champion_name
from embed_assets.comparison.tables import conditions_table
from embed_assets.comparison.verdict import (
    Comparison,
    headline_row,
    hybrid_sentence,
    reservations,
    verdict_sentence,
)
from embed_assets.errors import one_line
from embed_assets.evaluation.headline import headline_figures
from embed_assets.evaluation.hybrid import BASE_HYBRID, TUNED_HYBRID
from embed_assets.evaluation.retrieval import metric_name
from embed_assets.evaluation.scoring import mlflow_metrics
from embed_assets.evaluation.tracked import log_task_data
from embed_assets.resources.headline import headline_metrics
from embed_assets.resources.tracking import Tracking
from embed_assets.secrets import hide_secrets
from embed_assets.settings import Settings
from embed_assets.wording import change

PROMOTION = "promotion"
"""Tag of a comparison's MLflow run: what became of the version."""


def log_comparison(
    run_id: str,
    model: Mapping[str, Any],
    figures: Measured,
    before: str | None,
    report: Path,
    drawn: Mapping[str, bytes],
) -> None:
    """Add data, figures, differences, report and charts to the MLflow run.

    model: row of `models`. before: version that was champion before it.
    """
    import mlflow

    result = figures.result
    log_task_data(figures.task, run_id)
    mlflow.log_artifact(str(report))
    with tempfile.TemporaryDirectory() as folder:
        for name, png in drawn.items():
            path = Path(folder) / f"{name}.png"
            path.write_bytes(png)
            mlflow.log_artifact(str(path), artifact_path="charts")
    mlflow.log_metrics(_headline(model, figures, before) | _differences(result) | _hybrid(result))
    mlflow.log_table(result.against.to_dict(as_series=False), "model_comparisons.json")
    mlflow.log_table(result.hybrid.to_dict(as_series=False), "hybrid_comparisons.json")
    if figures.weights.height:
        mlflow.log_table(figures.weights.to_dict(as_series=False), "hybrid_weights.json")


def _headline(model: Mapping[str, Any], figures: Measured, before: str | None) -> dict[str, float]:
    """The headline figures of a version, by their names in MLflow."""
    result, general = figures.result, figures.general
    row = result.headline
    champion = result.headline_against(champion_name(before)) if before else None
    tuned = result.scores.rename({"tuned": "score"})
    return headline_metrics(
        {
            **headline_figures(tuned, result.headline_split),
            "ndcg_at_10_base": row["base"],
            "ndcg_at_10_champion": champion["score"] if champion else None,
            "ndcg_at_10_difference": row["difference"],
            "ndcg_at_10_difference_low": row["low"],
            "ndcg_at_10_difference_high": row["high"],
            "ndcg_at_10_general_difference": general.tuned - general.base if general else None,
            "test_questions": row["questions"],
            "test_documents": row["documents"],
            "training_seconds": model["seconds"],
        }
    )


def log_curve(curve: pl.DataFrame, split: str) -> None:
    """Add NDCG@10 by the number of pairs to the MLflow run, which draws it.

    curve: of learning_curves, maybe none. split: the headline.
    """
    import mlflow

    points = curve_points(curve).filter(pl.col("part") != FEWER_DOCUMENTS)
    for row in points.iter_rows(named=True):
        scores = {"learning_curve": row["alone"], "learning_curve_hybrid": row["hybrid"]}
        metrics = {
            metric_name(split, f"{name}_ndcg@10"): score
            for name, score in scores.items()
            if score is not None
        }
        mlflow.log_metrics(metrics, step=row["pairs"])
    if curve.height:
        mlflow.log_table(curve.to_dict(as_series=False), "learning_curve.json")


def log_promotion(promotion: Promotion) -> None:
    """Add what became of the version, and by which figures, to the MLflow run."""
    import mlflow

    mlflow.log_dict(asdict(promotion), "promotion.json")


def log_sentences(
    tracking: Tracking,
    run_id: str,
    result: Comparison,
    promotion: Promotion,
    advice: tuple[str, str],
) -> list[str]:
    """Verdict, reservations and what was done about the champion: tags, name and description of the
    MLflow run. advice: what would help most, and what another weight in hybrid search would give,
    each empty if that is not known.
    """
    import mlflow

    row, version = headline_row(result.against), promotion.version
    said, against = verdict_sentence(row), reservations(result.against, result.hybrid)
    in_hybrid = hybrid_sentence(result.hybrid)
    tags = {
        "verdict": said,
        "hybrid": in_hybrid,
        "reservations": " ".join(against),
        PROMOTION: promotion.said,
    }
    tags |= {
        name: said
        for name, said in zip(("would_help_most", "hybrid_weight"), advice, strict=True)
        if said
    }
    gained = f" {change(row['score'], row['tuned'])}" if row["score"] else ""
    became = "promoted" if promotion.promoted else "not promoted"
    mlflow.set_tags({**tags, "mlflow.runName": f"comparison v{version}{gained}, {became}"})
    links = (
        f"[Report]({tracking.run_link(run_id, f'comparison-v{version}.html')}) · "
        f"[Version {version}]({tracking.version_link(version)}) · "
        f"[All runs]({tracking.runs_link})"
    )
    reasons = [f"- {sentence}" for sentence in against]
    table = conditions_table(promotion.conditions)
    text = [said, in_hybrid, promotion.said, *advice, "\n".join(reasons), links, table]
    tracking.describe_run(run_id, "\n\n".join(filter(None, text)))
    return [said, *filter(None, [in_hybrid]), *against, promotion.said, *filter(None, advice)]


def stored_promotion(settings: Settings, run_id: str) -> str | None:
    """What a comparison's MLflow run says of the promotion; nothing where it is gone.

    ProjectError where MLflow can't be asked.
    """
    from mlflow.exceptions import MlflowException

    tracking = Tracking(home=str(settings.home), project=settings.project)
    with tracking.explained("MLflow can't say what was promoted"):
        try:
            return tracking.client().get_run(run_id).data.tags.get(PROMOTION)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # people delete runs
                return None
            raise


def _differences(result: Comparison) -> dict[str, float]:
    """The difference in NDCG@10 with its interval, by split, for MLflow.

    That to the base model by dimension, that to each baseline by its name.
    """
    return {
        metric_name(row["split"], f"{against}_ndcg@10_{name}"): row[name]
        for row in result.against.iter_rows(named=True)
        for against in [f"dim_{row['dimension']}" if row["model"] == "base" else row["model"]]
        for name in ("difference", "low", "high", "p_value")
    }


def _hybrid(result: Comparison) -> dict[str, float]:
    """NDCG@10 of hybrid search by split, for MLflow: of the tuned model, of the base, and the
    difference with its interval.
    """
    rows = result.hybrid.filter(model=BASE_HYBRID).iter_rows(named=True)
    named = {"tuned": f"{TUNED_HYBRID}_ndcg@10", "score": f"{BASE_HYBRID}_ndcg@10"}
    named |= {name: f"hybrid_ndcg@10_{name}" for name in ("difference", "low", "high", "p_value")}
    return {
        metric_name(row["split"], said): row[name] for row in rows for name, said in named.items()
    }


def log_to_training(
    model: Mapping[str, Any], figures: Measured, before: str | None, warn: Callable[[str], None]
) -> None:
    """Add the tuned model's figures to the MLflow run that trained it.

    People delete runs: then the comparison warns, and does not fail. model: row of `models`.
    before: version that was champion before it.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    tuned = mlflow_metrics(figures.result.scores.with_columns(score="tuned"))
    try:
        mlflow.log_metrics(_headline(model, figures, before) | tuned, run_id=model["mlflow_run_id"])
    except MlflowException as error:
        reason = one_line(hide_secrets(str(error)))
        warn(f"The MLflow run of the training takes no figures: {reason}")
