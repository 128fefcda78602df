"""training_pairs: every question that trains, chooses or tests a model, with its split."""

from collections import Counter

import dagster as dg
import polars as pl

from embed_assets.pairs.splits import SPLITS, Assignments, assign_splits, check_enough
from embed_assets.questions.labelled_files import read_labelled
from embed_assets.questions.match_report import match_report, match_table
from embed_assets.resources.warehouse import Warehouse, column_lineage, data_version
from embed_assets.settings import Settings
from embed_assets.tables import TABLES

PAIRS_VERSION = "2"


@dg.asset(deps=["chunks", "synthetic_questions"], group_name="pairs", kinds={"python", "duckdb"})
def training_pairs(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """(anchor, positive) pairs and test questions, in splits that never move."""
    input_version = warehouse.version_of("chunks", "synthetic_questions")
    pairs, assignments = make_pairs(warehouse)
    documents = warehouse.read("SELECT count(DISTINCT document_id) AS n FROM chunks")["n"][0]
    check_enough(pairs["split"], documents, warehouse.count("chunks"))
    version = data_version("training_pairs", pairs)
    warehouse.replace("split_assignments", assignments)
    warehouse.replace("training_pairs", pairs)
    warehouse.record(
        "training_pairs",
        code_version=context.assets_def.get_asset_spec().code_version or "",
        input_version=input_version,
        data_version=version,
        run_id=context.run_id,
    )
    labelled = read_labelled(settings.labelled_files, settings.labelled_purpose)
    report = match_report(labelled, warehouse.read("SELECT * FROM chunks"), warehouse.paths())
    unmatched = report.filter(pl.col("reason").is_not_null())
    for source, file_name, question, reason in unmatched.select(
        "source", "file_name", "question", "reason"
    ).iter_rows():
        context.log.warning(f"{source}: {reason}: '{question}' ({file_name or 'any file'})")
    counts = Counter(pairs["split"])
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version),
        metadata={
            "dagster/row_count": pairs.height,
            **column_lineage("training_pairs"),
            **{split: counts[split] for split in SPLITS},
            "labelled_came": report.height,
            "labelled_matched": report.height - unmatched.height,
            "labelled_failed": unmatched.height,
            "labelled_matches": dg.MetadataValue.md(match_table(report)),
            "preview": dg.MetadataValue.md(_preview(pairs)),
        },
    )


def make_pairs(warehouse: Warehouse) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of training_pairs and of split_assignments, from what the warehouse holds."""
    questions = warehouse.read(
        "SELECT q.question_id, q.question AS anchor, c.chunk_text AS positive, q.chunk_id, "
        "q.relevant_chunk_ids, q.document_id, q.purpose, q.score FROM synthetic_questions q "
        "JOIN (SELECT DISTINCT chunk_id, chunk_text FROM chunks) c USING (chunk_id) "
        "WHERE q.status = 'KEPT' ORDER BY q.question_id"
    )
    stored = warehouse.read("SELECT kind, id, split FROM split_assignments")
    split, assignments = assign_splits(
        merge_test_questions(questions).drop("score"),
        warehouse.read("SELECT DISTINCT chunk_id, document_id FROM chunks"),
        dict(warehouse.read("SELECT document_id, sha256 FROM raw_pdfs").iter_rows()),
        Assignments(_of_kind(stored, "document"), _of_kind(stored, "chunk")),
    )
    rows = [
        {"kind": kind, "id": key, "split": name}
        for kind, known in (("document", assignments.documents), ("chunk", assignments.chunks))
        for key, name in known.items()
    ]
    pairs = split.rename({"chunk_id": "global_chunk_id"}).drop("purpose").sort("question_id")
    return pairs, pl.DataFrame(rows, schema=TABLES["split_assignments"].schema)


def merge_test_questions(questions: pl.DataFrame) -> pl.DataFrame:
    """The questions, those for testing once per text, with every chunk that answers it anywhere.

    questions: as selected in make_pairs. A person's question found in two documents, or asked in
    two files, is one question to a retriever: it keeps the id, chunk and document of its best
    match.
    """
    is_test = pl.col("purpose") == "test"
    tests = questions.filter(is_test).sort(
        "score", "question_id", descending=[True, False], nulls_last=True
    )
    kept = [name for name in questions.columns if name not in ("anchor", "relevant_chunk_ids")]
    merged = tests.group_by("anchor", maintain_order=True).agg(
        pl.col(kept).first(),
        pl.col("relevant_chunk_ids").explode().unique(maintain_order=True),
    )
    return pl.concat([questions.filter(~is_test), merged.select(questions.columns)])


def _of_kind(stored: pl.DataFrame, kind: str) -> dict[str, str]:
    return dict(stored.filter(pl.col("kind") == kind).select("id", "split").iter_rows())


def _preview(pairs: pl.DataFrame) -> str:
    rows = pairs.filter(pl.col("split") == "train").head(8)
    lines = ["| anchor | positive |", "| --- | --- |"]
    lines += [
        f"| {_cell(anchor, 120)} | {_cell(positive, 200)} |"
        for anchor, positive in rows.select("anchor", "positive").iter_rows()
    ]
    return "\n".join(lines)


def _cell(text: str, limit: int) -> str:
    line = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return line if len(line) <= limit else f"{line[:limit]}…"


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of the rules by which splits are made."""
    return {"training_pairs": PAIRS_VERSION}
