"""The comparison as one HTML page that needs nothing but itself: no network, no server, no files.

What stands on the page and in which order is in `report.html.jinja`; here is what it is made of.
Questions and chunks are other people's text, so the page trusts none of it: Jinja escapes it, the
markdown of a chunk becomes HTML without tags of its own (`chunk_text`), data for the charts is JSON
without a `<`, and a content security policy lets the browser run exactly the page's own two scripts
(known by their hashes) and fetch nothing.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.charts import vega_lite_version
from embed_assets.comparison import plots
from embed_assets.comparison.chunk_text import to_html, to_words
from embed_assets.comparison.promotion import Promotion
from embed_assets.comparison.sources import Passage, Sources
from embed_assets.evaluation.significance import FEWEST_DOCUMENTS, LARGEST_P_VALUE, Verdict
from embed_assets.pairs.splits import IN_WORDS, InWords
from embed_assets.wording import signed_percent

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_METRICS = ("accuracy", "hit_rate", "precision", "recall", "f1", "mrr", "ndcg", "map")
_SHORT = 220  # characters of a chunk shown before it is unfolded
_HYPHENS = re.compile(r"(?<!\w)-(?=\d)")  # that stand for a minus sign
_WIDTHS = {"wide": plots.WIDE, "narrow": plots.NARROW}


@dataclass(frozen=True)
class Retrieved:
    """One chunk that a model found; `relevant` if it answers the question. Pages are 1-based."""

    chunk_id: str
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

    question_id: str
    question: str
    split: str
    base_rank: int | None
    tuned_rank: int | None
    base_retrieved: tuple[Retrieved, ...]
    tuned_retrieved: tuple[Retrieved, ...]


@dataclass(frozen=True)
class Fact:
    """Something that is known, in plain text. links: pages that show it, by their names."""

    name: str
    value: str = ""
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Report:
    """All that the page says. `verdict` is one sentence; `notes` are plain text.

    scores, quality_kept: as `plots` takes them. significance: as `compare_models` returns it.
    realism: as `realism_table` gives it.
    against: base and baselines, each at its full size, as rows of model_comparisons. hybrid: rows
    of hybrid_comparisons, none where hybrid search was not scored.
    weights: of hybrid_weights, and hybrid_weight: what they say.
    curve: as `curve_points` gives it, and would_help_most: what it says.
    reservations: sentences that speak against the fine-tuned model. lineage: facts of how the
    version was made, and sources: of what. document_pages: address of a document's page, by its id.
    """

    title: str
    created_at: datetime
    headline_split: str
    verdict: str
    promotion: Promotion
    facts: Sequence[Fact]
    notes: Sequence[str]
    scores: pl.DataFrame
    quality_kept: pl.DataFrame
    significance: pl.DataFrame
    realism: pl.DataFrame
    against: pl.DataFrame
    hybrid: pl.DataFrame
    weights: pl.DataFrame
    hybrid_weight: str
    curve: pl.DataFrame
    would_help_most: str
    reservations: Sequence[str]
    won: Sequence[Example]
    lost: Sequence[Example]
    lineage: Sequence[Fact]
    settings: Mapping[str, str]
    sources: Sources
    document_pages: Mapping[str, str]


def render_report(report: Report) -> str:
    """The page as HTML, to be written as UTF-8. Below 3 MB, of which 1 MB is the chart library.

    Raises ValueError if the headline split has no scores.
    """
    import jinja2
    from markupsafe import Markup

    splits = _splits_shown(report)
    key_rows = {split: _key_rows(report, split) for split in splits}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "score": lambda value: _format(value, ".3f"),
        "signed_score": lambda value: _format(value, "+.3f"),
        "percent": lambda fraction: _format(fraction, ".1%").replace("%", " %"),
        "signed_percent": signed_percent,
        "p_value": format_p_value,
        "why": _why,
        "true_minus": lambda text: _HYPHENS.sub("\N{MINUS SIGN}", text),
        "pages": _format_pages,
        "rank": lambda rank: f"rank {rank}" if rank else "not found",
        "words": to_words,
        "html": lambda text: Markup(to_html(text)),
        "shortened": _shorten,
        "in_words": lambda split: IN_WORDS.get(split, InWords(split, "", split)),
        "script_hash": _script_hash,
    }
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        splits=splits,
        key_rows=key_rows,
        against=_against_rows(report, splits),
        hybrid=_rows_by_split(report.hybrid, splits),
        metric_tables={split: _metric_table(report.scores, split) for split in splits},
        charts=[_chart_specs(report, split, key_rows[split][0]["questions"]) for split in splits],
        places=_places(report.sources),
        chunk_homes=_chunk_homes(report.sources),
        short=_SHORT,
        vega=_chart_library(),
        largest_p_value=LARGEST_P_VALUE,
        fewest_documents=FEWEST_DOCUMENTS,
    )


def _splits_shown(report: Report) -> list[str]:
    """The splits that have scores: the headline first, then as in IN_WORDS, then any others."""
    found = set(report.scores["split"])
    if report.headline_split not in found:
        splits = ", ".join(sorted(found)) or "none"
        raise ValueError(
            f"The headline split {report.headline_split!r} has no scores; these have: {splits}."
        )
    ordered = [report.headline_split, *IN_WORDS, *sorted(found)]
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


def _against_rows(report: Report, splits: Sequence[str]) -> list[tuple[str, list[dict[str, Any]]]]:
    """A row per model of each split, in their order; nothing where nothing but base is."""
    if (report.against["model"] == "base").all():
        return []
    return _rows_by_split(report.against, splits)


def _rows_by_split(
    compared: pl.DataFrame, splits: Sequence[str]
) -> list[tuple[str, list[dict[str, Any]]]]:
    by_split = [(split, compared.filter(split=split).to_dicts()) for split in splits]
    return [(split, rows) for split, rows in by_split if rows]


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


def _chart_specs(report: Report, split: str, questions: int) -> dict[str, list[dict[str, Any]]]:
    """The charts of a split for each width of the page."""
    has_curve = report.curve.height and split == report.headline_split
    charts = {
        name: (
            plots.models_chart(report.against, report.hybrid, split, questions, width),
            plots.ranking_chart(report.scores, split, questions, width),
            plots.composition_chart(report.scores, split, questions, width),
            plots.quality_kept_chart(report.quality_kept, split, questions, width),
            *([plots.learning_chart(report.curve, split, questions, width)] if has_curve else []),
        )
        for name, width in _WIDTHS.items()
    }
    return {
        name: [chart.to_dict(validate=False) for chart in drawn] for name, drawn in charts.items()
    }


def _places(sources: Sources) -> dict[str, str]:
    """Where on the page a document, a chunk or a question stands, by its id."""
    places: dict[str, str] = {}
    for source in sources.documents:
        places.setdefault(source.document_id, f"document-{len(places)}")
        for passage in source.passages:
            places.setdefault(passage.chunk_id, f"chunk-{len(places)}")
            for asked in passage.questions:
                places.setdefault(asked.question_id, f"question-{len(places)}")
    return places


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


def _chunk_homes(sources: Sources) -> dict[str, str]:
    """The document in which a chunk has its place: the first of those in which it stands."""
    homes: dict[str, str] = {}
    for source in sources.documents:
        for passage in source.passages:
            homes.setdefault(passage.chunk_id, source.document_id)
    return homes


def _why(row: Mapping[str, Any]) -> str:
    """Why a difference is called neither better nor worse; empty where it is."""
    if row["verdict"] == Verdict.TOO_FEW:
        return f"{row['documents']} document{'s' * (row['documents'] != 1)}"
    if row["verdict"] == Verdict.NO_CLEAR_DIFFERENCE:
        return "0 in interval" if row["low"] <= 0 <= row["high"] else f"p > {LARGEST_P_VALUE}"
    return ""


def _format_pages(chunk: Retrieved | Passage) -> str:
    if chunk.page_start is None:
        return "page unknown"
    if chunk.page_start == chunk.page_end:
        return f"page {chunk.page_start}"
    return f"pages {chunk.page_start}–{chunk.page_end}"


def _shorten(words: str, most: int = _SHORT) -> str:
    """The start of a line, cut between words where there are any."""
    if len(words) <= most:
        return words
    start = words[:most]
    return (start.rpartition(" ")[0] or start) + " …"


def _script_hash(script: str) -> str:
    """What a content security policy calls this script. https://www.w3.org/TR/CSP3/#hash-source."""
    digest = hashlib.sha256(str(script).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
