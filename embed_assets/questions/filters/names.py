"""Which filters there are, and which of them a person turned on."""

from embed_assets.errors import SettingsError

FILTERS = ("unanswerable", "pointing", "verbatim", "duplicates", "near_duplicates", "round_trip")
"""Every filter, in the order in which they are applied."""

NEED_EMBEDDINGS = frozenset({"near_duplicates", "round_trip"})
CORPUS_FILTERS = NEED_EMBEDDINGS | {"duplicates"}
"""Filters that look at all questions together, when the pairs are made."""


def enabled_filters(setting: str) -> frozenset[str]:
    """Names of the filters in EMBED_ASSETS_FILTERS: `none`, `all`, or names separated by commas.

    SettingsError names what is no filter.
    """
    names = [name.strip().lower() for name in setting.split(",") if name.strip()]
    if names == ["none"]:
        return frozenset()
    if names == ["all"]:
        return frozenset(FILTERS)
    unknown = [name for name in names if name not in FILTERS]
    if unknown or not names:
        what = f"no filter '{unknown[0]}'" if unknown else "names no filter"
        raise SettingsError(
            f"EMBED_ASSETS_FILTERS: {what}. Set it to none, all, or some of {', '.join(FILTERS)}, "
            "separated by commas."
        )
    return frozenset(names)
