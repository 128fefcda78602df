"""What a training read is kept with its version, and what must go of it goes."""

from pathlib import Path

import polars as pl
import pytest

from embed_assets.training.config import TrainingConfig
from embed_assets.training.kept import (
    KEPT,
    count_redacted,
    kept_training,
    redact_training,
    texts_of,
)
from embed_assets_tests.training.trainings import make_config

GONE = "forgotten"


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """Folder of a version whose chunks c0 to c9 are of one document, with embeddings of all."""
    kept = tmp_path / "v1" / KEPT
    kept.mkdir(parents=True)
    path = make_config(kept, tmp_path / "base", epochs=1, negatives=1)
    config = TrainingConfig.model_validate_json(path.read_text(encoding="utf-8"))
    pairs = pl.read_parquet(config.pairs)
    vector = pl.lit([1.0, 0.5])
    pairs = pairs.with_columns(
        question_id=pl.format("p{}", pl.int_range(pl.len())),
        anchor_embedding=vector,
        positive_embedding=vector,
    )
    pairs.write_parquet(config.pairs)
    for file in (config.validation, config.corpus):
        pl.read_parquet(file).with_columns(embedding=vector).write_parquet(file)
    chunk = pl.col("chunk_id").str.slice(1).cast(pl.Int64)
    sources = pl.concat(
        [
            pairs.select("question_id", "chunk_id"),
            pairs.select(pl.format("q{}", chunk).alias("question_id"), "chunk_id"),
        ]
    ).with_columns(
        document_id=pl.when(chunk < 10).then(pl.lit("one-1")).otherwise(pl.lit("two-2")),
        sha256=pl.when(chunk < 10).then(pl.lit("aa")).otherwise(pl.lit("bb")),
    )
    sources.write_parquet(config.sources)
    config.result.write_text("{}", encoding="utf-8")
    return tmp_path / "v1"


@pytest.mark.parametrize(("names", "contents"), [({"one-1": "gone-1"}, []), ({}, ["aa"])])
def test_what_a_forgotten_document_says_goes_with_its_embeddings_and_the_rest_stays(
    version: Path, names: dict[str, str], contents: list[str]
) -> None:
    training = kept_training(version)
    assert training is not None
    theirs = texts_of(version, list(names), contents)
    assert len(theirs) == 30, "ten chunks, their ten questions, and ten that validate"
    before = {file: pl.read_parquet(file) for file in sorted((version / KEPT).glob("*.parquet"))}
    redact_training(version, names, contents, GONE)
    left = {file: pl.read_parquet(file) for file in before}
    for file, frame in left.items():
        assert not theirs & texts_in(frame), file.name
        assert frame.height == before[file].height
        assert frame.schema == before[file].schema
    assert (
        left[training.pairs][10:]
        .drop("negatives")
        .equals(before[training.pairs][10:].drop("negatives"))
    )
    assert left[training.corpus][10:].equals(before[training.corpus][10:])
    for file, columns in (
        (training.pairs, ["anchor_embedding", "positive_embedding"]),
        (training.validation, ["embedding"]),
        (training.corpus, ["embedding"]),
    ):
        assert [left[file][name].null_count() for name in columns] == [10] * len(columns)
    assert set(left[training.sources]["document_id"]) == {*names.values(), "two-2"} | (
        set() if names else {"one-1"}
    )
    # anchors, positives, questions, chunks, and the pairs whose negative is one of them
    assert count_redacted(training, GONE) == 50


def texts_in(frame: pl.DataFrame) -> set[str]:
    return {
        text
        for name, kind in frame.schema.items()
        if kind in (pl.String, pl.List(pl.String))
        for text in (frame[name].explode() if kind == pl.List(pl.String) else frame[name])
    }


def test_what_another_release_kept_can_not_be_trained_and_is_redacted_all_the_same(
    version: Path,
) -> None:
    config = version / KEPT / "config.json"
    config.write_text('{"a setting of another release": 1}', encoding="utf-8")
    assert kept_training(version) is None
    redact_training(version, {}, ["aa"], GONE)
    assert not texts_of(version, [], ["aa"]) - {GONE}


def test_a_version_without_its_training_has_nothing_to_redact(tmp_path: Path) -> None:
    assert kept_training(tmp_path) is None
    assert texts_of(tmp_path, ["one-1"], ["aa"]) == set()
    redact_training(tmp_path, {"one-1": "x"}, ["aa"], GONE)
