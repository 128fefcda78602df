"""The figures that MLflow shows first, and the view of the runs."""

import json

import pytest

from embed_assets.resources.headline import (
    ABOUT,
    COLUMNS,
    FIGURES,
    PREFIX,
    headline_metrics,
    runs_view,
)
from embed_assets.training.progress import PREFIX as PROGRESS
from embed_assets.training.tracked import RESULT


def test_headline_comes_first_then_what_a_training_did_then_the_splits():
    sections = [PREFIX, PROGRESS, RESULT, "test_labelled", "validation"]
    assert sections == sorted(sections)


def test_the_figures_are_about_a_dozen_and_explained_in_the_order_in_which_they_are_shown():
    assert list(FIGURES) == sorted(FIGURES)
    assert len(FIGURES) in range(10, 15)
    assert all(f"`{name}`: {meaning}" in ABOUT for name, meaning in FIGURES.items())


def test_what_is_not_known_is_left_out_and_what_is_not_explained_refused():
    given = {"ndcg_at_10": 0.5, "ndcg_at_10_champion": None}
    assert headline_metrics(given) == {"headline/ndcg_at_10": 0.5}
    with pytest.raises(KeyError, match="no headline figure: luck"):
        headline_metrics({"luck": 1.0})


def test_the_view_has_headline_figures_as_columns():
    view = json.loads(runs_view())
    state = json.loads(view["state"])
    assert COLUMNS.keys() <= FIGURES.keys()
    columns = [f"metrics.`headline/{name}`" for name in COLUMNS]
    assert state["selectedColumns"][: len(columns)] == columns
    assert set(columns) <= set(state["columnOrder"])
    assert len(runs_view()) < 20_000, "what MLflow takes in a tag of an experiment"
