"""Vectors for a store elsewhere, and the bridge from new queries to those that are there."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embed_assets.errors import ProjectError, SettingsError
from embed_assets.resources.current_index import hide_documents
from embed_assets.search import vectors
from embed_assets.search.searching import open_searcher
from embed_assets.search.vectors import (
    bridge_recall,
    bridge_to,
    export_vectors,
    fit_bridge,
    write_bridge,
)
from embed_assets_tests.search.homes import TEXTS, SearchedHome


def test_each_chunk_is_a_row_with_id_text_vector_identity_and_place(
    searched: SearchedHome, tmp_path: Path
):
    searcher = open_searcher(searched.settings)
    file = tmp_path / "vectors.parquet"
    summary = export_vectors(searcher, file)
    rows = pl.read_parquet(file)
    assert summary["rows"] == rows.height == 4
    assert set(rows["text"]) == {text for texts in TEXTS.values() for text in texts}
    assert set(rows["identity"]) == {searched.wanted().identity}
    assert np.allclose(rows["vector"].to_numpy(), searcher.index.vectors, atol=1e-6)
    assert set(rows["path"]) <= {f"{name}.pdf" for name in TEXTS}


def test_a_smaller_dimension_is_of_length_1_again(searched: SearchedHome, tmp_path: Path):
    searched.settings = searched.settings.model_copy(update={"dimensions": "16"})
    searched.put("new", "A tape of 12.")
    searched.promote(None)
    searcher = open_searcher(searched.settings)
    export_vectors(searcher, tmp_path / "v.parquet", dimension=16)
    vectors = pl.read_parquet(tmp_path / "v.parquet")["vector"].to_numpy()
    assert vectors.shape == (5, 16)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    with pytest.raises(SettingsError, match="7 is none of 32, 16"):
        export_vectors(searcher, tmp_path / "v.parquet", dimension=7)


def test_what_left_is_not_exported(searched: SearchedHome, tmp_path: Path):
    hide_documents(searched.settings.home, ["pump"])
    export_vectors(open_searcher(searched.settings), tmp_path / "v.parquet")
    assert "pump.pdf" not in set(pl.read_parquet(tmp_path / "v.parquet")["path"])


def test_a_suffix_without_format_and_a_folder_that_is_not_there_are_said(
    searched: SearchedHome, tmp_path: Path
):
    searcher = open_searcher(searched.settings)
    with pytest.raises(SettingsError, match="no format"):
        export_vectors(searcher, tmp_path / "v.csv")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for chosen in ("parquet", "lance"):
        with pytest.raises(SettingsError, match="is a folder"):
            export_vectors(searcher, tmp_path / "mine", chosen)
    assert (tmp_path / "mine" / "letter.txt").exists()
    with pytest.raises(SettingsError, match="another file"):
        export_vectors(searcher, tmp_path / "nowhere" / "v.parquet")
    assert list(tmp_path.glob("*.csv")) == []


def test_lance_is_written_or_what_to_install_is_said(searched: SearchedHome, tmp_path: Path):
    searcher = open_searcher(searched.settings)
    try:
        import lance  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        with pytest.raises(SettingsError, match="pylance"):
            export_vectors(searcher, tmp_path / "v.lance")
        return
    export_vectors(searcher, tmp_path / "v.lance")
    assert lance.dataset(str(tmp_path / "v.lance")).count_rows() == 4


def test_a_bridge_between_spaces_that_differ_by_a_rotation_is_whole():
    generator = np.random.default_rng(0)
    new = generator.standard_normal((300, 8)).astype(np.float32)
    turned = np.linalg.qr(generator.standard_normal((8, 8)))[0].astype(np.float32)
    matrix = fit_bridge(new, new @ turned)
    queries = generator.standard_normal((20, 8)).astype(np.float32)
    assert np.allclose(matrix, turned, atol=5e-3)
    assert bridge_recall(queries, new, queries @ matrix, new @ turned) > 0.97
    assert bridge_recall(queries, new, queries, new @ turned) < 0.5


def test_of_few_texts_a_bridge_is_a_rotation_and_a_weaker_pull_leaves_least_squares():
    random = np.random.default_rng(0)

    def texts(count: int) -> np.ndarray:
        rows = random.standard_normal((count, 32))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    turned, _ = np.linalg.qr(random.standard_normal((32, 32)))
    stretched = turned * np.linspace(0.1, 3, 32)
    noise = 0.05 * random.standard_normal((40, 32))
    few, many = texts(40), texts(2000)
    rotation = fit_bridge(few, few @ turned + noise)
    assert np.allclose(rotation @ rotation.T, np.eye(32), atol=1e-5)
    assert np.abs(vectors._drawn(many, many @ stretched, 1e-3) - stretched).max() < 0.05


def test_a_bridge_leads_to_vectors_of_another_size():
    random = np.random.default_rng(0)
    new = random.standard_normal((200, 16))
    wider = np.linalg.qr(random.standard_normal((24, 16)))[0].T
    for one, other in ((new, new @ wider), (new @ wider, new)):
        matrix = fit_bridge(one, other)
        assert matrix.shape == (one.shape[1], other.shape[1])
        assert np.allclose(one @ matrix, other, atol=0.05)


def test_to_vectors_of_the_same_model_there_is_no_bridge(searched: SearchedHome, tmp_path: Path):
    searched.put("more", *(f"The valve reads {n} at night." for n in range(40)))
    searched.promote(None)
    searcher = open_searcher(searched.settings)
    export_vectors(searcher, tmp_path / "old.parquet")
    with pytest.raises(ProjectError, match="no bridge is needed"):
        bridge_to(searched.settings, searcher, tmp_path / "old.parquet")


def test_a_bridge_to_an_earlier_export_is_fitted_and_measured(
    searched: SearchedHome, tmp_path: Path
):
    searched.put("more", *(f"The valve reads {n} at night." for n in range(40)))
    searched.ask(30)
    searched.promote(None)
    old = tmp_path / "old.parquet"
    export_vectors(open_searcher(searched.settings), old)
    before = searched.wanted().identity
    searched.train("1", {"query": "ask: ", "document": "tell: "})
    searched.promote("1")
    searcher = open_searcher(searched.settings)
    bridge = bridge_to(searched.settings, searcher, old)
    assert bridge.matrix.shape == (32, 32)
    assert (bridge.texts, bridge.questions, bridge.old_identity) == (44, 30, before)
    assert bridge.recall is not None
    assert 0 <= bridge.recall <= 1
    write_bridge(bridge, searcher, tmp_path / "b.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "b.safetensors", "np") as tensors:
        said = tensors.metadata()
        assert np.array_equal(tensors.get_tensor("matrix"), bridge.matrix)
    assert (said["from"], said["to"]) == (searcher.index.manifest.identity, before)
    assert json.loads(said["recall_at_10"]) == bridge.recall


def test_too_few_shared_chunks_and_a_file_that_is_none_are_said(
    searched: SearchedHome, tmp_path: Path
):
    searcher = open_searcher(searched.settings)
    export_vectors(searcher, tmp_path / "old.parquet")
    with pytest.raises(ProjectError, match="shares 4 chunks"):
        bridge_to(searched.settings, searcher, tmp_path / "old.parquet")
    (tmp_path / "none.parquet").write_text("none")
    with pytest.raises(SettingsError, match="no export of vectors"):
        bridge_to(searched.settings, searcher, tmp_path / "none.parquet")
