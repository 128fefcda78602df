"""Settings come from the environment, then from `.env`, then from their defaults."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError

from embed_assets.command.cli import load_settings
from embed_assets.definitions import code_versions
from embed_assets.errors import SettingsError
from embed_assets.places import RemotePath
from embed_assets.resources.tracking import Tracking
from embed_assets.settings import PREFIX, Settings, shaped_by
from embed_assets.training.config import NOT_OF_ADAPTERS
from embed_assets_tests.documents.folders import folder_in_memory
from embed_assets_tests.tiny_model import make_tiny_model


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
    assert Settings().warehouse_file == folder / "data" / "home" / "warehouse.duckdb"


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


def test_a_folder_of_pdfs_may_have_a_url_and_whatever_name(folder, monkeypatch):
    for name in ("s3://bucket/papers", "sftp://me:s3cr3t@host/papers"):
        monkeypatch.setenv("EMBED_ASSETS_PDFS", name)
        assert Settings().pdfs == RemotePath(name)
        assert Settings().changed({"seed": 3}).pdfs == RemotePath(name)
        assert "s3cr3t" not in f"{Settings()!r} {Settings()}"
    for name in ("2026", "null", '{"folder": "a"}'):  # no JSON, though it looks like it
        monkeypatch.setenv("EMBED_ASSETS_PDFS", name)
        assert Settings().pdfs == folder / name


def test_questions_beside_the_pdfs_in_a_bucket_are_taken_once_they_are_there():
    with folder_in_memory() as folder:
        settings = Settings.model_validate({"pdfs": folder.place})
        assert settings.labelled_files == ()
        folder.put("questions.jsonl")
        assert settings.labelled_files == (folder.place / "questions.jsonl",)


def test_whether_there_are_questions_beside_the_pdfs_is_not_guessed():
    settings = Settings.model_validate({"pdfs": "nowhere://bucket"})
    with pytest.raises(SettingsError, match="EMBED_ASSETS_PDFS: nowhere://bucket"):
        _ = settings.labelled_files


def test_named_files_replace_the_questions_beside_the_pdfs(folder, monkeypatch):
    (folder / "questions.jsonl").touch()
    monkeypatch.setenv("EMBED_ASSETS_PDFS", ".")
    monkeypatch.setenv("EMBED_ASSETS_LABELLED", "other.jsonl")
    assert Settings().labelled_files == (folder / "other.jsonl",)


def test_mlflow_is_in_the_home_folder_unless_its_own_variable_says_otherwise(folder, monkeypatch):
    tracking = Tracking(home=str(Settings().home))
    assert tracking.uri == f"sqlite:///{folder}/data/home/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking.uri == "http://mlflow:5000"


def test_settings_that_are_equal_are_one_key_and_cannot_be_changed():
    settings = Settings()
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


# Which assets a setting shapes.

WRITTEN = {"questions": "openai:m", "judge": "openai:j", "filters": "all"}
"""Under which every setting of the questions has an effect."""
WITNESSES: dict[str, Any] = {
    "follow_links": True,
    "ocr": "deu",
    "pdf_passwords": "passwords.txt",
    "largest_pdf_mb": 5,
    "pdfs": "elsewhere",
    "project": "manuals",
    "dagster_storage": "postgresql+psycopg2://me@db/dagster",
    "ray_jobs": "http://head:8265",
    "warehouse": "ducklake:postgres:dbname=x?data=/y",
    "home": "elsewhere",
    "partitions": 500,
    "documents_per_run": 256,
    "model": "MODEL",
    "query_prompt": "q: ",
    "document_prompt": "d: ",
    "dimensions": "64",
    "precision": "fp32",
    "max_chunk_tokens": 100,
    "headings": "every",
    "engine": "ray",
    "workers": 3,
    "parse_timeout": 9,
    "questions": "openai:another",
    "questions_per_chunk": 3,
    "question_kinds": "question:2,title",
    "question_domain": "bees",
    "question_prompt": "prompt.jinja",
    "labelled": "q.jsonl",
    "labelled_purpose": "train",
    "llm_temperature": 0.1,
    "llm_max_tokens": 99,
    "llm_concurrency": 3,
    "llm_timeout": 9,
    "llm_requests_per_minute": 9,
    "llm_token_budget": 9,
    "llm_cost_budget": 9,
    "llm_input_price": 9,
    "llm_output_price": 9,
    "filters": "pointing,duplicates",
    "judge": "openai:another",
    "judge_threshold": 4,
    "baselines": "none",
    "learning_curve": True,
    "method": "lora",
    "loss": "gist",
    "epochs": 7,
    "max_pairs": 7,
    "batch_size": 7,
    "pairs_together": 2,
    "learning_rate": 0.5,
    "frozen_share": 0.5,
    "hard_negatives": 1,
    "merge": "best",
    "retrain_from": "champion",
    "processes": 7,
    "seed": 7,
    "promotion_margin": 0.5,
    "general": "none",
    "general_loss": 0.5,
    "figures_behind": 7,
    "watch": True,
    "lost_share": 0.5,
    "retrain_share": 0.5,
    "retrain_wait_hours": 7.0,
    "retrain_pause_hours": 7.0,
    "trusted_models": "someone/else",
    "dense_weight": 0.3,
    "lance_from": 7,
    "ui_hosts": "a.example.com",
    "serve_key": "a key of the server",
    "serve_hosts": "a.example.com",
    "serve_inputs": 7,
    "serve_tokens": 7,
    "serve_body_mb": 7,
    "serve_queue": 7,
    "serve_batch": 7,
    "signing_key": "signing.pem",
}
"""Another value of each setting."""


def test_every_setting_says_which_assets_it_shapes():
    stages = {asset for name in Settings.model_fields for asset in shaped_by(name)}
    assert stages < set(code_versions(Settings())), "names of assets"
    assert set(WITNESSES) == set(Settings.model_fields), "a new setting needs another value here"


def test_a_setting_without_a_mark_is_an_error(monkeypatch):
    monkeypatch.setitem(Settings.model_fields, "epochs", Field(default=1))
    with pytest.raises(LookupError, match="epochs doesn't say which assets it shapes"):
        Settings().shape("chunks")


@pytest.mark.parametrize("name", WITNESSES)
def test_a_setting_changes_the_versions_of_the_assets_that_it_shapes_and_no_others(
    folder, name, tmp_path_factory
):
    (folder / "prompt.jinja").write_text("Ask {{ n }} questions.")
    rows = [{"question": "Why?", "file_name": "a.pdf"}]
    (folder / "q.jsonl").write_text(json.dumps(rows[0]))
    given = dict(WRITTEN)
    if name == "labelled_purpose":
        given["labelled"] = "q.jsonl"
    value = WITNESSES[name]
    if value == "MODEL":
        value = str(make_tiny_model(tmp_path_factory.mktemp("model"), limit=64))
    before = code_versions(Settings.model_validate(given))
    after = code_versions(Settings.model_validate(given | {name: value}))
    assert {asset for asset in before if before[asset] != after[asset]} == shaped_by(name)


def test_what_has_no_effect_beside_another_setting_shapes_nothing():
    adapter = Settings(method="adapter")
    for name in NOT_OF_ADAPTERS:
        changed = adapter.model_copy(update={name: WITNESSES[name]})
        assert code_versions(changed) == code_versions(adapter)


def test_the_weight_of_hybrid_search_counts_where_that_is_compared():
    def versions(**given: Any) -> dict[str, str]:
        return code_versions(Settings.model_validate(given))

    before, after = versions(), versions(dense_weight=0.7)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"base_eval"}, "the comparison follows it"
    assert versions(baselines="bm25") == versions(baselines="bm25", dense_weight=0.7)


def test_a_value_that_stands_for_an_unmarked_setting_is_an_error():
    with pytest.raises(ValueError, match="not marked to shape chunks: epochs"):
        Settings().shape("chunks", epochs=None)


@pytest.mark.parametrize(
    ("given", "versions"),
    [
        ({}, {}),
        ({"max_chunk_tokens": 128}, {"chunks": "2, all-MiniLM-L6-v2 tokens, limit 128"}),
        ({"questions": "none"}, {"synthetic_questions": "none"}),
        (
            {"filters": "all"},
            {
                "synthetic_questions": "extractive extractive-2, "
                "filters pointing,unanswerable,verbatim"
            },
        ),
        (
            {"questions": "openai:gpt-4o-mini", "judge": "openai:gpt-4o"},
            {
                "synthetic_questions": 'openai:gpt-4o-mini llm-1+394c1480 {"n": 2, "temperature": '
                '0.7, "max_tokens": 1024, "domain": ""}, filters unanswerable, '
                "judge-1 openai:gpt-4o 3"
            },
        ),
        (
            {"questions": "huggingface:m", "question_domain": "bees", "questions_per_chunk": 3},
            {
                "synthetic_questions": 'huggingface:m llm-1+394c1480 {"n": 3, "temperature": 0.7, '
                '"max_tokens": 1024, "domain": "bees"}, filters unanswerable'
            },
        ),
    ],
)
def test_what_older_homes_hold_of_documents_and_questions_is_not_made_anew(given, versions):
    """Their versions, to the letter: another one asks a language model again for every chunk."""
    kept = {
        "raw_pdfs": "1",
        "parsed_markdown": f"pymupdf4llm-layout+own-text {version('pymupdf')}",
        "chunks": "2, all-MiniLM-L6-v2 tokens, limit 256",
        "synthetic_questions": "extractive extractive-2, filters unanswerable",
    }
    made = code_versions(Settings.model_validate(given))
    assert {asset: made[asset] for asset in kept} == kept | versions
