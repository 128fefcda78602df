"""What a training starts from, and what the version that it leaves has learned from."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from embed_assets.command.lineage import lineage_summary, lineage_text
from embed_assets.definitions import build_definitions
from embed_assets.models.card import model_card
from embed_assets.models.encoder import load_model
from embed_assets.models.identity import model_identity
from embed_assets.models.registry import Version, make_champion, newest_model
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.training import start as training_starts
from embed_assets.training.assets import training_folder
from embed_assets.training.preparation import pairs_to_train, read_training_input
from embed_assets.training.record import PAIR_COLUMNS, PAIRS, read_version_pairs
from embed_assets.training.start import (
    LEAST_REPLAY,
    Start,
    as_named_today,
    learned_pairs,
    pairs_from,
    training_start,
)
from embed_assets_tests.decisions import BY_TEST
from embed_assets_tests.rows import model
from embed_assets_tests.tiny_model import make_tiny_model
from embed_assets_tests.training.trainings import fill, largest_difference

FIRST = Version("1", "base", Path("v1"))


def pairs(count: int, name: str, each: int = 1) -> pl.DataFrame:
    """Pairs as a training has them, so many about each chunk of a document."""
    return pl.DataFrame(
        [
            {
                "question_id": f"{number:04} {name}",
                "anchor": f"question {number} about {name}",
                "positive": "a text",
                "global_chunk_id": f"{name} {number // each}",
                "relevant_chunk_ids": [f"{name} {number // each}"],
                "document_id": name,
                "path": f"{name}.pdf",
                "sha256": f"sha256 of {name}",
                "generator": "openai:any",
            }
            for number in range(count)
        ]
    )


def known(frame: pl.DataFrame) -> pl.DataFrame:
    """The pairs as those that a version has learned from."""
    return learned_pairs(Start(), frame)


# Which pairs are trained on.


def test_new_pairs_train_beside_as_many_old_ones_spread_over_their_chunks() -> None:
    old, new = pairs(300, "old", each=2), pairs(140, "new")
    start = Start(FIRST, known(old))
    chosen = pairs_from(start, pl.concat([old, new]), Settings())
    assert chosen.filter(document_id="new").height == 140
    replayed = chosen.filter(document_id="old")
    assert replayed.height == 140
    assert replayed["global_chunk_id"].n_unique() == 140
    assert chosen["question_id"].is_sorted()
    shuffled = pl.concat([new, old]).sample(fraction=1, shuffle=True, seed=1)
    assert pairs_from(start, shuffled, Settings()).equals(chosen)


def test_few_new_pairs_train_beside_old_ones_enough_for_their_batches() -> None:
    old, new = pairs(300, "old"), pairs(3, "new")
    chosen = pairs_from(Start(FIRST, known(old)), pl.concat([old, new]), Settings())
    assert chosen["document_id"].value_counts().sort("count").rows() == [
        ("new", 3),
        ("old", LEAST_REPLAY),
    ]


@pytest.mark.parametrize("given", [{"max_pairs": 50}, {}])
def test_old_and_new_pairs_together_are_no_more_than_a_training_from_the_base_has(given) -> None:
    old, new = pairs(700, "old"), pairs(600, "new")
    there = pl.concat([old, new]).with_columns(generator=pl.lit("extractive"))
    settings = Settings(**given)
    wanted = pairs_to_train(there, settings)
    chosen = pairs_from(Start(FIRST, known(old)), there, settings)
    assert chosen.join(wanted, on="question_id", how="anti").is_empty()
    assert set(chosen["document_id"]) == {"old", "new"}
    assert set(wanted.filter(document_id="new")["anchor"]) <= set(chosen["anchor"])


def test_from_the_base_a_training_is_on_what_the_settings_say() -> None:
    there = pairs(300, "old")
    assert pairs_from(Start(), there, Settings(max_pairs=0)).equals(there)


# What a version has learned from.


def test_a_version_inherits_the_pairs_that_were_not_trained_on_again() -> None:
    old, new = pairs(4, "old"), pairs(2, "new")
    second = learned_pairs(Start(FIRST, known(old)), pl.concat([old.head(1), new]))
    origins = dict(second.select("anchor", "inherited_from").iter_rows())
    assert len(origins) == second.height == 6
    assert [origins[anchor] for anchor in old["anchor"]] == [None, "1", "1", "1"]
    assert [origins[anchor] for anchor in new["anchor"]] == [None, None]
    third = learned_pairs(Start(Version("2", "base", Path("v2")), second), pairs(1, "third"))
    origins = dict(third.select("anchor", "inherited_from").iter_rows())
    assert [origins[anchor] for anchor in old["anchor"]] == ["2", "1", "1", "1"]
    assert [origins[anchor] for anchor in new["anchor"]] == ["2", "2"]
    assert third.height == 7


def test_a_pair_that_a_twin_holds_is_inherited_from_the_one_and_trained_on_of_the_other() -> None:
    old = pairs(1, "old")
    twin = old.with_columns(document_id=pl.lit("twin"), sha256=pl.lit("sha256 of twin"))
    learned = learned_pairs(Start(FIRST, known(old)), twin)
    assert learned.select("document_id", "inherited_from").rows() == [("twin", None), ("old", "1")]


def test_what_is_inherited_bears_the_names_that_its_pdfs_have_now() -> None:
    names = ("one", "two", "copied", "gone")
    frame = known(pl.concat([pairs(1, name) for name in names]))
    pdfs = pl.DataFrame(
        [
            ("two", "two.pdf", "sha256 of one"),
            ("one", "one.pdf", "sha256 of two"),
            ("a copy", "a copy.pdf", "sha256 of copied"),
            ("copied", "copied.pdf", "sha256 of copied"),
        ],
        schema=["document_id", "path", "sha256"],
        orient="row",
    )
    named = as_named_today(frame, pdfs)
    assert named.select("document_id", "path", "sha256").rows() == [
        ("two", "two.pdf", "sha256 of one"),
        ("one", "one.pdf", "sha256 of two"),
        ("copied", "copied.pdf", "sha256 of copied"),
        ("gone", "gone.pdf", "sha256 of gone"),
    ]
    assert named.columns == frame.columns


def test_pairs_that_an_earlier_release_kept_are_of_their_version_s_own_training(tmp_path) -> None:
    frame = known(pairs(2, "one")).rename({"global_chunk_id": "chunk_id"})
    frame.drop("inherited_from").write_parquet(tmp_path / PAIRS)
    assert read_version_pairs(tmp_path / PAIRS).equals(known(pairs(2, "one")))


def test_a_training_is_taken_up_only_from_where_it_started() -> None:
    there, settings = pairs(2, "one"), Settings()
    folders = [training_folder(settings, "input", there, version) for version in (None, "1", "2")]
    assert len(set(folders)) == 3
    assert training_folder(settings, "input", there, "1") == folders[1]


# Where a training starts: a champion that was trained on one document, and two documents.


@dataclass(frozen=True)
class Home:
    """A home with a champion. settings: that ask for a training from the champion."""

    settings: Settings

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse.of(self.settings)

    @property
    def folder(self) -> Path:
        """The champion's."""
        return self.settings.models / "v1"

    def start(self, **changes: object) -> Start:
        settings = self.settings.changed(changes)
        return training_start(self.warehouse, settings, read_training_input(self.warehouse).pairs)

    def note(self, **values: object) -> None:
        """Put other values into the champion's row."""
        row = pl.DataFrame([{"version": "1", **values}])
        with self.warehouse.transaction() as transaction:
            transaction.update("models", row)

    def write(self, sql: str, *parameters: object) -> None:
        with self.warehouse.transaction() as transaction:
            transaction.execute(sql, parameters)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("original")
    base = make_tiny_model(folder)
    settings = Settings(home=folder / "home", model=str(base), retrain_from="champion")
    home = Home(settings)
    fill(home.warehouse)
    shutil.copytree(base, home.folder)
    trained = read_training_input(home.warehouse).pairs.filter(document_id="one")
    kept = known(trained).rename({"global_chunk_id": "chunk_id"})
    kept.select(PAIR_COLUMNS).write_parquet(home.folder / PAIRS)
    row = model(
        "1",
        path="models/v1",
        base_identity=model_identity(model_card(settings)),
        settings=json.dumps({"set": {}, "used": {"method": "full"}}),
        pairs=f"models/v1/{PAIRS}",
    )
    home.warehouse.replace("models", row)
    tracking = Tracking(home=str(settings.home))
    client, name = tracking.client(), tracking.connect()
    client.create_registered_model(name)
    client.create_model_version(name, str(home.folder))
    make_champion(tracking, "1", BY_TEST)
    return home


@pytest.fixture
def home(original: Home, tmp_path: Path) -> Home:
    shutil.copytree(original.settings.home, tmp_path / "home")
    return Home(original.settings.changed({"home": tmp_path / "home"}))


def test_a_training_goes_on_from_the_champion_where_all_that_it_learned_is_there(
    home: Home,
) -> None:
    start = home.start()
    assert start.version is not None
    assert (start.number, start.folder, start.reason) == ("1", home.folder, "")
    assert start.known["document_id"].unique().to_list() == ["one"]
    chosen = pairs_from(start, read_training_input(home.warehouse).pairs, home.settings)
    assert chosen["document_id"].value_counts().sort("document_id").rows() == [
        ("one", 7),
        ("two", 7),
    ]


def test_by_default_and_for_an_adapter_a_training_starts_from_the_base(home: Home) -> None:
    assert Settings().retrain_from == "base"
    for changes in ({"retrain_from": "base"}, {"method": "adapter"}):
        start = home.start(**changes)
        assert (start.version, start.reason) == (None, "")


def test_the_first_training_starts_from_the_base(home: Home) -> None:
    Tracking(home=str(home.settings.home)).client().delete_registered_model_alias(
        "embed-assets", "champion"
    )
    start = home.start()
    assert (start.version, start.reason) == (None, "there is no champion")


def another_base(home: Home) -> None:
    home.note(base_identity="another's")


def of_0_1_0(home: Home) -> None:
    home.note(base_identity=None)


def forgotten(home: Home) -> None:
    row = dict.fromkeys(TABLES["forgotten"].columns, "")
    values = row | {"versions": ["1"], "forgotten_at": datetime.now(UTC)}
    rows = pl.DataFrame([values], schema=TABLES["forgotten"].schema)
    home.warehouse.replace("forgotten", rows)


def an_adapter(home: Home) -> None:
    home.note(settings=json.dumps({"set": {}, "used": {"method": "adapter"}}))


def without_folder(home: Home) -> None:
    shutil.rmtree(home.folder)


def without_pairs(home: Home) -> None:
    (home.folder / PAIRS).unlink()


def without_record_of_pairs(home: Home) -> None:
    home.note(pairs=None)


def a_document_left(home: Home) -> None:
    for table in ("raw_pdfs", "chunks", "training_pairs"):
        home.write(f"DELETE FROM {table} WHERE document_id = 'one'")


def a_document_changed(home: Home) -> None:
    home.write("UPDATE raw_pdfs SET sha256 = 'another' WHERE document_id = 'one'")


def a_question_went(home: Home) -> None:
    home.write("DELETE FROM training_pairs WHERE question_id = 'q-one-0'")


def a_question_tests_now(home: Home) -> None:
    home.write("UPDATE training_pairs SET split = 'test_labelled' WHERE question_id = 'q-one-0'")


def nothing_is_new(home: Home) -> None:
    home.write("DELETE FROM training_pairs WHERE document_id = 'two' AND split = 'train'")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (another_base, "another base model"),
        (of_0_1_0, "another base model"),
        (forgotten, "a document that was forgotten"),
        (an_adapter, "an adapter"),
        (without_folder, "lost its folder"),
        (without_pairs, "no record of its pairs"),
        (without_record_of_pairs, "no record of its pairs"),
        (a_document_left, "1 PDF that left or changed"),
        (a_document_changed, "1 PDF that left or changed"),
        (a_question_went, "1 pair out of use by now"),
        (a_question_tests_now, "1 pair out of use by now"),
        (nothing_is_new, "knows all pairs"),
    ],
)
def test_a_training_starts_from_the_base_where_the_champion_does_not_do(
    home: Home, change: Callable[[Home], None], reason: str
) -> None:
    change(home)
    start = home.start()
    assert start.version is None
    assert reason in start.reason
    assert start.reason.startswith("version 1, the champion, ")


def test_other_prompts_than_the_champion_s_are_another_base(home: Home) -> None:
    assert "another base model" in home.start(query_prompt="q: ").reason


def test_a_pdf_that_only_moved_has_not_left(home: Home) -> None:
    for table in ("raw_pdfs", "chunks", "training_pairs"):
        home.write(f"UPDATE {table} SET document_id = 'uno' WHERE document_id = 'one'")
    home.write("UPDATE raw_pdfs SET path = 'uno.pdf' WHERE document_id = 'uno'")
    start = home.start()
    assert start.number == "1"
    assert start.known["path"].unique().to_list() == ["uno.pdf"]


# The asset itself: a document arrives after the first model was made champion.


@dataclass(frozen=True)
class Life:
    """A home that has seen two trainings, of which the second hardly moves. said: their logs."""

    home: Home
    said: list[str]

    def model(self, version: str) -> dict[str, Any]:
        return newest_model(self.home.warehouse, version)

    def pairs(self, version: str) -> pl.DataFrame:
        return pl.read_parquet(self.home.settings.models / f"v{version}" / PAIRS)

    def documents(self, version: str) -> dict[str, int]:
        """Number of questions by document, as the warehouse has them of a version."""
        sql = "SELECT document_id, questions FROM model_documents WHERE version = ? ORDER BY ALL"
        return dict(self.home.warehouse.read(sql, [version]).iter_rows())


def train(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, rate: float
) -> str:
    """Train a version at this learning rate and make it champion; gives the run's log."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    overrides = {"io_manager": dg.mem_io_manager}
    done = build_definitions(home.settings, overrides).resolve_job_def("train")
    run = done.execute_in_process(
        run_config={"ops": {"finetuned_model": {"config": {"learning_rate": rate}}}},
        asset_selection=[dg.AssetKey("finetuned_model")],
        instance=instance,
    )
    tracking = Tracking(home=str(home.settings.home))
    make_champion(tracking, newest_model(home.warehouse)["version"], BY_TEST)
    return "\n".join(entry.user_message for entry in instance.all_logs(run.run_id))


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    folder = tmp_path_factory.mktemp("life")
    settings = Settings(
        home=folder / "home",
        model=str(make_tiny_model(folder)),
        retrain_from="champion",
        epochs=1,
        batch_size=4,
    )
    home = Home(settings)
    said = []
    with dg.DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_starts, "LEAST_REPLAY", 2)
        patch.setattr(training_starts, "REPLAY_SHARE", 0.5)
        for names, rate in ((["one"], 1e-3), (["one", "two"], 1e-9)):
            fill(home.warehouse, names)
            said.append(train(home, instance, patch, rate))
    return Life(home, said)


def test_the_second_model_goes_on_from_the_first(life: Life) -> None:
    assert [life.model(version)["trained_from"] for version in "12"] == [None, "1"]
    assert "starts from the base model, since there is no champion. Of 7 " in life.said[0]
    assert "goes on from version 1, the champion. Of 14 training pairs 11 " in life.said[1]
    bases = {life.model(version)["base_identity"] for version in "12"}
    assert bases == {model_identity(model_card(life.home.settings))}
    assert {life.model(version)["base"] for version in "12"} == {life.home.settings.model}


def test_the_second_model_has_the_weights_of_the_first(life: Life) -> None:
    base, first, second = (
        dict(load_model(source).named_parameters())
        for source in (life.home.settings.model, life.model("1")["path"], life.model("2")["path"])
    )
    assert largest_difference(second, first) < 1e-6
    assert largest_difference(second, base) > 1e-4


def test_what_a_model_has_learned_from_is_recorded_with_all_that_it_inherits(life: Life) -> None:
    assert life.documents("1") == {"one": 7}
    assert life.documents("2") == {"one": 7, "two": 7}
    first, second = life.pairs("1"), life.pairs("2")
    assert first["inherited_from"].is_null().all()
    own, inherited = (second.filter(pl.col("inherited_from").is_null() == own) for own in (1, 0))
    assert own["document_id"].value_counts().sort("count").rows() == [("one", 4), ("two", 7)]
    assert inherited.select("document_id", "inherited_from").rows() == [("one", "1")] * 3
    assert second.select("anchor", "chunk_id").n_unique() == second.height


def test_mlflow_says_which_version_a_training_went_on_from(life: Life) -> None:
    client = Tracking(home=str(life.home.settings.home)).client()
    runs = [client.get_run(life.model(version)["mlflow_run_id"]) for version in "12"]
    assert [run.data.params["trained_from"] for run in runs] == ["None", "1"]
    assert [run.data.metrics["result/pairs"] for run in runs] == [7, 11]


def test_lineage_says_which_version_a_model_went_on_from(life: Life) -> None:
    second = lineage_summary(life.home.settings, "2")
    assert second["trained_from"] == "1"
    assert second["questions"] == len(second["chunks"]) == 14
    assert second["settings"]["trained_from"] == "1"
    assert ", going on from version 1" in lineage_text(second)
    first = lineage_summary(life.home.settings, "1")
    assert first["trained_from"] is None
    assert "going on" not in lineage_text(first)
