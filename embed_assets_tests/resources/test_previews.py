"""What Dagster shows of a document's slice: enough to see it, and never much."""

import dagster as dg
import polars as pl
import pytest
from dagster._serdes import serialize_value

from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.resources.previews import cut, shown_as_table, shown_of_slice
from embed_assets.tables import TABLES
from embed_assets_tests.rows import chunk, pages, raw_pdf

MOST = 5_000  # bytes of an event


def cells(value: dg.TableMetadataValue) -> list[tuple]:
    return [tuple(record.data.values()) for record in value.records]


def test_pages_show_how_they_begin_and_a_document_without_text_says_why():
    found = shown_of_slice("parsed_markdown", "a-1", pages("a-1", "# One\n\ntext", " ", "Three"))
    assert (found["status"], found["pages"], found["pages_with_text"]) == ("text was found", 3, 2)
    assert cells(found["preview"]) == [(1, "# One text"), (3, "Three")]
    failed = pages("a-1", "").with_columns(
        page=pl.lit(0), parser_status=pl.lit("ERROR"), error=pl.lit("it needs a password")
    )
    said = shown_of_slice("parsed_markdown", "a-1", failed)
    assert (said["status"], said["unreadable"]) == ("could not be read", "it needs a password")
    assert said["pages"] == 0
    assert list(said.values()).count("it needs a password") == 1
    assert "preview" not in said


def test_a_document_with_text_is_not_called_unreadable_for_a_page_that_is():
    found = pages("a-1", "", "Two").with_columns(
        parser_status=pl.Series(["ERROR", "SUCCESS"]), error=pl.Series(["it broke", None])
    )
    said = shown_of_slice("parsed_markdown", "a-1", found)
    assert (said["status"], said["pages_with_text"]) == ("text was found", 1)
    assert "unreadable" not in said


def test_what_is_missing_of_pages_is_shown_and_which_ocr_read():
    found = pages("a-1", "One", "", "Three").with_columns(
        error=pl.Series([None, "scanned", None]),
        text_share=pl.Series([1.0, 0.0, None]),
        text_source=pl.Series(["pdf", None, "ocr"]),
    )
    said = shown_of_slice("parsed_markdown", "a-1", found)
    assert (said["text_share"], said["read_by_ocr"]) == (0.5, "pages 3")
    assert cells(said["missing"]) == [(2, 0.0, "scanned")]


def test_a_document_with_text_on_its_second_page_alone_was_read():
    status = pl.when(page=1).then(pl.lit("EMPTY")).otherwise(pl.lit("SUCCESS"))
    rows = pages("a-1", "", "text").with_columns(parser_status=status, error=pl.lit("no text"))
    said = shown_of_slice("parsed_markdown", "a-1", rows)
    assert said["status"] == "text was found"
    assert "unreadable" not in said


def test_chunks_show_their_page_heading_and_text():
    found = shown_of_slice("chunks", "a-1", chunk("a-1", "Turn it off."))
    assert (found["chunks"], found["tokens"]) == (1, 2)
    assert cells(found["preview"]) == [(1, "", "Turn it off.")]


def test_a_pdf_shows_where_it_lies_and_its_size():
    shown = shown_of_slice("raw_pdfs", "a-1", raw_pdf("a-1", b"x" * 2340))
    assert (shown["path"], shown["sha256"], shown["size_kb"]) == ("folder/a-1.pdf", "00", 2.3)


@pytest.mark.parametrize("asset", DOCUMENT_ASSETS)
def test_every_stage_of_a_document_leads_to_the_others_by_page_wherever_dagster_is_served(asset):
    links = shown_of_slice(asset, "a-1", TABLES[asset].empty())["same_document"].value
    for other in DOCUMENT_ASSETS:
        link = f"[{other}](/assets/{other}?view=partitions&partition=a-1)"
        assert (link in links) == (other != asset)


def test_a_long_text_is_cut_and_marked_and_no_slice_makes_a_large_event():
    assert cut("two\n\n words") == "two words"
    assert cut("x" * 300, 240) == f"{'x' * 240}…"
    texts = ["many words 言葉 " * 5000] * 50
    for asset, rows in (
        ("parsed_markdown", pages("a-1", *texts)),
        ("chunks", pl.concat([chunk("a-1", text) for text in texts])),
    ):
        shown = shown_of_slice(asset, "a-1", rows)
        event = dg.AssetMaterialization(asset, partition="a-1", metadata=shown)
        assert len(serialize_value(event).encode()) < MOST


def test_a_table_has_figures_as_figures_and_nothing_where_there_is_nothing():
    table = shown_as_table(pl.DataFrame({"page": [1, None], "text": ["a", None]}))
    assert cells(table) == [(1, "a"), (None, None)]
    assert [column.type for column in table.schema.columns] == ["int", "string"]
