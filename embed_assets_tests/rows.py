"""Rows of the warehouse's tables, of one document each."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from embed_assets.tables import TABLES

NOW = datetime(2026, 11, 22, 9, 30, 0, 123456, tzinfo=UTC)


def pages(document_id: str, *texts: str) -> pl.DataFrame:
    """Rows of parsed_markdown of one document, a page per text."""
    return pl.DataFrame(
        {
            "document_id": document_id,
            "page": list(range(1, len(texts) + 1)),
            "markdown": list(texts),
            "parser_status": "SUCCESS",
            "error": None,
            "parser": "p",
            "text_share": None,
            "text_source": None,
        },
        schema=TABLES["parsed_markdown"].schema,
    )


def chunk(document_id: str, text: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "document_id": [document_id],
            "chunk_index": [0],
            "chunk_id": [f"md5 of {text}"],
            "chunk_text": [text],
            "heading_path": [""],
            "page_start": [1],
            "page_end": [1],
            "token_count": [2],
            "file_name": ["a.pdf"],
        }
    )


def raw_pdf(document_id: str, content: bytes = b"%PDF") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "document_id": [document_id],
            "path": [f"folder/{document_id}.pdf"],
            "file_name": [f"{document_id}.pdf"],
            "content": [content],
            "sha256": ["00"],
            "size_bytes": [len(content)],
            "modified_at": [NOW],
            "loaded_at": [NOW],
            "loaded_by": ["run"],
            "etag": [None],
        },
        schema=TABLES["raw_pdfs"].schema,
    )


def question(document_id: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "question_id": [f"q-{document_id}"],
            "chunk_id": ["c"],
            "relevant_chunk_ids": [["c"]],
            "document_id": [document_id],
            "question": ["Why?"],
            "answer": [None],
            "kind": ["labelled"],
            "purpose": ["test"],
            "generator": ["labelled:f"],
            "prompt_version": ["1"],
            "status": ["KEPT"],
            "reason": None,
            "score": [None],
            "input_tokens": [0],
            "output_tokens": [0],
            "created_at": [NOW],
        },
        schema=TABLES["synthetic_questions"].schema,
    )


def filled(table: str, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows of a table; what isn't given is empty, or null where it may be."""
    columns, schema = TABLES[table].columns.items(), TABLES[table].schema
    empty = {name: None if column.nullable else _empty(column.dtype) for name, column in columns}
    return pl.DataFrame([{**empty, **row} for row in rows], schema=schema)


def model(version: str, **known: Any) -> pl.DataFrame:
    """A row of the table of models."""
    return filled("models", [{"version": version, **known}])


def _empty(dtype: Any) -> Any:
    if isinstance(dtype, pl.List):
        return []
    if isinstance(dtype, pl.Datetime):
        return NOW
    return b"" if dtype == pl.Binary else "" if dtype == pl.String else 0
