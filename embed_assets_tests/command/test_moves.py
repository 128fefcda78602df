"""What Dagster shows of a document that moved: what it showed before, under the name of today."""

from pathlib import PurePosixPath
from typing import Any

import dagster as dg

from embed_assets.automation.state import list_documents
from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.partitions import document_id
from embed_assets_tests.command.conftest import Project
from embed_assets_tests.readers import read_or_die
from embed_assets_tests.rows import filled, model

Shown = dict[str, dict[str, Any]]


def key_of(path: str) -> str:
    return document_id(PurePosixPath(path))


def shown(project: Project, path: str) -> Shown:
    """Metadata on the page of a document's partition, by stage."""
    found: Shown = {}
    with project.instance() as instance:
        for asset in DOCUMENT_ASSETS:
            wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[key_of(path)])
            for record in instance.fetch_materializations(wanted, limit=1).records:
                assert record.asset_materialization
                found[asset] = dict(record.asset_materialization.metadata)
    return found


def named(pages: Shown, before: str, now: str) -> Shown:
    """What pages say, with one name of a document in place of another."""
    changed = {asset: dict(page) for asset, page in pages.items()}
    for page in changed.values():
        links = page["same_document"].value.replace(key_of(before), key_of(now))
        page["same_document"] = dg.MetadataValue.md(links)
    changed["raw_pdfs"]["path"] = dg.MetadataValue.text(now)
    return changed


def rename(project: Project, before: str, now: str) -> None:
    (project.pdfs / before).rename(project.pdfs / now)


def list_now(project: Project) -> None:
    """What the UI does when it opens: nothing is made."""
    with project.instance() as instance:
        list_documents(instance, project.warehouse, project.settings)


def learn(project: Project, version: str, *paths: str) -> None:
    """Say that a version has learned 7 pairs from each of these documents."""
    rows = project.warehouse.read(
        "SELECT document_id, path, sha256 FROM raw_pdfs WHERE path IN (SELECT unnest($1))",
        [list(paths)],
    )
    learned = [{**row, "version": version, "questions": 7} for row in rows.to_dicts()]
    project.warehouse.replace("models", model(version, dagster_run_id=f"run-{version}"))
    project.warehouse.replace("model_documents", filled("model_documents", learned))


def learned_by(pages: Shown) -> dict[str, str]:
    """What the page of a PDF says of the versions that learned from it."""
    return {
        label: entry.value
        for label, entry in pages["raw_pdfs"].items()
        if label.startswith("learned_by")
    }


BY_V1 = {"learned_by_v1": "7 pairs trained [version 1](/runs/run-1)"}


def test_a_document_that_moved_shows_on_its_new_pages_what_it_showed_before(project):
    project.put("a.pdf")
    project.ingest()
    before = shown(project, "a.pdf")
    assert before.keys() == set(DOCUMENT_ASSETS)
    assert before["chunks"]["preview"].records
    assert before["synthetic_questions"]["questions_kept"].value > 0
    rename(project, "a.pdf", "a (2026).pdf")
    project.ingest()
    assert shown(project, "a (2026).pdf") == named(before, "a.pdf", "a (2026).pdf")


def test_an_unreadable_document_that_moved_still_says_why(project):
    project.put("good.pdf")
    project.put("bad.pdf")
    (project.pdfs / "bad.pdf").write_bytes(b"")
    project.ingest()
    why = shown(project, "bad.pdf")["parsed_markdown"]["unreadable"]
    assert why.value
    rename(project, "bad.pdf", "worse.pdf")
    project.ingest()
    assert shown(project, "worse.pdf")["parsed_markdown"]["unreadable"] == why


def test_a_document_that_moved_says_what_failed_and_is_to_be_tried_again(project):
    project.put("good.pdf")
    project.put("late.pdf", says="die")
    project.read_with(read_or_die, in_processes=True)
    project.ingest()
    before = shown(project, "late.pdf")
    assert "-9" in before["parsed_markdown"]["failed"].value
    rename(project, "late.pdf", "later.pdf")
    list_now(project)
    assert shown(project, "later.pdf") == named(before, "late.pdf", "later.pdf")


def test_a_stage_of_which_nothing_is_on_record_does_not_show_as_made_after_a_move(project):
    project.put("a.pdf")
    project.ingest()
    with project.warehouse.transaction() as transaction:
        gone = ["chunks", "synthetic_questions", "chunk_embeddings"]
        transaction.delete("materializations", {"asset": gone})
    rename(project, "a.pdf", "b.pdf")
    list_now(project)
    assert shown(project, "b.pdf").keys() == {"raw_pdfs", "parsed_markdown"}


def test_two_documents_that_swapped_names_show_each_its_own(project):
    project.put("a.pdf")
    project.put("b.pdf", says="another")
    project.ingest()
    learn(project, "1", "a.pdf")
    a, b = shown(project, "a.pdf"), shown(project, "b.pdf")
    for before, now in (("a.pdf", "c"), ("b.pdf", "a.pdf"), ("c", "b.pdf")):
        rename(project, before, now)
    project.ingest()
    now = shown(project, "b.pdf")
    assert learned_by(now) == BY_V1
    assert learned_by(shown(project, "a.pdf")) == {}
    without = {label: entry for label, entry in now["raw_pdfs"].items() if label not in BY_V1}
    assert {**now, "raw_pdfs": without} == named(a, "a.pdf", "b.pdf")
    assert shown(project, "a.pdf") == named(b, "b.pdf", "a.pdf")


def test_a_pdf_says_who_learned_from_what_it_holds_when_its_content_changes_and_comes_back(project):
    project.put("a.pdf", "b.pdf")
    project.ingest()
    learn(project, "1", "a.pdf")
    project.put("a.pdf", says="another")
    project.ingest()
    assert learned_by(shown(project, "a.pdf")) == {}
    project.put("a.pdf")
    project.ingest()
    assert learned_by(shown(project, "a.pdf")) == BY_V1


def test_the_page_of_the_newest_version_leads_to_the_pages_that_its_documents_have_now(project):
    project.put("a.pdf", "b.pdf")
    project.ingest()
    learn(project, "1", "a.pdf", "b.pdf")
    rename(project, "a.pdf", "c.pdf")
    list_now(project)
    with project.instance() as instance:
        [record] = instance.fetch_observations(dg.AssetKey("finetuned_model"), limit=5).records
    assert record.event_log_entry.asset_observation
    links = record.event_log_entry.asset_observation.metadata["learned_from"].value
    assert f"[`c.pdf`](/assets/raw_pdfs?view=partitions&partition={key_of('c.pdf')})" in links
    assert f"partition={key_of('b.pdf')})" in links
    assert "a.pdf" not in links


def test_the_page_of_a_version_says_nothing_of_moves_of_what_it_did_not_learn(project):
    project.put("a.pdf", "b.pdf")
    project.ingest()
    learn(project, "1", "b.pdf")
    rename(project, "a.pdf", "c.pdf")
    list_now(project)
    with project.instance() as instance:
        asset = dg.AssetKey("finetuned_model")
        assert list(instance.fetch_observations(asset, limit=5).records) == []


def test_a_copy_of_a_document_has_taught_nothing_while_that_one_is_there(project):
    project.put("a.pdf", "b.pdf")
    project.ingest()
    learn(project, "1", "a.pdf")
    (project.pdfs / "copy.pdf").write_bytes((project.pdfs / "a.pdf").read_bytes())
    project.ingest()
    assert learned_by(shown(project, "copy.pdf")) == {}
    (project.pdfs / "a.pdf").unlink()
    rename(project, "copy.pdf", "last.pdf")
    project.ingest()
    assert learned_by(shown(project, "last.pdf")) == BY_V1
