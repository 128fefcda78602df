"""comparison: base and baselines beside tuned, the report, and the champion in the registry."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl

from embed_assets.charts import to_markdown, to_png
from embed_assets.comparison.plots import composition_chart, quality_kept_chart, ranking_chart
from embed_assets.comparison.promotion import promote, score_champion
from embed_assets.comparison.report import Report, render_report
from embed_assets.comparison.verdict import (
    Comparison,
    IncomparableError,
    beside_baselines,
    compare,
    full_size,
    most_changed,
    outcome,
    reservations,
    verdict_sentence,
)
from embed_assets.evaluation.baselines import (
    compares_champion,
    failed_baselines,
    lasting_baselines,
    store_baselines,
)
from embed_assets.evaluation.retrieval import metric_name
from embed_assets.graph import GRAPH
from embed_assets.models.card import model_card
from embed_assets.models.embeddings import CachedEncoder, forget_embeddings
from embed_assets.models.names import is_version
from embed_assets.models.registry import champion_before, champion_version
from embed_assets.partitions import asset
from embed_assets.resources.ledger import Ledger
from embed_assets.resources.materializing import materializing
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings

COMPARISON_VERSION = "2"


@asset("comparison", kinds={"python", "mlflow"})
def comparison(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    tracking: Tracking,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """Whether the fine-tuned model retrieves better than its base and the baselines."""
    import mlflow

    records = Ledger(warehouse).read()
    base_run, tuned_run = (records.data_version(name) for name in GRAPH["comparison"].upstream)
    if not base_run or not tuned_run:
        raise IncomparableError("Materialize base_eval and finetuned_model first.")
    model = warehouse.read("SELECT * FROM models WHERE mlflow_run_id = ?", [tuned_run]).row(
        0, named=True
    )
    result = compare(warehouse, base_run, tuned_run)
    before = champion_before(tracking, model["version"])
    with materializing(context, warehouse, tracking, f"v{model['version']}") as making:
        run_id = making.run_id
        measured = score_champion(warehouse, settings, before, model["input_version"])
        store_baselines(warehouse, measured, run_id)
        result = beside_baselines(warehouse, result, [base_run, run_id])
        failed = failed_baselines(warehouse, base_run, run_id)
        verdict, against = verdict_sentence(result), reservations(result.against)
        report = make_report(warehouse, settings, result, model, failed, tracking.name)
        path = settings.reports / f"comparison-v{model['version']}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_report(report), encoding="utf-8")
        mlflow.log_artifact(str(path))
        charts = _charts(result)
        for name, png in charts.items():
            _log_png(name, png)
        mlflow.log_metrics(_differences(result))
        mlflow.log_table(result.against.to_dict(as_series=False), "model_comparisons.json")
        promotion = promote(tracking, result, model["version"], before)
        mlflow.set_tags(
            {"verdict": verdict, "reservations": " ".join(against), "promotion": promotion}
        )
        with making.storing() as transaction:
            rows = result.against.with_columns(run_id=pl.lit(run_id))
            transaction.replace("model_comparisons", rows, {"run_id": [run_id]})
    if before is None:
        context.log.info("There is no champion before this model to compare it with.")
    for called, reason in failed.items():
        context.log.warning(f"{called} could not be scored and is left out: {reason}")
    for sentence in (verdict, *against, promotion):
        context.log.info(sentence)
    _forget_replaced(warehouse, settings, {model["version"], before, champion_version(tracking)})
    return making.result(
        verdict=verdict,
        **({"reservations": dg.MetadataValue.md(as_list(against))} if against else {}),
        promotion=promotion,
        report=dg.MetadataValue.path(path),
        **{"dagster/row_count": result.scores.height},
        table=dg.MetadataValue.md(headline_table(result)),
        baselines=dg.MetadataValue.md(baselines_table(result, failed)),
        **{name: dg.MetadataValue.md(to_markdown(name, png)) for name, png in charts.items()},
    )


def _forget_replaced(
    warehouse: Warehouse, settings: Settings, compared: Collection[str | None]
) -> None:
    """Leave the embeddings of the base model, and of versions that are compared, now or again."""
    named = [name.removeprefix("v") for name in lasting_baselines(settings) if is_version(name)]
    card = model_card(settings)
    base = CachedEncoder(warehouse, card, settings.precision)
    forget_embeddings(warehouse, [*filter(None, compared), *named], base.fingerprints)


def make_report(
    warehouse: Warehouse,
    settings: Settings,
    result: Comparison,
    model: Mapping[str, object],
    failed: Mapping[str, str],
    registered_as: str,
) -> Report:
    """Everything that the HTML report says. failed: why baselines could not be scored.

    registered_as: the name of the registered model.
    """
    won, lost = most_changed(warehouse, result)
    trained_on = warehouse.read(
        "SELECT coalesce(sum(questions), 0)::BIGINT FROM model_documents WHERE version = ?",
        [model["version"]],
    ).item()
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
        reservations=reservations(result.against),
        facts={
            "Base model": str(model["base"]),
            "Fine-tuned model": f"{registered_as} version {model['version']}",
            "Model folder": str(model["path"]),
            "Documents": str(warehouse.count("raw_pdfs")),
            "Chunks": str(warehouse.count("chunks")),
            "Training pairs": f"{trained_on} of {counts['train']}",
            "Questions": ", ".join(f"{n} {split}" for split, n in sorted(counts.items())),
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


def _notes(result: Comparison, failed: Mapping[str, str]) -> list[str]:
    notes = [
        "The corpus of every search is all chunks, those of held-out documents included.",
        "The epoch was chosen on validation; the test splits were scored once, at the end.",
    ]
    if result.headline_split != "test_labelled":
        notes.append(
            "No questions written by people: those written by a machine flatter every model."
        )
    notes += [f"{called} could not be scored: {reason}" for called, reason in failed.items()]
    return notes


def as_list(sentences: Sequence[str]) -> str:
    """Sentences as a markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


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
            f"| {row['low']:+.3f} … {row['high']:+.3f} | {row['p_value']:.3f} | {row['verdict']} |"
        )
    lines += [f"\n{called} could not be scored: {reason}" for called, reason in failed.items()]
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
    """The difference in NDCG@10 with its interval, by split, for MLflow.

    That to the base model by dimension, that to each baseline by its name.
    """
    return {
        metric_name(row["split"], f"{against}_ndcg@10_{name}"): row[name]
        for row in result.against.iter_rows(named=True)
        for against in [f"dim_{row['dimension']}" if row["model"] == "base" else row["model"]]
        for name in ("difference", "low", "high", "p_value")
    }


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the comparison, and whether the champion before takes part."""
    shape = settings.shape("comparison", baselines=compares_champion(settings))
    return {"comparison": f"{COMPARISON_VERSION}, {digest(shape)}"}
