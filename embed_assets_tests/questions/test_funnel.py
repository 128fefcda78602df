"""The funnel adds up, and its chart says so."""

import io
import re

import polars as pl
import pytest
import vl_convert
from PIL import Image

from embed_assets.charts import to_markdown, to_png, vega_lite_version
from embed_assets.questions import statuses
from embed_assets.questions.filters.names import FILTERS
from embed_assets.questions.funnel import (
    funnel,
    funnel_chart,
    funnel_lines,
    funnel_table,
    funnels,
)
from embed_assets.questions.statuses import DROPPED, NO_SUCH_FILE

BLUE, GREY = (0x0B, 0x62, 0xC4), (0x8F, 0x96, 0xA0)


def test_each_stage_remains_of_the_one_before_and_reasons_stand_in_order():
    asked = ["KEPT"] * 5 + ["NEAR_DUPLICATE"] * 2 + ["POINTS_AT_TEXT"] + ["FAILED"] * 3

    assert funnel(asked).rows() == [
        ("generated", 11, 11, 0),
        ("failed call", 3, 8, 3),
        ("points at the text", 1, 7, 1),
        ("near-duplicate", 2, 5, 2),
        ("kept", 5, 5, 0),
    ]


def test_no_questions_make_an_empty_funnel():
    assert funnel([]).rows() == [("generated", 0, 0, 0), ("kept", 0, 0, 0)]


def test_a_status_that_is_not_known_still_counts():
    assert funnel(["KEPT", "NEW_REASON"]).rows()[1:] == [("NEW_REASON", 1, 1, 1), ("kept", 1, 1, 0)]


def test_every_status_has_a_place_and_filters_keep_their_order():
    words = {value for value in vars(statuses).values() if isinstance(value, str)}
    known = {word for word in words if word.isupper() or word == NO_SUCH_FILE}

    assert known == {*DROPPED, statuses.KEPT}
    status_of = {
        "unanswerable": statuses.UNANSWERABLE,
        "pointing": statuses.POINTS_AT_TEXT,
        "verbatim": statuses.VERBATIM,
        "duplicates": statuses.DUPLICATE,
        "near_duplicates": statuses.NEAR_DUPLICATE,
        "round_trip": statuses.ROUND_TRIP_FAILED,
    }
    of_filters = [status_of[name] for name in FILTERS]
    assert [reason for reason in DROPPED if reason in of_filters] == of_filters


@pytest.fixture
def stages() -> pl.DataFrame:
    return funnels(["KEPT"] * 1204 + ["VERBATIM"] * 600 + ["DUPLICATE"] * 31, [])


BY_PEOPLE = ["KEPT"] * 67 + ["EVIDENCE_NOT_FOUND", NO_SUCH_FILE]


def texts_from_the_top(stages: pl.DataFrame) -> list[str]:
    """Names of the chart's rows and its figures, in the order in which they are drawn."""
    svg = vl_convert.vegalite_to_svg(funnel_chart(stages).to_dict(), vl_version=vega_lite_version())
    marks = re.findall(r'class="mark-text [^"]*role-(?:mark|axis-label)[^"]*".*?</g>', svg)
    return [text for mark in marks for text in re.findall(r">([^<>]+)</text>", mark)]


def test_beside_a_reason_stands_how_many_it_dropped_in_text_and_table():
    stages = funnels(["KEPT"] * 3 + ["VERBATIM"], BY_PEOPLE)
    assert funnel_lines(stages) == [
        "4 generated, 1 quotes its chunk, 3 kept",
        "69 asked by people, 1 no such file in the folder, 1 evidence not found, 67 kept",
    ]
    assert funnel_table(stages).rows()[3:] == [
        ("asked by people", 69, 69),
        ("no such file in the folder", 1, 68),
        ("evidence not found", 1, 67),
        ("kept", 67, 67),
    ]


def test_each_part_of_the_chart_has_its_own_stages_in_their_order():
    drawn = texts_from_the_top(funnels(["KEPT"] * 3 + ["VERBATIM"], BY_PEOPLE))
    stages = ["asked by people", "no such file in the folder", "evidence not found", "kept"]
    assert [text for text in drawn if text in {*stages, "generated", "quotes its chunk"}] == [
        "generated",
        "quotes its chunk",
        "kept",
        *stages,
    ]
    assert [text for text in drawn if text in ("69", "−1", "67")][-4:] == ["69", "−1", "−1", "67"]


def test_where_no_person_asked_only_what_was_generated_is_counted():
    assert funnel_lines(funnels(["KEPT"], [])) == ["1 generated, 1 kept"]
    assert funnel_lines(funnels([], [])) == ["0 generated, 0 kept"]


def test_the_chart_writes_every_count(stages):
    svg = vl_convert.vegalite_to_svg(funnel_chart(stages).to_dict(), vl_version=vega_lite_version())

    for text in ("generated", "quotes its chunk", "duplicate", "kept"):
        assert f">{text}<" in svg
    for text in ("1,835", "−600", "−31", "1,204"):
        assert f">{text}<" in svg


def test_a_bar_is_as_long_as_what_remains(stages):
    def pixels(colour, frame) -> int:
        picture = Image.open(io.BytesIO(to_png(funnel_chart(frame)))).convert("RGB")
        return {c: n for n, c in picture.getcolors(1 << 24) or []}.get(colour, 0)

    remaining, dropped = stages["remaining"].sum(), stages["dropped"].sum()
    drawn = pixels(BLUE, stages) / pixels(GREY, stages)
    assert drawn == pytest.approx(remaining / dropped, rel=0.1)


def test_the_picture_stands_in_markdown_by_itself(stages):
    markdown = to_markdown("funnel", to_png(funnel_chart(stages), scale=1.0))

    assert markdown.startswith("![funnel](data:image/png;base64,iVBOR")
