"""What MLflow is told of a comparison, and what it says of one."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embed_assets.comparison.promotion import Promotion
from embed_assets.comparison.verdict import (
    Comparison,
    headline_row,
    reservations,
    verdict_sentence,
)
from embed_assets.errors import hide_password, one_line
from embed_assets.evaluation.retrieval import metric_name
from embed_assets.evaluation.scoring import mlflow_metrics
from embed_assets.resources.tracking import Tracking
from embed_assets.settings import Settings

PROMOTION = "promotion"
"""Tag of a comparison's MLflow run: what became of the version."""


def log_comparison(
    version: str, result: Comparison, report: Path, drawn: Mapping[str, bytes]
) -> None:
    """Name the MLflow run after the version, and add differences, report and charts to it."""
    import mlflow

    mlflow.set_tag("mlflow.runName", f"comparison v{version}")
    mlflow.log_artifact(str(report))
    with tempfile.TemporaryDirectory() as folder:
        for name, png in drawn.items():
            path = Path(folder) / f"{name}.png"
            path.write_bytes(png)
            mlflow.log_artifact(str(path), artifact_path="charts")
    mlflow.log_metrics(_differences(result))
    mlflow.log_table(result.against.to_dict(as_series=False), "model_comparisons.json")


def log_promotion(promotion: Promotion) -> None:
    """Add what became of the version, and by which figures, to the MLflow run."""
    import mlflow

    mlflow.log_dict(asdict(promotion), "promotion.json")


def log_sentences(result: Comparison, promotion: str) -> list[str]:
    """Verdict, reservations and what was done about the champion: tags of the MLflow run."""
    import mlflow

    verdict = verdict_sentence(headline_row(result.against))
    against = reservations(result.against)
    mlflow.set_tags({"verdict": verdict, "reservations": " ".join(against), PROMOTION: promotion})
    return [verdict, *against, promotion]


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


def log_to_training(
    model: Mapping[str, Any], result: Comparison, warn: Callable[[str], None]
) -> None:
    """Add the tuned model's figures to the MLflow run that trained it.

    People delete runs: then the comparison warns, and does not fail. model: row of `models`.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    figures = mlflow_metrics(result.scores.with_columns(score="tuned"))
    try:
        mlflow.log_metrics(figures, run_id=model["mlflow_run_id"])
    except MlflowException as error:
        reason = one_line(hide_password(str(error), mlflow.get_tracking_uri()))
        warn(f"The MLflow run of the training takes no figures: {reason}")
