"""Which version is the champion, and which one was before it."""

from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient

from embed_assets.errors import ProjectError
from embed_assets.models.registry import (
    champion_before,
    champion_version,
    make_champion,
    redact_descriptions,
    register,
    withdraw,
    write_description,
    write_model_description,
)
from embed_assets.resources.tracking import (
    CHAMPION,
    MADE_CHAMPION,
    TRAINED_IN,
    WITHDRAWN,
    Tracking,
)
from embed_assets.training.tracked import model_name
from embed_assets_tests.decisions import BY_TEST
from embed_assets_tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def tracking(home: Path) -> Tracking:
    """A registry with the versions 1, 2 and 3, and no champion."""
    made = Tracking(home=str(home))
    client, name = made.client(), made.connect()
    if client.search_registered_models():
        client.delete_registered_model(name)
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, str(home))
    return made


def test_before_anything_is_registered_there_is_no_champion(tmp_path):
    empty = Tracking(home=str(tmp_path))
    assert champion_version(empty) is None
    assert champion_before(empty, "1") is None


def test_mlflow_is_told_that_the_experiment_trains_models(tracking):
    experiment = tracking.client().get_experiment_by_name(tracking.name)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_registered_versions_are_no_champions_by_themselves(tracking):
    assert champion_version(tracking) is None
    assert champion_before(tracking, "3") is None


def test_the_champion_is_the_one_before_until_it_is_replaced_and_afterwards_too(tracking):
    make_champion(tracking, "1", BY_TEST)
    assert champion_before(tracking, "1") is None
    assert champion_before(tracking, "3") == "1"
    make_champion(tracking, "3", BY_TEST)
    assert champion_version(tracking) == "3"
    assert champion_before(tracking, "3") == "1"


def test_making_the_champion_champion_again_forgets_nothing(tracking):
    for version in ("1", "2", "2"):
        make_champion(tracking, version, BY_TEST)
    assert champion_before(tracking, "2") == "1"


def test_a_champion_that_a_person_chose_counts(tracking):
    make_champion(tracking, "1", BY_TEST)
    tracking.client().set_registered_model_alias(tracking.name, CHAMPION, "2")
    assert champion_before(tracking, "3") == "2"


def test_a_server_that_can_t_say_is_no_server_without_a_champion(tmp_path, free_port, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://person:secret-word@127.0.0.1:{free_port()}")
    with pytest.raises(ProjectError, match="MLflow can't say which models are this home's") as said:
        champion_version(Tracking(home=str(tmp_path)))
    assert "secret-word" not in str(said.value)


def test_a_model_is_registered_once_for_each_training(tmp_path):
    tracking = Tracking(home=str(tmp_path))
    model = make_tiny_model(tmp_path / "model")
    first = register(tracking, model, "run-1")
    assert register(tracking, model, "run-1") == first  # the run was killed, and its work taken up
    assert register(tracking, model, "run-2") != first
    assert tracking.client().get_model_version(tracking.name, first).tags == {TRAINED_IN: "run-1"}


def test_a_logged_model_has_a_telling_name_and_names_no_path_of_this_machine(tmp_path):
    tracking = Tracking(home=str(tmp_path))
    pairs = pl.DataFrame({"document_id": ["a", "a", "b"]})
    called = model_name("org/tiny-1.5", pairs)
    version = register(tracking, make_tiny_model(tmp_path / "model"), "run-1", called)
    client = tracking.client()
    registered = client.get_model_version(tracking.name, version)
    assert registered.source is not None
    logged = client.get_logged_model(registered.source.removeprefix("models:/"))
    assert logged.name == "tiny-1-5 on 3 pairs of 2 documents"
    assert logged.tags["mlflow.source.name"] == "embed-assets finetuned_model"


# What the registry says of a version.


def description(tracking: Tracking, version: str = "1") -> str | None:
    return tracking.client().get_model_version(tracking.name, version).description


def test_a_description_is_written_anew_and_one_of_a_person_stays(tracking):
    client, name = tracking.client(), tracking.name
    for text in ("first", "second", "second"):
        write_description(tracking, "1", text, {"documents": "3"})
        assert description(tracking) == text
    assert client.get_model_version(name, "1").tags["documents"] == "3"
    client.update_model_version(name, "1", "what a person wrote")
    write_description(tracking, "1", "third", {"documents": "4"})
    assert description(tracking) == "what a person wrote"
    assert client.get_model_version(name, "1").tags["documents"] == "4"


def test_the_registered_model_is_described_unless_a_person_did(tracking):
    client, name = tracking.client(), tracking.name
    for text in ("first", "second"):
        write_model_description(tracking, text)
        assert client.get_registered_model(name).description == text
    client.update_registered_model(name, "what a person wrote")
    write_model_description(tracking, "third")
    assert client.get_registered_model(name).description == "what a person wrote"


def test_a_command_killed_between_mark_and_description_leaves_ours_ours(tracking, monkeypatch):
    write_description(tracking, "1", "first", {})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "update_model_version", killed)
        with pytest.raises(KeyboardInterrupt):
            write_description(tracking, "1", "second", {})
    assert description(tracking) == "first"
    write_description(tracking, "1", "third", {})
    assert description(tracking) == "third"


def test_descriptions_are_redacted_and_stay_whose_they_were(tracking):
    write_description(tracking, "1", "of a.pdf", {})
    tracking.client().update_model_version(tracking.name, "2", "a person on a.pdf")
    redact_descriptions(tracking, lambda text: text.replace("a.pdf", "forgotten-1"))
    assert (description(tracking), description(tracking, "2")) == (
        "of forgotten-1",
        "a person on forgotten-1",
    )
    write_description(tracking, "1", "anew", {})
    write_description(tracking, "2", "anew", {})
    assert (description(tracking), description(tracking, "2")) == (
        "anew",
        "a person on forgotten-1",
    )


def aliases_of(tracking: Tracking) -> dict[str, str]:
    model = tracking.registered_model()
    return {name: str(version) for name, version in model.aliases.items()} if model else {}


def test_the_champion_that_is_withdrawn_gives_way_to_the_newest_clean_one_before(tracking):
    for version in ("1", "2", "3"):
        make_champion(tracking, version, BY_TEST)
    assert withdraw(tracking, ["3"], BY_TEST) == ["3"]
    assert aliases_of(tracking) == {CHAMPION: "2", "previous": "1"}
    tags = tracking.client().get_model_version(tracking.name, "3").tags
    assert BY_TEST.why in tags[WITHDRAWN]
    assert withdraw(tracking, ["3"], BY_TEST) == []


def test_a_version_that_was_never_champion_or_was_withdrawn_does_not_take_its_place(tracking):
    client, name = tracking.client(), tracking.name
    client.set_model_version_tag(name, "1", MADE_CHAMPION, "by hand")
    client.set_registered_model_alias(name, CHAMPION, "3")
    assert withdraw(tracking, ["3"], BY_TEST) == ["3"]
    assert aliases_of(tracking) == {CHAMPION: "1"}
    assert withdraw(tracking, ["1"], BY_TEST) == ["1"]
    assert aliases_of(tracking) == {}


def test_challenger_and_previous_are_taken_and_the_clean_champion_stays(tracking):
    client, name = tracking.client(), tracking.name
    for alias, version in ((CHAMPION, "2"), ("previous", "1"), ("challenger", "3")):
        client.set_registered_model_alias(name, alias, version)
    assert withdraw(tracking, ["1", "3"], BY_TEST) == ["1", "3"]
    assert aliases_of(tracking) == {CHAMPION: "2"}


def test_the_champion_again_is_not_the_one_before_itself(tracking):
    client, name = tracking.client(), tracking.name
    make_champion(tracking, "1", BY_TEST)
    make_champion(tracking, "2", BY_TEST)
    client.set_registered_model_alias(name, "previous", "1")
    assert withdraw(tracking, ["2"], BY_TEST) == ["2"]
    assert aliases_of(tracking) == {CHAMPION: "1"}


def test_without_versions_mlflow_is_not_asked(tmp_path):
    assert withdraw(Tracking(home=str(tmp_path)), [], BY_TEST) == []
    assert not list(tmp_path.iterdir())
