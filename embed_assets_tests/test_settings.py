"""Settings come from the environment, then from `.env`, then from their defaults."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from embed_assets.command.cli import load_settings
from embed_assets.errors import SettingsError
from embed_assets.settings import PREFIX, Settings


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working directory and no setting in the environment."""
    for name in os.environ:
        if name.startswith(PREFIX) or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_setting_has_a_default_and_says_what_it_is():
    settings = Settings()
    assert settings.model == "all-MiniLM-L6-v2"
    assert all(field.description for field in Settings.model_fields.values())


def test_a_setting_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("EMBED_ASSETS_EPOCHS", "7")
    monkeypatch.setenv("EMBED_ASSETS_PRECISION", "fp32")
    assert (Settings().epochs, Settings().precision) == (7, "fp32")


def test_a_setting_is_read_from_the_env_file_of_the_working_directory(folder):
    (folder / ".env").write_text("EMBED_ASSETS_SEED=3\nSOMEONE_ELSES=1\n")
    assert Settings().seed == 3


def test_the_environment_wins_over_the_env_file(folder, monkeypatch):
    (folder / ".env").write_text("EMBED_ASSETS_SEED=3\nEMBED_ASSETS_EPOCHS=4\n")
    monkeypatch.setenv("EMBED_ASSETS_SEED", "5")
    assert (Settings().seed, Settings().epochs) == (5, 4)


def test_relative_paths_become_absolute_in_the_working_directory(folder, monkeypatch):
    monkeypatch.setenv("EMBED_ASSETS_PDFS", "my pdfs/../papers")
    assert Settings().pdfs == folder / "papers"
    assert Settings().home == folder / "data" / "home"
    assert Settings().warehouse == folder / "data" / "home" / "warehouse.duckdb"


def test_a_tilde_in_a_path_is_the_persons_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("EMBED_ASSETS_HOME", "~/state")
    assert Settings().home == folder / "state"


def test_labelled_files_are_separated_as_in_path(folder, monkeypatch):
    monkeypatch.setenv("EMBED_ASSETS_LABELLED", os.pathsep.join(["b.jsonl", "", "/data/a.jsonl"]))
    assert Settings().labelled_files == (folder / "b.jsonl", Path("/data/a.jsonl"))


def test_questions_beside_the_pdfs_are_taken_when_no_files_are_named(folder, monkeypatch):
    monkeypatch.setenv("EMBED_ASSETS_PDFS", "papers")
    assert Settings().labelled_files == ()
    beside = folder / "papers" / "questions.jsonl"
    beside.parent.mkdir()
    beside.touch()
    assert Settings().labelled_files == (beside,)


def test_named_files_replace_the_questions_beside_the_pdfs(folder, monkeypatch):
    (folder / "questions.jsonl").touch()
    monkeypatch.setenv("EMBED_ASSETS_PDFS", ".")
    monkeypatch.setenv("EMBED_ASSETS_LABELLED", "other.jsonl")
    assert Settings().labelled_files == (folder / "other.jsonl",)


def test_mlflow_is_in_the_home_folder_unless_its_own_variable_says_otherwise(folder, monkeypatch):
    assert Settings().tracking_uri == f"sqlite:///{folder}/data/home/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert Settings().tracking_uri == "http://mlflow:5000"


def test_settings_that_are_equal_are_one_key_and_cannot_be_changed():
    settings = Settings()
    assert settings.labelled_files == ()  # cached, which must not change the key
    assert hash(settings) == hash(Settings())
    with pytest.raises(ValidationError, match="frozen"):
        settings.epochs = 9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EPOCHS", "many"),
        ("EPOCHS", "0"),
        ("PRECISION", "int4"),
        ("LABELLED_PURPOSE", "fun"),
        ("LEARNING_RATE", "-1"),
        ("WORKERS", "-2"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it_and_what_it_was(monkeypatch, name, value):
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    message = str(error.value)
    assert message.startswith(f"{PREFIX}{name}: ")
    assert message.endswith(f"not '{value}'.")
    assert "\n" not in message
    assert error.value.status == 2
