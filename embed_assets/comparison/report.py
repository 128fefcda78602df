"""The comparison as one HTML page that needs nothing but itself: no network, no server, no files.

What stands on the page and in which order is in `report.html.jinja`; here is what it is made of.
Questions and chunks are other people's text, so the page trusts none of it: Jinja escapes it, data
for the charts is JSON without a `<`, and a content security policy lets the browser run exactly the
page's own two scripts (known by their hashes) and fetch nothing.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.charts import vega_lite_version
from embed_assets.comparison import plots
from embed_assets.evaluation.significance import FEWEST_DOCUMENTS, LARGEST_P_VALUE

SPLITS = {
    "test_labelled": "Questions that people wrote. They are never trained on.",
    "test_unseen_documents": "Questions on documents that were held out whole.",
    "test_seen_documents": "Questions on other chunks of documents that were trained on.",
    "validation": "Questions that chose the epoch and the settings. Not a test.",
}
"""What each split is, in the order in which they are shown after the headline split."""

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_METRICS = ("accuracy", "hit_rate", "precision", "recall", "f1", "mrr", "ndcg", "map")
_SHORT = 220  # characters of a chunk shown before it is unfolded


@dataclass(frozen=True)
class Retrieved:
    """One chunk that a model found; `relevant` if it answers the question. Pages are 1-based."""

    file_name: str
    page_start: int
    page_end: int
    text: str
    relevant: bool


@dataclass(frozen=True)
class Example:
    """A question, and what each model found, best first.

    A rank is that of the first relevant chunk, 1 being the best, or None if the model missed it.
    """

    question: str
    split: str
    base_rank: int | None
    tuned_rank: int | None
    base_retrieved: tuple[Retrieved, ...]
    tuned_retrieved: tuple[Retrieved, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """All that the page says. `verdict` is one sentence; `facts` and `notes` are plain text.

    scores, quality_kept: as `plots` takes them. significance: as `compare_models` returns it.
    against: base and baselines, each at its full size, as rows of model_comparisons.
    reservations: sentences that speak against the fine-tuned model.
    """

    title: str
    created_at: datetime
    headline_split: str
    verdict: str
    facts: Mapping[str, str]
    notes: Sequence[str]
    scores: pl.DataFrame
    quality_kept: pl.DataFrame
    significance: pl.DataFrame
    against: pl.DataFrame
    reservations: Sequence[str]
    won: Sequence[Example]
    lost: Sequence[Example]


def render_report(report: Report) -> str:
    """The page as HTML, to be written as UTF-8. About 1 MB, nearly all of it the chart library.

    Raises ValueError if the headline split has no scores.
    """
    import jinja2

    splits = _splits_shown(report)
    key_rows = {split: _key_rows(report, split) for split in splits}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "score": lambda value: _format(value, ".3f"),
        "signed_score": lambda value: _format(value, "+.3f"),
        "percent": lambda fraction: _format(fraction, ".1%"),
        "signed_percent": lambda percent: _format(percent and percent / 100, "+.1%"),
        "p_value": format_p_value,
        "pages": _format_pages,
        "rank": lambda rank: f"rank {rank}" if rank else "not found",
        "is_long": lambda text: len(_one_line(text)) > _SHORT,
        "one_line": _one_line,
        "shortened": _shorten,
        "script_hash": _script_hash,
    }
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        splits=splits,
        described=SPLITS,
        key_rows=key_rows,
        against=_against_rows(report, splits),
        metric_tables={split: _metric_table(report.scores, split) for split in splits},
        charts=[_chart_specs(report, split, key_rows[split][0]["questions"]) for split in splits],
        vega=_chart_library(),
        largest_p_value=LARGEST_P_VALUE,
        fewest_documents=FEWEST_DOCUMENTS,
    )


def _splits_shown(report: Report) -> list[str]:
    """The splits that have scores: the headline first, then as in SPLITS, then any others."""
    found = set(report.scores["split"])
    if report.headline_split not in found:
        splits = ", ".join(sorted(found)) or "none"
        raise ValueError(
            f"The headline split {report.headline_split!r} has no scores; these have: {splits}."
        )
    ordered = [report.headline_split, *SPLITS, *sorted(found)]
    return [split for split in dict.fromkeys(ordered) if split in found]


def _key_rows(report: Report, split: str) -> list[dict[str, Any]]:
    """A row per dimension, largest first: NDCG@10 of both models, how sure, what it costs."""
    ndcg = report.scores.filter(split=split, metric="ndcg", k=10).select(
        "dimension", "base", "tuned", "difference_percent"
    )
    sure = report.significance.filter(split=split).drop("split", "base", "tuned")
    kept = report.quality_kept.filter(split=split, model="tuned").select(
        "dimension", "kept", "bytes_per_vector", "storage_saved"
    )
    return (
        ndcg.join(sure, on="dimension")
        .join(kept, on="dimension")
        .sort("dimension", descending=True)
        .to_dicts()
    )


def _against_rows(report: Report, splits: Sequence[str]) -> list[dict[str, Any]]:
    """A row per split and model, in the order of the splits; none where nothing but base is."""
    rows = report.against.to_dicts()
    if all(row["model"] == "base" for row in rows):
        return []
    return [row for split in splits for row in rows if row["split"] == split]


def _metric_table(scores: pl.DataFrame, split: str) -> dict[str, Any]:
    """Every metric of a split: a row per metric and k, a cell per dimension, largest first."""
    in_order = (pl.col("metric").cast(pl.Enum(_METRICS)), "k", -pl.col("dimension"))
    rows = scores.filter(split=split).sort(in_order)
    return {
        "dimensions": rows["dimension"].unique().sort(descending=True).to_list(),
        "rows": [
            (f"{metric}@{k}", cells.to_dicts())
            for (metric, k), cells in rows.group_by("metric", "k", maintain_order=True)
        ],
    }


def _chart_specs(report: Report, split: str, questions: int) -> list[dict[str, Any]]:
    charts = (
        plots.ranking_chart(report.scores, split, questions),
        plots.composition_chart(report.scores, split, questions),
        plots.quality_kept_chart(report.quality_kept, split, questions),
    )
    return [chart.to_dict() for chart in charts]


@cache
def _chart_library() -> str:
    """Vega, Vega-Lite and vega-embed as one script. Bundling takes seconds, hence the cache."""
    import vl_convert

    return vl_convert.javascript_bundle(
        "window.vegaEmbed = vegaEmbed;", vl_version=vega_lite_version()
    )


def _format(value: float | None, spec: str) -> str:
    """The number with a true minus sign, or a dash where there is none."""
    return "–" if value is None else format(value, spec).replace("-", "\N{MINUS SIGN}")


def format_p_value(value: float) -> str:
    """A p-value to three places; one that would be 0.000 as `< 0.001`."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _format_pages(chunk: Retrieved) -> str:
    if chunk.page_start == chunk.page_end:
        return f"page {chunk.page_start}"
    return f"pages {chunk.page_start}–{chunk.page_end}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _shorten(text: str) -> str:
    """The start of the text, on one line, cut between words where there are any."""
    line = _one_line(text)
    if len(line) <= _SHORT:
        return line
    start = line[:_SHORT]
    return (start.rpartition(" ")[0] or start) + " …"


def _script_hash(script: str) -> str:
    """What a content security policy calls this script. https://www.w3.org/TR/CSP3/#hash-source."""
    digest = hashlib.sha256(str(script).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
