"""What `lineage` prints: of a version what made it, of a document what became of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from embed_assets.comparison.tracked import stored_promotion
from embed_assets.comparison.verdict import (
    compared_in,
    headline_row,
    stored_comparison,
    verdict_sentence,
)
from embed_assets.errors import ProjectError
from embed_assets.models.registry import newest_model
from embed_assets.pairs.splits import IN_WORDS
from embed_assets.questions.statuses import KEPT, in_words
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.document_lineage import document_lineage
from embed_assets.training.lineage import version_lineage
from embed_assets.training.tracked import said_splits
from embed_assets.wording import counted, in_lines, watt_hours

LISTED = 20


def lineage_summary(settings: Settings, version: str | None) -> dict[str, Any]:
    """What `lineage --json` prints: the record of a version, and what it was found to be worth."""
    warehouse = Warehouse.of(settings)
    record = version_lineage(warehouse, settings, version)
    return {**record, "comparison": _comparison(warehouse, settings, record)}


def _comparison(
    warehouse: Warehouse, settings: Settings, record: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What the newest comparison of a version came to, if there is one.

    promotion: null where MLflow doesn't answer, or people deleted the run.
    """
    run_id = compared_in(warehouse, newest_model(warehouse, record["version"]))
    if run_id is None:
        return None
    report = settings.report(record["version"])
    promotion = None
    if record["mlflow_error"] is None:
        try:
            promotion = stored_promotion(settings, run_id)
        except ProjectError:  # it answered a moment ago
            promotion = None
    return {
        "mlflow_run_id": run_id,
        "verdict": verdict_sentence(headline_row(stored_comparison(warehouse, run_id))),
        "promotion": promotion,
        "report": str(report) if report.is_file() else None,
    }


def lineage_text(summary: Mapping[str, Any]) -> str:
    """The lineage of a version for a person."""
    documents, compared = summary["documents"], summary["comparison"] or {}
    revision = f" ({summary['base_revision']})" if summary["base_revision"] else ""
    start = f", going on from version {summary['trained_from']}" if summary["trained_from"] else ""
    chosen = ", ".join(f"{name}={value}" for name, value in (summary["settings_set"] or {}).items())
    facts = {
        "Verdict": compared.get("verdict"),
        "Promotion": compared.get("promotion"),
        "Report": compared.get("report"),
        "Trained": f"{summary['trained_at'][:16].replace('T', ' ')} UTC{_costs(summary)}",
        "Questions": said_splits(summary["splits"]),
        "Chunks": summary["chunks"] and len(summary["chunks"]),
        "Settings": f"other than the defaults: {chosen}" if chosen else None,
        "Code": summary["code"],
        "Machine": summary["machine"],
        "Model": summary["model"],
        "Pairs": summary["pairs"],
        "Dagster run": f"{summary['dagster_run_id']}  {summary['dagster_run']}",
        "MLflow run": "  ".join(filter(None, [summary["mlflow_run_id"], summary["mlflow_run"]])),
    }
    return in_lines(
        [
            f"Version {summary['version']}, fine-tuned from {summary['base']}{revision} on "
            f"{counted(summary['questions'], 'question')} about "
            f"{counted(len(documents), 'document')}{start}",
            _standing(summary),
            "",
            *(f"{name:<12} {said}" for name, said in facts.items() if said),
            "",
            "Questions, sha256 and path of the documents:",
            *(f"{d['questions']:>6}  {d['sha256'][:12]}  {d['path']}" for d in documents),
        ]
    )


def _standing(summary: Mapping[str, Any]) -> str:
    """Which aliases a version has, and who is the champion if another one is."""
    if summary["mlflow_error"]:
        return summary["mlflow_error"]
    champion = summary["champion_version"]
    names = " and ".join(f"the {name}" for name in summary["aliases"])
    held = f"It is {names}. " if names else ""
    if summary["champion"]:
        return held.rstrip()
    other = f"The champion is version {champion}." if champion else "There is no champion."
    return held + other


def _costs(summary: Mapping[str, Any]) -> str:
    """How long a training took, and how much energy, as far as that is known."""
    seconds, energy = summary["seconds"], summary["energy_wh"]
    took = f", {seconds:,.0f} s" if seconds is not None else ""
    return took + (f", {watt_hours(energy)} ({summary['energy_of']})" if energy is not None else "")


def document_summary(settings: Settings, named: str) -> dict[str, Any]:
    """What `lineage --document --json` prints."""
    return document_lineage(settings, named)


def document_text(summary: Mapping[str, Any]) -> str:
    """What became of a document, for a person."""
    questions, figures = summary["questions"], summary["figures"]
    splits = Counter(map(_use, questions))
    counts = ", ".join(f"{count} {split}" for split, count in splits.most_common())
    lines = [
        f"{summary['path']} ({summary['document_id']}): {counted(summary['chunks'], 'chunk')}, "
        f"{counted(len(questions), 'question')}"
    ]
    if summary["forgotten"]:
        lines.append(f"Forgotten on {summary['forgotten_at'][:10]}.")
    elif not summary["on_record"]:
        when = f" on {summary['departed_at'][:10]}" if summary["departed_at"] else ""
        lines.append(f"It left the folder{when}.")
    if summary["held_out"]:
        lines.append("It is held out: its questions test, and no version learns from it.")
    learned = [_learned_line(row) for row in summary["versions"]]
    lines += ["", *(_listing("Learned by", learned) or ["No version has learned from it."])]
    if summary["mlflow_error"]:
        lines.append(summary["mlflow_error"])
    if figures:
        scores = ", ".join(f"{row['model']} {row['ndcg_at_10']:.3f}" for row in figures)
        asked = figures[0]["questions"]
        lines += ["", f"NDCG@10 over {counted(asked, 'test question')} about it: {scores}"]
    if questions:
        lines += ["", *_listing(f"Questions ({counts})", list(map(_question_line, questions)))]
    return in_lines(lines)


def _listing(title: str, rows: Sequence[str]) -> list[str]:
    """A title and the first rows under it; nothing without rows."""
    if not rows:
        return []
    more = [f"  … and {len(rows) - LISTED:,} more (--json has all)"] if len(rows) > LISTED else []
    return [f"{title}:", *(f"  {row}" for row in rows[:LISTED]), *more]


def _use(question: Mapping[str, Any]) -> str:
    """What a question is for, or why it is for nothing."""
    if question["split"]:
        return IN_WORDS[question["split"]].counted
    return "unused" if question["status"] == KEPT else in_words(question["status"])


def _question_line(question: Mapping[str, Any]) -> str:
    """Where a question stands, what it is for, who learned it, and what it asks."""
    first, last = question["pages"] or (None, None)
    pages = "" if first is None else f"p. {first}, " if first == last else f"p. {first}–{last}, "
    versions = ", ".join(f"v{version}" for version in question["versions"])
    learned = f" ({versions})" if versions else ""
    return f"{pages}{_use(question)}{learned}: {question['question']}"


def _learned_line(row: Mapping[str, Any]) -> str:
    held = f" ({', '.join(row['aliases'])})" if row["aliases"] else ""
    earlier = "" if row["same_content"] else ", of another content than it has now"
    return f"version {row['version']}{held}: {counted(row['questions'], 'question')}{earlier}"
