"""Checks of what a verdict rests on: enough documents in each split, and figures of today."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from embed_assets.documents.folder import remove_documents
from embed_assets.evaluation.checks import figures_are_fresh, splits_are_filled
from embed_assets.evaluation.sufficiency import figures_behind, thin_splits
from embed_assets.models.identity import model_identity
from embed_assets.models.registry import Version, make_champion
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings
from embed_assets_tests.decisions import BY_TEST
from embed_assets_tests.rows import filled
from embed_assets_tests.tiny_model import make_tiny_model

ENOUGH = {
    "train": (16, 4),
    "validation": (2, 1),
    "test_seen_documents": (9, 7),
    "test_unseen_documents": (7, 7),
}
SCORED = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_splits_that_hold_enough_are_not_named():
    assert thin_splits(ENOUGH) == []


@pytest.mark.parametrize(
    ("split", "count", "said"),
    [
        ("train", (15, 4), "Training: 15 questions, of 16 needed"),
        ("validation", (0, 0), "Validation: no questions"),
        ("test_unseen_documents", (0, 0), "Held-out documents: no questions"),
        (
            "test_seen_documents",
            (90, 6),
            "Other chunks of training documents: "
            "90 questions on 6 of the 7 documents that a verdict needs",
        ),
        (
            "test_labelled",
            (3, 2),
            "People's questions: 3 questions on 2 of the 7 documents that a verdict needs",
        ),
    ],
)
def test_an_empty_or_thin_split_is_named(split, count, said):
    assert thin_splits(ENOUGH | {split: count}) == [said]


class Home:
    """A home whose documents of one chunk each were all there when its version 1 was scored."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.settings = Settings(home=folder / "home", figures_behind=1)
        self.warehouse = Warehouse.of(self.settings)
        self.version = Version("1", "tiny", model)
        self.come(*"abc", at=SCORED - timedelta(hours=1))

    def write(self, table: str, *rows: dict[str, Any]) -> None:
        with self.warehouse.transaction() as transaction:
            transaction.upsert(table, filled(table, rows))

    def come(self, *documents: str, at: datetime, text: str = "") -> None:
        for document in documents:
            self.write("raw_pdfs", {"document_id": document})
            self.write("chunks", {"document_id": document, "chunk_id": f"{document}{text}"})
            made = {"asset": "chunks", "document_id": document, "materialized_at": at}
            self.write("materializations", made)

    def score(self, chunks: Sequence[str], at: datetime = SCORED) -> None:
        row = {
            "run_id": str(at),
            "identity": f"{model_identity(self.version.card)} fp32",
            "corpus_version": digest(sorted(chunks)),
            "measured_at": at,
        }
        self.write("evaluations", row)
        self.write("evaluation_results", {"run_id": row["run_id"], "split": "test_seen_documents"})

    def score_on_general_questions(self, at: datetime) -> None:
        """As every comparison does, after it has scored the version on the corpus."""
        row = {
            "run_id": f"general {at}",
            "identity": f"{model_identity(self.version.card)} fp32",
            "measured_at": at,
        }
        self.write("evaluations", row)
        self.write("evaluation_results", {"run_id": row["run_id"], "split": "general"})

    @property
    def behind(self) -> tuple[int, int]:
        found = figures_behind(self.warehouse, self.version)
        return found.came_or_changed, found.left

    def crown(self) -> None:
        tracking = Tracking(home=str(self.settings.home))
        client, name = tracking.client(), tracking.connect()
        client.create_registered_model(name)
        client.create_model_version(name, "somewhere")
        row = {"version": "1", "path": str(self.version.folder)}
        self.write("models", row)
        make_champion(tracking, "1", BY_TEST)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def home(tmp_path: Path, model: Path) -> Home:
    return Home(tmp_path, model)


def result_of(check: Any, *resources: object) -> dg.AssetCheckResult:
    return check(*resources)


def test_documents_that_came_changed_or_left_since_the_scoring_are_counted(home):
    home.score("abc")
    assert home.behind == (0, 0)
    home.come("d", at=SCORED + timedelta(hours=1))
    home.come("a", at=SCORED + timedelta(hours=1), text=" anew")
    assert home.behind == (2, 0)
    remove_documents(home.warehouse, ["b", "c"])
    assert home.behind == (2, 2)
    home.score(["d", "a anew"], at=datetime.now(UTC))
    assert home.behind == (0, 0)


def test_chunks_that_were_made_again_as_they_were_are_no_change(home):
    home.score("abc")
    home.come(*"abc", at=SCORED + timedelta(hours=1))
    assert home.behind == (0, 0)


def test_more_documents_than_the_set_number_are_a_warning(home):
    home.crown()
    home.score("abc")
    home.come("d", at=SCORED + timedelta(hours=1))
    assert result_of(figures_are_fresh, home.warehouse, home.settings).passed
    home.come("e", at=SCORED + timedelta(hours=1))
    result = result_of(figures_are_fresh, home.warehouse, home.settings)
    assert not result.passed
    assert result.severity.value == "WARN"
    assert result.metadata["came_or_changed"].value == 2


def test_a_champion_that_was_never_scored_is_a_warning(home):
    home.crown()
    result = result_of(figures_are_fresh, home.warehouse, home.settings)
    assert not result.passed
    assert "never scored" in str(result.description)


def test_without_a_champion_no_figures_are_old(home):
    assert result_of(figures_are_fresh, home.warehouse, home.settings).passed


def test_where_mlflow_is_away_the_check_says_so(home, free_port, monkeypatch):
    home.write("models", {"version": "1"})
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:secret-word@127.0.0.1:{free_port()}")
    result = result_of(figures_are_fresh, home.warehouse, home.settings)
    assert not result.passed
    assert "ProjectError: MLflow can't say" in str(result.description)
    assert "secret-word" not in str(result.description)


def test_splits_show_their_questions_and_documents(home):
    result = result_of(splits_are_filled, home.warehouse)
    assert not result.passed
    assert "Training: no questions; Validation: no questions" in str(result.description)
    pairs = [{"question_id": f"q{n}", "split": "train", "document_id": "a"} for n in range(16)]
    home.write("training_pairs", *pairs)
    result = result_of(splits_are_filled, home.warehouse)
    assert result.metadata["train_questions"].value == 16
    assert result.metadata["train_documents"].value == 1


def test_figures_on_general_questions_say_nothing_of_the_corpus(home):
    home.score("abc")
    home.come("d", at=SCORED + timedelta(minutes=1))
    home.score_on_general_questions(SCORED + timedelta(hours=1))
    assert home.behind == (1, 0)
