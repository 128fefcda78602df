"""What Dagster's UI shows of a document's slice, so that a person sees it without a query.

A preview quotes the document: it stands under the label `preview`, by which `redaction.py` finds
it. It is a few kilobytes, since Dagster keeps every event.
"""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import polars as pl

from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.resources.pages import asset_path

ROWS = 5
"""Of a preview, at most."""
LONGEST = 160
"""Characters of a text in a table, at most."""
PAGES, LONGEST_PAGE = 3, 400
"""Of parsed markdown: pages, and characters of each."""
STATUSES = {
    "SUCCESS": "text was found",
    "EMPTY": "no text on any page",
    "ERROR": "could not be read",
}
"""parser_status in words."""


def shown_of_slice(asset: str, document_id: str, rows: pl.DataFrame) -> dict[str, Any]:
    """Metadata of a document's slice: its figures, a preview, and links to the same document.

    rows: of the asset's table. What questions there are is shown by their own stage.
    """
    shown = _SHOWN[asset](rows) if asset in _SHOWN else {}
    return {"same_document": _links(asset, document_id), **shown}


def shown_as_table(rows: pl.DataFrame, longest: int = LONGEST) -> dg.TableMetadataValue:
    """Rows as a table that the UI shows without a click. Its texts are cut, and never rendered."""
    columns = [
        dg.TableColumn(name, "int" if dtype.is_integer() else "string")
        for name, dtype in rows.schema.items()
    ]
    records = [
        dg.TableRecord(
            {name: cut(v, longest) if isinstance(v, str) else v for name, v in row.items()}
        )
        for row in rows.iter_rows(named=True)
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def preview(rows: pl.DataFrame, longest: int = LONGEST) -> dict[str, Any]:
    """Rows that quote a document as metadata; nothing where there are none."""
    return {"preview": shown_as_table(rows, longest)} if rows.height else {}


def cut(text: str, longest: int = LONGEST) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text[: 4 * longest].split())
    return line if len(line) <= longest else f"{line[:longest]}…"


def _links(asset: str, document_id: str) -> dg.MarkdownMetadataValue:
    """The other stages of the same document, upstream before downstream."""
    others = [name for name in DOCUMENT_ASSETS if name != asset]
    return dg.MetadataValue.md(
        " · ".join(f"[{name}]({asset_path(name, document_id)})" for name in others)
    )


def _pdf(rows: pl.DataFrame) -> dict[str, Any]:
    return {"size_kb": round(rows["size_bytes"].sum() / 1000, 1)}


def _pages(rows: pl.DataFrame) -> dict[str, Any]:
    if rows.is_empty():
        return {}
    texts = rows.filter(pl.col("page") > 0, pl.col("markdown").str.strip_chars() != "").sort("page")
    first = (texts if texts.height else rows).row(0, named=True)
    begins = texts.head(PAGES).select("page", begins="markdown")
    return {
        "status": STATUSES.get(first["parser_status"], first["parser_status"]),
        **({"unreadable": first["error"]} if first["error"] else {}),
        "pages": rows.filter(pl.col("page") > 0).height,
        "pages_with_text": texts.height,
        "parser": first["parser"],
        **preview(begins, LONGEST_PAGE),
    }


def _chunks(rows: pl.DataFrame) -> dict[str, Any]:
    first = rows.sort("chunk_index").head(ROWS)
    return {
        "chunks": rows.height,
        "tokens": rows["token_count"].sum(),
        **preview(first.select(page="page_start", heading="heading_path", text="chunk_text")),
    }


_SHOWN: Mapping[str, Callable[[pl.DataFrame], dict[str, Any]]] = {
    "raw_pdfs": _pdf,
    "parsed_markdown": _pages,
    "chunks": _chunks,
}
