"""What Dagster's UI shows of a document's slice, so that a person sees it without a query.

It is made from what stands in the warehouse: the slice of a document that moved shows the same as
one that was just made. A preview quotes the document: it stands under the label `preview`, by
which `redaction.py` finds it. It is a few kilobytes, since Dagster keeps every event.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.grouping import Grouping
from embed_assets.resources.pages import asset_path, run_path
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import TABLES
from embed_assets.wording import counted

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
LISTED = 100
"""Documents of a partition that are listed, at most."""
ADDED_UP = (
    *("pages", "pages_with_text", "chunks", "tokens"),
    *("questions_kept", "questions_by_people", "questions_not_kept"),
    *("input_tokens", "output_tokens", "dagster/partition_row_count"),
)
"""Figures of documents that are figures of several together too."""


def shown_of_slices(
    warehouse: Warehouse, asset: str, document_ids: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Metadata of documents' slices by document: figures, a preview, links to the other stages.

    And why a slice is to be made again, and which versions have learned from a PDF. What questions
    there are is shown by their own stage.
    """
    with warehouse.at_once() as at_once:
        return _shown_of_slices(at_once, asset, list(document_ids))


def _shown_of_slices(
    warehouse: Warehouse, asset: str, keys: Sequence[str]
) -> dict[str, dict[str, Any]]:
    table = TABLES[asset]
    columns = [name for name, dtype in table.schema.items() if dtype != pl.Binary]
    chosen = "document_id IN (SELECT unnest(?::VARCHAR[]))"
    rows = warehouse.read(f"SELECT {', '.join(columns)} FROM {asset} WHERE {chosen}", [keys])
    tried = warehouse.read(
        f"SELECT document_id, error FROM attempts WHERE {chosen} AND asset = ?", [keys, asset]
    )
    failed = dict(tried.iter_rows())
    learned = _learned(warehouse, keys) if asset == "raw_pdfs" else {}
    return {
        key: {
            **shown_of_slice(asset, key, rows.filter(document_id=key)),
            **learned.get(key, {}),
            **({"failed": failed[key]} if key in failed else {}),
        }
        for key in keys
    }


def shown_of_partitions(
    shown_of: Mapping[str, Mapping[str, Any]], grouping: Grouping
) -> Mapping[str, Mapping[str, Any]]:
    """What partitions show of what documents do. Documents that share one have no previews there.

    Of a preview on such a partition `forget` couldn't tell whose it is.
    """
    if not grouping.partitions:
        return shown_of
    return {
        partition: _together(
            {key: shown_of[key] for key in shown_of if grouping.partition_of(key) == partition}
        )
        for partition in grouping.partitions_of(shown_of)
    }


def _together(shown_of: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What documents show together: sums, and which they are."""
    known = {label for shown in shown_of.values() for label in shown}
    sums = {
        label: sum(shown.get(label, 0) for shown in shown_of.values())
        for label in ADDED_UP
        if label in known
    }
    rows = [(key, shown.get("failed", "")) for key, shown in shown_of.items()]
    made = pl.DataFrame(rows[:LISTED], schema=["document", "failed"], orient="row")
    return {"documents": len(shown_of), **sums, "made": shown_as_table(made)}


def shown_of_slice(asset: str, document_id: str, rows: pl.DataFrame) -> dict[str, Any]:
    """What the rows of a document's slice say."""
    shown = _SHOWN[asset](rows) if asset in _SHOWN else {}
    return {
        "same_document": _links(asset, document_id),
        **shown,
        "dagster/partition_row_count": rows.height,
        "dagster/table_name": f"main.{asset}",
    }


def shown_learned(version: str, questions: int, run_id: str) -> dict[str, Any]:
    """That a version has learned from a document. run_id: Dagster run that trained the version.

    Dagster shows the newest of each label: one label for each version shows them all.
    """
    said = f"{counted(questions, 'pair')} trained [version {version}]({run_path(run_id)})"
    return {f"learned_by_v{version}": dg.MetadataValue.md(said)}


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


def _learned(warehouse: Warehouse, document_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Versions that have learned from what documents hold now, by document, the newest first.

    What one taught under the name of another document that is on record is that one's, which may
    be a copy; but for a name that it had itself before.
    """
    rows = warehouse.read(
        "SELECT r.document_id, m.version, sum(d.questions)::BIGINT, m.dagster_run_id "
        "FROM raw_pdfs r JOIN model_documents d USING (sha256) JOIN models m USING (version) "
        "WHERE r.document_id IN (SELECT unnest(?::VARCHAR[])) AND (d.document_id = r.document_id "
        "OR d.document_id NOT IN (SELECT document_id FROM raw_pdfs) "
        "OR (d.path, r.document_id) IN (SELECT (path, document_id) FROM former_paths)) "
        "GROUP BY ALL ORDER BY any_value(m.trained_at) DESC",
        [list(document_ids)],
    )
    learned: dict[str, dict[str, Any]] = {}
    for key, *taught in rows.iter_rows():
        learned.setdefault(key, {}).update(shown_learned(*taught))
    return learned


def _pdf(rows: pl.DataFrame) -> dict[str, Any]:
    if rows.is_empty():
        return {}
    pdf = rows.row(0, named=True)
    size = round(pdf["size_bytes"] / 1000, 1)
    return {"path": pdf["path"], "sha256": pdf["sha256"], "size_kb": size}


def _pages(rows: pl.DataFrame) -> dict[str, Any]:
    """A document with text on one page is a SUCCESS, whatever its other pages are."""
    if rows.is_empty():
        return {}
    rows = rows.sort("page")
    first = rows.row(0, named=True)
    readable = "SUCCESS" in rows["parser_status"]
    status = "SUCCESS" if readable else first["parser_status"]
    error = None if readable else next(iter(rows["error"].drop_nulls()), None)
    texts = rows.filter(pl.col("page") > 0, pl.col("markdown").str.strip_chars() != "")
    begins = texts.head(PAGES).select("page", begins="markdown")
    return {
        "status": STATUSES.get(status, status),
        **({"unreadable": error} if error else {}),
        "pages": rows.filter(pl.col("page") > 0).height,
        "pages_with_text": texts.height,
        **_lacks(rows),
        "parser": first["parser"],
        **preview(begins, LONGEST_PAGE),
    }


def _lacks(rows: pl.DataFrame) -> dict[str, Any]:
    """What is missing of a document that has text, and which pages were read by OCR."""
    of_pages = rows.filter(pl.col("page") > 0)
    lacking = of_pages.filter(pl.col("error").is_not_null())
    by_ocr = of_pages.filter(text_source="ocr")["page"]
    shares = of_pages["text_share"].drop_nulls()
    return {
        **(
            {"text_share": round(sum(shares) / len(shares), 3)}
            if lacking.height and len(shares)
            else {}
        ),
        **({"read_by_ocr": f"pages {', '.join(map(str, by_ocr))}"} if len(by_ocr) else {}),
        **(
            {
                "missing": shown_as_table(
                    lacking.head(ROWS).select("page", "text_share", why="error")
                )
            }
            if lacking.height
            else {}
        ),
    }


def _chunks(rows: pl.DataFrame) -> dict[str, Any]:
    first = rows.sort("chunk_index").head(ROWS)
    return {
        "chunks": rows.height,
        "tokens": rows["token_count"].sum(),
        **preview(first.select(page="page_start", heading="heading_path", text="chunk_text")),
    }


def _embeddings(rows: pl.DataFrame) -> dict[str, Any]:
    if rows.is_empty():
        return {}
    first = rows.row(0, named=True)
    return {"model_identity": first["model"], "dimension": len(first["embedding"])}


_SHOWN: Mapping[str, Callable[[pl.DataFrame], dict[str, Any]]] = {
    "raw_pdfs": _pdf,
    "parsed_markdown": _pages,
    "chunks": _chunks,
    "chunk_embeddings": _embeddings,
}
