"""What `lineage` prints, as text."""

from collections.abc import Mapping
from typing import Any


def lineage_text(summary: Mapping[str, Any]) -> str:
    """The lineage for a person."""
    lines = [
        f"Version {summary['version']}, fine-tuned from {summary['base']} on "
        f"{summary['questions']} questions about {len(summary['documents'])} documents",
        f"Dagster run {summary['dagster_run_id']}, MLflow run {summary['mlflow_run_id']}",
    ]
    if summary["trained_from"]:
        lines[0] += f", going on from version {summary['trained_from']}"
    if summary["champion"]:
        lines[0] += "; the champion"
    made_by = (("Trained by", "code"), ("Machine", "machine"), ("Pairs", "pairs"))
    lines += [f"{title} {summary[name]}" for title, name in made_by if summary[name]]
    chosen = ", ".join(f"{name}={value}" for name, value in (summary["settings_set"] or {}).items())
    lines += [f"Settings other than the defaults: {chosen}"] if chosen else []
    return "\n".join([*lines, *(f"{d['sha256'][:12]}  {d['path']}" for d in summary["documents"])])
