"""A PDF is forgotten: with its copies, under all its names, even if the command is killed."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import polars as pl
import pytest

from embed_assets.automation.runs import command_lock
from embed_assets.command import forget as forgetting
from embed_assets.command.forget import forget_documents, forget_text, remember_documents
from embed_assets.command.pipeline import prepare_search
from embed_assets.errors import ProjectError
from embed_assets.partitions import DOCUMENTS
from embed_assets.questions.labelled.report import report_matches
from embed_assets.resources.answers import AnswerStore, reply_now
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.tables import TABLES
from embed_assets_tests.command.conftest import Project
from embed_assets_tests.marks import find_marks

pytestmark = pytest.mark.usefixtures("in_process")

MARKS = ("zorblatt", "vantrupe")
"""In the text of a document, and in its name."""


def forget(project: Project, *paths: str) -> dict[str, Any]:
    """What the command does: forget, and then make search ready without it."""
    summary = forget_documents(project.settings, paths)
    prepare_search(project.settings)
    return summary


def paths_on_record(project: Project) -> list[str]:
    return sorted(project.warehouse.paths().values())


def marks(project: Project) -> set[tuple[str, str]]:
    """What stands in the home of the marks, but for the record of what was forgotten."""
    columns = ("", " forgotten.path", " forgotten.document_id", " forgotten.command")
    record = {f"warehouse.duckdb{column}" for column in columns}
    found = find_marks(project.settings.home, MARKS)
    return {(place, m) for place, m in found if m == "zorblatt" or place not in record}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test keeps what it ingested, for the others."""
    return tmp_path_factory.mktemp("ingested") / "kept"


@pytest.fixture
def told(project: Project, ingested: Path) -> Project:
    """Three documents on record, of which one is marked."""
    if ingested.exists():
        shutil.copytree(ingested, project.pdfs.parent, dirs_exist_ok=True)
        return project
    project.put("vantrupe.pdf", says="zorblatt")
    project.put("a.pdf", "b.pdf")
    project.ingest()
    shutil.copytree(project.pdfs.parent, ingested)
    return project


def test_nothing_readable_is_left_and_the_others_stay(told):
    assert len(marks(told)) > len(MARKS)
    said = forget(told, "vantrupe.pdf")
    assert [row["path"] for row in said["documents"]] == ["vantrupe.pdf"]
    assert {t: said["rows"][t] for t in ("raw_pdfs", "parsed_markdown")} == {
        "raw_pdfs": 1,
        "parsed_markdown": 1,
    }
    assert marks(told) == set()
    assert paths_on_record(told) == ["a.pdf", "b.pdf"]
    assert told.chunks_of("a.pdf")
    assert said["in_folder"] == ["vantrupe.pdf"]
    assert "yours to delete: vantrupe.pdf" in forget_text(said)
    with told.instance() as instance:
        assert len(instance.get_dynamic_partitions(DOCUMENTS)) == 2


def test_runs_whose_artifacts_are_elsewhere_are_named_though_nothing_was_trained_on_it(told):
    """A report lists documents that were only tested, and a deleted run keeps its artifacts."""
    tracking = Tracking(home=str(told.settings.home), project=told.settings.project)
    client = tracking.client()
    experiment = client.create_experiment(tracking.name, artifact_location="s3://elsewhere/runs")
    runs = [client.create_run(experiment).info.run_id for _ in range(2)]
    client.delete_run(runs[0])
    said = forget(told, "vantrupe.pdf")
    assert said["versions"] == []
    assert set(said["not_looked_at"]) == set(runs)
    assert "Delete the reports in them, and the pairs (lineage/pairs.parquet)." in forget_text(said)


def compared(project: Project) -> Tracking:
    """Where an MLflow run of the home keeps a report that names a document, and its pairs.

    The texts of the pairs are of earlier contents: nobody knows them any more.
    """
    tracking = Tracking(home=str(project.settings.home), project=project.settings.project)
    experiment = tracking.client().get_experiment_by_name(tracking.connect())
    assert experiment is not None
    run_id = tracking.client().create_run(experiment.experiment_id).info.run_id
    tracking.client().log_text(run_id, "<p>vantrupe.pdf</p>", "comparison-v1.html")
    [key] = [key for key, path in project.warehouse.paths().items() if path == "vantrupe.pdf"]
    pair = {"document_id": key, "path": "vantrupe.pdf", "sha256": "00"}
    file = project.settings.home / "pairs.parquet"
    pl.DataFrame([{**pair, "anchor": "zorblatt?", "positive": "zorblatt!"}]).write_parquet(file)
    tracking.client().log_artifact(run_id, str(file), "lineage")
    file.unlink()
    return tracking


def contents_of(home: Path) -> dict[str, bytes]:
    return {
        file.relative_to(home).as_posix(): file.read_bytes()
        for file in sorted(home.rglob("*"))
        if file.is_file()
    }


def test_a_home_that_was_moved_is_looked_through_where_it_is(told):
    artifacts = compared(told).artifacts.relative_to(told.settings.home)
    moved = told.settings.home.rename(told.pdfs.with_name("moved"))
    before = contents_of(moved / artifacts)
    told.settings = told.settings.model_copy(update={"home": moved})
    assert forget(told, "vantrupe.pdf")["not_looked_at"] == []
    assert marks(told) == set()
    assert len(contents_of(moved / artifacts)) == len(before) - 1, "the report went, the pairs stay"


def test_a_copy_of_a_home_is_looked_through_and_the_home_is_not_touched(told):
    compared(told)
    home = told.settings.home
    copy = Path(shutil.copytree(home, told.pdfs.with_name("copy")))
    before = contents_of(home)
    told.settings = told.settings.model_copy(update={"home": copy})
    assert forget(told, "vantrupe.pdf")["not_looked_at"] == []
    assert marks(told) == set()
    assert contents_of(home) == before


def test_runs_whose_artifacts_are_in_another_home_are_named_and_not_touched(told):
    other = told.pdfs.with_name("other")
    Tracking(home=str(other)).connect()
    tracking = Tracking(home=str(told.settings.home), project=told.settings.project)
    artifacts = (other / "mlartifacts").as_uri()
    experiment = tracking.client().create_experiment(tracking.name, artifact_location=artifacts)
    run_id = tracking.client().create_run(experiment).info.run_id
    tracking.client().log_text(run_id, "<p>vantrupe.pdf</p>", "comparison-v1.html")
    before = contents_of(other)
    said = forget(told, "vantrupe.pdf")
    assert said["not_looked_at"] == [run_id]
    assert "in another home, and so not looked at" in forget_text(said)
    assert contents_of(other) == before


def test_artifacts_that_lie_beside_all_homes_are_looked_through(told):
    beside = told.pdfs.with_name("artifacts")
    tracking = Tracking(home=str(told.settings.home), project=told.settings.project)
    client = tracking.client()
    experiment = client.create_experiment(tracking.name, artifact_location=beside.as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.log_text(run_id, "vantrupe.pdf", "notes.txt")
    assert forget(told, "vantrupe.pdf")["not_looked_at"] == []
    assert find_marks(beside, MARKS) == set()
    assert (beside / run_id / "artifacts" / "notes.txt").is_file()


def test_an_unknown_path_is_named_and_nothing_is_done(told):
    with pytest.raises(ProjectError, match=r"^nope\.pdf: neither on record nor in .*Nothing was"):
        forget(told, "vantrupe.pdf", "nope.pdf")
    assert paths_on_record(told) == ["a.pdf", "b.pdf", "vantrupe.pdf"]
    assert told.warehouse.count("forgotten") == 0


def test_copies_are_forgotten_with_it_and_listed(told):
    (told.pdfs / "copy.pdf").write_bytes((told.pdfs / "vantrupe.pdf").read_bytes())
    told.ingest()
    said = forget(told, "copy.pdf")
    assert [row["path"] for row in said["documents"]] == ["copy.pdf", "vantrupe.pdf"]
    assert paths_on_record(told) == ["a.pdf", "b.pdf"]
    assert marks(told) == set()


def test_a_text_that_another_document_has_too_stays(told):
    (told.pdfs / "twin.pdf").write_text((told.pdfs / "vantrupe.pdf").read_text() + " ")
    told.ingest()
    texts, questions = told.chunks_of("twin.pdf"), "SELECT count(*) FROM synthetic_questions"
    assert texts == told.chunks_of("vantrupe.pdf")
    kept = told.warehouse.read(f"{questions} WHERE document_id LIKE 'twin%'").item()
    forget(told, "vantrupe.pdf")
    assert told.chunks_of("twin.pdf") == texts
    assert kept
    assert told.warehouse.read(f"{questions} WHERE document_id LIKE 'twin%'").item() == kept


def test_a_document_that_moved_is_forgotten_under_all_its_names(told):
    (told.pdfs / "vantrupe.pdf").rename(told.pdfs / "vantrupe-moved.pdf")
    told.ingest()
    said = forget(told, "vantrupe.pdf")
    assert [row["path"] for row in said["documents"]] == ["vantrupe-moved.pdf"]
    assert marks(told) == set()
    (told.pdfs / "vantrupe-moved.pdf").rename(told.pdfs / "vantrupe.pdf")
    assert not told.ingest().changed
    assert paths_on_record(told) == ["a.pdf", "b.pdf"]


def test_a_document_that_left_is_forgotten_under_all_its_names(told):
    """Nothing of it is on record but what it was called: Dagster's files still name it."""
    (told.pdfs / "vantrupe.pdf").rename(told.pdfs / "vantrupe-moved.pdf")
    told.ingest()
    content = (told.pdfs / "vantrupe-moved.pdf").read_bytes()
    (told.pdfs / "vantrupe-moved.pdf").unlink()
    told.ingest()
    assert ("warehouse.duckdb departed.path", "vantrupe") in marks(told)
    said = forget(told, "vantrupe.pdf")
    assert [row["path"] for row in said["documents"]] == ["vantrupe.pdf"]
    assert marks(told) == set()
    (told.pdfs / "other.pdf").write_bytes(content)
    told.ingest()
    assert paths_on_record(told) == ["a.pdf", "b.pdf"]


def test_a_document_whose_place_another_took_is_forgotten_and_the_other_is_not(told):
    """It lies there no more: the path means the other, and the one before goes by its old name."""
    (told.pdfs / "vantrupe.pdf").rename(told.pdfs / "vantrupe-moved.pdf")
    told.ingest()
    (told.pdfs / "a.pdf").replace(told.pdfs / "vantrupe-moved.pdf")
    told.ingest()
    assert paths_on_record(told) == ["b.pdf", "vantrupe-moved.pdf"]
    assert forget(told, "vantrupe.pdf")["documents"][0]["path"] == "vantrupe.pdf"
    assert paths_on_record(told) == ["b.pdf", "vantrupe-moved.pdf"]
    assert told.warehouse.count("departed") == 0
    assert {mark for _, mark in marks(told)} == {"vantrupe"}  # of the one that stays


@pytest.fixture
def left_before(told: Project) -> tuple[str, str]:
    """Id and sha256 of the marked document, which left when nobody noted yet what leaves."""
    sql = "SELECT document_id, sha256 FROM raw_pdfs WHERE path = 'vantrupe.pdf'"
    key, sha256 = told.warehouse.read(sql).row(0)
    (told.pdfs / "vantrupe.pdf").unlink()
    told.ingest()
    told.warehouse.replace("departed", TABLES["departed"].empty())
    return key, sha256


def test_what_left_before_that_was_kept_is_known_by_the_split_that_it_had(told, left_before):
    with pytest.raises(ProjectError, match="neither on record nor in"):
        forget(told, "vantrupe.pdf")
    split = pl.DataFrame({"kind": ["document"], "id": [left_before[0]], "split": ["train"]})
    told.warehouse.replace("split_assignments", split)
    assert forget(told, "vantrupe.pdf")["rows"]["split_assignments"] == 1
    assert marks(told) == set()
    assert told.warehouse.read("SELECT sha256 FROM forgotten").item() == ""  # nobody knows it


def test_what_left_before_that_was_kept_is_known_by_whom_answers_are_about(told, left_before):
    with AnswerStore(path=str(told.settings.answers)).open("m", "1", "s") as answers:
        answers.put("k", reply_now("The zorblatt", 1, 1))
        answers.use([(left_before[0], "k")])
    assert forget(told, "vantrupe.pdf")["rows"]["answers"] == 1
    assert marks(told) == set()


def test_what_left_before_that_was_kept_is_known_by_the_pairs_of_a_version(told, left_before):
    key, sha256 = left_before
    texts = ("question_id", "anchor", "positive", "chunk_id")
    pair = dict.fromkeys(texts, "a zorblatt") | {"document_id": key, "path": "vantrupe.pdf"}
    file = told.settings.models / "v1" / "pairs.parquet"
    file.parent.mkdir(parents=True)
    pl.DataFrame([pair | {"sha256": sha256, "relevant_chunk_ids": ["c"]}]).write_parquet(file)
    forget(told, "vantrupe.pdf")
    assert pl.read_parquet(file)["anchor"].to_list() == ["forgotten"]
    assert told.warehouse.read("SELECT sha256 FROM forgotten").item() == sha256


def test_a_file_that_was_never_ingested_is_kept_out(told):
    told.put("late.pdf")
    assert forget(told, "./late.pdf")["documents"] == [
        {"document_id": "late-" + forgetting.Document("late.pdf", "").document_id[-8:]}
        | {"path": "late.pdf"}
    ]
    assert not told.ingest().changed
    assert paths_on_record(told) == ["a.pdf", "b.pdf", "vantrupe.pdf"]


def test_neither_the_path_nor_the_content_comes_in_again_until_it_is_remembered(told):
    forget(told, "vantrupe.pdf")
    (told.pdfs / "vantrupe.pdf").rename(told.pdfs / "other.pdf")  # as old as it was
    told.put("vantrupe.pdf", says="harmless")
    read = len(told.times_read)
    told.ingest()
    assert not told.ingest().changed  # what was refused is not asked for again and again
    assert paths_on_record(told) == ["a.pdf", "b.pdf"]
    assert len(told.times_read) == read
    waiting = {row["what"]: row["reason"] for row in told.status()["waiting"]}
    for path in ("vantrupe.pdf", "other.pdf"):
        assert "forgotten on 20" in waiting[path]
        assert "forget --remember" in waiting[path]
    assert [row["path"] for row in told.status()["failed"]] == ["other.pdf"]
    with pytest.raises(ProjectError, match=r"a\.pdf: never forgotten"):
        remember_documents(told.settings, ["vantrupe.pdf", "a.pdf"])
    assert [row["path"] for row in remember_documents(told.settings, ["vantrupe.pdf"])["documents"]]
    told.ingest()
    assert paths_on_record(told) == ["a.pdf", "b.pdf", "other.pdf", "vantrupe.pdf"]


def test_what_people_asked_about_it_is_neither_matched_nor_reported(told):
    rows = [
        {"question": "Is the zorblatt at four bar?", "file_name": "vantrupe.pdf"},
        {"question": "What does the winch lift?", "file_name": "a.pdf"},
        {"question": "Who is it?", "file_name": "missing.pdf"},
    ]
    (told.pdfs / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told.ingest()
    forget(told, "vantrupe.pdf")
    report = report_matches(told.settings, told.warehouse)
    assert report["file_name"].to_list() == ["a.pdf", "missing.pdf"]
    told.ingest()
    assert marks(told) == set()


def test_versions_that_were_trained_on_it_or_went_on_from_one_are_listed_and_named_no_more(told):
    key, sha256 = told.warehouse.read(
        "SELECT document_id, sha256 FROM raw_pdfs WHERE path = 'vantrupe.pdf'"
    ).row(0)
    texts = dict.fromkeys(
        ("base", "path", "input_version", "mlflow_run_id", "dagster_run_id", "code", "machine"), "x"
    )
    models = [
        {**texts, "version": version, "trained_from": before, "trained_at": datetime.now(UTC)}
        for version, before in (("1", None), ("2", None), ("3", "2"), ("4", None))
    ]
    trained = [
        {"version": v, "document_id": k, "path": p, "sha256": s, "questions": 3}
        for v, k, p, s in [
            ("2", key, "vantrupe.pdf", sha256),
            ("2", "other", "other.pdf", "00"),
            ("4", "other", "other.pdf", "00"),
        ]
    ]
    for table, rows in (("models", models), ("model_documents", trained)):
        told.warehouse.replace(table, pl.DataFrame(rows, schema=TABLES[table].schema))
    said = forget(told, "vantrupe.pdf")
    assert (said["versions"], said["withdrawn"]) == (["2", "3"], [])
    assert said["rows"]["model_documents"] == 1
    assert marks(told) == set()
    sql = "SELECT path, sha256, questions FROM model_documents WHERE version = '2' ORDER BY path"
    assert told.warehouse.read(sql).rows() == [
        (f"forgotten-{key[-8:]}", sha256, 3),
        ("other.pdf", "00", 3),
    ]
    assert forget(told, "vantrupe.pdf")["versions"] == ["2", "3"]
    recorded = told.warehouse.read("SELECT versions FROM forgotten")["versions"]
    assert recorded.to_list() == [["2", "3"]]


def test_what_the_ui_showed_of_earlier_contents_goes_though_nobody_knows_them(told):
    told.ingest()
    text = " ".join(told.chunks_of("vantrupe.pdf")[0].split())
    with told.instance() as instance:
        table = f"| anchor | positive |\n| --- | --- |\n| What is owed? | {text} |"
        shown = {"preview": dg.MetadataValue.md(table)}
        instance.report_runless_asset_event(
            dg.AssetMaterialization("training_pairs", metadata=shown)
        )
    told.put("vantrupe.pdf", says="harmless")
    told.ingest()
    assert ("dagster/history/runs/index.db asset_keys.last_materialization", "zorblatt") in marks(
        told
    )
    forget(told, "vantrupe.pdf")
    assert marks(told) == set()


def test_a_page_that_says_what_an_asset_is_called_leaves_dagsters_records_alone(told):
    (told.pdfs / "title.pdf").write_text("Parsed markdown")
    told.ingest()
    with told.instance() as instance:
        before = {key.to_user_string() for key in instance.all_asset_keys()}
        forget(told, "title.pdf")
        assert {key.to_user_string() for key in instance.all_asset_keys()} == before
        event = instance.get_latest_materialization_event(dg.AssetKey("parsed_markdown"))
        assert event
        assert all(instance.all_logs(run.run_id) for run in instance.get_runs())


@dg.job
def nothing() -> None:
    """A run that does nothing."""


STEPS = [
    (forgetting, "clear_trainings"),
    (forgetting, "redact_file"),
    (forgetting, "_forget_rows"),
    (Warehouse, "compact"),
]


@pytest.mark.parametrize(("owner", "step"), STEPS, ids=[name for _, name in STEPS])
def test_a_command_that_ended_half_way_is_finished_by_the_next(told, monkeypatch, owner, step):
    def end(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(owner, step, end)
        with pytest.raises(KeyboardInterrupt):
            forget(told, "vantrupe.pdf")
    said = forget(told, "vantrupe.pdf")
    assert [row["path"] for row in said["documents"]] == ["vantrupe.pdf"]
    assert marks(told) == set()
    assert paths_on_record(told) == ["a.pdf", "b.pdf"]
    assert not told.ingest().changed


def test_what_a_run_wrote_of_it_meanwhile_goes_too(told, monkeypatch):
    """A person starts a run in the UI that has read the document before its rows went."""
    rows = told.warehouse.read("SELECT * FROM raw_pdfs WHERE path = 'vantrupe.pdf'")
    compact = Warehouse.compact
    began: list[str] = []

    def run_began(warehouse: Warehouse) -> None:
        compact(warehouse)
        if not began:
            warehouse.replace("raw_pdfs", rows, {"path": ["vantrupe.pdf"]})
            with told.instance() as instance:
                began.append(nothing.execute_in_process(instance=instance).run_id)

    monkeypatch.setattr(Warehouse, "compact", run_began)
    said = forget(told, "vantrupe.pdf")
    assert said["rows"]["raw_pdfs"] == 2
    assert marks(told) == set()


HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_while_another_command_is_at_work_forget_waits_and_says_so_once(told, capfd):
    pipe, lock = subprocess.PIPE, command_lock(told.settings.home).lock_file
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        said: list[str] = []

        def end_when_it_waits() -> None:
            while "Waiting for that to end" not in "".join(said):
                said.append(capfd.readouterr().err)
            said.extend(paths_on_record(told))
            other.communicate()

        watching = Thread(target=end_when_it_waits)
        watching.start()
        forget(told, "vantrupe.pdf")
        watching.join()
    assert said[-3:] == ["a.pdf", "b.pdf", "vantrupe.pdf"]  # nothing happened before
    assert "".join(said).count("At work in this home: an embed-assets command") == 1
    assert f"process {other.pid}" in "".join(said)
    assert paths_on_record(told) == ["a.pdf", "b.pdf"]
