"""Questions are written to a file for review, so that reading it again finds the same chunks.

JSONL has a row per question. Argilla's JSON is what `Dataset.records.from_json` reads and
`to_json` writes; the dataset that takes it has the fields `question`, `chunk` and, not required,
`answer`, and may ask for `edited_question` (a text) and `keep` (a label: `no` rejects). Its texts
are marked where a spreadsheet would take them for formulas; JSONL holds them as they are.
Both are formats of `labelled/files.py`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl

from embed_assets.errors import ProjectError, SettingsError
from embed_assets.places import RemotePath
from embed_assets.questions.formulas import mark_formulas
from embed_assets.questions.labelled.files import CHUNK_BREAK
from embed_assets.questions.statuses import CORPUS_WIDE, KEPT, TOO_VAGUE
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

ExportFormat = Literal["jsonl", "argilla"]
ExportStatus = Literal["kept", "all"]
FORMATS: Mapping[str, ExportFormat] = {".jsonl": "jsonl", ".json": "argilla"}


def export_questions(
    settings: Settings, file: Path, file_format: ExportFormat | None, status: ExportStatus
) -> dict[str, Any]:
    """Write the warehouse's questions to a file. Returns path, format and questions (how many).

    file_format: by the file's suffix where it is None. SettingsError if there is none for the
    suffix, or the file is one that questions are read from; ProjectError if there are none.
    """
    chosen = file_format or FORMATS.get(file.suffix.lower())
    if chosen is None:
        raise SettingsError(
            f"{file}: no format for this suffix. Name it .jsonl or .json, or give --format."
        )
    file = Path(os.path.abspath(file.expanduser()))
    for source in settings.labelled_files:
        if isinstance(source, RemotePath):
            continue
        if file.resolve() == source.resolve() or source.resolve() in file.resolve().parents:
            raise SettingsError(
                f"{file}: questions are read from here (EMBED_ASSETS_LABELLED); an export would "
                "replace people's with the generator's. Export to another file."
            )
    warehouse = Warehouse.of(settings)
    questions = exported_questions(warehouse, status)
    if questions.is_empty():
        raise ProjectError(
            f"There are no questions in {warehouse.name}. `embed-assets ingest` makes them."
        )
    rows = questions.to_dicts()
    if chosen == "jsonl":
        text = "".join(f"{json.dumps(_row(row), ensure_ascii=False)}\n" for row in rows)
    else:
        text = json.dumps([_argilla_record(row) for row in rows], ensure_ascii=False, indent=1)
    write_whole(file, text)
    return {"path": str(file), "format": chosen, "questions": len(rows)}


def exported_questions(warehouse: Warehouse, status: ExportStatus) -> pl.DataFrame:
    """Questions with the texts of their chunks, best first, and the page of the best.

    A question that any chunk of its file answers has neither: it names the file alone. file_name is
    the path, with `./` where it would be taken for that of a file further down too. What a filter
    over the whole corpus dropped is left out: read again, it would pass for a person's, which no
    filter drops.
    """
    questions = warehouse.read(
        "WITH places AS (SELECT document_id, chunk_id, any_value(chunk_text) AS text, "
        "min(page_start) AS page, min(chunk_index) AS place FROM chunks GROUP BY ALL), "
        "files AS (SELECT document_id, list(chunk_id ORDER BY place) AS chunk_ids "
        "FROM places GROUP BY document_id), "
        "answers AS (SELECT question_id, document_id, unnest(relevant_chunk_ids) AS chunk_id, "
        "generate_subscripts(relevant_chunk_ids, 1) AS rank FROM synthetic_questions), "
        "found AS (SELECT question_id, list(text ORDER BY rank) AS chunk_text, "
        "arg_min(page, rank) AS page FROM answers JOIN places USING (document_id, chunk_id) "
        "GROUP BY question_id) "
        "SELECT q.question, r.path AS file_name, f.page, f.chunk_text, q.answer, q.purpose, "
        "q.kind, q.generator, q.status, q.score, q.question_id, "
        "q.status = ? OR (q.purpose = 'test' AND len(w.chunk_ids) > 1 "
        "AND q.relevant_chunk_ids = w.chunk_ids) AS whole_file "
        "FROM synthetic_questions q JOIN raw_pdfs r USING (document_id) "
        "LEFT JOIN found f USING (question_id) LEFT JOIN files w USING (document_id) "
        "WHERE q.question <> '' AND (? = 'all' OR q.status = ?) "
        "AND q.status NOT IN (SELECT unnest(?::VARCHAR[])) ORDER BY r.path, q.question_id",
        [TOO_VAGUE, status, KEPT, list(CORPUS_WIDE)],
    )
    paths = list(warehouse.paths().values())
    elsewhere = [path.rpartition("/")[2] for path in paths if "/" in path]
    name = pl.col("file_name")
    unmistakable = pl.when(name.is_in(elsewhere)).then(pl.lit("./") + name).otherwise(name)
    place = pl.when(pl.col("whole_file").not_()).then(pl.col("page", "chunk_text"))
    return questions.with_columns(place, unmistakable.alias("file_name")).drop("whole_file")


def _row(question: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in question.items() if value is not None}
    if len(row.get("chunk_text", [])) == 1:
        [row["chunk_text"]] = row["chunk_text"]
    return row


def _argilla_record(question: Mapping[str, Any]) -> dict[str, Any]:
    texts = {
        "question": question["question"],
        "chunk": CHUNK_BREAK.join(question["chunk_text"] or []),
        "answer": question["answer"],
    }
    others = {name: question[name] for name in question if name not in ("chunk_text", *texts)}
    return {
        "id": others.pop("question_id"),
        "fields": _marked(texts),
        "metadata": _marked(others),
        "suggestions": {},
        "responses": {},
        "vectors": {},
    }


def _marked(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Cells that hold something. People take Argilla's records on to spreadsheets."""
    return {
        name: mark_formulas(value, CHUNK_BREAK) if isinstance(value, str) else value
        for name, value in cells.items()
        if value is not None
    }


def write_whole(file: Path, text: str) -> None:
    """All or nothing: nobody reads half a file, and a failure leaves the old one as it was."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SettingsError(f"{file}: {error.strerror}. Export to another file.") from error
