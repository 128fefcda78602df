"""The card of a version, as the hub reads it and as a person does."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from huggingface_hub import ModelCard as HubCard

from embed_assets.comparison.card import TITLES, judgement_of, rewrite_card
from embed_assets.comparison.tables import headline_table
from embed_assets.comparison.verdict import Comparison
from embed_assets.evaluation.significance import compare_models
from embed_assets.models.card import version_card
from embed_assets.models.identity import model_identity
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.training.hub_card import CARD, keep_card, write_hub_card
from embed_assets_tests.rows import filled, model
from embed_assets_tests.tiny_model import make_tiny_model

SECRET = "zorblatt"
"""In every text and every name of a document."""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version's model, with prompts."""
    from sentence_transformers import SentenceTransformer

    trained: Any = SentenceTransformer(str(make_tiny_model(tmp_path_factory.mktemp("model"))))
    trained.prompts = {"query": "ask:\n", "document": "page: "}
    folder = tmp_path_factory.mktemp("home") / "models" / "v3"
    trained.save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.fixture
def settings(tuned: Path) -> Settings:
    home = tuned.parent.parent
    (tuned / CARD).unlink(missing_ok=True)
    settings = Settings(home=home, pdfs=home, project="leases")
    warehouse = Warehouse.of(settings)
    document = f"{SECRET}.pdf"
    pl.DataFrame(
        {
            "anchor": [f"who is {SECRET}"] * 5,
            "positive": [f"{SECRET} is here"] * 5,
            "generator": ["extractive"] * 3 + ["openai:any"] * 2,
            "path": [document] * 5,
            "chunk_id": list("abcde"),
        }
    ).write_parquet(tuned / "pairs.parquet")
    used = {
        "method": "full",
        "epochs": 2,
        "learning_rate": 6e-5,
        "dimensions": [32, 16],
        "base": f"/somewhere/{SECRET}/base",
        "question_domain": "leases in Leith",
    }
    row = {
        "base": "/somewhere/base-of-ours",
        "path": "models/v3",
        "pairs": "models/v3/pairs.parquet",
        "settings": json.dumps({"set": {}, "used": used}),
        "trained_at": datetime.now(UTC),
        "mlflow_run_id": "run-of-mlflow",
        "dagster_run_id": "run-of-dagster",
        "base_revision": "r1",
        "splits": json.dumps({"train": 5, "test_labelled": 20}),
    }
    warehouse.replace("models", model("3", **row), {"version": ["3"]})
    learned = [{"version": "3", "document_id": SECRET, "path": document, "questions": 5}]
    warehouse.replace("model_documents", filled("model_documents", learned), {"version": ["3"]})
    return settings


@pytest.fixture
def result() -> Comparison:
    """Tuned is better on held-out documents, which decide, and a little worse on the others.

    People's questions are about too few documents to decide.
    """
    rows = [
        {
            "split": split,
            "dimension": dimension,
            "question_id": f"{split}-{number}",
            "document_id": f"d{number % documents}",
            "base_ndcg_at_10": 0.4 + number / 100,
            "tuned_ndcg_at_10": 0.4 + number / 100 + gain + number / 1000,
        }
        for split, documents, gain in (
            ("test_labelled", 2, 0.1),
            ("test_unseen_documents", 10, 0.2),
            ("validation", 10, -0.02),
        )
        for dimension in (32, 16)
        for number in range(20)
    ]
    queries = pl.DataFrame(rows)
    significance = compare_models(queries)
    beside = significance.filter(pl.col("dimension") == 32).rename({"base": "score"})
    columns = [name for name in TABLES["model_comparisons"].schema if name != "run_id"]
    baselines = beside.with_columns(
        model=pl.lit("bm25"), metric=pl.lit("ndcg"), k=pl.lit(10, pl.Int64)
    ).select(columns)
    nothing = pl.DataFrame()
    return Comparison(nothing, nothing, significance, queries, baselines)


def stored(settings: Settings) -> Warehouse:
    return Warehouse.of(settings)


def hub_data(settings: Settings) -> Any:
    """What the hub reads of the card."""
    return HubCard.load(settings.models / "v3" / CARD).data


def card_of(settings: Settings, result: Comparison) -> str:
    return write_hub_card(stored(settings), settings, "3", judgement_of(result)).read_text(
        encoding="utf-8"
    )


def test_the_hub_reads_what_it_is_and_its_figures(settings: Settings, result: Comparison) -> None:
    card_of(settings, result)
    data = hub_data(settings)
    assert data.library_name == "sentence-transformers"
    assert data.pipeline_tag == "sentence-similarity"
    assert {"dataset_size:5", "loss:MatryoshkaLoss"} <= set(data.tags or [])
    assert data.base_model is None, "a folder of this machine is nothing that the hub knows"
    figures = {
        (found.dataset_type, found.metric_type): found.metric_value
        for found in data.eval_results or []
    }
    assert figures == {
        (split, f"dim_{dimension}_cosine_ndcg@10"): tuned
        for split, dimension, tuned in result.significance.select(
            "split", "dimension", "tuned"
        ).iter_rows()
    }


def test_a_person_reads_the_same_figures_and_intervals_as_in_the_tables(
    settings: Settings, result: Comparison
) -> None:
    text = card_of(settings, result)
    assert result.headline_split == "test_unseen_documents"
    shown = re.findall(r"^### (.*)", text[: text.index("## Bias")], re.MULTILINE)
    assert shown[1:] == [
        "Questions on held-out documents (these decide)",
        "Questions that people wrote",
        "Validation questions, by which the epoch was chosen",
    ]
    for row in result.against.iter_rows(named=True):
        first = row["dimension"] if row["model"] == "base" else row["model"]
        interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
        figures = f"| {row['score']:.4f} | {row['tuned']:.4f} | {row['difference']:+.4f} |"
        assert f"| {first} {figures} {interval} | {row['verdict']} |" in text
    # What the UI shows.
    for line in headline_table(result).splitlines()[4:]:
        dimension, base, tuned = (cell.strip() for cell in line.split("|")[1:4])
        verdict = line.split("|")[5].strip()
        assert re.search(rf"\| {dimension} \| {base} \| {tuned} \|.*\| {verdict} \|", text)
    limits = text[text.index("## Bias") : text.index("## Training Details")]
    assert "Too few to tell on questions that people wrote." in limits
    assert "3 of the 5 questions trained on were taken from the passages by rule" in limits
    assert "leases in Leith" in limits


def test_it_says_of_what_it_is_made_and_where_to_ask_on(
    settings: Settings, result: Comparison
) -> None:
    text = card_of(settings, result)
    for said in (
        "# leases v3",
        "**Base model:** base-of-ours, revision r1",
        "Pairs of questions by `extractive`: 3",
        "Pairs of questions by `openai:any`: 2",
        "Questions of the split `test_labelled`: 20",
        "- `epochs`: 2",
        "run-of-mlflow",
        "run-of-dagster",
        "embed-assets lineage 3",
        r"`'ask:\n'`",
    ):
        assert said in text


def test_it_quotes_and_names_no_document_and_no_place_of_this_machine(
    settings: Settings, result: Comparison
) -> None:
    for text in (
        card_of(settings, result),
        write_hub_card(stored(settings), settings, "3").read_text(),
    ):
        assert SECRET not in text
        assert "/somewhere" not in text
        assert str(settings.home) not in text


def test_the_program_in_it_runs_and_puts_the_prompts_of_the_card_before_the_texts(
    settings: Settings, result: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", card_of(settings, result), re.DOTALL)
    monkeypatch.chdir(settings.models / "v3")
    found: dict[str, object] = {}
    exec(program, found)
    loaded, small = found["model"], found["small"]
    asked = loaded.encode("ask:\nWhen does the valve open?")  # pyright: ignore[reportAttributeAccessIssue]
    assert found["query_embeddings"][0] == pytest.approx(asked, abs=1e-5)  # pyright: ignore[reportIndexIssue]
    assert small.get_embedding_dimension() == 16  # pyright: ignore[reportAttributeAccessIssue]


def test_a_version_whose_pairs_are_gone_says_of_how_many_it_was_made(settings: Settings) -> None:
    (settings.models / "v3" / "pairs.parquet").unlink()
    file = write_hub_card(stored(settings), settings, "3")
    assert "fine-tuned on\n5 pairs" in file.read_text(encoding="utf-8")


def test_a_version_that_was_not_compared_says_so_and_gives_no_figure(settings: Settings) -> None:
    text = write_hub_card(stored(settings), settings, "3").read_text(encoding="utf-8")
    assert "Not yet compared" in text
    assert "| base |" not in text
    assert hub_data(settings).eval_results is None


def test_the_card_is_no_part_of_the_model(settings: Settings, result: Comparison) -> None:
    card = version_card("v3", settings.models / "v3")
    before = model_identity(card)
    card_of(settings, result)
    assert model_identity(card) == before
    assert [file.name for file in card_files(settings)] == [CARD], "nothing half-written is left"


def card_files(settings: Settings) -> list[Path]:
    return list((settings.models / "v3").glob(f"{CARD}*"))


def test_a_comparison_writes_it_anew_and_logs_it(
    settings: Settings, result: Comparison, tmp_path: Path
) -> None:
    import mlflow

    write_hub_card(stored(settings), settings, "3")
    warned: list[str] = []
    uri = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    try:
        artifacts = mlflow.create_experiment("cards", (tmp_path / "artifacts").as_uri())
        with mlflow.start_run(experiment_id=artifacts):
            rewrite_card(stored(settings), settings, "3", result, warned.append)
    finally:
        mlflow.set_tracking_uri(uri)
    text = (settings.models / "v3" / CARD).read_text(encoding="utf-8")
    assert "Not yet compared" not in text
    (logged,) = (tmp_path / "artifacts").rglob("model_card.md")
    assert logged.read_text(encoding="utf-8") == text
    assert warned == []


def test_no_work_fails_for_a_card(settings: Settings, tuned: Path) -> None:
    warned: list[str] = []
    tuned.rename(tuned.with_name("gone"))
    try:
        assert keep_card(stored(settings), settings, "3", warned.append) is None
    finally:
        tuned.with_name("gone").rename(tuned)
    assert warned[0].startswith("The card of version 3 could not be written: The folder of")


def test_no_work_fails_for_a_card_that_a_library_cannot_write(
    settings: Settings, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    weights = tuned / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"cut off")
    try:
        assert keep_card(stored(settings), settings, "3", warned.append) is None
    finally:
        weights.write_bytes(whole)
    assert warned[0].startswith("The card of version 3 could not be written: ")
    assert "\n" not in warned[0]

    def stopped(_: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("embed_assets.training.hub_card.load_model", stopped)
    with pytest.raises(KeyboardInterrupt):
        keep_card(stored(settings), settings, "3", warned.append)


def test_every_split_has_a_title() -> None:
    assert set(TITLES) == {
        *("test_labelled", "test_unseen_documents", "test_seen_documents", "validation")
    }
