"""A document's id names its file, and can break nothing that it is put into."""

import re
from pathlib import PurePosixPath

import dagster as dg
import pytest

from embed_assets.errors import ProjectError
from embed_assets.partitions import asset, document_id
from embed_assets.terminal import progress_bar

ODD_PATHS = [
    "Ünïcødé name (v2) — copy 报告.PDF",
    "日本語/取扱説明書.pdf",
    "a'; DROP TABLE raw_pdfs; --.pdf",
    "<b>&amp;</b>?q=1#top.pdf",
    "line\nbreak\tand tab.pdf",
    "\x1b[31mred.pdf",
    "--version.pdf",
    "１２３.pdf",
    "not-utf-8-\udcff\udce9.pdf",
    "…​.pdf",
    "x" * 240 + ".pdf",
]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_an_id_has_only_lower_case_letters_digits_and_hyphens(path):
    assert re.fullmatch(r"[a-z0-9-]+-[0-9a-f]{8}", document_id(PurePosixPath(path)))


def test_paths_with_the_same_slug_have_different_ids():
    paths = ["a/b.pdf", "a-b.pdf", "a b.pdf", "A/B.pdf", "a/b.PDF", "a.b.pdf", "ä/b.pdf"]
    ids = [document_id(PurePosixPath(path)) for path in paths]
    assert {id_.rpartition("-")[0] for id_ in ids} == {"a-b"}
    assert len(set(ids)) == len(paths)


def test_a_name_without_a_letter_is_called_document():
    assert document_id(PurePosixPath("!!!.pdf")).rpartition("-")[0] == "document"


def test_the_slug_is_readable_for_names_in_other_scripts():
    assert document_id(PurePosixPath("Größe/日本.pdf")).startswith("grosse-ri-ben-")


def test_ids_are_those_that_warehouses_already_hold():
    assert document_id(PurePosixPath("manuals/H3 Operator Manual.pdf")) == (
        "manuals-h3-operator-manual-9fdafb15"
    )


def test_an_error_for_a_person_is_shown_in_the_ui_as_what_it_says():
    @asset("training_pairs", kinds={"python"})
    def training_pairs(context: dg.AssetExecutionContext) -> None:
        raise ProjectError("there is\nnothing. Do this.", "EMBED_ASSETS_PDFS")

    result = dg.materialize([training_pairs], raise_on_error=False)
    [failed] = [event for event in result.all_events if event.is_step_failure]
    data = failed.step_failure_data
    assert data.user_failure_data is not None
    assert data.user_failure_data.description == "EMBED_ASSETS_PDFS: there is nothing. Do this."
    assert data.error is not None
    assert data.error.cause is None


def test_what_is_under_way_in_an_asset_stands_in_the_event_log():
    @asset("training_pairs", kinds={"python"})
    def training_pairs(context: dg.AssetExecutionContext) -> None:
        with progress_bar("Encoding chunks", 3, "text") as bar:
            bar.update(3)

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([training_pairs], instance=instance)
        said = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert "Encoding chunks: 3 of 3 texts, 0 s" in said
