"""Filters are turned on by their names."""

import pytest

from embed_assets.errors import SettingsError
from embed_assets.questions.filters.names import FILTERS, enabled_filters
from embed_assets.settings import Settings


def test_all_none_and_names_are_understood():
    assert enabled_filters("none") == frozenset()
    assert enabled_filters("all") == set(FILTERS)
    assert enabled_filters(" Verbatim, round_trip,") == {"verbatim", "round_trip"}
    assert enabled_filters(Settings().filters) <= set(FILTERS)


@pytest.mark.parametrize("setting", ["verbatim,spelling", "none,verbatim", "", ","])
def test_what_is_no_filter_is_refused_and_the_filters_are_named(setting):
    with pytest.raises(SettingsError, match=r"^EMBED_ASSETS_FILTERS: .*unanswerable, pointing"):
        enabled_filters(setting)
