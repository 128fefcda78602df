"""What a command makes of a folder in which things change, move, leave and go wrong."""

import json
import os

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from embed_assets.automation.runs import BY_COMMAND, INGEST, TRAIN
from embed_assets.documents.checks import evaluations
from embed_assets.documents.entries import LEADS_OUT
from embed_assets.documents.parsing import KEPT, NO_CHUNK
from embed_assets.documents.reading import LOCKED
from embed_assets.documents.text_loss import SCANNED
from embed_assets.errors import SettingsError
from embed_assets.graph import DOCUMENT_ASSETS
from embed_assets.places import to_place
from embed_assets_tests.documents.folders import Store, folder_in_memory, folder_in_store
from embed_assets_tests.readers import ENOUGH, read, read_or_die, write_documents


def test_new_documents_are_ingested_once(project):
    project.read_with(read, in_processes=True)
    project.put("a.pdf", "b.pdf")
    done = project.ingest()
    assert set(DOCUMENT_ASSETS) <= set(done.seconds)
    summary = project.summary(done)
    assert summary["documents"] == {"SUCCESS": 2, "EMPTY": 0, "ERROR": 0}
    assert summary["chunks"] > 0
    assert summary["questions"] > 0
    again = project.ingest()
    assert not again.changed
    assert sorted(project.times_read) == ["a", "b"]


def test_a_worker_that_is_killed_leaves_the_good_chunks_and_is_tried_again(project):
    project.put("a.pdf", "b.pdf")
    project.ingest()
    before = project.chunks_of("a.pdf")
    project.read_with(read_or_die, in_processes=True)
    project.put("a.pdf", says="die")
    for attempts in (1, 2):  # each command tries once
        summary = project.summary(project.ingest())
        assert project.chunks_of("a.pdf") == before
        assert summary["documents"] == {"SUCCESS": 2, "EMPTY": 0, "ERROR": 0}
        error = "its process ended with exit code -9"
        assert summary["failed"] == [
            {"path": "a.pdf", "error": error, "attempts": attempts, "final": False}
        ]
    [waiting] = [row for row in project.status()["waiting"] if row["what"] == "a.pdf"]
    assert waiting["reason"].startswith(f"{error} (2 times; tried again from ")
    project.read_with(read)
    summary = project.summary(project.ingest())
    assert summary["failed"] == []
    assert project.chunks_of("a.pdf") != before


def test_of_a_new_document_whose_worker_is_killed_nothing_is_said_but_that(project):
    project.read_with(read_or_die, in_processes=True)
    project.put("a.pdf")
    project.put("b.pdf", says="die")
    summary = project.summary(project.ingest())
    assert summary["documents"] == {"SUCCESS": 1, "EMPTY": 0, "ERROR": 1}
    assert [row["path"] for row in summary["failed"]] == ["b.pdf"]
    assert project.warehouse.count("parsed_markdown") == 1


def test_a_time_limit_is_reached_once_and_not_in_every_round_of_every_run(project):
    project.put("a.pdf")
    project.put("slow.pdf", says="dawdle")
    project.read_with(read, in_processes=True)
    project.ingest(parse_timeout=3.4)
    done = project.ingest(parse_timeout=3.4)
    [failed] = project.summary(done)["failed"]
    assert (failed["error"], failed["final"]) == ("took longer than 3.4 s", True)
    assert sorted(project.times_read) == ["a", "dawdle", "dawdle"], "once without layout"
    project.ingest(parse_timeout=60)
    assert sorted(project.times_read) == ["a", "dawdle", "dawdle", "dawdle"]
    assert project.chunks_of("slow.pdf") != []


def test_a_locked_document_alone_is_read_again_with_a_new_password(project, tmp_path):
    project.put("a.pdf", "locked.pdf")
    for _ in range(2):
        [failed] = project.summary(project.ingest())["failed"]
        assert (failed["path"], failed["error"]) == ("locked.pdf", LOCKED)
    assert sorted(project.times_read) == ["a", "locked"]
    passwords = tmp_path / "passwords"
    passwords.write_text("swordfish")
    for _ in range(2):
        assert project.summary(project.ingest(pdf_passwords=passwords))["failed"] == []
    assert sorted(project.times_read) == ["a", "locked", "locked"]
    kept = (file for file in project.settings.home.rglob("*") if file.is_file())
    assert not any(b"swordfish" in file.read_bytes() for file in kept)


def test_a_document_read_in_part_is_listed_warned_of_and_alone_read_again_with_ocr(
    project, tmp_path, monkeypatch
):
    monkeypatch.setattr("embed_assets.resources.kept_pages.SECONDS_BETWEEN_WRITES", 0.0)
    project.put("a.pdf", "scanned.pdf")
    summary = project.summary(project.ingest())
    partly = {"path": "scanned.pdf", "pages": [2], "share": 0.0, "error": SCANNED}
    assert (summary["partly"], summary["failed"], summary["empty"]) == ([partly], [], [])
    assert summary["documents"]["SUCCESS"] == 2
    assert summary["needing_ocr"] == ["scanned.pdf"]
    assert project.status()["partly"] == [partly]
    [key] = [k for k, path in project.warehouse.paths().items() if path == "scanned.pdf"]
    with project.instance() as instance:
        of_document, of_all = evaluations(instance, project.warehouse, [key])
    for said in (of_document, of_all):
        assert (said.passed, said.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert "page 2: a picture covers the page" in said.description
    (tmp_path / "eng.traineddata").touch()
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))
    for _ in range(2):
        summary = project.summary(project.ingest(ocr="auto"))
        assert (summary["partly"], summary["needing_ocr"]) == ([], [])
    assert sorted(project.times_read) == ["a", "scanned", "scanned"]


def test_what_ocr_was_tried_on_in_vain_needs_it_no_more(project, tmp_path, monkeypatch):
    project.put("drawn.pdf")
    assert project.summary(project.ingest())["needing_ocr"] == ["drawn.pdf"]
    (tmp_path / "eng.traineddata").touch()
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))
    summary = project.summary(project.ingest(ocr="auto"))
    assert (len(summary["partly"]), summary["needing_ocr"]) == (1, [])


def test_a_file_that_is_cut_off_leaves_the_good_chunks_until_it_is_whole(project):
    project.put("a.pdf")
    project.ingest()
    before = project.chunks_of("a.pdf")
    project.put("a.pdf", says="%PDF-1.7 cut")
    for _ in range(2):
        [failed] = project.summary(project.ingest())["failed"]
        assert (failed["path"], failed["error"], failed["final"]) == ("a.pdf", KEPT, True)
        assert project.chunks_of("a.pdf") == before
    project.put("a.pdf", says="whole")
    assert project.summary(project.ingest())["failed"] == []
    assert project.chunks_of("a.pdf") != before


def test_a_document_with_text_that_ends_in_no_chunk_is_listed(project):
    (project.pdfs / "a.pdf").write_text("* 7 — *")
    assert project.summary(project.ingest())["empty"] == [{"path": "a.pdf", "error": NO_CHUNK}]


def test_a_folder_that_moved_whole_is_known_and_nothing_is_made_anew(project):
    names = ("a.pdf", "b.pdf", "c.pdf")
    project.put(*names)
    project.ingest()
    before = project.contents
    (project.pdfs / "of" / "2026").mkdir(parents=True)
    for name in names:
        (project.pdfs / name).rename(project.pdfs / "of" / "2026" / name)
    assert project.status()["folder"]["moved"] == 3
    done = project.ingest()
    assert set(done.seconds) == {"search_index"}, "which says where a chunk stands"
    assert project.contents == before
    paths = {f"of/2026/{name}" for name in names}
    assert set(project.warehouse.paths().values()) == paths
    with project.instance() as instance:
        assert set(instance.get_dynamic_partitions("documents")) == set(project.warehouse.paths())


def test_the_one_pdf_may_be_renamed(project):
    project.put("old.pdf")
    project.ingest()
    before = project.contents
    (project.pdfs / "old.pdf").rename(project.pdfs / "new.pdf")
    assert set(project.ingest().seconds) == {"search_index"}
    assert project.contents == before
    assert list(project.warehouse.paths().values()) == ["new.pdf"]


def test_a_folder_with_nothing_in_common_is_refused_until_a_person_agrees(project):
    project.put("a.pdf")
    project.ingest()
    (project.pdfs / "a.pdf").unlink()
    project.put("other.pdf")
    with pytest.raises(SettingsError, match=r"the only document on record.*--yes"):
        project.ingest()
    assert project.chunks_of("a.pdf") != []
    [refused] = [row for row in project.status()["waiting"] if row["what"] == "ingest"]
    assert "--yes agrees" in refused["reason"]
    done = project.ingest(agreed=True)
    assert done.moved == 1
    assert list(project.warehouse.paths().values()) == ["other.pdf"]


def test_after_a_killed_command_a_removed_pdf_goes(project):
    project.put("a.pdf", "b.pdf")
    project.ingest()
    (project.pdfs / "a.pdf").unlink()
    started = dg.DagsterRunStatus.STARTED
    with project.instance() as instance:
        create_run_for_test(instance, job_name=INGEST, status=started, tags={BY_COMMAND: "true"})
    done = project.ingest()
    assert (done.moved, done.changed, done.waiting) == (1, True, ())
    assert project.chunks_of("a.pdf") == []


def test_an_ingest_waits_for_no_training(project):
    write_documents(project.pdfs, *ENOUGH)
    project.ingest()
    with project.instance() as instance:
        create_run_for_test(instance, job_name=TRAIN, status=dg.DagsterRunStatus.STARTED)
    assert project.ingest().waiting == ()
    waits = [
        row["reason"] for row in project.status()["waiting"] if row["what"] == "training_pairs"
    ]
    assert waits == ["a run is at work: what it makes decides what is due"]


def test_what_waits_for_a_run_of_the_ui_is_said(project):
    project.put("a.pdf", "b.pdf")
    project.ingest()
    (project.pdfs / "a.pdf").unlink()
    with project.instance() as instance:
        create_run_for_test(instance, job_name=TRAIN, status=dg.DagsterRunStatus.STARTED)
    done = project.ingest()
    expected = [{"what": "a.pdf", "reason": "gone, and a run may still use it"}]
    assert project.summary(done)["waiting"] == expected
    assert project.chunks_of("a.pdf") != []


def test_a_file_that_may_not_be_read_keeps_what_was_known_of_it(project, monkeypatch):
    project.put("a.pdf", "b.pdf")
    project.ingest()
    before = project.chunks_of("a.pdf")
    project.put("a.pdf", says="other")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("embed_assets.documents.entries._open", refuse)
        summary = project.summary(project.ingest())
    [failed] = summary["failed"]
    assert failed["error"] == "the file may not be read: Permission denied"
    assert (failed["path"], failed["final"]) == ("a.pdf", False)
    assert project.chunks_of("a.pdf") == before
    assert project.summary(project.ingest())["failed"] == []
    assert project.chunks_of("a.pdf") != before


def test_documents_in_a_bucket_are_ingested_followed_and_removed(project):
    with folder_in_memory() as folder:
        for name in ("a.pdf", "b.pdf", "c.pdf"):
            project.put(name)
            folder.put(name, content=(project.pdfs / name).read_bytes())
        summary = project.summary(project.ingest(pdfs=folder.place))
        assert summary["documents"] == {"SUCCESS": 3, "EMPTY": 0, "ERROR": 0}
        assert not project.ingest(pdfs=folder.place).changed
        folder.move("a.pdf", "sub/moved.pdf")
        folder.delete("b.pdf")
        assert project.status(pdfs=folder.place)["folder"]["moved"] == 1
        assert project.ingest(pdfs=folder.place).moved == 2
        assert sorted(project.warehouse.paths().values()) == ["c.pdf", "sub/moved.pdf"]
        assert sorted(project.times_read) == ["a", "b", "c"]
        assert not project.ingest(pdfs=folder.place).changed


def test_a_folder_that_moved_into_a_bucket_holds_the_same_documents(project):
    project.put("a.pdf")
    project.ingest()
    with folder_in_memory() as folder:
        folder.put("a.pdf", content=(project.pdfs / "a.pdf").read_bytes())
        done = project.ingest(pdfs=folder.place)
        assert set(done.seconds) == {"raw_pdfs"}
    assert project.times_read == ["a"]


def test_a_bucket_without_pdfs_is_a_wrong_call_that_shows_no_password(project):
    with folder_in_store():
        Store.buckets["me:s3cr3t@bucket"] = {}
        with pytest.raises(SettingsError, match="there are no PDFs in store://me:…@bucket"):
            project.ingest(pdfs=to_place("store://me:s3cr3t@bucket"))


def test_odd_entries_are_listed_as_failed_and_stop_nothing(project, tmp_path):
    project.put("a.pdf", "share/b.pdf", "c.pdf")
    (project.pdfs / "c.pdf").rename(project.pdfs / "caf\udce9.pdf")
    project.put("../outside.pdf")
    os.mkfifo(project.pdfs / "pipe.pdf")
    (project.pdfs / "passwd.pdf").symlink_to(tmp_path / "outside.pdf")
    (project.pdfs / "p\udcffpe.pdf").symlink_to("/dev/zero")
    summary = project.summary(project.ingest())
    failed = {row["path"]: row["error"] for row in summary["failed"]}
    assert failed == {
        "pipe.pdf": "a pipe, and no file: not opened",
        "passwd.pdf": LEADS_OUT,
        "p\\xffpe.pdf": "a device, and no file: not opened",
    }
    assert summary["documents"] == {"SUCCESS": 3, "EMPTY": 0, "ERROR": 3}
    assert set(project.warehouse.paths().values()) == {"a.pdf", "share/b.pdf", "caf\\xe9.pdf"}
    status = project.status()
    assert status["failed"] == summary["failed"]
    assert set(failed) <= {row["what"] for row in status["waiting"]}
    json.dumps(status, ensure_ascii=False).encode()
