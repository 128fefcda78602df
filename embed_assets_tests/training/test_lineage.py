"""What a version's record says, whichever version of the project kept it, and where it is shown."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from embed_assets.command.lineage import lineage_summary, lineage_text
from embed_assets.definitions import build_definitions
from embed_assets.machine import this_machine
from embed_assets.models.card import model_card
from embed_assets.models.identity import model_identity
from embed_assets.partitions import DOCUMENTS
from embed_assets.resources.tracking import CHAMPION, Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training import assets as training
from embed_assets.training.bundle.files import BILL, PROVENANCE, RECORD
from embed_assets.training.bundle.writing import write_bundle
from embed_assets.training.hub_card import CARD
from embed_assets.training.kept import KEPT
from embed_assets.training.lineage import version_lineage
from embed_assets.training.tables import (
    SHOWN_AT_ONCE,
    documents_list,
    documents_table,
    first_documents,
)
from embed_assets_tests.rows import NOW, filled, model
from embed_assets_tests.tiny_model import make_tiny_model
from embed_assets_tests.training.trainings import fill


@dataclass(frozen=True)
class Home:
    """A home in which a version was trained, and what Dagster was told of it."""

    settings: Settings
    metadata: Mapping[str, dg.MetadataValue]
    told: Mapping[str | None, dg.AssetObservation]
    """By partition."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Of two documents, one of which has left before the training ends."""
    folder = tmp_path_factory.mktemp("home")
    base = make_tiny_model(tmp_path_factory.mktemp("model"))
    settings = Settings(model=str(base), home=folder, pdfs=folder)
    fill(Warehouse.of(settings))
    definitions = build_definitions(settings, {"io_manager": dg.mem_io_manager})
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(DOCUMENTS, ["one"])
        done = definitions.resolve_job_def("train").execute_in_process(
            run_config={"ops": {"finetuned_model": {"config": {"epochs": 1, "batch_size": 4}}}},
            asset_selection=[dg.AssetKey("finetuned_model")],
            instance=instance,
        )
        seen = instance.fetch_observations(dg.AssetKey("raw_pdfs"), limit=10).records
    (made,) = done.asset_materializations_for_node("finetuned_model")
    observations = [record.asset_observation for record in seen]
    told = {found.partition: found for found in observations if found is not None}
    return Home(settings, made.metadata, told)


def record_of(home: Home, version: str | None) -> dict[str, Any]:
    return version_lineage(Warehouse.of(home.settings), home.settings, version)


# From a version to its documents.


def test_a_version_says_what_its_base_was_what_was_asked_and_what_it_took(home: Home) -> None:
    record = record_of(home, None)
    assert record["base"] == home.settings.model
    assert record["base_revision"] is None, "a plain folder's identity says what it was"
    assert record["base_identity"] == model_identity(model_card(home.settings))
    assert record["splits"] == {"train": 14, "validation": 2}
    assert record["seconds"] > 0
    assert (record["energy_wh"] is None) == (record["energy_of"] is None)
    assert record["code"].startswith("embed-assets ")
    assert record["machine"] == str(this_machine())
    assert [row["questions"] for row in record["documents"]] == [7, 7]
    assert len(record["chunks"]) == 14
    assert Path(record["pairs"]).is_file()


def test_a_version_leads_to_its_pages(home: Home) -> None:
    record = record_of(home, "v1")
    assert record["dagster_run"].endswith(f"/runs/{record['dagster_run_id']}")
    assert record["dagster_assets"]["finetuned_model"].endswith("/assets/finetuned_model")
    assert f"/runs/{record['mlflow_run_id']}" in record["mlflow_run"]


def test_a_person_reads_all_of_it(home: Home) -> None:
    summary = lineage_summary(home.settings, None)
    text = lineage_text(summary)
    first, standing, *_ = text.splitlines()
    assert first.endswith("on 14 questions about 2 documents")
    assert standing == "There is no champion."
    for said in (
        "14 for training, 2 for validation",
        "epochs=1",
        str(this_machine()),
        summary["pairs"],
    ):
        assert said in text
    for said in ("code", "dagster_run", "mlflow_run", "dagster_run_id", "mlflow_run_id"):
        assert summary[said] in text
    assert text.endswith("     7  sha256 of tw  two.pdf"), "each document, with its questions"
    assert "None" not in text


def test_the_ui_shows_what_a_version_was_made_from(home: Home) -> None:
    shown = {name: entry.value for name, entry in home.metadata.items()}
    record = record_of(home, "1")
    assert shown["base"] == record["base"]
    assert (shown["documents"], shown["chunks"], shown["pairs"]) == (2, 14, 14)
    assert shown["splits"] == "14 for training, 2 for validation"
    assert "epochs=1" in str(shown["settings"])
    assert shown["seconds"] == record["seconds"]
    for name in ("code", "machine", "base_identity", "mlflow_run_id"):
        assert shown[name] == record[name]
    assert shown["pairs_file"] == record["pairs"]
    assert "`one.pdf`](/assets/raw_pdfs?view=partitions&partition=one)" in str(
        shown["learned_from"]
    )
    assert "learned_from_all" not in shown, "two documents are all there are"
    assert shown["dagster/row_count"] == 1, "versions: the rows of the asset's table"


def test_a_document_that_is_there_says_in_the_ui_which_version_learned_from_it(home: Home) -> None:
    run = record_of(home, "1")["dagster_run_id"]
    assert list(home.told) == ["one"]
    told = home.told["one"]
    assert told.description == "Version 1 learned from it: 7 pairs"
    assert told.metadata["learned_by_v1"].value == f"7 pairs trained [version 1](/runs/{run})"


def test_nothing_in_a_bundle_names_a_folder_of_this_machine(home: Home, tmp_path: Path) -> None:
    """Of a version whose training is kept, with its card."""
    copy = shutil.copytree(home.settings.home, tmp_path / "home")
    settings = home.settings.model_copy(update={"home": copy})
    assert (settings.models / "v1" / KEPT).is_dir()
    assert (settings.models / "v1" / CARD).is_file()
    learned = [{"version": "1", "document_id": "one", "path": "one.pdf", "sha256": "1" * 64}]
    warehouse = Warehouse.of(settings)
    warehouse.replace("model_documents", filled("model_documents", learned))
    write_bundle(settings, "1", tmp_path / "bundle")
    files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert {CARD, RECORD, BILL, PROVENANCE} < {path.name for path in files}
    here = (copy, home.settings.home, Path(home.settings.model).parent, "127.0.0.1", "localhost")
    for path in files:
        content = path.read_bytes()
        assert [place for place in here if str(place).encode() in content] == [], path.name


def test_the_record_is_read_from_the_warehouse_that_is_given(settings, keep):
    """Work that is done gives one that waits as long as it must."""
    keep("1")
    given = settings.warehouse_file.rename(settings.home / "given.duckdb")
    assert version_lineage(Warehouse(path=str(given)), settings, None)["version"] == "1"


def documents(count: int, path: str = "manuals/service manual {}.pdf") -> list[dict[str, Any]]:
    return [
        {
            "document_id": f"manuals-service-manual-{number}-0123abcd",
            "path": path.format(number),
            "sha256": "0123456789abcdef",
            "questions": number,
        }
        for number in range(count)
    ]


def test_a_long_table_says_how_many_more_there_are() -> None:
    table = documents_table(documents(1203))
    assert "`manuals/service manual 1202.pdf`" in table
    assert "`manuals/service manual 702.pdf`" not in table, "those with most questions are there"
    assert table.endswith("… and 703 more")
    assert "more" not in documents_table(documents(2))


def test_dagster_shows_the_first_documents_without_a_click() -> None:
    short = first_documents(documents(1203))
    assert SHOWN_AT_ONCE - 250 < len(short) < SHOWN_AT_ONCE
    assert first_documents(documents(2)) == documents_table(documents(2))


def test_a_path_that_would_break_the_table_is_told_by_its_id() -> None:
    table = documents_table(documents(1, path="a|b.pdf"))
    assert "a|b" not in table
    assert "[`manuals-service-manual-0-0123abcd`]" in table


@pytest.mark.parametrize(
    "path", ["[x](javascript:alert(1)) **b** c.pdf", "<img src=x onerror=alert(1)>.pdf"]
)
def test_signs_in_a_path_stand_as_they_are_in_lists_and_tables(path: str) -> None:
    for text in (documents_list(documents(1, path), 5000), documents_table(documents(1, path))):
        assert f"[`{path}`](" in text


@pytest.mark.parametrize("path", ["a|b.pdf", "a`b`.pdf", "new\nline.pdf"])
def test_a_path_that_would_break_a_list_is_told_by_its_id(path: str) -> None:
    [line] = documents_list(documents(1, path), 5000).splitlines()
    assert line.startswith("- [`manuals-service-manual-0-0123abcd`](http://")


def test_a_list_of_documents_fits_into_its_room_and_says_how_many_there_are() -> None:
    said = documents_list(documents(100), 2000)
    assert 1500 < len(said) <= 2000
    assert said.endswith("\n- … 100 in all")
    assert "in all" not in documents_list(documents(2), 2000)


def test_only_so_many_documents_are_told_those_with_most_pairs_first(monkeypatch) -> None:
    monkeypatch.setattr(training, "TOLD", 2)
    rows = documents(4)
    record = {"version": "7", "dagster_run_id": "run", "documents": rows}

    @dg.asset
    def finetuned_model(context: dg.AssetExecutionContext) -> None:
        training._tell_documents(context, record)

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(DOCUMENTS, [row["document_id"] for row in rows])
        dg.materialize([finetuned_model], instance=instance)
        seen = instance.fetch_observations(dg.AssetKey("raw_pdfs"), limit=10).records
    told = [record.asset_observation.description for record in seen if record.asset_observation]
    assert told == [f"Version 7 learned from it: {pairs} pairs" for pairs in (2, 3)]


# What older and other versions say.


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(pdfs=tmp_path, home=tmp_path / "home")


@pytest.fixture
def keep(settings: Settings) -> Callable[..., None]:
    """Writes rows of models, each trained an hour after the one before."""

    def write(*versions: str, **known: Any) -> None:
        rows = [
            model(version, trained_at=NOW + timedelta(hours=n), **known)
            for n, version in enumerate(versions)
        ]
        Warehouse.of(settings).replace("models", pl.concat(rows))

    return write


@pytest.mark.parametrize(
    ("kept", "used", "chosen"),
    [
        (
            {"set": {"epochs": 3}, "used": {"epochs": 3, "learning_rate": 6e-5}},
            {"epochs": 3, "learning_rate": 6e-5},
            ["Settings     other than the defaults: epochs=3"],
        ),
        ({"epochs": 3}, {"epochs": 3}, []),
        (None, None, []),
    ],
)
def test_settings_that_were_set_are_told_from_what_the_others_came_to(
    settings, keep, kept, used, chosen
):
    keep("1", settings=kept and json.dumps(kept))
    summary = lineage_summary(settings, "1")
    assert summary["settings"] == used
    said = lineage_text(summary).splitlines()
    assert [line for line in said if line.startswith("Settings")] == chosen


def test_a_version_of_an_older_release_says_what_it_knows_and_no_more(settings, keep):
    keep("1", base="a base")
    summary = lineage_summary(settings, "1")
    unknown = ("base_revision", "splits", "seconds", "energy_wh", "energy_of", "code", "comparison")
    assert [summary[name] for name in unknown] == [None] * len(unknown)
    text = lineage_text(summary)
    assert text.startswith("Version 1, fine-tuned from a base on 0 questions about 0 documents\n")
    assert "None" not in text


def test_what_is_known_is_said_with_its_unit(settings, keep):
    keep(
        "1",
        base="team/base",
        base_revision="0123abcd",
        splits='{"train": 3}',
        seconds=1234.5,
        energy_wh=12.3456,
        energy_of="package-0",
    )
    text = lineage_text(lineage_summary(settings, "1"))
    assert "fine-tuned from team/base (0123abcd) on" in text
    assert "1,234 s, 12.35 Wh (package-0)" in text
    assert "3 for training" in text


def test_the_newest_is_shown_and_says_which_other_one_is_the_champion(settings, keep):
    keep("1", "2")
    tracking = Tracking(home=str(settings.home))
    client, name = tracking.client(), tracking.connect()
    client.create_registered_model(name)
    for _ in range(2):
        client.create_model_version(name, str(settings.home))
    client.set_registered_model_alias(name, CHAMPION, "1")
    newest, first = (lineage_summary(settings, version) for version in (None, "1"))
    assert (newest["version"], newest["champion"], newest["champion_version"]) == ("2", False, "1")
    assert (first["champion"], first["aliases"]) == (True, ["champion"])
    assert lineage_text(newest).splitlines()[1] == "The champion is version 1."
    assert lineage_text(first).splitlines()[1] == "It is the champion."


def test_without_mlflow_everything_else_is_said_at_once(settings, keep, monkeypatch, free_port):
    keep("1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://any:s3cret@127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # set by the command: put back
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    summary = lineage_summary(settings, None)
    assert [summary[name] for name in ("champion", "aliases", "mlflow_run")] == [None] * 3
    assert "MLflow can't say which models are this home's" in lineage_text(summary).splitlines()[1]
    assert "s3cret" not in json.dumps(summary)


def evaluation(run_id: str, named: str, hours: float) -> dict[str, Any]:
    same = {"questions_version": "q", "corpus_version": "c", "dimensions": [8]}
    measured_at = NOW + timedelta(hours=hours)
    return same | {"run_id": run_id, "model": named, "measured_at": measured_at}


def test_a_version_says_what_its_own_comparison_came_to(settings, keep):
    """Another was judged on the same questions, and a third one's comparison was cut off."""
    warehouse = Warehouse.of(settings)
    rows = [
        model(v, mlflow_run_id=f"training {v}", trained_at=NOW + timedelta(hours=int(v)))
        for v in ("1", "2", "3")
    ]
    warehouse.replace("models", pl.concat(rows))
    measured = [
        evaluation("comparison 1", "base", 1.1),
        evaluation("training 1", "tuned", 1.2),
        evaluation("comparison 2", "base", 2.1),
        evaluation("training 2", "tuned", 2.2),
        evaluation("cut off", "base", 3.1),
        evaluation("training 3", "tuned", 3.2),
    ]
    warehouse.replace("evaluations", filled("evaluations", measured))
    compared = [
        {
            "run_id": f"comparison {number}",
            "model": "base",
            "split": "test_labelled",
            "dimension": 8,
            "score": 0.5,
            "tuned": 0.5 + number / 10,
            "verdict": verdict,
            "documents": 12,
            "questions": 40,
        }
        for number, verdict in ((1, "better"), (2, "worse"))
    ]
    warehouse.replace("model_comparisons", filled("model_comparisons", compared))
    found = [lineage_summary(settings, version)["comparison"] for version in ("1", "2", "3")]
    assert [row and row["mlflow_run_id"] for row in found] == ["comparison 1", "comparison 2", None]
    assert "0.500 → 0.600" in found[0]["verdict"]
    assert f"Verdict      {found[0]['verdict']}" in lineage_text(lineage_summary(settings, "1"))
