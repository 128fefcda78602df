"""What a version was made from as tables, for the UI and for MLflow."""

from collections.abc import Mapping, Sequence
from typing import Any

from embed_assets.resources.pages import asset_path

LISTED = 500
"""Rows of a table: what is longer makes a page of Dagster slow."""
SHOWN_AT_ONCE = 1000
"""Characters of markdown from which on Dagster shows it on a click alone."""


def documents_table(documents: Sequence[Mapping[str, Any]], most: int = LISTED) -> str:
    """The documents that made a version as a markdown table, those with most questions first.

    documents: of `version_lineage`. most: rows; how many more there are stands below. Each path
    leads to the document's page in Dagster.
    """
    in_order = sorted(documents, key=lambda row: (-row["questions"], row["path"]))
    lines = ["| document | questions | sha256 |", "| --- | ---: | --- |"]
    lines += [
        f"| [`{_name(row)}`]({asset_path('raw_pdfs', row['document_id'])}) "
        f"| {row['questions']} | {row['sha256'][:12]} |"
        for row in in_order[:most]
    ]
    if len(in_order) > most:
        lines += ["", f"… and {len(in_order) - most} more"]
    return "\n".join(lines)


def first_documents(documents: Sequence[Mapping[str, Any]]) -> str:
    """The same table with as many rows as Dagster shows at once."""
    most = 0
    while most < len(documents) and len(documents_table(documents, most + 1)) < SHOWN_AT_ONCE:
        most += 1
    return documents_table(documents, most)


def _name(document: Mapping[str, Any]) -> str:
    """Path of a document as it is, or its id where the path would break the table."""
    path = document["path"]
    return document["document_id"] if set(path) & {"|", "`", "\n"} else path
