"""What the command prints when it is done: one object, and the same as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import polars as pl

from embed_assets.command.pipeline import Done
from embed_assets.comparison.hybrid_weights import (
    best_weight,
    stored_weights,
    weight_points,
    weight_sentence,
)
from embed_assets.comparison.learning_curve import (
    CURVE,
    curve_points,
    stored_curve,
    would_help_most,
)
from embed_assets.comparison.tracked import stored_promotion
from embed_assets.comparison.verdict import (
    headline_row,
    hybrid_sentence,
    reservations,
    stored_comparison,
    stored_hybrid,
    verdict_sentence,
)
from embed_assets.documents.entries import Entries, Rules
from embed_assets.documents.failed import FailedDocument, failed_documents, needing_ocr
from embed_assets.documents.folder import survey
from embed_assets.documents.ocr import SETTING as OCR_SETTING
from embed_assets.documents.parsing import (
    NO_CHUNK,
    PartlyRead,
    document_statuses,
    partly_read,
    without_chunks,
)
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.evaluation.baselines import failed_baselines
from embed_assets.evaluation.hybrid import BASE_HYBRID, TUNED_HYBRID
from embed_assets.evaluation.significance import FEWEST_DOCUMENTS, LARGEST_P_VALUE, Verdict
from embed_assets.graph import DOCUMENT_ASSETS, GRAPH
from embed_assets.models.registry import aliases, newest_model
from embed_assets.pairs.splits import IN_WORDS
from embed_assets.partitions import document_id
from embed_assets.questions.labelled.report import report_matches, unmatched, unused_line
from embed_assets.questions.statuses import BAD_ROW, FAILED, KEPT, NOT_ASKED, UNREADABLE, in_words
from embed_assets.resources.ledger import read_records
from embed_assets.resources.patience import answering_at_once
from embed_assets.resources.tracking import MODELS
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.wording import change, counted, in_lines

BASELINE_KEYS = (
    *("split", "model", "metric", "k", "dimension", "score", "tuned"),
    *("difference", "low", "high", "p_value", "verdict"),
)
QUESTIONS = "questions"
FIRST = 3
"""Bad rows of people's files that a person sees without asking for details."""
TITLES = {split: words.briefly for split, words in IN_WORDS.items() if words.briefly}
"""What the questions of a split are, in a few words."""


def ingest_summary(settings: Settings, done: Done) -> dict[str, Any]:
    """What `ingest --json` prints."""
    with Warehouse.of(settings).at_once() as warehouse:
        there = what_is_there(settings, warehouse)
    return {
        **there,
        "waiting": [{"what": wait.what, "reason": wait.reason} for wait in done.waiting],
        "seconds": _by_stage(done.seconds, DOCUMENT_ASSETS),
        "seconds_by_asset": _rounded(done.seconds),
        "changed": done.changed,
    }


def what_is_there(settings: Settings, warehouse: Warehouse) -> dict[str, Any]:
    """How much was read and asked, and what could not be used."""
    statuses = document_statuses(warehouse)
    read, empty = (statuses.filter(parser_status=status) for status in ("SUCCESS", "EMPTY"))
    failed = failures(settings, warehouse)
    known_before = failed.keys() & {*read["document_id"], *empty["document_id"]}
    report = report_matches(settings, warehouse)
    # Those that got no question are counted by chunk.
    questions = warehouse.read(
        "SELECT count(*) FILTER (status = ?) AS questions, "
        "count(*) FILTER (status = ? AND kind = 'labelled') AS questions_of_people, "
        "count(DISTINCT chunk_id) FILTER (status = ?) AS questions_not_asked, "
        "count(DISTINCT chunk_id) FILTER (status IN (?, ?)) AS questions_failed "
        "FROM synthetic_questions",
        [KEPT, KEPT, NOT_ASKED, FAILED, UNREADABLE],
    )
    return {
        "documents": {
            "SUCCESS": read.height,
            "EMPTY": empty.height,
            "ERROR": len(failed) - len(known_before),
        },
        "failed": list(failed.values()),
        "empty": without_text(warehouse),
        "partly": partly(warehouse),
        "needing_ocr": needing_ocr(warehouse),
        "pages": int(statuses["pages"].sum()),
        "chunks": warehouse.count("chunks"),
        **questions.row(0, named=True),
        "dropped": _dropped(warehouse),
        "labelled_rows": report.height,
        "unmatched_labelled": unmatched(report).to_dicts(),
    }


def without_text(warehouse: Warehouse) -> list[dict[str, Any]]:
    """Documents of which nothing can be searched: path and reason."""
    empty = document_statuses(warehouse).filter(parser_status="EMPTY")
    why = dict(empty.select("document_id", "error").iter_rows())
    why |= dict.fromkeys(without_chunks(warehouse), NO_CHUNK)  # of an older release
    found = warehouse.paths().items()
    return [{"path": path, "error": why[key]} for key, path in found if key in why]


def partly(warehouse: Warehouse) -> list[dict[str, Any]]:
    """Documents of which much text is missing: path, pages, share of the text, and the reason."""
    found = partly_read(warehouse)
    return [
        {
            "path": path,
            "pages": found[key].pages,
            "share": _share(found[key].share),
            "error": found[key].error,
        }
        for key, path in warehouse.paths().items()
        if key in found
    ]


def _share(share: float | None) -> float | None:
    return None if share is None else round(share, 3)


def _dropped(warehouse: Warehouse) -> dict[str, int]:
    """How many questions are not used, by status; those of people that matched nothing apart."""
    rows = warehouse.read(
        "SELECT status, count(*) FROM synthetic_questions WHERE question <> '' AND status <> ? "
        "AND kind IS DISTINCT FROM 'labelled' GROUP BY ALL ORDER BY count(*) DESC, status",
        [KEPT],
    )
    return dict(rows.iter_rows())


def failures(
    settings: Settings, warehouse: Warehouse, entries: Entries | None = None
) -> dict[str, dict[str, Any]]:
    """Path, error and attempts of documents that could not be read, by id, in order of path.

    Of what is odd in the folder too, though it may be no document. final: whether only a change or
    a person starts another try. entries: of the folder, where it was looked through just now.
    """
    failed, paths = failed_documents(warehouse), warehouse.paths()
    try:
        entries = entries or survey(settings.pdfs, Rules.of(settings))
    except SettingsError:  # it was there when the work began
        entries = Entries()
    # What was never read the folder alone knows.
    paths = {document.document_id: document.path for document in entries.pdfs} | paths
    for path, why in entries.odd.items():
        key = document_id(PurePosixPath(path))
        failed[key], paths[key] = FailedDocument(why), path
    in_order = sorted((paths.get(key, key), key) for key in failed)
    return {key: {"path": path, **vars(failed[key])} for path, key in in_order}


@dataclass(frozen=True)
class _InMlflow:
    """Of a finished run, what MLflow alone knows; where it doesn't answer, that it doesn't."""

    champion: str | None = None
    promotion: str | None = None
    waiting: tuple[Mapping[str, str], ...] = ()


def _in_mlflow(settings: Settings, warehouse: Warehouse, compared: str) -> _InMlflow:
    try:
        with answering_at_once():
            champion = aliases(warehouse, settings)["champion"]
            return _InMlflow(champion, stored_promotion(settings, compared))
    except ProjectError as error:
        return _InMlflow(waiting=({"what": MODELS, "reason": str(error)},))


def run_summary(settings: Settings, done: Done) -> dict[str, Any]:
    """What `run --json` prints."""
    warehouse = Warehouse.of(settings)
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
    against, hybrid = stored_comparison(warehouse, compared), stored_hybrid(warehouse, compared)
    curve, failed = stored_curve(warehouse, compared), failed_baselines(warehouse, compared)
    why_no_curve, weights = failed.pop(CURVE, None), stored_weights(warehouse, compared)
    ingested = ingest_summary(settings, done)
    in_mlflow = _in_mlflow(settings, warehouse, compared)
    return {
        **ingested,
        "seconds": _by_stage(done.seconds, tuple(GRAPH)),
        "pairs": dict(pairs.iter_rows()),
        "model": {key: model[key] for key in ("base", "version", "path")},
        "comparison": rows.to_dicts(),
        "baselines": against.filter(pl.col("model") != "base").select(BASELINE_KEYS).to_dicts(),
        "baselines_failed": [{"model": m, "error": e} for m, e in failed.items()],
        "hybrid": hybrid.select(BASELINE_KEYS).to_dicts(),
        "verdict": verdict_sentence(headline_row(against)),
        "verdict_hybrid": hybrid_sentence(hybrid) or None,
        "champion": in_mlflow.champion,
        "promotion": in_mlflow.promotion,
        "waiting": [*ingested["waiting"], *in_mlflow.waiting],
        "reservations": reservations(against, hybrid),
        "hybrid_by_weight": weight_points(weights),
        "hybrid_weight": weight_sentence(weights) or None,
        "better_weight": best_weight(weights),
        "learning_curve": curve_points(curve).to_dicts(),
        "learning_curve_failed": why_no_curve,
        "would_help_most": would_help_most(curve) or None,
        "report": str(settings.report(model["version"])),
        "trained": "finetuned_model" in done.seconds,
    }


def ingest_text(summary: Mapping[str, Any], *, details: bool = False) -> str:
    """The summary of an ingest for a person. details: all that could not be used, row by row."""
    return in_lines(
        [
            *_unchanged(summary, "Nothing has changed since the last time."),
            *_documents_lines(summary),
            *unused_text(summary, details),
            *_took(summary),
        ]
    )


def run_text(summary: Mapping[str, Any], *, details: bool = False) -> str:
    """The end of a run for a person: what came out first, where to look next last."""
    model = summary["model"]
    nothing = "Nothing has changed since the last time: nothing was trained."
    if summary["changed"] and not summary["trained"]:
        nothing = "The training pairs are the same as before: nothing was trained."
    return in_lines(
        [
            summary["verdict"],
            *filter(None, [summary["verdict_hybrid"], summary["promotion"]]),
            f"Search uses {_champion(summary)}.",
            *summary["reservations"],
            *filter(None, [summary["would_help_most"]]),
            *([] if summary["better_weight"] is None else [summary["hybrid_weight"]]),
            *([] if summary["trained"] else [nothing]),
            "",
            *_comparison_lines(summary["comparison"]),
            *_baseline_lines(summary["baselines"], "baseline", "tuned"),
            *_baseline_lines(
                [row for row in summary["hybrid"] if row["model"] == BASE_HYBRID],
                "hybrid search",
                TUNED_HYBRID,
            ),
            *_needed_line([*summary["baselines"], *summary["hybrid"]]),
            "",
            *_documents_lines(summary),
            *unused_text(summary, details),
            *_took(summary),
            "",
            f"Model   {model['path']}",
            f"Report  {summary['report']}",
            "Next    embed-assets ui, with the same --pdfs and --home",
        ]
    )


def _unchanged(summary: Mapping[str, Any], said: str) -> list[str]:
    return [] if summary["changed"] else [said]


def _champion(summary: Mapping[str, Any]) -> str:
    """What search uses, in words."""
    champion, model = summary["champion"], summary["model"]
    if any(wait["what"] == MODELS for wait in summary["waiting"]):
        return "the champion, whichever that is: MLflow does not answer"
    if champion is None:
        return f"the base model, {model['base']}: there is no champion yet"
    other = "" if champion == model["version"] else f"; the newest is version {model['version']}"
    return f"version {champion}, the champion{other}"


def _documents_lines(summary: Mapping[str, Any]) -> list[str]:
    documents, of_people = summary["documents"], summary["questions_of_people"]
    peoples = f", {of_people:,} of them people's" if of_people else ""
    return [
        f"{counted(sum(documents.values()), 'document')}, "
        f"{documents['SUCCESS']:,} of them with text; {counted(summary['pages'], 'page')}, "
        f"{counted(summary['chunks'], 'chunk')}, {counted(summary['questions'], 'question')}"
        f"{peoples}."
    ]


def _took(summary: Mapping[str, Any]) -> list[str]:
    took = [f"{stage} {s:.0f} s" for stage, s in summary["seconds"].items() if s >= 0.5]
    return [f"Took: {', '.join(took)}."] if took else []


def unused_text(summary: Mapping[str, Any], details: bool) -> list[str]:
    """What could not be used and what waits: a line each, counted; with `details`, row by row."""
    labelled, failed_models = summary["unmatched_labelled"], summary.get("baselines_failed", [])
    bad = [unused_line(row) for row in labelled if row["reason"] == BAD_ROW]
    unused = [unused_line(row) for row in labelled if row["reason"] != BAD_ROW]
    came = summary.get("labelled_rows", len(labelled))
    asked, failed = summary["questions_not_asked"], summary["questions_failed"]
    by_ocr = f" ({OCR_SETTING}=auto, where Tesseract is installed)"
    groups = [
        (
            counted(len(summary["failed"]), "document") + " could not be read",
            [_failure_line(row) for row in summary["failed"]],
        ),
        (
            counted(len(summary["empty"]), "document") + " without text",
            [f"{row['path']}: {row['error']}" for row in summary["empty"]],
        ),
        (
            counted(len(summary["partly"]), "document") + " read in part",
            [partly_line(row) for row in summary["partly"]],
        ),
        (
            counted(len(summary["needing_ocr"]), "document") + " that OCR may read" + by_ocr,
            summary["needing_ocr"],
        ),
        (
            f"{len(bad):,} of {counted(came, 'row')} of people's questions can't be read",
            bad,
        ),
        (
            f"{counted(len(unused), 'question')} of people not used, of {came:,}",
            unused,
        ),
        (
            f"{counted(sum(summary['dropped'].values()), 'question')} dropped",
            [f"{in_words(status)}: {n:,}" for status, n in summary["dropped"].items()],
        ),
        (
            f"{counted(failed, 'chunk')} without an answer of the language model",
            ["`embed-assets ui` shows why, chunk by chunk"] * bool(failed),
        ),
        (
            f"{counted(asked, 'chunk')} not asked about, since the budget was spent",
            ["run it again to go on"] * bool(asked),
        ),
        (
            f"{counted(len(failed_models), 'baseline')} could not be scored",
            [f"{row['model']}: {row['error']}" for row in failed_models],
        ),
        (
            "No learning curve",
            [why for why in [summary.get("learning_curve_failed")] if why],
        ),
        (
            f"{len(summary['waiting']):,} waiting",
            [f"{row['what']}: {row['reason']}" for row in summary["waiting"]],
        ),
    ]
    there = [(title, rows) for title, rows in groups if rows]
    if details:
        return [line for title, rows in there for line in (f"{title}:", *(f"  {r}" for r in rows))]
    lines = [
        line
        for title, rows in there
        for line in (f"  {title}{_why(rows)}", *(_first(rows) if rows is bad else ()))
    ]
    return ["Not used, or not yet (--details lists all):", *lines] if lines else []


def _why(rows: Sequence[str]) -> str:
    """The one row there is, that nobody has to ask for it; nothing where there are several."""
    return f": {rows[0]}" if len(rows) == 1 else ""


def _first(rows: Sequence[str]) -> list[str]:
    """The first few of several rows, that a person sees what is wrong with them all."""
    if len(rows) < 2:
        return []
    more = [f"and {len(rows) - FIRST:,} more"] * (len(rows) > FIRST)
    return [f"    {line}" for line in (*rows[:FIRST], *more)]


def _comparison_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of both models by what they were asked, and by dimension."""
    width = max(map(len, TITLES.values()))
    lines = [
        f"{QUESTIONS:<{width}} {'dimensions':>10} {'base':>7} {'tuned':>7} {'change':>8}  NDCG@10"
    ]
    for row in rows:
        if row["metric"] == "ndcg":
            base, tuned, title = row["base"], row["tuned"], TITLES.get(row["split"], row["split"])
            lines.append(
                f"{title:<{width}} {row['dimension']:>10} {base:>7.4f} {tuned:>7.4f} "
                f"{change(base, tuned):>8}"
            )
    return lines


def _baseline_lines(rows: Sequence[Mapping[str, Any]], beside: str, tuned: str) -> list[str]:
    """A table of what the fine-tuned model is compared with beside its base.

    beside: what the models of the rows are. tuned: what they are compared with.
    """
    if not rows:
        return []
    width = max(map(len, TITLES.values()))
    names = max(len(beside), *(len(row["model"]) for row in rows))
    return [
        "",
        f"{QUESTIONS:<{width}} {beside:<{names}} {'score':>7} {tuned:>7} {'difference':>10}"
        "  95 % interval     verdict",
        *(
            f"{TITLES.get(row['split'], row['split']):<{width}} {row['model']:<{names}} "
            f"{row['score']:>7.4f} {row['tuned']:>{max(7, len(tuned))}.4f} "
            f"{row['difference']:>+10.4f}  "
            f"{row['low']:+.3f} to {row['high']:+.3f}  {row['verdict']}"
            for row in rows
        ),
    ]


def _needed_line(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a verdict takes, where one of the rows has too little for it."""
    if all(row["verdict"] != Verdict.TOO_FEW for row in rows):
        return []
    return [
        f"A verdict needs questions about {FEWEST_DOCUMENTS} documents, and p ≤ {LARGEST_P_VALUE}."
    ]


def _by_stage(seconds: Mapping[str, float], assets: Sequence[str]) -> dict[str, float]:
    totals = dict.fromkeys((GRAPH[asset].stage for asset in assets), 0.0)
    for asset in assets:
        totals[GRAPH[asset].stage] += seconds.get(asset, 0.0)
    return _rounded(totals)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(taken, 2) for name, taken in seconds.items()}


def partly_line(row: Mapping[str, Any]) -> str:
    """A document of which much text is missing, for a person."""
    return f"{row['path']}: {PartlyRead(row['pages'], row['share'], row['error']).in_words}"


def _failure_line(row: Mapping[str, Any]) -> str:
    times = counted(row["attempts"], "time")
    again = "" if row["final"] else f" (tried {times}; will be again)"
    return f"{row['path']}: {row['error']}{again}"
