"""What is made again, and no more, when a file, a setting or the code has changed."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from embed_assets.automation.staleness import (
    DOCUMENT_ASSETS,
    UPSTREAM,
    read_materializations,
    stale_document_assets,
    stale_training_assets,
)

from embed_assets.resources.warehouse import Warehouse, input_version, materialization_rows
from embed_assets.tables import TABLES

DOCUMENT_VERSIONS = dict.fromkeys(DOCUMENT_ASSETS, "1")
TRAINING_VERSIONS = dict.fromkeys(UPSTREAM, "1")


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    return Warehouse(path=str(tmp_path / "warehouse.duckdb"))


def make(warehouse: Warehouse, asset: str, document_id: str, holds: str, code: str = "1") -> None:
    """Materialize an asset of a document as the IO manager does: from what its input holds now."""
    place = DOCUMENT_ASSETS.index(asset)
    read = warehouse.data_versions(DOCUMENT_ASSETS[place - 1]) if place else {}
    made_from = input_version([read.get(document_id, "")] if place else [])
    made = materialization_rows(asset, {document_id: (made_from, holds)}, code, "run")
    nothing = TABLES[asset].empty()
    warehouse.replace(asset, nothing, where={"document_id": [document_id]}, materialized=made)


def ingest(warehouse: Warehouse, document_id: str, holds: str = "v1") -> None:
    for asset in DOCUMENT_ASSETS:
        make(warehouse, asset, document_id, f"{asset} {holds}")


@pytest.fixture(scope="module")
def ingested_once(tmp_path_factory) -> Path:
    warehouse = Warehouse(path=str(tmp_path_factory.mktemp("ingested") / "warehouse.duckdb"))
    ingest(warehouse, "a")
    return Path(warehouse.path)


@pytest.fixture
def ingested(warehouse, ingested_once) -> Warehouse:
    """Document a, brought up to date."""
    shutil.copy(ingested_once, warehouse.path)
    return warehouse


def stale(
    warehouse: Warehouse, document_id: str, versions: Mapping[str, str] = DOCUMENT_VERSIONS
) -> tuple[str, ...]:
    return stale_document_assets(document_id, read_materializations(warehouse), versions)


# Documents.


def test_a_new_document_needs_everything(ingested):
    assert stale(ingested, "new") == DOCUMENT_ASSETS


def test_a_document_brought_up_to_date_needs_nothing(ingested):
    assert stale(ingested, "a") == ()


def test_a_changed_file_makes_what_follows_from_it_stale(ingested):
    ingest(ingested, "b")
    make(ingested, "raw_pdfs", "a", "other bytes")
    assert stale(ingested, "a") == ("parsed_markdown", "chunks", "synthetic_questions")
    assert stale(ingested, "b") == ()


def test_a_file_read_again_with_the_same_bytes_makes_nothing_stale(ingested):
    make(ingested, "raw_pdfs", "a", "raw_pdfs v1")
    assert stale(ingested, "a") == ()


def test_a_new_parser_makes_everything_after_the_files_stale(ingested):
    versions = {**DOCUMENT_VERSIONS, "parsed_markdown": "2"}
    assert stale(ingested, "a", versions) == DOCUMENT_ASSETS[1:]


def test_another_generator_makes_the_questions_alone_stale(ingested):
    versions = {**DOCUMENT_VERSIONS, "synthetic_questions": "none"}
    assert stale(ingested, "a", versions) == ("synthetic_questions",)


def test_what_came_out_the_same_makes_nothing_after_it_stale(ingested):
    versions = {**DOCUMENT_VERSIONS, "parsed_markdown": "2"}
    make(ingested, "parsed_markdown", "a", "parsed_markdown v1", code="2")
    assert stale(ingested, "a", versions) == ()


def test_what_a_killed_run_left_undone_is_made_and_no_more(warehouse):
    for asset in DOCUMENT_ASSETS[:2]:
        make(warehouse, asset, "a", f"{asset} v1")
    assert stale(warehouse, "a") == ("chunks", "synthetic_questions")


def test_a_document_without_text_is_up_to_date_too(warehouse):
    for asset in DOCUMENT_ASSETS:
        make(warehouse, asset, "a", "")
    assert stale(warehouse, "a") == ()


def test_a_document_that_left_and_came_back_needs_everything(ingested):
    ingested.delete_documents(["a"])
    assert stale(ingested, "a") == DOCUMENT_ASSETS


# Training.


def train(warehouse: Warehouse, *assets: str, holds: str = "v1", code: str = "1") -> None:
    """Materialize unpartitioned assets from what their inputs hold now."""
    for asset in assets or UPSTREAM:
        warehouse.record(
            asset,
            code_version=code,
            input_version=warehouse.version_of(*UPSTREAM[asset]),
            data_version=f"{asset} {holds}",
            run_id="run",
        )


def to_train(
    warehouse: Warehouse, versions: Mapping[str, str] = TRAINING_VERSIONS
) -> tuple[str, ...]:
    return stale_training_assets(warehouse, read_materializations(warehouse), versions)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory) -> Path:
    warehouse = Warehouse(path=str(tmp_path_factory.mktemp("trained") / "warehouse.duckdb"))
    ingest(warehouse, "a")
    ingest(warehouse, "b")
    train(warehouse)
    return Path(warehouse.path)


@pytest.fixture
def trained(warehouse, trained_once) -> Warehouse:
    """Two documents ingested and everything made from them."""
    shutil.copy(trained_once, warehouse.path)
    return warehouse


def test_the_first_time_everything_is_made_in_order(ingested):
    assert to_train(ingested) == ("training_pairs", "base_eval", "finetuned_model", "comparison")


def test_when_everything_is_made_nothing_is_stale(trained):
    assert to_train(trained) == ()


def test_an_evaluation_that_lacks_something_is_made_again_with_what_follows_from_it(trained):
    made = read_materializations(trained)
    again = stale_training_assets(trained, made, TRAINING_VERSIONS, again=["base_eval"])
    assert again == ("base_eval", "comparison")


def test_a_new_document_makes_the_pairs_first(trained):
    ingest(trained, "c")
    assert to_train(trained) == ("training_pairs",)


def test_a_document_that_left_makes_the_pairs_first(trained):
    trained.delete_documents(["a"])
    assert to_train(trained) == ("training_pairs",)


def test_changed_chunks_make_the_pairs_first(trained):
    make(trained, "chunks", "a", "chunks v2")
    assert to_train(trained) == ("training_pairs",)


def test_a_new_document_without_text_trains_nothing(trained):
    for asset, holds in zip(DOCUMENT_ASSETS, ("bytes", "why there is none", "", ""), strict=True):
        make(trained, asset, "scan", holds)
    assert to_train(trained) == ()


def test_changed_questions_make_the_pairs_first(trained):
    make(trained, "synthetic_questions", "a", "synthetic_questions v2")
    assert to_train(trained) == ("training_pairs",)


def test_pairs_that_came_out_the_same_train_nothing(trained):
    make(trained, "synthetic_questions", "a", "synthetic_questions v2")
    train(trained, "training_pairs")
    assert to_train(trained) == ()


def test_pairs_that_changed_train_everything_after_them(trained):
    make(trained, "synthetic_questions", "a", "synthetic_questions v2")
    train(trained, "training_pairs", holds="v2")
    assert to_train(trained) == ("base_eval", "finetuned_model", "comparison")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("training_pairs", ("training_pairs",)),
        ("base_eval", ("base_eval", "comparison")),
        ("finetuned_model", ("finetuned_model", "comparison")),
        ("comparison", ("comparison",)),
    ],
)
def test_a_changed_setting_makes_what_it_shapes_and_what_follows(trained, changed, expected):
    assert to_train(trained, {**TRAINING_VERSIONS, changed: "2"}) == expected


def test_what_a_killed_training_left_undone_is_made_and_no_more(ingested):
    train(ingested, "training_pairs", "base_eval")
    assert to_train(ingested) == ("finetuned_model", "comparison")


def test_a_model_trained_anew_is_compared_anew(trained):
    train(trained, "finetuned_model", holds="v2")
    assert to_train(trained) == ("comparison",)


def test_what_was_forgotten_is_made_again(trained):
    trained.replace(
        "materializations", TABLES["materializations"].empty(), {"asset": ["finetuned_model"]}
    )
    assert to_train(trained) == ("finetuned_model", "comparison")


def test_documents_that_changed_while_the_pairs_were_made_make_them_stale(trained):
    before = trained.version_of(*UPSTREAM["training_pairs"])
    make(trained, "synthetic_questions", "b", "synthetic_questions v2")
    trained.record(
        "training_pairs", code_version="1", input_version=before, data_version="d", run_id="run"
    )
    assert "training_pairs" in to_train(trained)


def test_what_a_slice_was_made_from_is_told_apart_by_every_input():
    assert input_version(["a"]) == "a"
    assert len({input_version(v) for v in (["a", "b"], ["b", "a"], ["ab", ""], [])}) == 4


def test_materializations_are_read_by_asset_and_document(warehouse, ingested_once):
    assert read_materializations(warehouse) == {}
    shutil.copy(ingested_once, warehouse.path)
    train(warehouse, "training_pairs")
    made = read_materializations(warehouse)
    assert set(made) == {*((asset, "a") for asset in DOCUMENT_ASSETS), ("training_pairs", "")}
    assert made["chunks", "a"].input_version == made["parsed_markdown", "a"].data_version
