"""Documents become rows of parsed_markdown in the worker pool, or a row that says why not.

Ranges of pages go through the pool, those of the largest documents first, so that one long document
keeps all workers busy, and what breaks costs a page. Each range is kept as it comes.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any

import polars as pl

from embed_assets.documents.reading import (
    AS_IT_IS,
    CUT_OFF,
    PARSER,
    Page,
    PageRange,
    Reading,
    Source,
    count_shared_pages,
    is_unfinished,
    parse_pages,
    read_range,
    with_levels,
)
from embed_assets.resources.kept_pages import PageKeeper, read_kept_pages
from embed_assets.resources.ledger import Cause, Failure, Slices
from embed_assets.resources.shared_bytes import SharedBytes
from embed_assets.resources.warehouse import Warehouse
from embed_assets.resources.workers import Outcome, WorkerPool, Workers
from embed_assets.tables import TABLES
from embed_assets.terminal import progress_bar
from embed_assets.wording import counted
from embed_assets.words import HAS_WORD

PAGES_AT_ONCE = 16
"""Pages that a worker is given: few enough that little is lost with them and that all workers have
some of a long document, and so many that opening the document costs nothing beside them."""
BYTES_AT_ONCE = 64 << 10
"""So many bytes have PAGES_AT_ONCE pages of text at least: fewer need no second worker."""
LISTED_PAGES = 10
NO_CHUNK = "has text, but no chunk came of it"
NOTHING_THERE = "blank, or small drawings alone"
COUNT_TIMEOUT = 30.0
"""Seconds for counting the pages of a document; one that takes longer is read in one go."""
OCR = "ocr"
"""Beside a kept page: the languages by which it would have been read."""
NOT_READ = "the file was not read"
KEPT = f"the file {CUT_OFF}: the text of the one before stays"
PASSING = frozenset({Cause.PROCESS_ENDED, Cause.NO_MEMORY})
"""Causes that say nothing of the file."""
MOST_BROKEN = {Cause.TIME_LIMIT: 4, Cause.PROCESS_ENDED: 32, Cause.NO_MEMORY: 32}
"""Causes for which the pages of a range are tried one by one, and how many pages of a document may
break so: with so many broken, its other pages are not tried."""


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
        percent = 100 if self.share is None else int(self.share * 100)  # of pages that are there
        share = f"{percent}% of its text; " if percent < 100 else ""
        return f"{share}{pages} {named}{more}: {self.error}"


def parse_documents(
    raw_pdfs: pl.DataFrame,
    document_ids: Collection[str],
    pool: WorkerPool,
    warehouse: Warehouse | None = None,
    version: str = PARSER,
    reading: Reading = AS_IT_IS,
    known: Collection[str] = (),
) -> Slices:
    """Rows of parsed_markdown for these documents, whatever state their files are in.

    raw_pdfs: document_id, sha256, content. warehouse: keeps what was parsed, should the work end
    before all is; pages that it has are not parsed again. version: of all that shapes pages. What a
    passing cause kept from being read has no rows: a status is a fact about the file. known:
    documents with text from another file; of one whose file is cut off now, that text stays.
    """
    found = raw_pdfs.sort("document_id")
    ids_of: dict[str, list[str]] = {}
    for key, sha256 in found.select("document_id", "sha256").iter_rows():
        ids_of.setdefault(sha256, []).append(key)
    different = found.unique("sha256", keep="first", maintain_order=True)
    contents = dict(different.select("sha256", "content").iter_rows())
    rows: list[dict[str, Any]] = []
    incomplete: dict[str, Failure] = {}
    not_made = {
        key: Failure(Cause.UNREADABLE_FILE, NOT_READ)
        for key in set(document_ids).difference(found["document_id"])
    }
    kept = read_kept_pages(warehouse, list(contents), version) if warehouse and contents else {}
    with PageKeeper(warehouse, version) as keeper:
        for document in _parse(contents, ids_of, kept, keeper, pool, reading):
            lost, again = document.lost, _may_be_more(document, reading)
            for key in ids_of[document.sha256]:
                if lost and document.says_nothing:
                    not_made[key] = lost
                elif key in known and document.is_cut_off(contents[document.sha256]):
                    not_made[key] = Failure(Cause.CUT_OFF, KEPT)
                else:
                    rows += _rows(key, document.all_pages)
                    if again:
                        incomplete[key] = again
    frame = pl.DataFrame(rows, schema=TABLES["parsed_markdown"].schema)
    return Slices(frame, not_made=not_made, incomplete=incomplete)


@dataclass
class Parsed:
    """What is known of a document: its pages so far, and by number those that broke, and why.

    count: of its pages; None where it could not be told. Then a failure stands under 0. limit: of
    time, if a page ran into it and was read by its own text.
    """

    sha256: str
    content: SharedBytes
    count: int | None
    pages: dict[int, Page] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    limit: Failure | None = None

    @property
    def size(self) -> int:
        """How many pages it counts for."""
        return self.count or 1

    @property
    def done(self) -> int:
        """Pages of which it is known what becomes of them."""
        return min(self.size, len(self.pages) + len(self.failures))

    @property
    def ended(self) -> bool:
        """Whether it is known of all its pages what becomes of them."""
        return self.done == self.size

    @property
    def all_pages(self) -> list[Page]:
        """Its pages in order, with the reason in place of those that broke."""
        broken = [Page(number, "", why.error) for number, why in self.failures.items()]
        pages = sorted([*self.pages.values(), *broken], key=lambda page: page.number)
        return with_levels(pages)

    def is_cut_off(self, content: bytes) -> bool:
        """Whether the file has no end, and pages may be missing for it. content: its bytes."""
        failed = any(failure.cause is Cause.CUT_OFF for failure in self.failures.values())
        broke_at_its_end = self.count in self.failures and is_unfinished(content)
        return failed or broke_at_its_end or any(page.cut_off for page in self.pages.values())

    @property
    def says_nothing(self) -> bool:
        """Whether so little is known of it, for causes that say nothing of the file, that it is no
        document yet: no text, or less than half its pages.
        """
        passing = sum(failure.cause in PASSING for failure in self.failures.values())
        text = any(page.markdown for page in self.pages.values())
        return passing > 0 and (not text or passing > self.size / 2)

    @property
    def lost(self) -> Failure | None:
        """Why it is to be made again, and which pages are lacking; None where none are."""
        again = {n: why for n, why in self.failures.items() if why.cause in MOST_BROKEN}
        if not again:
            return None
        # One that another try may mend by itself, if there is any.
        _, why = min(again.items(), key=lambda found: (found[1].cause not in PASSING, found[0]))
        if len(again) == self.size:
            return why
        numbers = [str(n) for n, other in sorted(again.items()) if other.cause is why.cause]
        named = ", ".join(numbers[:3]) + (", …" if len(numbers) > 3 else "")
        which = "page" if len(numbers) == 1 else "pages"
        return Failure(why.cause, f"{which} {named}: {why.error}", why.limit)

    def ranges(self) -> Iterator[PageRange]:
        """Pages that are not parsed yet, some at a time."""
        if self.count is None:
            yield PageRange(self.content)
            return
        missing = [index for index in range(self.count) if index + 1 not in self.pages]
        for _, group in groupby(missing, lambda index: index // PAGES_AT_ONCE):
            first, *rest = group
            yield PageRange(self.content, first, (rest or [first])[-1] + 1)

    def take(self, outcome: Outcome[PageRange, list[Page]]) -> list[PageRange]:
        """Take in what became of some pages; gives those to try one by one."""
        at, failure = outcome.item, outcome.failure
        if failure is None:
            self.pages |= {page.number: page for page in outcome.result or []}
            return []
        if at.size > 1 and failure.cause in MOST_BROKEN:
            return [replace(at, begin=number - 1, end=number) for number in at.numbers]
        if failure.cause is Cause.TIME_LIMIT and not at.plain:
            self.limit = failure
            return [replace(at, plain=True)]
        self.failures |= dict.fromkeys(at.numbers, failure)
        return []

    @property
    def is_slow(self) -> bool:
        """Whether so many pages took too long that the parser is tried on no others."""
        plain = sum(page.plain for page in self.pages.values())
        return plain >= MOST_BROKEN[Cause.TIME_LIMIT]

    @property
    def gives_up(self) -> Failure | None:
        """Why its other pages are not tried any more, if they are not."""
        for cause, most in MOST_BROKEN.items():
            broken = [failure for failure in self.failures.values() if failure.cause is cause]
            if len(broken) >= most:
                return broken[0]
        return None


def _parse(
    contents: Mapping[str, bytes],
    ids_of: Mapping[str, Sequence[str]],
    kept: Mapping[str, Sequence[Mapping[str, Any]]],
    keeper: PageKeeper,
    pool: WorkerPool,
    reading: Reading,
) -> list[Parsed]:
    """The documents of these contents, by sha256, parsed. ids_of: what they are called."""
    if not contents:
        return []
    with (
        pool.start(
            sum(1 + len(content) // BYTES_AT_ONCE for content in contents.values())
        ) as workers,
        workers.sharing(list(contents.values())) as shared,
    ):
        count = partial(count_shared_pages, reading)
        counts = workers.map(count, shared, timeout=COUNT_TIMEOUT)
        documents = [
            Parsed(sha256, outcome.item, outcome.result)
            for sha256, outcome in zip(contents, counts, strict=True)
        ]
        for document in documents:
            found = kept.get(document.sha256, ())
            pages = [page for row in found if (page := _as_read_now(row, reading))]
            document.pages = {page.number: page for page in pages} if document.count else {}
        _work_off(documents, ids_of, keeper, workers, reading)
    return documents


def _as_read_now(kept: Mapping[str, Any], reading: Reading) -> Page | None:
    """A kept page, if OCR would make the same of it now."""
    page = Page(**{name: value for name, value in kept.items() if name != OCR})
    needs_ocr = page.needs_ocr or page.source == Source.OCR
    return None if page.plain or (needs_ocr and kept.get(OCR) != reading.ocr) else page


def _work_off(
    documents: Sequence[Parsed],
    ids_of: Mapping[str, Sequence[str]],
    keeper: PageKeeper,
    workers: Workers,
    reading: Reading,
) -> None:
    """Have the pages of all documents parsed that are not yet."""
    document_of = {document.content: document for document in documents}
    waiting = deque(sorted(documents, key=lambda document: -document.size))  # the largest first
    queue = deque(pages for document in waiting for pages in document.ranges())
    total, done = (sum(getattr(d, what) for d in documents) for what in ("size", "done"))
    ended = sum(document.ended for document in documents)
    with progress_bar("Parsing PDFs", total, "page", initial=done) as bar:

        def move_on(in_hand: Sequence[tuple[PageRange, int]] = ()) -> None:
            at_work = sum(min(reported, pages.size) for pages, reported in in_hand)
            bar.update(max(0, done + at_work - bar.n))

        for outcome in workers.work_off(
            partial(read_range, parse_pages, reading), queue, watch=move_on
        ):
            document = document_of[outcome.item.content]
            before = document.done
            queue.extendleft(reversed(document.take(outcome)))
            if outcome.result and document.count:
                made = {p.number: {**asdict(p), OCR: reading.ocr} for p in outcome.result}
                keeper.keep(document.sha256, made)
            if failure := outcome.failure and document.gives_up:
                others = [pages for pages in queue if pages.content != document.content]
                for pages in queue:
                    if pages.content == document.content:
                        document.failures |= dict.fromkeys(pages.numbers, failure)
                queue.clear()
                queue.extend(others)
            elif document.is_slow:
                for place, pages in enumerate(list(queue)):
                    if pages.content == document.content and not pages.plain:
                        queue[place] = replace(pages, plain=True)
            done += document.done - before
            ended += before < document.done == document.size
            while waiting and waiting[0].ended:
                waiting.popleft()
            said = f"{ended} of {counted(len(documents), 'document')}"
            said += f", next {ids_of[waiting[0].sha256][0]}" if waiting else ""
            bar.set_postfix_str(said, refresh=False)
            move_on()


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


def _may_be_more(document: Parsed, reading: Reading) -> Failure | None:
    """Why a document is to be read again: by itself, or once a limit or a setting is another."""
    tried = reading.tried_with
    by_ocr = [page.number for page in document.pages.values() if page.needs_ocr]
    by_means = tried[Cause.NEEDS_OCR] if by_ocr else None
    if document.lost:
        return replace(document.lost, tried_with=by_means)
    plain = [p for p in document.pages.values() if p.plain and (p.markdown or p.needs_ocr)]
    if document.limit and plain:
        said = f"{counted(len(plain), 'page')} by their own text alone: {document.limit.error}"
        return Failure(Cause.NO_LAYOUT, said, document.limit.limit, by_means)
    for failure in document.failures.values():
        if failure.cause in tried:
            return replace(failure, tried_with=tried[failure.cause])
    if by_ocr:
        said = f"{counted(len(by_ocr), 'page')} without usable text"
        return Failure(Cause.NEEDS_OCR, said, tried_with=tried[Cause.NEEDS_OCR])
    return None


def _rows(document_id: str, pages: Sequence[Page]) -> list[dict[str, Any]]:
    """Rows of a document's pages, or one of page 0 that says why it has none."""
    if any(HAS_WORD.search(page.markdown) for page in pages):
        return [_row(document_id, page) for page in pages]
    if errors := [page.error for page in pages if page.error]:
        return [_row(document_id, Page(0, "", errors[0]))]
    return [_row(document_id, Page(0, "", _why_empty(pages), 0.0), "EMPTY")]


def _why_empty(pages: Sequence[Page]) -> str:
    """Why no page has text, by what is said of most of those that have something to lose."""
    lacks = Counter(page.error or page.lack for page in pages)
    del lacks[None]
    if not lacks and any(page.markdown for page in pages):
        return NO_CHUNK
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
