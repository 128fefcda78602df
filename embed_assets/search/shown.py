"""What `search` prints: the best chunks for a text, where they stand, and why."""

from collections.abc import Mapping
from typing import Any

from embed_assets.errors import SettingsError
from embed_assets.resources.current_index import read_current
from embed_assets.search.searching import Cut, Mode, ModelChoice, Searcher, model_of
from embed_assets.settings import Settings
from embed_assets.wording import in_lines

LONGEST = 300
"""Characters of a chunk that are shown."""


def search_chunks(
    settings: Settings,
    searcher: Searcher,
    text: str,
    cut: Cut,
    mode: Mode = "hybrid",
    model: ModelChoice = "champion",
) -> dict[str, Any]:
    """What `search --json` prints. SettingsError where the text is empty."""
    if not text.strip():
        raise SettingsError("The text is empty: say what to look for.")
    [results] = searcher.search([text], cut, mode, model)
    champion = read_current(settings.home).champion
    known = model_of(searcher)
    of_base = {"model": searcher.index.manifest.base, "version": None, "cutoff": None}
    return {
        "query": text,
        **known,
        **(of_base if model == "base" else {}),
        "newest": newest_version(settings),
        "champion": champion or None,
        "prepared": champion is None or (champion or None) == known["version"],
        "mode": mode,
        "results": results,
    }


def newest_version(settings: Settings) -> str | None:
    """The highest number of the versions whose folders are there."""
    numbers = (folder.name.removeprefix("v") for folder in settings.models.glob("v*"))
    return max((n for n in numbers if n.isdecimal()), key=int, default=None)


def _by(result: Mapping[str, Any]) -> str:
    """Which model searched, and which is the newest where that is another."""
    version, newest = result["version"], result["newest"]
    if version is None and result["champion"] is None:
        why = "no version is champion yet" if newest else "no version was trained yet"
        return f"With the base model, {result['model']}: {why}"
    if version is None:
        return f"With the base model, {result['model']}"
    other = f"; the newest is version {newest}" if newest != version else ""
    return f"With version {version}, the champion ({result['model']}){other}"


def search_text(result: Mapping[str, Any]) -> str:
    """The results for a person."""
    lines = [f"{_by(result)}, {result['mode']}:"]
    if not result["prepared"]:
        named = f"version {result['champion']}" if result["champion"] else "the base model"
        lines.append(f"Search is not prepared for {named} yet: `embed-assets ingest` does it.")
    if not result["results"]:
        lines += ["", "Nothing is found."]
    for row in result["results"]:
        start, end = row["page_start"], row["page_end"]
        pages = f"page {start}" if start == end else f"pages {start}–{end}"
        text = " ".join(row["chunk_text"].split())
        text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
        heading = f"  {row['heading_path']}" if row["heading_path"] else ""
        lines += [
            "",
            f"{row['score']:.3f}  {row['path']}, {pages}{heading}",
            f"       {_why(row)}",
            f"       {text}",
        ]
    if any(row["likely"] is False for row in result["results"]):
        lines += ["", _about_cutoff(result)]
    return in_lines(lines)


def _why(row: Mapping[str, Any]) -> str:
    """By what a chunk was found."""
    by = [
        f"{what} {row[rank]}"
        for what, rank in (("by meaning", "dense_rank"), ("by words", "lexical_rank"))
        if row[rank] is not None
    ]
    cosine = [] if row["cosine"] is None else [f"cosine {row['cosine']:.3f}"]
    unlikely = ["below the cut-off"] if row["likely"] is False else []
    return ", ".join([*by, *cosine, *unlikely])


def _about_cutoff(result: Mapping[str, Any]) -> str:
    return (
        f"The cut-off is a cosine of {result['cutoff']:.3f}: of {result['cutoff_questions']} "
        "questions the answer was below it for one in twenty. --min-cosine auto leaves such out."
    )
