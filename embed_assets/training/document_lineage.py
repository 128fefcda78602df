"""What became of a document: its chunks and questions, who learned from it, how it is found.

A document is known by its path, by a former path, or by its id; by the record of versions and of
what left or was forgotten, where it is no longer in the folder.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from embed_assets.documents.entries import spellings
from embed_assets.errors import ProjectError
from embed_assets.evaluation.scoring import PART_IDENTITY
from embed_assets.models.registry import aliases
from embed_assets.pairs.splits import TEST_SPLITS, TRAIN, UNSEEN
from embed_assets.partitions import document_id
from embed_assets.resources.redaction import FORGOTTEN
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

ASKED = ("question", "chunk_id")
NEAREST = 3
"""Names that are offered where there is no document of the name that was given."""

_FIGURES = """
WITH newest AS (
    SELECT questions_version, corpus_version FROM evaluations WHERE model IN ('base', 'tuned')
    ORDER BY model = 'tuned' DESC, measured_at DESC LIMIT 1
), measured AS (
    SELECT identity, bool_or(model = 'base') AS is_base, arg_max(run_id, measured_at) AS run_id,
        arg_max(model, measured_at) AS model,
        arg_max(list_max(dimensions), measured_at) AS dimension
    FROM evaluations JOIN newest USING (questions_version, corpus_version)
    WHERE NOT starts_with(identity, ?) GROUP BY identity
), versions AS (
    SELECT e.identity, 'v' || max(m.version::INTEGER) || any_value(replace(e.model, 'tuned', ''))
        AS name
    FROM evaluations e JOIN models m ON e.run_id = m.mlflow_run_id
    WHERE e.model IN ('tuned', 'tuned + bm25') GROUP BY e.identity
)
SELECT CASE WHEN is_base THEN 'base' ELSE coalesce(name, model) END AS model,
    avg(ndcg_at_10) AS ndcg_at_10, count(*) AS questions
FROM measured JOIN query_results USING (run_id, model, dimension)
JOIN training_pairs p USING (question_id) LEFT JOIN versions USING (identity)
WHERE p.document_id = ? AND p.split IN (SELECT unnest(?::VARCHAR[]))
GROUP BY ALL ORDER BY ALL
"""
"""NDCG@10 over the test questions about a document: models that were measured on the same questions
and corpus, those of the newest comparison.
"""

_QUESTIONS = """
WITH places AS (
    SELECT chunk_id, min_by([page_start, page_end], chunk_index) AS pages
    FROM chunks WHERE document_id = $1 GROUP BY chunk_id
)
SELECT q.question_id, q.question, q.kind, p.split, q.status, q.chunk_id, c.pages
FROM synthetic_questions q LEFT JOIN training_pairs p USING (question_id)
LEFT JOIN places c ON q.chunk_id = c.chunk_id
WHERE q.document_id = $1 ORDER BY c.pages NULLS LAST, q.question_id
"""


@dataclass(frozen=True)
class Document:
    """A document that is or was on record.

    ids: those that it has or had, which another one may have by now. contents: what it holds, or
    held when it left, by sha256. departed_at, forgotten_at: when it left the folder, or was
    forgotten. versions: those that learned from it by the record of what was forgotten.
    """

    document_id: str
    path: str
    ids: frozenset[str]
    contents: frozenset[str]
    departed_at: datetime | None = None
    forgotten_at: datetime | None = None
    versions: frozenset[str] = field(default_factory=frozenset)


def document_lineage(settings: Settings, named: str) -> dict[str, Any]:
    """What `lineage --document --json` prints. ProjectError if there is no such document.

    named: its path in the PDF folder, a former one, or its id.
    """
    warehouse = Warehouse.of(settings)
    pdfs = warehouse.read("SELECT document_id, path, sha256 FROM raw_pdfs ORDER BY path")
    document = _find(warehouse, pdfs, named)
    others = pdfs.filter(pl.col("document_id") != document.document_id)
    learned = _learned(warehouse, document, others)
    pairs = _pairs(settings, warehouse, document, others, learned)
    try:
        held, silent = aliases(warehouse, settings), None
    except ProjectError as error:
        held, silent = None, str(error)
    key = document.document_id
    split = warehouse.read(
        "SELECT split FROM split_assignments WHERE kind = 'document' AND id = ?", [key]
    )
    chunks = warehouse.read("SELECT count(*) FROM chunks WHERE document_id = ?", [key]).item()
    return {
        "document_id": key,
        "path": document.path,
        "on_record": key in pdfs["document_id"],
        "departed_at": document.departed_at and document.departed_at.isoformat(),
        "forgotten": document.forgotten_at is not None,
        "forgotten_at": document.forgotten_at and document.forgotten_at.isoformat(),
        "held_out": UNSEEN in split["split"],
        "versions": [
            {**row, "aliases": held and [name for name in held if held[name] == row["version"]]}
            for row in learned
        ],
        "mlflow_error": silent,
        "chunks": chunks,
        "questions": list(_questions(warehouse, key, pairs)),
        "figures": warehouse.read(_FIGURES, [PART_IDENTITY, key, list(TEST_SPLITS)]).to_dicts(),
    }


def _find(warehouse: Warehouse, pdfs: pl.DataFrame, named: str) -> Document:
    """The document of this name: on record, else moved, gone, forgotten, or known to a version."""
    wanted = spellings(named)
    former = dict(warehouse.read("SELECT path, document_id FROM former_paths").iter_rows())
    here = {key: (path, sha256) for key, path, sha256 in pdfs.iter_rows()}
    ids: dict[str, set[str]] = {key: {key} for key in here}
    names = {name: key for key, (path, _) in here.items() for name in (key, path)}
    for path, key in former.items():
        if key in here:
            before = document_id(PurePosixPath(path))
            ids[key].add(before)
            names.setdefault(path, key)
            names.setdefault(before, key)
    for name in (name for name in wanted if name in names):
        path, sha256 = here[names[name]]
        return Document(names[name], path, frozenset(ids[names[name]]), frozenset({sha256}))
    forgotten = warehouse.read("SELECT * FROM forgotten ORDER BY forgotten_at")
    departed = warehouse.read("SELECT * FROM departed ORDER BY departed_at")
    trained = warehouse.read(
        "SELECT d.* FROM model_documents d JOIN models m USING (version) ORDER BY m.trained_at"
    )
    for rows in (departed, forgotten, trained):
        found = rows.filter(pl.col("path").is_in(wanted) | pl.col("document_id").is_in(wanted))
        if found.height:
            return _gone(rows.filter(document_id=found["document_id"][-1]))
    raise _no_such_document(warehouse, named, [*names, *departed["path"], *trained["path"]])


def _gone(rows: pl.DataFrame) -> Document:
    """A document that is no longer on record. rows: all of one table about it, the newest last."""
    row = rows.row(-1, named=True)
    key = row["document_id"]
    return Document(
        key,
        row["path"],
        # Of one that was forgotten, versions know this name alone.
        frozenset({key, f"{FORGOTTEN}-{key[-8:]}"}),
        frozenset(rows["sha256"]) - {""},
        row.get("departed_at"),
        row.get("forgotten_at"),
        frozenset(version for versions in rows["versions"] for version in versions)
        if "versions" in rows.columns
        else frozenset(),
    )


def _no_such_document(warehouse: Warehouse, named: str, known: list[str]) -> ProjectError:
    """The error that no document has this name, with the nearest names."""
    if not known:
        return ProjectError(f"There is no document yet in {warehouse.name}.", named)
    same_file = [name for name in known if PurePosixPath(name).name == PurePosixPath(named).name]
    near = dict.fromkeys([*same_file, *difflib.get_close_matches(named, known, NEAREST)])
    hint = f"; the nearest are {', '.join(list(near)[:NEAREST])}" if near else ""
    return ProjectError(f"no document on record has this path or id{hint}.", named)


def _is_of(document: Document, others: pl.DataFrame) -> pl.Expr:
    """Whether a row of a version's documents or pairs is about this document.

    One of its content is, unless it is named after another document that is on record, which may be
    a copy. One of its name is, unless another one has that name or that content by now. others: the
    documents that are on record beside it.
    """
    its_content = pl.col("sha256").is_in(document.contents)
    its_name = pl.col("document_id").is_in(document.ids)
    others_content = pl.col("sha256").is_in(others["sha256"].implode())
    others_name = pl.col("document_id").is_in(others["document_id"].implode())
    return its_content & (its_name | ~others_name) | its_name & ~others_name & ~others_content


def _learned(
    warehouse: Warehouse, document: Document, others: pl.DataFrame
) -> list[dict[str, Any]]:
    """Versions that learned from a document, the newest first, with how many questions.

    same_content: whether it held then what it holds now, or held when it left.
    """
    trained = warehouse.read(
        "SELECT version, document_id, sha256, questions FROM model_documents "
        "JOIN models USING (version) ORDER BY trained_at DESC"
    )
    rows = (
        trained.filter(_is_of(document, others))
        .group_by("version", maintain_order=True)
        .agg(
            pl.col("questions").sum(),
            same_content=pl.col("sha256").is_in(document.contents).any(),
        )
        .to_dicts()
    )
    missing = document.versions - {row["version"] for row in rows}
    return rows + [
        {"version": version, "questions": 0, "same_content": False}
        for version in sorted(missing, key=int, reverse=True)
    ]


def _pairs(
    settings: Settings,
    warehouse: Warehouse,
    document: Document,
    others: pl.DataFrame,
    learned: list[dict[str, Any]],
) -> dict[str, pl.DataFrame]:
    """What each version learned of a document, of the pairs kept with it, by version.

    question, chunk_id, question_id. Nothing of one that was forgotten: its texts are redacted.
    """
    if document.forgotten_at is not None:
        return {}
    files = dict(warehouse.read("SELECT version, pairs FROM models").iter_rows())
    kept: dict[str, pl.DataFrame] = {}
    for version in (row["version"] for row in learned):
        file = settings.home / Path(files.get(version) or "")
        if file.is_file():
            theirs = pl.scan_parquet(file).filter(_is_of(document, others))
            named = theirs.select("chunk_id", "question_id", question="anchor")
            kept[version] = named.unique(ASKED, keep="first", maintain_order=True).collect()
    return kept


def _questions(
    warehouse: Warehouse, key: str, pairs: Mapping[str, pl.DataFrame]
) -> Iterator[dict[str, Any]]:
    """A document's questions by page, each with the versions that learned it.

    Those that only versions know come last: what they were made by is no longer on record.
    """
    versions: dict[tuple[str, str], list[str]] = {}
    learned: dict[tuple[str, str], dict[str, str]] = {}
    for version, rows in pairs.items():
        for row in rows.sort("question_id").iter_rows(named=True):
            versions.setdefault(_asked(row), []).append(version)
            learned.setdefault(_asked(row), row)
    on_record = warehouse.read(_QUESTIONS, [key])
    for row in on_record.iter_rows(named=True):
        learned.pop(_asked(row), None)
        yield row | {"versions": versions.get(_asked(row), [])}
    unknown = dict.fromkeys(on_record.columns) | {"split": TRAIN}
    for asked, row in learned.items():
        yield unknown | row | {"versions": versions[asked]}


def _asked(row: Mapping[str, Any]) -> tuple[str, str]:
    """What a question is by its content. Its question_id is made with the document's name."""
    question, chunk_id = (row[name] for name in ASKED)
    return question, chunk_id
