"""comparison: base beside tuned, the report, and the champion in the registry."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from embed_assets.charts import to_markdown, to_png
from embed_assets.comparison.plots import composition_chart, quality_kept_chart, ranking_chart
from embed_assets.comparison.report import Report, render_report
from embed_assets.comparison.verdict import (
    Comparison,
    IncomparableError,
    compare,
    most_changed,
    outcome,
    verdict_sentence,
)
from embed_assets.resources.encoder import model_card
from embed_assets.resources.tracking import CHAMPION, REGISTERED_MODEL, Tracking, metric_name
from embed_assets.resources.warehouse import Warehouse, record_materialization
from embed_assets.settings import Settings

COMPARISON_VERSION = "1"


@dg.asset(
    deps=["base_eval", "finetuned_model"],
    group_name="comparison",
    kinds={"python", "mlflow"},
)
def comparison(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    tracking: Tracking,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """Whether the fine-tuned model retrieves better than the base model, and by how much."""
    import mlflow

    input_version = warehouse.version_of("base_eval", "finetuned_model")
    base_run, tuned_run = (
        warehouse.data_versions(name).get("") for name in ("base_eval", "finetuned_model")
    )
    if not base_run or not tuned_run:
        raise IncomparableError("Materialize base_eval and finetuned_model first.")
    model = warehouse.read("SELECT * FROM models WHERE mlflow_run_id = ?", [tuned_run]).row(
        0, named=True
    )
    result = compare(warehouse, base_run, tuned_run)
    verdict = verdict_sentence(result)
    report = make_report(warehouse, settings, result, model)
    with tracking.run(context, f"comparison v{model['version']}") as run_id:
        mlflow.set_tag("dagster/data_version", run_id)
        path = settings.reports / f"comparison-v{model['version']}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_report(report), encoding="utf-8")
        mlflow.log_artifact(str(path))
        charts = _charts(result)
        for name, png in charts.items():
            _log_png(name, png)
        mlflow.log_metrics(_differences(result))
        promotion = promote(tracking, result, str(model["version"]))
        mlflow.set_tags({"verdict": verdict, "promotion": promotion})
    context.log.info(verdict)
    context.log.info(promotion)
    record_materialization(context, warehouse, input_version=input_version, data_version=run_id)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(run_id),
        metadata={
            "verdict": verdict,
            "promotion": promotion,
            "report": dg.MetadataValue.path(path),
            **tracking.metadata(run_id),
            "dagster/row_count": result.scores.height,
            "table": dg.MetadataValue.md(headline_table(result)),
            **{name: dg.MetadataValue.md(to_markdown(name, png)) for name, png in charts.items()},
        },
    )


def make_report(
    warehouse: Warehouse,
    settings: Settings,
    result: Comparison,
    model: dict[str, object],
) -> Report:
    """Everything that the HTML report says."""
    won, lost = most_changed(warehouse, result)
    counts = Counter(
        dict(
            warehouse.read("SELECT split, count(*) FROM training_pairs GROUP BY split").iter_rows()
        )
    )
    return Report(
        title=f"{model_card(settings).name}, fine-tuned on {settings.pdfs.name}",
        created_at=datetime.now(UTC),
        headline_split=result.headline_split,
        verdict=f"{outcome(result)}.",
        facts={
            "Base model": str(model["base"]),
            "Fine-tuned model": f"{REGISTERED_MODEL} version {model['version']}",
            "Model folder": str(model["path"]),
            "Documents": str(warehouse.count("raw_pdfs")),
            "Chunks": str(warehouse.count("chunks")),
            "Training pairs": str(counts["train"]),
            "Questions": ", ".join(f"{n} {split}" for split, n in sorted(counts.items())),
            "Written by": settings.questions,
            "MLflow run of the training": str(model["mlflow_run_id"]),
            "Dagster run of the training": str(model["dagster_run_id"]),
        },
        notes=_notes(result),
        scores=result.scores,
        quality_kept=result.kept,
        significance=result.significance,
        won=won,
        lost=lost,
    )


def _notes(result: Comparison) -> list[str]:
    notes = [
        "The corpus of every search is all chunks, those of held-out documents included.",
        "The epoch was chosen on validation; the test splits were scored once, at the end.",
    ]
    if result.headline_split != "test_labelled":
        notes.append(
            "No questions written by people: those written by a machine flatter every model."
        )
    worse = [
        f"{row['split']} at {row['dimension']}"
        for row in result.significance.filter(verdict="worse").iter_rows(named=True)
        if row["split"] != "validation"
    ]
    if worse:
        notes.append(f"The fine-tuned model is clearly worse on {', '.join(worse)}.")
    return notes


def promote(tracking: Tracking, result: Comparison, version: str) -> str:
    """Make the model the champion if it is clearly better on the headline. Says what was done."""
    if result.headline["verdict"] != "better":
        return f"Version {version} was not made champion: it is not clearly better than the base."
    tracking.client().set_registered_model_alias(REGISTERED_MODEL, CHAMPION, version)
    return f"Version {version} is now the champion of {REGISTERED_MODEL}."


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


def _charts(result: Comparison) -> dict[str, bytes]:
    split = result.headline_split
    questions = int(str(result.headline["questions"]))
    charts = {
        "composition": composition_chart(result.scores, split, questions),
        "ranking": ranking_chart(result.scores, split, questions),
        "quality_kept": quality_kept_chart(result.kept, split, questions),
    }
    return {name: to_png(chart, scale=1.0) for name, chart in charts.items()}


def _log_png(name: str, png: bytes) -> None:
    import tempfile

    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.png"
        path.write_bytes(png)
        mlflow.log_artifact(str(path), artifact_path="charts")


def _differences(result: Comparison) -> dict[str, float]:
    """The difference in NDCG@10 with its interval, by split and dimension, for MLflow."""
    return {
        metric_name(row["split"], f"dim_{row['dimension']}_ndcg@10_{name}"): row[name]
        for row in result.significance.iter_rows(named=True)
        for name in ("difference", "low", "high", "p_value")
        if row[name] is not None
    }


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the comparison."""
    return {"comparison": COMPARISON_VERSION}
