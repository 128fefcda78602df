"""The description of a version in MLflow's registry: what it was made from, with links.

What a comparison says of it comes before that: `comparison/described.py`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embed_assets.grouping import Grouping
from embed_assets.models.names import told_name
from embed_assets.models.registry import write_description, write_model_description
from embed_assets.resources.pages import asset_page
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.lineage import version_lineage
from embed_assets.training.record import PAIRS
from embed_assets.training.tables import documents_list
from embed_assets.training.tracked import LINEAGE, log_version, said_splits, version_tags
from embed_assets.wording import counted, watt_hours

LONGEST = 5000
"""Characters of a description that every MLflow server keeps."""
NOT_JUDGED = "Not judged yet: that is what `comparison` does."


def describe_version(
    warehouse: Warehouse,
    settings: Settings,
    tracking: Tracking,
    version: str,
    judged: Sequence[str] = (),
) -> None:
    """Write what a version is, as tags and description of it and of its MLflow run.

    judged: paragraphs that come first. A description that a person wrote stays. ProjectError where
    MLflow doesn't take it.
    """
    record = version_lineage(warehouse, settings, version)
    with tracking.explained(f"MLflow takes no description of version {version}"):
        parts = [*(judged or [NOT_JUDGED]), *_made_from(record, tracking)]
        room = LONGEST - sum(len(part) + 2 for part in parts)
        tags = version_tags(record)
        text = "\n\n".join([*parts, *_documents(record, room, settings.grouping)])
        write_description(tracking, record["version"], text, tags)
        write_model_description(tracking, _about(tracking))
        _describe_training(tracking, record, "\n\n".join(parts), tags)


def _describe_training(
    tracking: Tracking, record: Mapping[str, Any], text: str, tags: Mapping[str, str]
) -> None:
    """The same for the MLflow run that trained it, without its documents, and its pairs where the
    training could not log them. People delete runs.
    """
    from mlflow.exceptions import MlflowException

    run_id, client = record["mlflow_run_id"], tracking.client()
    version = record["version"]
    link = f"[Version {version} in the registry]({tracking.version_link(version)})"
    try:
        log_version(run_id, version, record["base"], Path(record["model"]))
        for name, value in tags.items():
            client.set_tag(run_id, name, value)
        tracking.describe_run(run_id, f"{link}\n\n{text}")
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise


def _made_from(record: Mapping[str, Any], tracking: Tracking) -> list[str]:
    """What a version was made from but for its documents, a paragraph each."""
    version, run = record["version"], record["mlflow_run_id"]
    base = told_name(record["base"])
    if record["base_revision"]:
        base += f" ({record['base_revision']})"
    start = f"version {record['trained_from']}, on from " if record["trained_from"] else ""
    facts = {
        "Base": f"{start}{base}",
        "Trained on": f"{counted(record['questions'], 'pair')} of "
        f"{counted(len(record['documents']), 'document')}",
        "Questions by split": said_splits(record["splits"]),
        "Took": _took(record),
        "Machine": record["machine"],
        "Code": record["code"],
    }
    lines = [f"- {name}: {value}" for name, value in facts.items() if value]
    pages = [
        f"[Dagster run]({record['dagster_run']})",
        f"[Dagster asset]({asset_page('finetuned_model')})",
        f"[MLflow run of the training]({tracking.run_link(run)})",
        f"[the very pairs]({tracking.run_link(run, f'{LINEAGE}/{PAIRS}')})",
    ]
    return [
        "\n".join(["**Made from**", "", *lines]),
        " · ".join(pages),
        f"All of it: `embed-assets lineage {version}`",
    ]


def _took(record: Mapping[str, Any]) -> str:
    """Seconds and energy of a training, where they are on record."""
    said = []
    if record["seconds"] is not None:
        said.append(f"{record['seconds']:.0f} s")
    if record["energy_wh"] is not None:
        said.append(watt_hours(record["energy_wh"]))
    return ", ".join(said)


def _documents(record: Mapping[str, Any], room: int, grouping: Grouping) -> list[str]:
    """The documents of a version, as many as there is room for."""
    title, documents = "**Documents**", record["documents"]
    if not documents:
        return []
    return [title, documents_list(documents, room - len(title) - 2, grouping)]


def _about(tracking: Tracking) -> str:
    """What the registered model says of itself."""
    name = tracking.name
    return "\n".join(
        [
            "Embedding models that embed_assets fine-tuned on a folder of PDFs: each version says "
            "how it was judged and what it was made from. `champion` is the one that serves, "
            "`challenger` the newest that was judged, `previous` what a rollback returns to.",
            "",
            f"[All runs with their headline figures]({tracking.runs_link}) · "
            f"[Dagster]({asset_page('finetuned_model')})",
            "",
            f'Load one with `mlflow.sentence_transformers.load_model("models:/{name}@champion")`. '
            "Embed questions with `encode_query` and texts with `encode_document`: the model has "
            "its own prompts.",
        ]
    )
