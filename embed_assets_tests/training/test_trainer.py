"""The training process, really run on a tiny model."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from embed_assets.errors import ProjectError
from embed_assets.machine import Machine
from embed_assets.models.encoder import load_model
from embed_assets.training.config import TrainingConfig
from embed_assets.training.launch import training_command
from embed_assets.training.pair_trainer import training_dataset
from embed_assets.training.progress import Silent
from embed_assets.training.trainer import last_checkpoint, main, train
from embed_assets.training.validation import BEST_METRIC, Validation
from embed_assets.training.weights import add_lora
from embed_assets_tests.machines import NARROW, PLAIN, SMALL
from embed_assets_tests.tiny_model import make_static_model, make_tiny_model
from embed_assets_tests.training.trainings import (
    Measured,
    command,
    kill_at,
    largest_difference,
    make_config,
    run_process,
    step_of,
    tracking_of,
    train_here,
    weights_of,
)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def test_the_process_leaves_a_plain_model_and_says_what_it_measured(
    tmp_path: Path, tiny_model: Path
) -> None:
    import mlflow
    from sentence_transformers import SentenceTransformer

    path = make_config(tmp_path, tiny_model, epochs=2)
    config = TrainingConfig.model_validate_json(path.read_text())
    done = run_process(command(path), config)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["pairs"] == 40
    assert result["steps"] == 16
    assert result["pairs_per_second"] > 0
    assert result["resumed_from"] is None
    suffixes = {file.suffix for file in config.model.rglob("*") if file.is_file()}
    assert ".safetensors" in suffixes
    assert not suffixes & {".bin", ".pt", ".pkl"}
    modes = {file.stat().st_mode for file in config.model.rglob("*") if file.is_file()}
    assert modes == {path.stat().st_mode}, "those of any file that is written here"
    assert SentenceTransformer(str(config.model)).prompts["query"] == "query: "
    client = mlflow.MlflowClient(tracking_of(config.folder))
    losses = client.get_metric_history(config.mlflow_run_id, "progress/loss")
    assert [metric.step for metric in losses] == list(range(1, 17))
    ndcg = "progress/validation/dim_16_cosine_ndcg_at_10"
    assert len(client.get_metric_history(config.mlflow_run_id, ndcg)) == 2
    assert not config.checkpoints.exists()


@pytest.mark.parametrize(("method", "extractive"), [("full", 0), ("lora", 0), ("full", 25)])
def test_a_killed_training_ends_as_an_unbroken_one(
    tmp_path: Path, tiny_model: Path, method: str, extractive: int
) -> None:
    """Kill -9 inside an epoch, with a schedule: the same weights to 1e-6."""
    options = {"method": method, "epochs": 3, "negatives": 1, "extractive_per_epoch": extractive}
    unbroken, said = train_here(tmp_path / "unbroken", tiny_model, **options)
    (tmp_path / "killed").mkdir()
    options["seconds_between_checkpoints"] = 0
    path = make_config(tmp_path / "killed", tiny_model, **options)
    config = TrainingConfig.model_validate_json(path.read_text())
    kill_at(command(path), config, step=10)
    assert not config.model.exists()
    assert step_of(last_checkpoint(config)) < said["steps"], "killed too late to show anything"
    measured = Measured()
    result = train(config, measured)
    steps = list(range(1, said["steps"] + 1))
    assert sorted(measured.losses) == steps, "of the steps before the kill too"
    assert result["resumed_from"].startswith("checkpoint-")
    assert result["steps"] == said["steps"] > 20
    assert largest_difference(weights_of(config), weights_of(unbroken)) < 1e-6
    best = "best_validation_ndcg_at_10"
    assert result[best] == pytest.approx(said[best], abs=1e-6)


@pytest.mark.parametrize("merge", [1.0, 0.5])
def test_a_training_begins_with_the_weights_that_it_starts_from_and_mixes_them_in(
    tmp_path: Path, tiny_model: Path, merge: float
) -> None:
    first, _ = train_here(tmp_path / "first", tiny_model, epochs=1)
    still = {"epochs": 1, "learning_rate": 1e-9, "merge": merge}
    again, _ = train_here(tmp_path / "again", tiny_model, start=first.model, **still)
    anew, _ = train_here(tmp_path / "anew", tiny_model, **still)
    assert largest_difference(weights_of(again), weights_of(first)) < 1e-5
    assert largest_difference(weights_of(anew), weights_of(first)) > 1e-3


def test_a_killed_training_that_went_on_from_a_version_ends_as_an_unbroken_one(
    tmp_path: Path, tiny_model: Path
) -> None:
    first, _ = train_here(tmp_path / "first", tiny_model, epochs=1)
    options = {"epochs": 2, "start": first.model, "frozen_share": 0.34, "merge": 0.5}
    unbroken, said = train_here(tmp_path / "unbroken", tiny_model, **options)
    (tmp_path / "killed").mkdir()
    path = make_config(tmp_path / "killed", tiny_model, **options, seconds_between_checkpoints=0)
    config = TrainingConfig.model_validate_json(path.read_text())
    kill_at(command(path), config, step=6)
    result = train(config, Silent())
    assert result["resumed_from"].startswith("checkpoint-")
    assert result["resumed_from"] != f"checkpoint-{said['steps']}"
    assert largest_difference(weights_of(config), weights_of(unbroken)) < 1e-6


@pytest.mark.parametrize(
    ("extractive", "steps"), [(0, 10), pytest.param(14, 6, id="turns", marks=pytest.mark.long)]
)
def test_two_processes_train_as_one_on_the_batch_that_they_share(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, extractive: int, steps: int
) -> None:
    """Negatives are gathered across processes (gloo), so the weights are those of one process.

    Though both were killed in the second epoch.
    """
    base = make_tiny_model(tmp_path_factory.mktemp("still"), dropout=0.0)
    own: dict[str, Any] = {"batch_size": 8, "extractive_per_epoch": extractive}
    alone, _ = train_here(tmp_path / "alone", base, **own)
    (tmp_path / "shared").mkdir()
    options = {**own, "processes": 2, "seconds_between_checkpoints": 0}
    path = make_config(tmp_path / "shared", base, epochs=2, **options)
    config = TrainingConfig.model_validate_json(path.read_text())
    torchrun = training_command(config)
    kill_at(torchrun, config, step=steps // 2 + 1)
    done = run_process(torchrun, config)
    assert done.returncode == 0, done.stderr
    result = json.loads(config.result.read_text())
    assert result["steps"] == steps
    assert result["resumed_from"].startswith("checkpoint-")
    assert result["resumed_from"] != f"checkpoint-{steps}"
    assert largest_difference(weights_of(config), weights_of(alone)) < 1e-5


@pytest.mark.parametrize(
    ("method", "machine"),
    [
        ("full", SMALL),
        pytest.param("lora", SMALL, marks=pytest.mark.long),
        pytest.param("full", NARROW, marks=pytest.mark.long),
        ("lora", NARROW),
    ],
)
def test_a_batch_larger_than_memory_is_trained_on_as_if_it_fitted(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    method: str,
    machine: Machine,
) -> None:
    base = make_tiny_model(tmp_path_factory.mktemp("still"), dropout=0.0)
    options = {"batch_size": 8, "method": method}
    large, small = Measured(), Measured()
    whole, _ = train_here(tmp_path / "whole", base, progress=large, machine=PLAIN, **options)
    parts, _ = train_here(tmp_path / "parts", base, progress=small, machine=machine, **options)
    assert not [line for line in large.said if "cached" in line or "twice" in line]
    said = " ".join(small.said)
    assert re.search(r"Gradients are cached, [1-7] texts? at a time", said)
    assert ("Activations are computed twice" in said) == (machine is NARROW)
    assert largest_difference(weights_of(parts), weights_of(whole)) < 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "cached_mnrl", "negatives": 2},
        {"loss": "gist", "negatives": 1},
        {"method": "lora", "learning_rate": 3e-3, "machine": NARROW},
    ],
    ids=["cached, hard negatives", "gist, a hard negative", "lora, checkpointed"],
)
def test_every_way_of_training_leaves_a_plain_model_that_has_learnt(
    tmp_path: Path, tiny_model: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A guide of random weights finds all texts alike, and would leave no negatives.
    monkeypatch.setattr("embed_assets.training.losses.GUIDE_MARGIN", -1.0)
    config, result = train_here(tmp_path / "a", tiny_model, epochs=4, **options)
    assert result["pairs_per_second"] > 0
    untrained = dict(load_model(str(tiny_model)).named_parameters())
    assert largest_difference(weights_of(config), untrained) > 1e-4
    before = Validation(config, "fp32").score(load_model(str(tiny_model)))[BEST_METRIC]
    after = Validation(config, "fp32").score(load_model(str(config.model)))[BEST_METRIC]
    assert after == pytest.approx(result["best_validation_ndcg_at_10"], abs=1e-6)
    assert after > before


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_lowest_layers_stay_as_they_are_where_that_is_asked(
    tmp_path: Path, method: str
) -> None:
    base = make_tiny_model(tmp_path, layers=3)
    config, _ = train_here(tmp_path / "a", base, method=method, frozen_share=0.34, epochs=1)
    trained = weights_of(config)
    changed = [
        name
        for name, weight in load_model(str(base)).named_parameters()
        if not weight.equal(trained[name])
    ]
    assert {name.partition(".layer.")[2][:2] for name in changed} == {"1.", "2."}


def test_lora_trains_nothing_but_low_rank_changes_of_the_transformer(tiny_model: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    model = SentenceTransformer(modules=[*load_model(str(tiny_model)), Dense(32, 16)])
    add_lora(model, frozen_share=0.0)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all(name.startswith("0.") and ".lora_" in name for name in trained)


def test_a_model_of_static_embeddings_is_trained_too(tmp_path: Path) -> None:
    static = make_static_model(tmp_path)
    config, result = train_here(tmp_path / "a", static, epochs=1, frozen_share=0.34, merge=0.5)

    untrained = dict(load_model(str(static)).named_parameters())
    assert largest_difference(weights_of(config), untrained) > 1e-4
    # Its seconds are rounded, and few.
    rate, rounding = result["pairs_per_second"], 0.005 * result["pairs_per_second"]
    assert rate * result["step_seconds"] == pytest.approx(40, abs=0.1 + rounding)


def test_low_rank_training_is_taken_up_where_it_stopped(tmp_path: Path, tiny_model: Path) -> None:
    options = {"method": "lora", "seconds_between_checkpoints": 0}
    config, first = train_here(tmp_path / "a", tiny_model, **options)
    trained = weights_of(config)
    shutil.rmtree(config.model)
    again = train(config, Silent())
    assert again["resumed_from"] == "checkpoint-16"
    assert again["best_epoch"] == first["best_epoch"]
    assert largest_difference(weights_of(config), trained) == 0


def test_half_a_checkpoint_is_not_taken_up(tmp_path: Path, tiny_model: Path) -> None:
    config, _ = train_here(tmp_path / "a", tiny_model)
    whole = last_checkpoint(config)
    assert whole is not None
    torn = shutil.copytree(whole, config.checkpoints / "checkpoint-17")
    state = (torn / "trainer_state.json").read_text()
    (torn / "trainer_state.json").write_text(state[: len(state) // 2])
    assert last_checkpoint(config) == whole
    without_dice = shutil.copytree(whole, config.checkpoints / "checkpoint-18")
    (without_dice / "rng_state.pth").unlink()
    assert last_checkpoint(config) == whole


def test_a_checkpoint_that_is_removed_while_it_is_looked_at_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    path = make_config(tmp_path / "a", tmp_path / "no-model", epochs=1)
    config = TrainingConfig.model_validate_json(path.read_text(encoding="utf-8"))
    checkpoint = config.checkpoints / "checkpoint-4"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}", encoding="utf-8")
    (checkpoint / "rng_state.pth").touch()
    assert last_checkpoint(config) == checkpoint
    look = Path.glob

    def glob(folder: Path, pattern: str) -> Iterator[Path]:
        if folder == checkpoint:
            raise FileNotFoundError(folder)  # as Path.glob says between its two looks
        return look(folder, pattern)

    monkeypatch.setattr(Path, "glob", glob)
    assert last_checkpoint(config) is None


def test_pairs_of_one_chunk_alone_are_no_batch_and_say_so(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "a").mkdir()
    path = make_config(tmp_path / "a", tiny_model, epochs=1)
    config = TrainingConfig.model_validate_json(path.read_text())
    pairs = pl.read_parquet(config.pairs).with_columns(chunk_id=pl.lit("c0"))
    pairs.write_parquet(config.pairs)
    with pytest.raises(ValueError, match="40 pairs of 1 chunks make no batch of 5"):
        train(config, Silent())


def test_each_epoch_trains_on_the_extractive_pairs_whose_turn_it_is(
    tmp_path: Path, tiny_model: Path
) -> None:
    turns, result = train_here(tmp_path / "turns", tiny_model, extractive_per_epoch=10)
    assert (result["pairs"], result["steps"]) == (40, 2 * 20 // 5), "10 extractive and 10 others"
    (tmp_path / "same").mkdir()
    path = make_config(tmp_path / "same", tiny_model, epochs=2, extractive_per_epoch=10)
    same = TrainingConfig.model_validate_json(path.read_text(encoding="utf-8"))
    pairs = pl.read_parquet(same.pairs)
    first_ten = pl.col("extractive").cum_sum() <= 10
    pairs.filter(first_ten | ~pl.col("extractive")).write_parquet(same.pairs)
    assert train(same, Silent())["steps"] == result["steps"]
    assert largest_difference(weights_of(turns), weights_of(same)) > 0


def test_turns_change_nothing_where_an_epoch_takes_all(tmp_path: Path, tiny_model: Path) -> None:
    every, _ = train_here(tmp_path / "all", tiny_model)
    most, _ = train_here(tmp_path / "most", tiny_model, extractive_per_epoch=30)
    assert largest_difference(weights_of(every), weights_of(most)) == 0


def test_what_an_earlier_release_kept_is_trained_on_as_it_was(
    tmp_path: Path, tiny_model: Path
) -> None:
    today, _ = train_here(tmp_path / "today", tiny_model)
    (tmp_path / "then").mkdir()
    path = make_config(tmp_path / "then", tiny_model, epochs=2)
    said = json.loads(path.read_text(encoding="utf-8"))
    del said["extractive_per_epoch"]
    config = TrainingConfig.model_validate(said)
    pl.read_parquet(config.pairs).drop("extractive").write_parquet(config.pairs)
    train(config, Silent())
    assert largest_difference(weights_of(today), weights_of(config)) == 0


@pytest.mark.parametrize("merge", ["best", 0.5])
def test_the_model_is_the_mix_of_base_and_tuned_weights_that_was_asked_for(
    tmp_path: Path, tiny_model: Path, merge: float | str
) -> None:
    config, result = train_here(tmp_path / "a", tiny_model, epochs=3, merge=merge)
    tuned, _ = train_here(tmp_path / "b", tiny_model, epochs=3)
    base = dict(load_model(str(tiny_model)).named_parameters())
    share = result["tuned_share"]
    assert share in (1.0, 0.75, 0.5, 0.25) if merge == "best" else share == merge
    mixed = {name: base[name].lerp(weight, share) for name, weight in weights_of(tuned).items()}
    assert largest_difference(weights_of(config), mixed) < 1e-6
    assert largest_difference(mixed, base) > 0
    score = Validation(config, "fp32").score(load_model(str(config.model)))[BEST_METRIC]
    assert score == pytest.approx(result["best_validation_ndcg_at_10"], abs=1e-6)


def test_dropout_is_left_out_whatever_the_base_was_trained_with(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    still = make_tiny_model(tmp_path_factory.mktemp("still"), dropout=0.0)
    dropping = make_tiny_model(tmp_path_factory.mktemp("dropping"), dropout=0.5)
    one, other = (
        weights_of(train_here(tmp_path / base.parent.name, base)[0]) for base in (still, dropping)
    )
    assert largest_difference(one, other) == 0


def test_what_is_over_is_not_trained_on(tmp_path: Path, tiny_model: Path) -> None:
    config, result = train_here(tmp_path / "a", tiny_model)
    again = train(config, measured := Measured())
    assert again["steps"] == result["steps"]
    assert not measured.losses


def test_the_anchor_comes_first_since_the_loss_goes_by_order(
    tmp_path: Path, tiny_model: Path
) -> None:
    path = make_config(tmp_path, tiny_model, epochs=1)
    config = TrainingConfig.model_validate_json(path.read_text())
    pairs = pl.read_parquet(config.pairs).select("negatives", "positive", "anchor")
    assert training_dataset(pairs).column_names == ["anchor", "positive"]


def test_a_machine_with_another_model_of_that_name_trains_nothing(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_config(tmp_path, tiny_model, epochs=1, identity="another's")
    monkeypatch.setattr(sys, "argv", ["trainer", str(path)])
    with pytest.raises(ProjectError, match="is another model on this node"):
        main()
    config = TrainingConfig.model_validate_json(path.read_text(encoding="utf-8"))
    assert "is another model on this node" in config.failure.read_text(encoding="utf-8")
