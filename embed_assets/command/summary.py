"""What the command prints when it is done: one object, and the same as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from embed_assets.command.pipeline import Done
from embed_assets.comparison.verdict import reservations, stored_comparison
from embed_assets.documents.folder import scan
from embed_assets.documents.parsing import document_statuses
from embed_assets.evaluation.baselines import failed_baselines
from embed_assets.graph import DOCUMENT_ASSETS, GRAPH, stages
from embed_assets.models.registry import newest_model
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


def ingest_summary(settings: Settings, warehouse: Warehouse, done: Done) -> dict[str, Any]:
    """What `ingest --json` prints."""
    statuses = document_statuses(warehouse)
    failed = failed_documents(settings, warehouse, statuses)
    counts = dict(statuses.group_by("parser_status").len().iter_rows())
    counts["ERROR"] = sum(row["known"] is None for row in failed)
    return {
        "documents": {status: counts.get(status, 0) for status in ("SUCCESS", "EMPTY", "ERROR")},
        "failed": [{k: v for k, v in row.items() if k != "known"} for row in failed],
        "empty": _with_status(statuses, warehouse.paths(), "EMPTY"),
        "pages": int(statuses["pages"].sum()),
        "chunks": warehouse.count("chunks"),
        "questions": int(
            warehouse.read(
                "SELECT count(*) AS n FROM synthetic_questions WHERE status = ?", [KEPT]
            )["n"][0]
        ),
        "questions_not_asked": _chunks_without_questions(warehouse, NOT_ASKED),
        "questions_failed": _chunks_without_questions(warehouse, FAILED, UNREADABLE),
        "unmatched_labelled": unmatched(report_matches(settings, warehouse)).to_dicts(),
        "waiting": [{"what": wait.what, "reason": wait.reason} for wait in done.waiting],
        "seconds": _by_stage(done.seconds, stages(*DOCUMENT_ASSETS)),
        "seconds_by_asset": _rounded(done.seconds),
        "changed": done.changed,
    }


def failed_documents(
    settings: Settings, warehouse: Warehouse, statuses: pl.DataFrame
) -> list[dict[str, Any]]:
    """Documents that could not be read: path, error, attempts, final, and what is known of them.

    final: whether only a change or a person starts another try. known: the status of what was read
    before, null where there is none. statuses: as `document_statuses` gives them.
    """
    paths = warehouse.paths()
    known = dict(statuses.select("document_id", "parser_status").iter_rows())
    rows = {
        key: {"error": error, "attempts": 1, "final": True, "known": None}
        for key, status, error in statuses.select(
            "document_id", "parser_status", "error"
        ).iter_rows()
        if status == "ERROR"
    }
    tried = read_records(warehouse, "raw_pdfs", "parsed_markdown").tried
    for asset in ("parsed_markdown", "raw_pdfs"):
        for (of, key), attempt in tried.items():
            if of == asset:
                status = known.get(key)
                rows[key] = {
                    "error": attempt.failure.error,
                    "attempts": attempt.attempts,
                    "final": attempt.is_final,
                    "known": None if status == "ERROR" else status,
                }
    if set(rows) - set(paths):  # never read: the folder alone knows their paths
        paths = {key: document.path for key, document in scan(settings.pdfs).items()} | paths
    listed = [{"path": paths.get(key, key), **row} for key, row in rows.items()]
    return sorted(listed, key=lambda row: row["path"])


def run_summary(settings: Settings, warehouse: Warehouse, done: Done) -> dict[str, Any]:
    """What `run --json` prints."""
    model = newest_model(warehouse)
    records = read_records(warehouse)
    compared = records.data_version("comparison")
    rows = warehouse.read(
        "SELECT b.split, b.dimension, b.metric, b.k, b.score AS base, t.score AS tuned "
        "FROM evaluation_results b JOIN evaluation_results t USING (split, dimension, metric, k) "
        "WHERE b.run_id = ? AND b.model = 'base' AND t.run_id = ? AND t.model = 'tuned' "
        "ORDER BY split, dimension DESC, metric, k",
        [compared, model["mlflow_run_id"]],
    )
    against = stored_comparison(warehouse, compared)
    failed = failed_baselines(warehouse, compared)
    report = settings.reports / f"comparison-v{model['version']}.html"
    return {
        **ingest_summary(settings, warehouse, done),
        "seconds": _by_stage(done.seconds, stages()),
        "pairs": dict(
            warehouse.read(
                "SELECT split, count(*) FROM training_pairs GROUP BY split ORDER BY split"
            ).iter_rows()
        ),
        "model": {key: model[key] for key in ("base", "version", "path")},
        "comparison": rows.to_dicts(),
        "baselines": against.filter(pl.col("model") != "base").select(BASELINE_KEYS).to_dicts(),
        "baselines_failed": [{"model": m, "error": e} for m, e in failed.items()],
        "reservations": reservations(against),
        "report": str(report),
        "trained": done.trained,
    }


def ingest_text(summary: Mapping[str, Any]) -> str:
    """The summary of an ingest for a person."""
    documents = summary["documents"]
    lines = [] if summary["changed"] else ["Nothing has changed since the last time."]
    lines.append(
        f"{sum(documents.values())} documents, {documents['SUCCESS']} of them with text; "
        f"{summary['pages']} pages, {summary['chunks']} chunks, {summary['questions']} questions."
    )
    for key, what in (("failed", "could not be read"), ("empty", "have no text")):
        lines += _listing(f"{len(summary[key])} {what}", [_failure_line(r) for r in summary[key]])
    waiting = [f"{row['what']}: {row['reason']}" for row in summary["waiting"]]
    lines += _listing(f"{len(waiting)} wait for another run to end", waiting)
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
    labelled = summary["unmatched_labelled"]
    lines += _listing(
        f"{len(labelled)} labelled questions found no evidence",
        [
            f"{row['file_name'] or row['source']}: {row['question']} ({row['reason']})"
            for row in labelled
        ],
    )
    return "\n".join([*lines, *_seconds_lines(summary["seconds"])])


def run_text(summary: Mapping[str, Any]) -> str:
    """The comparison for a person: NDCG@10 by split and dimension, and where to look next."""
    if not summary["changed"]:
        head = "Nothing has changed since the last time: nothing was trained."
    elif not summary["trained"]:
        head = "The training pairs are the same as before: nothing was trained."
    else:
        head = ""
    ndcg = [row for row in summary["comparison"] if row["metric"] == "ndcg"]
    lines = [head] if head else []
    lines += [
        ingest_text({**summary, "changed": True}),
        "",
        f"{'split':<22} {'dimension':>9} {'base':>7} {'tuned':>7} {'change':>8}   NDCG@10",
    ]
    for row in ndcg:
        base, tuned = row["base"], row["tuned"]
        change = f"{100 * (tuned - base) / base:+.1f} %" if base else "–"
        lines.append(
            f"{row['split']:<22} {row['dimension']:>9} {base:>7.4f} {tuned:>7.4f} {change:>8}"
        )
    lines += _baseline_lines(summary["baselines"])
    failed = summary["baselines_failed"]
    notes = [
        *summary["reservations"],
        *(f"{row['model']} could not be scored: {row['error']}" for row in failed),
    ]
    lines += ["", *notes] if notes else []
    model = summary["model"]
    return "\n".join(
        [
            *lines,
            "",
            f"Model    {model['path']} (version {model['version']}, from {model['base']})",
            f"Report   {summary['report']}",
            "Dagster  embed-assets ui (with the same --pdfs and --home)",
        ]
    )


def _baseline_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of what the fine-tuned model is compared with beside its base."""
    if not rows:
        return []
    width = max(9, *(len(row["model"]) for row in rows))
    lines = [
        "",
        f"{'split':<22} {'baseline':<{width}} {'score':>7} {'tuned':>7} {'difference':>10}"
        "   95 % interval      verdict",
    ]
    lines += [
        f"{row['split']:<22} {row['model']:<{width}} {row['score']:>7.4f} {row['tuned']:>7.4f} "
        f"{row['difference']:>+10.4f}   {row['low']:+.3f} to {row['high']:+.3f}   {row['verdict']}"
        for row in rows
    ]
    return lines


def _chunks_without_questions(warehouse: Warehouse, *statuses: str) -> int:
    """Chunks that a language model was not asked about, or gave no question for."""
    rows = warehouse.read(
        "SELECT count(DISTINCT chunk_id) AS n FROM synthetic_questions "
        "WHERE status IN (SELECT unnest(?::VARCHAR[]))",
        [list(statuses)],
    )
    return int(rows["n"][0])


def _with_status(
    statuses: pl.DataFrame, paths: Mapping[str, str], status: str
) -> list[dict[str, str]]:
    rows = statuses.filter(pl.col("parser_status") == status)
    return sorted(
        (
            {"path": paths.get(key, key), "error": error}
            for key, error in rows.select("document_id", "error").iter_rows()
        ),
        key=lambda row: row["path"],
    )


def _by_stage(seconds: Mapping[str, float], wanted: tuple[str, ...]) -> dict[str, float]:
    totals = dict.fromkeys(wanted, 0.0)
    for asset, taken in seconds.items():
        if asset in GRAPH and GRAPH[asset].stage in totals:
            totals[GRAPH[asset].stage] += taken
    return _rounded(totals)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(taken, 2) for name, taken in seconds.items()}


def _seconds_lines(seconds: Mapping[str, float]) -> list[str]:
    parts = [f"{stage} {taken:.0f} s" for stage, taken in seconds.items() if taken >= 0.5]
    return [f"Took: {', '.join(parts)}."] if parts else []


def _failure_line(row: Mapping[str, Any]) -> str:
    again = "" if row.get("final", True) else f" (tried {row['attempts']} times; will be again)"
    return f"{row['path']}: {row['error']}{again}"


def _listing(title: str, rows: list[str]) -> list[str]:
    if not rows:
        return []
    more = [f"  … and {len(rows) - LISTED} more"] if len(rows) > LISTED else []
    return [f"{title}:", *(f"  {row}" for row in rows[:LISTED]), *more]
