"""What a version was made from as tables, for the UI and for MLflow."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from embed_assets.grouping import ONE_EACH, Grouping
from embed_assets.resources.pages import asset_page, asset_path
from embed_assets.wording import counted, printable

LISTED = 500
"""Rows of a table: what is longer makes a page of Dagster slow."""
ENDS_CODE = frozenset("|`\n\r")
"""What ends code in markdown, or a cell or a line of a table."""
SHOWN_AT_ONCE = 1000
"""Characters of markdown from which on Dagster shows it on a click alone."""


def documents_table(
    documents: Sequence[Mapping[str, Any]], most: int = LISTED, grouping: Grouping = ONE_EACH
) -> str:
    """The documents that made a version as a markdown table, those with most questions first.

    documents: of `version_lineage`. most: rows; how many more there are stands below. Each path
    leads to the page of the document's partition in Dagster.
    """
    in_order = sorted(documents, key=lambda row: (-row["questions"], row["path"]))
    lines = ["| document | questions | sha256 |", "| --- | ---: | --- |"]
    lines += [
        f"| [{_name(row)}]({asset_path('raw_pdfs', grouping.partition_of(row['document_id']))}) "
        f"| {row['questions']} | {row['sha256'][:12]} |"
        for row in in_order[:most]
    ]
    if len(in_order) > most:
        lines += ["", f"… and {len(in_order) - most} more"]
    return "\n".join(lines)


def first_documents(documents: Sequence[Mapping[str, Any]], grouping: Grouping = ONE_EACH) -> str:
    """The same table with as many rows as Dagster shows at once."""
    most, table = 0, partial(documents_table, documents, grouping=grouping)
    while most < len(documents) and len(table(most + 1)) < SHOWN_AT_ONCE:
        most += 1
    return table(most)


def documents_list(
    documents: Sequence[Mapping[str, Any]], room: int, grouping: Grouping = ONE_EACH
) -> str:
    """The documents that made a version as a markdown list, as many as fit into `room` characters.

    For pages that Dagster doesn't serve, each with a link to its partition's page there.
    """
    rest = f"- … {len(documents)} in all"
    lines: list[str] = []
    for row in documents:
        page = asset_page("raw_pdfs", grouping.partition_of(row["document_id"]))
        line = (
            f"- [{_name(row)}]({page}) "
            f"(sha256 {row['sha256'][:8]}, {counted(row['questions'], 'pair')})"
        )
        room -= len(line) + 1
        if room < len(rest):
            return "\n".join([*lines, rest])
        lines.append(line)
    return "\n".join(lines)


def _name(document: Mapping[str, Any]) -> str:
    """Path of a document as code, in which markdown and HTML mean nothing.

    Its id where the path would end the code or the line.
    """
    path = document["path"]
    shown = path if printable(path) == path and not set(path) & ENDS_CODE else None
    return f"`{shown or document['document_id']}`"
