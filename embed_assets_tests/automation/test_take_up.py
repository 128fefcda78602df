"""A home that version 0.1.0 made is taken up: nothing that it has is made anew without need."""

from contextlib import contextmanager, nullcontext
from pathlib import Path

import duckdb
import polars as pl
import pytest

from embed_assets.automation.plan import Folder, Plan, Policy, Work, make_plan
from embed_assets.automation.state import code_versions
from embed_assets.automation.take_up import take_up, taken_up
from embed_assets.documents.folder import FoundDocument, Loaded
from embed_assets.graph import CORPUS_ASSETS, DOCUMENT_ASSETS, TESTING, TRAINING
from embed_assets.pairs.selection import make_pairs
from embed_assets.questions.statuses import NOT_ASKED
from embed_assets.resources.ledger import (
    UNPARTITIONED,
    Cause,
    Materialization,
    Records,
    input_version,
    read_records,
    write_made,
)
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets_tests.pairs.test_splits import Corpus, keep_all, stock
from embed_assets_tests.rows import NOW, question

CORPUS = Corpus.of(documents=6, chunks=8)
MODEL_CODE = "3.1, c4980ff5e815a2cc"
"""Code version of finetuned_model that 0.1.0 had with no settings."""
PAIRS_CODE = "4, 14e9ac76104836ae"
"""Code version of training_pairs that 0.1.0 had with no settings."""
AN_EMBEDDING = pl.DataFrame(
    {"model": ["4cc14e21aec852c3"], "text_id": ["a"], "embedding": [[0.0]]},
    schema=TABLES["embeddings"].schema,
)
NO_FILE, WITHOUT_QUESTIONS = "document-0", "document-1"


class OldHome:
    """A home of 0.1.0: of one document the parser failed, of another chunks were not asked about.

    trained: whether there is a model, or questions alone.
    """

    def __init__(self, folder: Path, *, trained: bool = True, model_code: str = MODEL_CODE) -> None:
        self.settings = Settings(pdfs=folder, home=folder / "home")
        self.warehouse = Warehouse.of(self.settings)
        stock(self.warehouse, CORPUS)
        not_asked = question(WITHOUT_QUESTIONS).with_columns(
            question=pl.lit(""), status=pl.lit(NOT_ASKED), reason=pl.lit("the budget is spent")
        )
        with self.warehouse.transaction() as transaction:
            transaction.upsert("synthetic_questions", not_asked)
            transaction.upsert("parsed_markdown", failed_page(NO_FILE))
            for asset, code in code_versions(self.settings).items():
                if asset in DOCUMENT_ASSETS:
                    holds = {key: f"{asset} of {key}" for key in CORPUS.documents}
                    self.record(transaction, asset, code, holds)
        if trained:
            self.train(model_code)
        with duckdb.connect(self.warehouse.path) as connection:
            for table in ("attempts", "former_paths"):
                connection.execute(f"DROP TABLE {table}")
            connection.execute("ALTER TABLE materializations DROP COLUMN parts")

    def record(self, transaction, asset: str, code: str, holds: dict[str, str]) -> None:
        upstream = {"parsed_markdown": "raw_pdfs", "chunks": "parsed_markdown"}.get(asset, "chunks")
        made = {
            key: Materialization(
                code,
                input_version([] if asset == "raw_pdfs" else [f"{upstream} of {key}"]),
                version,
            )
            for key, version in holds.items()
        }
        write_made(transaction, asset, made, "run")

    def train(self, model_code: str) -> None:
        pairs = make_pairs(self.warehouse, keep_all)
        codes = code_versions(self.settings)
        chunks = [("chunks", key, f"chunks of {key}") for key in CORPUS.documents]
        questions = [
            ("synthetic_questions", key, f"synthetic_questions of {key}")
            for key in CORPUS.documents
        ]
        made_from = digest(sorted([*chunks, *questions]))
        of_then = digest(sorted([*chunks, ("training_pairs", "", "pairs")]))
        runs = [("base_eval", "", "base run"), ("finetuned_model", "", "model run")]
        rows = {
            "training_pairs": Materialization(PAIRS_CODE, made_from, "pairs"),
            "base_eval": Materialization(codes["base_eval"], of_then, "base run"),
            "finetuned_model": Materialization(model_code, of_then, "model run"),
            "comparison": Materialization(codes["comparison"], digest(runs), "comparison run"),
        }
        with self.warehouse.transaction() as transaction:
            transaction.replace("training_pairs", pairs.pairs)
            transaction.replace("split_assignments", pairs.assignments)
            for asset, row in rows.items():
                write_made(transaction, asset, {UNPARTITIONED: row}, "run")

    @property
    def records(self) -> Records:
        return read_records(self.warehouse)

    def plan(self, records: Records | None = None) -> Plan:
        """The plan for a folder that is as it was."""
        keys = list(CORPUS.documents)
        found = {key: FoundDocument(key, f"{key}.pdf", 0, NOW) for key in keys}
        loaded = {key: Loaded(f"{key}.pdf", 0, NOW, "") for key in keys}
        policy = Policy(code_versions(self.settings), 600, NOW)
        return make_plan(records or self.records, Folder(found, loaded), keys, Work(), policy)


def failed_page(document_id: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "document_id": [document_id],
            "page": [0],
            "markdown": [""],
            "parser_status": ["ERROR"],
            "error": ["its process ended with exit code -9"],
            "parser": ["p"],
            "text_share": [None],
            "text_source": [None],
        },
        schema=TABLES["parsed_markdown"].schema,
    )


@pytest.fixture
def home(tmp_path, monkeypatch) -> OldHome:
    monkeypatch.chdir(tmp_path)
    return OldHome(tmp_path)


def unpartitioned(plan: Plan) -> tuple[str, ...]:
    return plan.corpus_step.assets if plan.corpus_step else ()


def read_again(home: OldHome) -> None:
    """Parse what is read once more, with the same result."""
    code = code_versions(home.settings)["parsed_markdown"]
    with home.warehouse.transaction() as transaction:
        home.record(
            transaction, "parsed_markdown", code, {NO_FILE: f"parsed_markdown of {NO_FILE}"}
        )


def test_a_model_that_was_up_to_date_is_not_trained_anew(home):
    take_up(home.warehouse, home.settings)
    made = home.records.made["finetuned_model", UNPARTITIONED]
    assert made.data_version == "model run"
    assert made.code_version == code_versions(home.settings)["finetuned_model"]
    read_again(home)
    steps = home.plan().steps
    assert not any("finetuned_model" in step.assets for step in steps)


def test_pairs_that_were_up_to_date_are_not_made_anew(home):
    take_up(home.warehouse, home.settings)
    read_again(home)
    assert unpartitioned(home.plan()) == ("base_eval", "comparison")


def test_pairs_by_other_filters_are_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBED_ASSETS_FILTERS", "none")
    home = OldHome(tmp_path)
    take_up(home.warehouse, home.settings)
    read_again(home)
    assert "training_pairs" in unpartitioned(home.plan())


def test_what_failed_is_read_once_more(home):
    take_up(home.warehouse, home.settings)
    [step] = home.plan().document_steps
    assert (step.assets[0], step.documents) == ("parsed_markdown", (NO_FILE,))


def test_questions_that_were_not_asked_are_due_for_the_next_command(home):
    take_up(home.warehouse, home.settings)
    [(of, attempt)] = home.records.tried.items()
    assert of == ("synthetic_questions", WITHOUT_QUESTIONS)
    assert (attempt.failure.cause, attempt.next_at) == (Cause.NOT_ASKED, None)


def test_embeddings_whose_keys_say_too_little_are_forgotten(home):
    home.warehouse.replace("embeddings", AN_EMBEDDING)
    take_up(home.warehouse, home.settings)
    assert home.warehouse.count("embeddings") == 0


def test_a_home_that_another_process_takes_up_meanwhile_is_left_to_it(home, monkeypatch):
    """What its first run has made must stay."""

    @contextmanager
    def be_slower(*_: object):
        with monkeypatch.context() as patch:
            patch.setattr("embed_assets.automation.take_up.FileLock", nullcontext)
            take_up(home.warehouse, home.settings)
        home.warehouse.replace("embeddings", AN_EMBEDDING)
        yield

    monkeypatch.setattr("embed_assets.automation.take_up.FileLock", be_slower)
    take_up(home.warehouse, home.settings)
    assert home.warehouse.count("embeddings") == 1


def test_a_home_that_was_never_trained_is_taken_up_too(tmp_path):
    home = OldHome(tmp_path, trained=False)
    take_up(home.warehouse, home.settings)
    assert set(home.records.tried) == {("synthetic_questions", WITHOUT_QUESTIONS)}
    read_again(home)
    assert unpartitioned(home.plan()) == CORPUS_ASSETS


def test_pairs_have_parts_from_then_on(home):
    take_up(home.warehouse, home.settings)
    assert set(home.records.made["training_pairs", UNPARTITIONED].parts) == {TRAINING, TESTING}


def test_a_model_with_other_settings_is_trained_anew(tmp_path):
    home = OldHome(tmp_path, model_code="3.1, of other settings")
    take_up(home.warehouse, home.settings)
    read_again(home)
    assert "finetuned_model" in unpartitioned(home.plan())


def test_a_model_of_other_pairs_is_trained_anew(home):
    row = Materialization("1", "i", "other pairs")
    with home.warehouse.transaction() as transaction:
        write_made(transaction, "training_pairs", {UNPARTITIONED: row}, "run")
    take_up(home.warehouse, home.settings)
    assert home.records.made["finetuned_model", UNPARTITIONED].code_version == MODEL_CODE


def test_a_home_that_was_taken_up_stays_as_it_is(home):
    take_up(home.warehouse, home.settings)
    before = home.records
    take_up(home.warehouse, home.settings)
    assert home.records == before


def test_a_look_at_an_old_home_sees_it_as_it_will_be_and_changes_nothing(home):
    before = Path(home.warehouse.path).read_bytes()
    seen = taken_up(home.records, home.warehouse, home.settings)
    assert Path(home.warehouse.path).read_bytes() == before
    plan = home.plan(seen)
    take_up(home.warehouse, home.settings)
    assert home.plan() == plan


def test_a_home_that_is_not_there_is_not_made(tmp_path):
    settings = Settings(pdfs=tmp_path, home=tmp_path / "home")
    take_up(Warehouse.of(settings), settings)
    assert not (tmp_path / "home").exists()
