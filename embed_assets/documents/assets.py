"""raw_pdfs, parsed_markdown and chunks: one partition per document."""

from pathlib import PurePosixPath

import dagster as dg
import polars as pl

from embed_assets.documents.chunking import CHUNKER
from embed_assets.documents.cutting import cut_documents
from embed_assets.documents.entries import Rules
from embed_assets.documents.folder import load_documents, survey
from embed_assets.documents.forgotten import read_forgotten
from embed_assets.documents.ocr import ocr_languages
from embed_assets.documents.parsing import known_by_other_files, parse_documents
from embed_assets.documents.passwords import read_passwords
from embed_assets.documents.reading import PARSER, Reading
from embed_assets.models.card import model_card
from embed_assets.models.identity import tokenizer_name
from embed_assets.partitions import asset
from embed_assets.resources.io_manager import documents_of_run, documents_read, warn_of_failures
from embed_assets.resources.ledger import Slices
from embed_assets.resources.run_tags import BUDGET_TAG
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.resources.workers import WorkerPool
from embed_assets.settings import Settings


@asset("raw_pdfs", kinds={"pdf", "duckdb"})
def raw_pdfs(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> dg.Output[Slices]:
    """Each PDF of the folder as it is, with its sha256.

    A partition is one document; all that follows is made from these bytes.
    """
    rules = Rules.of(settings)
    entries, grouping = survey(settings.pdfs, rules), settings.grouping
    slices = load_documents(
        settings.pdfs,
        documents_of_run(context.run, context.partition_keys, grouping, lambda: entries.documents),
        context.run.run_id,
        read_forgotten(warehouse),
        rules,
        entries=entries,
        chosen=BUDGET_TAG not in context.run.tags,
    )
    warn_of_failures(context, slices)
    # Dagster gives all partitions of one run one data version: a document's sha256 if it is alone,
    # else that of all of them together. The warehouse records it for each, whatever the run.
    hashes = sorted(slices.rows["sha256"])
    version = hashes[0] if len(hashes) == 1 else digest(hashes)
    return dg.Output(slices, data_version=dg.DataVersion(version))


@asset("parsed_markdown", kinds={"python", "duckdb"})
def parsed_markdown(
    context: dg.AssetExecutionContext,
    raw_pdfs: pl.DataFrame,
    pool: WorkerPool,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> Slices:
    """The text of each document as markdown, page by page.

    A document's partition shows how its pages begin, or why it can't be read.
    """
    keys = documents_read(context)
    version = code_versions(settings)["parsed_markdown"]
    known = known_by_other_files(warehouse, keys)
    slices = parse_documents(raw_pdfs, keys, pool, warehouse, version, how_to_read(settings), known)
    warn_of_failures(context, slices)
    return slices


@asset("chunks", kinds={"python", "duckdb"})
def chunks(
    context: dg.AssetExecutionContext,
    parsed_markdown: pl.DataFrame,
    pool: WorkerPool,
    warehouse: Warehouse,
    settings: dg.ResourceParam[Settings],
) -> Slices:
    """Passages that fit the embedding model, with their headings and pages: what a search finds.

    A document's partition shows the first of them.
    """
    card = model_card(settings)
    paths = warehouse.paths(parsed_markdown["document_id"].unique().to_list())
    names = {key: PurePosixPath(path).name for key, path in paths.items()}
    slices = cut_documents(parsed_markdown, names, card, pool, settings.headings)
    warn_of_failures(context, slices)
    return slices


def how_to_read(settings: Settings) -> Reading:
    """Passwords and OCR as they are set. SettingsError where they can't be used."""
    return Reading(read_passwords(settings.pdf_passwords), ocr_languages(settings.ocr))


def code_versions(settings: Settings) -> dict[str, str]:
    """Version of each asset's code and of the settings that shape it."""
    headings = "" if settings.headings == "first" else f", headings {settings.headings}"
    return {
        "raw_pdfs": "1",
        "parsed_markdown": PARSER,
        "chunks": f"{CHUNKER}, {tokenizer_name(settings)}{headings}",
    }
