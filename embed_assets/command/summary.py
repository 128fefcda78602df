"""What the command prints when it is done: one object, and the same as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from embed_assets.command.pipeline import Done
from embed_assets.comparison.tracked import stored_promotion
from embed_assets.comparison.verdict import (
    headline_row,
    reservations,
    stored_comparison,
    verdict_sentence,
)
from embed_assets.documents.folder import scan
from embed_assets.documents.parsing import document_statuses
from embed_assets.evaluation.baselines import failed_baselines
from embed_assets.evaluation.significance import FEWEST_DOCUMENTS, LARGEST_P_VALUE, Verdict
from embed_assets.graph import DOCUMENT_ASSETS, GRAPH
from embed_assets.models.registry import aliases, newest_model
from embed_assets.questions.labelled.report import report_matches, unmatched
from embed_assets.questions.statuses import FAILED, KEPT, NOT_ASKED, UNREADABLE
from embed_assets.resources.ledger import read_records
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

BASELINE_KEYS = (
    *("split", "model", "metric", "k", "dimension", "score", "tuned"),
    *("difference", "low", "high", "p_value", "verdict"),
)
LISTED = 20


def ingest_summary(settings: Settings, done: Done) -> dict[str, Any]:
    """What `ingest --json` prints."""
    warehouse = Warehouse(path=str(settings.warehouse))
    statuses = document_statuses(warehouse)
    read, empty = (statuses.filter(parser_status=status) for status in ("SUCCESS", "EMPTY"))
    failed = failed_documents(settings, warehouse)
    known_before = failed.keys() & {*read["document_id"], *empty["document_id"]}
    why_empty = dict(empty.select("document_id", "error").iter_rows())
    # Those that got no question are counted by chunk.
    questions = warehouse.read(
        "SELECT count(*) FILTER (status = ?) AS questions, "
        "count(DISTINCT chunk_id) FILTER (status = ?) AS questions_not_asked, "
        "count(DISTINCT chunk_id) FILTER (status IN (?, ?)) AS questions_failed "
        "FROM synthetic_questions",
        [KEPT, NOT_ASKED, FAILED, UNREADABLE],
    )
    return {
        "documents": {
            "SUCCESS": read.height,
            "EMPTY": empty.height,
            "ERROR": len(failed) - len(known_before),
        },
        "failed": list(failed.values()),
        "empty": [
            {"path": path, "error": why_empty[key]}
            for key, path in warehouse.paths().items()
            if key in why_empty
        ],
        "pages": int(statuses["pages"].sum()),
        "chunks": warehouse.count("chunks"),
        **questions.row(0, named=True),
        "unmatched_labelled": unmatched(report_matches(settings, warehouse)).to_dicts(),
        "waiting": [{"what": wait.what, "reason": wait.reason} for wait in done.waiting],
        "seconds": _by_stage(done.seconds, DOCUMENT_ASSETS),
        "seconds_by_asset": _rounded(done.seconds),
        "changed": done.changed,
    }


def failed_documents(settings: Settings, warehouse: Warehouse) -> dict[str, dict[str, Any]]:
    """Path, error and attempts of documents that could not be read, by id, in order of path.

    final: whether only a change or a person starts another try.
    """
    errors = document_statuses(warehouse).filter(parser_status="ERROR")
    failed = {
        key: {"error": error, "attempts": 1, "final": True}
        for key, error in errors.select("document_id", "error").iter_rows()
    }
    records = read_records(warehouse, "raw_pdfs", "parsed_markdown")
    # Of a file that may not come in, raw_pdfs says why, and comes last.
    for (asset, key), attempt in sorted(records.tried.items()):
        made_from = records.input_version(asset, key)
        if asset == "parsed_markdown" and attempt.input_version != made_from:
            continue  # of a file that is no more
        failed[key] = {
            "error": attempt.failure.error,
            "attempts": attempt.attempts,
            "final": attempt.next_at is None,
        }
    paths = warehouse.paths()
    if failed.keys() - paths.keys():  # never read: the folder alone knows their paths
        paths = {key: document.path for key, document in scan(settings.pdfs).items()} | paths
    in_order = sorted((paths.get(key, key), key) for key in failed)
    return {key: {"path": path, **failed[key]} for path, key in in_order}


def run_summary(settings: Settings, done: Done) -> dict[str, Any]:
    """What `run --json` prints."""
    warehouse = Warehouse(path=str(settings.warehouse))
    model = newest_model(warehouse)
    compared = read_records(warehouse, "comparison").data_version("comparison")
    rows = warehouse.read(
        "SELECT b.split, b.dimension, b.metric, b.k, b.score AS base, t.score AS tuned "
        "FROM evaluation_results b JOIN evaluation_results t USING (split, dimension, metric, k) "
        "WHERE b.run_id = ? AND b.model = 'base' AND t.run_id = ? AND t.model = 'tuned' "
        "ORDER BY split, dimension DESC, metric, k",
        [compared, model["mlflow_run_id"]],
    )
    pairs = warehouse.read("SELECT split, count(*) FROM training_pairs GROUP BY ALL ORDER BY ALL")
    against = stored_comparison(warehouse, compared)
    failed = failed_baselines(warehouse, compared)
    return {
        **ingest_summary(settings, done),
        "seconds": _by_stage(done.seconds, tuple(GRAPH)),
        "pairs": dict(pairs.iter_rows()),
        "model": {key: model[key] for key in ("base", "version", "path")},
        "comparison": rows.to_dicts(),
        "baselines": against.filter(pl.col("model") != "base").select(BASELINE_KEYS).to_dicts(),
        "baselines_failed": [{"model": m, "error": e} for m, e in failed.items()],
        "verdict": verdict_sentence(headline_row(against)),
        "champion": aliases(warehouse, settings)["champion"],
        "promotion": stored_promotion(settings, compared),
        "reservations": reservations(against),
        "report": str(settings.report(model["version"])),
        "trained": "finetuned_model" in done.seconds,
    }


def ingest_text(summary: Mapping[str, Any]) -> str:
    """The summary of an ingest for a person."""
    documents = summary["documents"]
    failed, empty, labelled = (summary[k] for k in ("failed", "empty", "unmatched_labelled"))
    lines = [] if summary["changed"] else ["Nothing has changed since the last time."]
    lines.append(
        f"{sum(documents.values())} documents, {documents['SUCCESS']} of them with text; "
        f"{summary['pages']} pages, {summary['chunks']} chunks, {summary['questions']} questions."
    )
    lines += listing(f"{len(failed)} could not be read", [_failure_line(row) for row in failed])
    no_text = [f"{row['path']}: {row['error']}" for row in empty]
    lines += listing(f"{len(empty)} have no text", no_text)
    waiting = [f"{row['what']}: {row['reason']}" for row in summary["waiting"]]
    lines += listing("Waits", waiting)
    if summary["questions_not_asked"]:
        lines.append(
            "Chunks not asked about, since the budget was spent: "
            f"{summary['questions_not_asked']}. Run it again to go on."
        )
    if summary["questions_failed"]:
        lines.append(
            "Chunks that got no question from the language model: "
            f"{summary['questions_failed']}. `embed-assets ui` shows why, chunk by chunk."
        )
    without = [
        f"{r['file_name'] or r['source']}: {r['question']} ({r['reason']})" for r in labelled
    ]
    lines += listing(f"{len(labelled)} labelled questions found no evidence", without)
    took = [f"{stage} {s:.0f} s" for stage, s in summary["seconds"].items() if s >= 0.5]
    lines += [f"Took: {', '.join(took)}."] if took else []
    return "\n".join(lines)


def run_text(summary: Mapping[str, Any]) -> str:
    """The comparison for a person: NDCG@10 by split and dimension, and where to look next."""
    lines: list[str] = []
    if not summary["changed"]:
        lines = ["Nothing has changed since the last time: nothing was trained."]
    elif not summary["trained"]:
        lines = ["The training pairs are the same as before: nothing was trained."]
    lines += [
        ingest_text({**summary, "changed": True}),
        "",
        f"{'split':<22} {'dimension':>9} {'base':>7} {'tuned':>7} {'change':>8}   NDCG@10",
    ]
    for row in summary["comparison"]:
        if row["metric"] != "ndcg":
            continue
        base, tuned = row["base"], row["tuned"]
        change = f"{100 * (tuned - base) / base:+.1f} %" if base else "–"
        lines.append(
            f"{row['split']:<22} {row['dimension']:>9} {base:>7.4f} {tuned:>7.4f} {change:>8}"
        )
    lines += _baseline_lines(summary["baselines"])
    notes = [
        *summary["reservations"],
        *(f"{r['model']} could not be scored: {r['error']}" for r in summary["baselines_failed"]),
    ]
    lines += ["", *notes] if notes else []
    model, champion = summary["model"], summary["champion"]
    used = f"version {champion}" if champion else f"none yet: search uses {model['base']}"
    lines += [
        "",
        summary["verdict"],
        *filter(None, [summary["promotion"]]),
        f"Champion {used}",
        f"Model    {model['path']} (version {model['version']}, from {model['base']})",
        f"Report   {summary['report']}",
        "Dagster  embed-assets ui (with the same --pdfs and --home)",
    ]
    return "\n".join(lines)


def _baseline_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of what the fine-tuned model is compared with beside its base."""
    if not rows:
        return []
    width = max(9, *(len(row["model"]) for row in rows))
    return [
        "",
        f"{'split':<22} {'baseline':<{width}} {'score':>7} {'tuned':>7} {'difference':>10}"
        "   95 % interval      verdict",
        *(
            f"{row['split']:<22} {row['model']:<{width}} {row['score']:>7.4f} {row['tuned']:>7.4f} "
            f"{row['difference']:>+10.4f}   {row['low']:+.3f} to {row['high']:+.3f}   "
            f"{row['verdict']}"
            for row in rows
        ),
        *(
            [
                f"A verdict needs questions about {FEWEST_DOCUMENTS} documents, "
                f"and p ≤ {LARGEST_P_VALUE}."
            ]
            if any(row["verdict"] == Verdict.TOO_FEW for row in rows)
            else []
        ),
    ]


def _by_stage(seconds: Mapping[str, float], assets: Sequence[str]) -> dict[str, float]:
    totals = dict.fromkeys((GRAPH[asset].stage for asset in assets), 0.0)
    for asset in assets:
        totals[GRAPH[asset].stage] += seconds.get(asset, 0.0)
    return _rounded(totals)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(taken, 2) for name, taken in seconds.items()}


def _failure_line(row: Mapping[str, Any]) -> str:
    again = "" if row["final"] else f" (tried {row['attempts']} times; will be again)"
    return f"{row['path']}: {row['error']}{again}"


def listing(title: str, rows: Sequence[str]) -> list[str]:
    """A title and the first rows under it; nothing without rows."""
    if not rows:
        return []
    more = [f"  … and {len(rows) - LISTED} more"] if len(rows) > LISTED else []
    return [f"{title}:", *(f"  {row}" for row in rows[:LISTED]), *more]
