import io
import json
from collections.abc import Iterator

import polars as pl
import pytest
import vl_convert
from PIL import Image

from embed_assets.charts import to_png, vega_lite_version
from embed_assets.comparison.plots import (
    NARROW,
    WIDE,
    composition_chart,
    models_chart,
    quality_kept_chart,
    ranking_chart,
)

BASE_GREY = (0x8F, 0x96, 0xA0)
TUNED_BLUE = (0x0B, 0x62, 0xC4)


@pytest.fixture
def against() -> pl.DataFrame:
    """Rows of model_comparisons: base, a champion that is better, and bm25."""
    rows = [("base", 0.44, 0.11), ("bm25", 0.30, 0.25), ("champion v1", 0.60, -0.05)]
    return pl.DataFrame(rows, schema=["model", "score", "difference"], orient="row").with_columns(
        split=pl.lit("test_labelled"),
        tuned=pl.lit(0.55),
        low=pl.col("difference") - 0.02,
        high=pl.col("difference") + 0.02,
        verdict=pl.lit("better"),
    )


@pytest.fixture
def hybrid() -> pl.DataFrame:
    """Rows of hybrid_comparisons: hybrid search with the fine-tuned model beside three others."""
    others = ["base + bm25", "tuned", "bm25"]
    return pl.DataFrame({"model": others, "split": "test_labelled", "tuned": 0.57})


@pytest.fixture
def charts(scores, quality_kept, against, hybrid) -> dict:
    return {
        "models": models_chart(against, hybrid, "test_labelled", 120),
        "composition": composition_chart(scores, "test_labelled", 120),
        "ranking": ranking_chart(scores, "test_labelled", 120),
        "quality kept": quality_kept_chart(quality_kept, "test_labelled", 120),
    }


def drawn(chart) -> str:
    return vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=vega_lite_version())


def pixels(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    found = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    assert found is not None
    return {rgb: count for count, rgb in found}.get(colour, 0)


def keys(value) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


@pytest.mark.parametrize("name", ["models", "composition", "ranking", "quality kept"])
def test_a_png_is_a_picture_with_both_models_in_their_colours(charts, name):
    picture = Image.open(io.BytesIO(to_png(charts[name])))
    picture.load()

    assert picture.format == "PNG"
    assert picture.width > 1000
    assert picture.height > 300
    assert pixels(picture, BASE_GREY) > 500
    assert pixels(picture, TUNED_BLUE) > 500


def test_the_scale_of_a_png_multiplies_its_size(charts):
    small, large = (
        Image.open(io.BytesIO(to_png(charts["ranking"], scale=scale))) for scale in (1.0, 3.0)
    )

    assert large.width == pytest.approx(3 * small.width, abs=3)


def test_a_higher_score_draws_a_higher_bar(scores):
    def blue(tuned: float) -> int:
        chart = ranking_chart(scores.with_columns(base=0.6, tuned=tuned), "test_labelled", 9)
        return pixels(Image.open(io.BytesIO(to_png(chart))), TUNED_BLUE)

    assert blue(0.6) == pytest.approx(2 * blue(0.3), rel=0.1)


@pytest.mark.parametrize("name", ["composition", "ranking", "quality kept"])
def test_a_chart_names_its_split_its_size_and_its_axes(charts, name):
    svg = drawn(charts[name])

    assert "120 questions that people wrote" in svg
    assert "dimensions of the vectors" in svg
    for dimension in (384, 256, 128, 64):
        assert f">{dimension}<" in svg


def test_the_composition_has_a_panel_per_metric_and_dimension(charts):
    svg = drawn(charts["composition"])

    for metric in ("Accuracy@k", "Precision@k", "Recall@k", "F1@k"):
        assert f">{metric}<" in svg
    assert svg.count('aria-roledescription="bar"') == 4 * 4 * 4 * 2


def test_bars_tell_exact_figures_when_pointed_at(charts):
    svg = drawn(charts["ranking"])

    assert "model: tuned; dimension: 384; metric: NDCG@10; k: 10; score: 0.5500" in svg
    assert "tuned against base, relative: +25.0 %" in svg


def test_the_quality_chart_tells_what_is_kept_and_the_bytes_of_a_vector(charts):
    svg = drawn(charts["quality kept"])

    assert ">1,536 bytes<" in svg
    assert ">256 bytes<" in svg
    assert ">100.0 %<" in svg
    assert "storage saved: 33.3 %" in svg


def test_the_models_stand_in_the_order_of_their_scores_each_with_its_interval(charts):
    svg = drawn(charts["models"])
    models = ("champion v1", "tuned + bm25", "tuned", "base", "bm25")
    places = [svg.index(f">{model}<") for model in models]

    assert places == sorted(places)
    for figure in ("0.600", "0.570", "0.550", "0.440", "0.300"):
        assert f">{figure}<" in svg
    assert "tuned against: bm25; low: +0.2300; high: +0.2700" in svg
    assert "tuned against: tuned" not in svg


def test_without_hybrid_search_it_has_no_bar(against, hybrid):
    for none in (hybrid.clear(), hybrid.with_columns(split=pl.lit("validation"))):
        svg = drawn(models_chart(against, none, "test_labelled", 120))
        assert ">tuned<" in svg
        assert "tuned + bm25" not in svg


def test_a_narrow_chart_fits_a_phone_and_a_wide_one_a_sheet_of_paper(
    scores, quality_kept, against, hybrid
):
    for width, most in ((NARROW, 360), (WIDE, 760)):
        for chart in (
            models_chart(against, hybrid, "test_labelled", 120, width),
            ranking_chart(scores, "test_labelled", 120, width),
            composition_chart(scores, "test_labelled", 120, width),
            quality_kept_chart(quality_kept, "test_labelled", 120, width),
        ):
            picture = Image.open(io.BytesIO(to_png(chart, scale=1.0)))
            assert 0.75 * width < picture.width <= most, chart.title.text


def test_one_question_is_one_and_a_split_without_words_is_named(scores):
    only = scores.filter(split="validation").with_columns(split=pl.lit("mine"))

    assert "1 question that people wrote" in drawn(ranking_chart(scores, "test_labelled", 1))
    assert "7 questions of mine" in drawn(ranking_chart(only, "mine", 7))


@pytest.mark.parametrize("name", ["models", "composition", "ranking", "quality kept"])
def test_a_chart_fetches_nothing(charts, name):
    spec = charts[name].to_dict()

    assert not {"url", "href"} & set(keys(spec))
    assert "http" not in json.dumps({key: spec[key] for key in spec if key != "$schema"})


def test_one_dimension_can_be_drawn(scores, quality_kept):
    only = {"dimension": 384}

    assert to_png(composition_chart(scores.filter(**only), "validation", 9))
    assert to_png(ranking_chart(scores.filter(**only), "validation", 9))
    assert to_png(quality_kept_chart(quality_kept.filter(**only), "validation", 9))


def test_a_base_that_found_nothing_can_be_drawn(scores, quality_kept):
    nothing = scores.with_columns(base=0.0, difference_percent=pl.lit(None, pl.Float64))
    unkept = quality_kept.with_columns(kept=pl.lit(float("nan")))
    specs = [
        composition_chart(nothing, "validation", 9).to_dict(),
        ranking_chart(nothing, "validation", 9).to_dict(),
        quality_kept_chart(unkept, "validation", 9).to_dict(),
    ]

    json.dumps(specs, allow_nan=False)
    assert to_png(ranking_chart(nothing, "validation", 9))
    assert to_png(quality_kept_chart(unkept, "validation", 9))


def test_a_split_without_scores_is_refused_and_the_others_named(scores):
    with pytest.raises(ValueError, match=r"split 'test'; .*: test_labelled, test_seen_documents"):
        ranking_chart(scores, "test", 9)
