"""Counts and changes are said in one way."""

import pytest

from embed_assets.wording import change, counted, signed_percent, watt_hours


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 documents"), (1, "1 document"), (2, "2 documents"), (1200, "1,200 documents")],
)
def test_a_count_has_its_noun_in_the_right_number(count: int, said: str) -> None:
    assert counted(count, "document") == said


def test_a_noun_may_have_a_plural_of_its_own() -> None:
    assert counted(2, "library", "libraries") == "2 libraries"
    assert counted(1, "library", "libraries") == "1 library"


def test_a_change_has_its_sign() -> None:
    assert signed_percent(17.26) == "+17.3 %"
    assert change(0.5, 0.4) == "\N{MINUS SIGN}20.0 %"


def test_what_there_was_none_of_has_not_changed_by_percents() -> None:
    assert change(0.0, 0.4) == signed_percent(None) == "–"


def test_a_small_amount_of_energy_is_not_none():
    said = [watt_hours(energy) for energy in (12.3456, 0.03, 0.0031, 0)]
    assert said == ["12.35 Wh", "0.03 Wh", "0.0031 Wh", "0 Wh"]
