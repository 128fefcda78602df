"""How a comparison is shown: the report's contents, tables and charts for the UI, for MLflow."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embed_assets.charts import to_png
from embed_assets.comparison.examples import most_changed
from embed_assets.comparison.plots import composition_chart, quality_kept_chart, ranking_chart
from embed_assets.comparison.promotion import Condition, Promotion
from embed_assets.comparison.report import Report, format_p_value, render_report
from embed_assets.comparison.verdict import (
    Comparison,
    full_size,
    headline_row,
    outcome,
    reservations,
    verdict_sentence,
)
from embed_assets.errors import hide_password, one_line
from embed_assets.evaluation.retrieval import metric_name
from embed_assets.evaluation.scoring import mlflow_metrics
from embed_assets.models.card import model_card
from embed_assets.pairs.splits import LABELLED
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

PROMOTION = "promotion"
"""Tag of a comparison's MLflow run: what became of the version."""


def write_report(
    warehouse: Warehouse,
    settings: Settings,
    result: Comparison,
    model: Mapping[str, Any],
    failed: Mapping[str, str],
    registered_as: str,
) -> Path:
    """The HTML report, written; its path.

    failed: why baselines could not be scored. registered_as: name of the registered model.
    """
    won, lost = most_changed(warehouse, result)
    report = Report(
        title=f"{model_card(settings).name}, fine-tuned on {settings.pdfs.name}",
        created_at=datetime.now(UTC),
        headline_split=result.headline_split,
        verdict=f"{outcome(headline_row(result.against))}.",
        reservations=reservations(result.against),
        facts={
            "Base model": str(model["base"]),
            "Fine-tuned model": f"{registered_as} version {model['version']}",
            "Model folder": str(model["path"]),
            **_counts(warehouse, model["version"]),
            "Written by": settings.questions,
            "MLflow run of the training": str(model["mlflow_run_id"]),
            "Dagster run of the training": str(model["dagster_run_id"]),
        },
        notes=_notes(result, failed),
        scores=result.scores,
        quality_kept=result.kept,
        significance=result.significance,
        against=full_size(result.against),
        won=won,
        lost=lost,
    )
    path = settings.reports / f"comparison-v{model['version']}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_report(report), encoding="utf-8")
    return path


def _counts(warehouse: Warehouse, version: str) -> dict[str, str]:
    """How many documents, chunks, pairs and questions there are, for the report."""
    trained_on = warehouse.read(
        "SELECT coalesce(sum(questions), 0)::BIGINT FROM model_documents WHERE version = ?",
        [version],
    ).item()
    pairs = warehouse.read(
        "SELECT split, count(*) FROM training_pairs GROUP BY split ORDER BY split"
    )
    counts = dict(pairs.iter_rows())
    return {
        "Documents": str(warehouse.count("raw_pdfs")),
        "Chunks": str(warehouse.count("chunks")),
        "Training pairs": f"{trained_on} of {counts.get('train', 0)}",
        "Questions": ", ".join(f"{n} {split}" for split, n in counts.items()),
    }


def _notes(result: Comparison, failed: Mapping[str, str]) -> list[str]:
    notes = [
        "The corpus of every search is all chunks, those of held-out documents included.",
        "The epoch was chosen on validation; the test splits were scored once, at the end.",
    ]
    if result.headline_split != LABELLED:
        few = "Too few" if LABELLED in set(result.scores["split"]) else "No"
        notes.append(
            f"{few} questions written by people: those written by a machine flatter every model."
        )
    notes += [f"{called} could not be scored: {reason}" for called, reason in failed.items()]
    return notes


def headline_table(result: Comparison) -> str:
    """NDCG@10 of both models on the headline split, by dimension, as a markdown table.

    The report has every split; in the UI a longer table is folded away.
    """
    lines = [
        f"NDCG@10 on {result.headline_split}",
        "",
        "| dimension | base | tuned | change | 95 % interval | verdict |",
        "| ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for row in result.significance.filter(split=result.headline_split).iter_rows(named=True):
        change = 100 * row["difference"] / row["base"] if row["base"] else None
        lines.append(
            f"| {row['dimension']} | {row['base']:.4f} | {row['tuned']:.4f} "
            f"| {'–' if change is None else f'{change:+.1f} %'} "
            f"| {row['low']:+.3f} … {row['high']:+.3f} | {row['verdict']} |"
        )
    return "\n".join(lines)


def baselines_table(result: Comparison, failed: Mapping[str, str]) -> str:
    """NDCG@10 of base and baselines beside tuned on the headline split, as a markdown table."""
    lines = [
        f"NDCG@10 on {result.headline_split}, each model at its full size",
        "",
        "| model | dimensions | NDCG@10 | tuned | difference | 95 % interval | p | verdict |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for row in full_size(result.against).filter(split=result.headline_split).iter_rows(named=True):
        lines.append(
            f"| {row['model']} | {row['dimension'] or '–'} | {row['score']:.4f} "
            f"| {row['tuned']:.4f} | {row['difference']:+.4f} "
            f"| {row['low']:+.3f} … {row['high']:+.3f} "
            f"| {format_p_value(row['p_value'])} | {row['verdict']} |"
        )
    lines += [f"\n{called} could not be scored: {reason}" for called, reason in failed.items()]
    return "\n".join(lines)


def charts(result: Comparison) -> dict[str, bytes]:
    """PNG files of the headline split by name, for MLflow and the UI."""
    split = result.headline_split
    questions = result.headline["questions"]
    drawn = {
        "composition": composition_chart(result.scores, split, questions),
        "ranking": ranking_chart(result.scores, split, questions),
        "quality_kept": quality_kept_chart(result.kept, split, questions),
    }
    return {name: to_png(chart, scale=1.0) for name, chart in drawn.items()}


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


def conditions_table(conditions: Sequence[Condition]) -> str:
    """The conditions of a promotion as a markdown table."""
    lines = ["| condition | figure | limit | holds |", "| --- | --- | --- | --- |"]
    for row in conditions:
        cells = (row.what, row.figure, row.limit, "yes" if row.holds else "**no**")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


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
