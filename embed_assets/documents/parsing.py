"""Documents become rows of parsed_markdown in the worker pool, or a row that says why not."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import polars as pl

from embed_assets.documents.reading import (
    AS_IT_IS,
    CUT_OFF,
    PARSER,
    Page,
    Reading,
    count_pages,
    is_unfinished,
    parse_pdf,
)
from embed_assets.resources.ledger import Cause, Failure, Slices
from embed_assets.resources.warehouse import Warehouse
from embed_assets.resources.workers import Outcome, WorkerPool
from embed_assets.tables import TABLES
from embed_assets.terminal import progress_bar
from embed_assets.wording import counted

LISTED_PAGES = 10
NO_CHUNK = "has text, but no chunk came of it"
NOTHING_THERE = "blank, or small drawings alone"
COUNT_TIMEOUT = 30.0
"""Seconds for counting the pages of a document; one that takes longer counts as one page."""
NOT_READ = "the file was not read"
KEPT = f"the file {CUT_OFF}: the text of the one before stays"
PASSING = frozenset({Cause.PROCESS_ENDED, Cause.NO_MEMORY})
"""Causes that say nothing of the file."""


@dataclass(frozen=True)
class PartlyRead:
    """What a document lacks. pages: those of which text is missing. share: of the text that was
    read, the mean of all pages that have some; None where it isn't known.
    """

    pages: list[int]
    share: float | None
    error: str

    @property
    def in_words(self) -> str:
        """The pages, and the reason of most of them."""
        named = ", ".join(map(str, self.pages[:LISTED_PAGES]))
        more = f" and {len(self.pages) - LISTED_PAGES:,} more" if self.pages[LISTED_PAGES:] else ""
        pages = "page" if len(self.pages) == 1 else "pages"
        share = "" if self.share is None else f"{self.share:.0%} of its text; "
        return f"{share}{pages} {named}{more}: {self.error}"


def parse_documents(
    raw_pdfs: pl.DataFrame,
    document_ids: Collection[str],
    pool: WorkerPool,
    reading: Reading = AS_IT_IS,
    known: Collection[str] = (),
) -> Slices:
    """Rows of parsed_markdown for these documents, whatever state their files are in.

    raw_pdfs: document_id, file_name, content. What a passing cause kept from being read has no
    rows: a status is a fact about the file. known: documents with text from another file; of one
    whose file is cut off now, that text stays.
    """
    there = raw_pdfs.sort("document_id")
    ids, contents = there["document_id"].to_list(), there["content"].to_list()
    rows: list[dict[str, Any]] = []
    incomplete: dict[str, Failure] = {}
    not_made = {
        key: Failure(Cause.UNREADABLE_FILE, NOT_READ) for key in set(document_ids) - set(ids)
    }
    if ids:
        with pool.start(len(ids)) as workers:
            pages = [
                of_document.result or 1
                for of_document in workers.map(
                    partial(count_pages, reading=reading), contents, timeout=COUNT_TIMEOUT
                )
            ]
            ended = 0
            with progress_bar("Parsing PDFs", sum(pages), "page") as bar:

                def move_on(done: Sequence[int]) -> None:
                    at_work = map(min, done[ended:], pages[ended:])
                    bar.update(max(0, sum(pages[:ended]) + sum(at_work) - bar.n))

                parse = partial(parse_pdf, reading=reading)
                parsed = workers.map(parse, contents, watch=move_on)
                for key, outcome in zip(ids, parsed, strict=True):
                    failure = outcome.failure
                    if failure is not None and failure.cause in PASSING:
                        not_made[key] = failure
                    elif key in known and is_unfinished(outcome.item):
                        not_made[key] = Failure(Cause.CUT_OFF, KEPT)
                    else:
                        rows += _rows(key, outcome)
                        if again := _may_be_more(outcome, reading):
                            incomplete[key] = again
                    ended += 1
                    said = f"{ended} of {counted(len(ids), 'document')}"
                    said += f", next {ids[ended]}" if ended < len(ids) else ""
                    bar.set_postfix_str(said, refresh=False)
                    move_on([0] * len(ids))
    frame = pl.DataFrame(rows, schema=TABLES["parsed_markdown"].schema)
    return Slices(frame, not_made=not_made, incomplete=incomplete)


def known_by_other_files(warehouse: Warehouse, document_ids: Sequence[str]) -> set[str]:
    """Documents whose text is from another file than the one on record."""
    rows = warehouse.read(
        "SELECT document_id FROM raw_pdfs r JOIN materializations m USING (document_id) "
        "WHERE m.asset = 'parsed_markdown' AND m.input_version <> r.sha256 AND document_id IN "
        "(SELECT document_id FROM parsed_markdown WHERE parser_status = 'SUCCESS') "
        "AND document_id IN (SELECT unnest(?::VARCHAR[]))",
        [list(document_ids)],
    )
    return set(rows["document_id"])


def _may_be_more(outcome: Outcome[bytes, list[Page]], reading: Reading) -> Failure | None:
    """Why a document is to be read again once a limit or a setting is another."""
    failure, tried = outcome.failure, reading.tried_with
    if failure is None:
        if pages := [page.number for page in outcome.result or () if page.needs_ocr]:
            said = f"{counted(len(pages), 'page')} without usable text"
            return Failure(Cause.NEEDS_OCR, said, tried_with=tried[Cause.NEEDS_OCR])
        return None
    if failure.cause in tried:
        return replace(failure, tried_with=tried[failure.cause])
    return failure if failure.cause is Cause.TIME_LIMIT else None


def _rows(document_id: str, outcome: Outcome[bytes, list[Page]]) -> list[dict[str, Any]]:
    """Rows of a document's pages, or one of page 0 that says why it has none."""
    pages = outcome.result or []
    if outcome.failure is not None:
        pages = [Page(0, "", outcome.failure.error)]
    elif all(page.error for page in pages):
        pages = [replace(pages[0], number=0)]
    elif not any(page.markdown for page in pages):
        return [_row(document_id, Page(0, "", _why_empty(pages), 0.0), "EMPTY")]
    return [_row(document_id, page) for page in pages]


def _why_empty(pages: Sequence[Page]) -> str:
    """Why no page has text, by what is said of most of those that have something to lose."""
    lacks = Counter(page.error or page.lack for page in pages)
    del lacks[None]
    [(reason, _)] = lacks.most_common(1) or [(NOTHING_THERE, 0)]
    return f"no text on any page: {reason}"


def _row(document_id: str, page: Page, status: str | None = None) -> dict[str, Any]:
    of_page = "SUCCESS" if page.markdown else "EMPTY"
    return {
        "document_id": document_id,
        "page": page.number,
        "markdown": page.markdown,
        "parser_status": status or ("ERROR" if page.error else of_page),
        "error": page.error or page.lack,
        "parser": PARSER,
        "text_share": page.text_share,
        "text_source": page.source if page.markdown else None,
    }


def partly_read(warehouse: Warehouse) -> dict[str, PartlyRead]:
    """Documents with text of which much is missing, by id."""
    rows = warehouse.read(
        "SELECT document_id, list(page ORDER BY page) FILTER (error IS NOT NULL), "
        "avg(if(parser_status = 'ERROR', 0, text_share)), mode(error) FROM parsed_markdown "
        "WHERE page > 0 GROUP BY document_id "
        "HAVING bool_or(parser_status = 'SUCCESS') AND bool_or(error IS NOT NULL)"
    )
    return {key: PartlyRead(*values) for key, *values in rows.iter_rows()}


def without_chunks(warehouse: Warehouse) -> list[str]:
    """Documents with text that ended in no chunk."""
    rows = warehouse.read(
        "SELECT document_id FROM materializations WHERE asset = 'chunks' AND document_id IN "
        "(SELECT document_id FROM parsed_markdown WHERE parser_status = 'SUCCESS') "
        "AND document_id NOT IN (SELECT document_id FROM chunks) ORDER BY document_id"
    )
    return rows["document_id"].to_list()


def document_statuses(
    warehouse: Warehouse, document_ids: Sequence[str] | None = None
) -> pl.DataFrame:
    """One row per document: document_id, parser_status, error, pages; of all without ids.

    A document with text on one page is a SUCCESS, whatever its other pages are.
    """
    which = "" if document_ids is None else "WHERE document_id IN (SELECT unnest(?::VARCHAR[])) "
    return warehouse.read(
        "SELECT document_id, CASE WHEN bool_or(parser_status = 'SUCCESS') THEN 'SUCCESS' "
        "ELSE arg_min(parser_status, page) END AS parser_status, "
        "arg_min(error, page) FILTER (error IS NOT NULL) AS error, "
        "count(*) FILTER (page > 0) AS pages "
        f"FROM parsed_markdown {which}GROUP BY document_id ORDER BY document_id",
        [] if document_ids is None else [list(document_ids)],
    )
