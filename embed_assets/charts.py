"""What all charts share: their colours, their dress, and how one becomes a picture.

The charts themselves belong to the stages whose figures they show.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

GREY = "#8f96a0"
BLUE = "#0b62c4"
INK = "#24292f"
_PENCIL = "#57606a"
_FAINT = "#e3e6ea"
INLINE = 1000
"""Markdown of fewer characters is shown by Dagster's UI without a click."""
_LONGEST_NAME = 16


def dress(chart: Any, title: str, subtitle: str) -> Any:
    """The chart with its title, and the look that all charts share."""
    import altair as alt

    text = {
        "labelColor": INK,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "titleFontSize": 11,
    }
    return chart.properties(
        title=alt.TitleParams(title, subtitle=subtitle, anchor="start", offset=14),
        description=f"{title}, {subtitle}",
        background="white",
        padding=10,
        config=alt.Config(
            font="Liberation Sans, Arial, Helvetica, sans-serif",
            view={"stroke": None},
            title={
                "color": INK,
                "fontSize": 15,
                "subtitleColor": _PENCIL,
                "subtitleFontSize": 12,
            },
            axis={**text, "domainColor": _PENCIL, "gridColor": _FAINT, "tickColor": _PENCIL},
            axisX={"grid": False},
            header={**text, "labelFontWeight": "bold"},
            legend={
                "labelColor": INK,
                "labelFontSize": 12,
                "orient": "top",
                "symbolType": "square",
            },
        ),
    )


def to_png(chart: alt.TopLevelMixin, scale: float = 2.0) -> bytes:
    """The chart as a PNG, `scale` times its size on screen. Needs no browser and no network."""
    import vl_convert

    return vl_convert.vegalite_to_png(
        chart.to_dict(), vl_version=vega_lite_version(), scale=scale, allowed_base_urls=[]
    )


def to_markdown(name: str, png: bytes) -> str:
    """An image that holds its own data, for Dagster's UI."""
    return f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})"


def bars_in_markdown(name: str, scores: Mapping[str, float], marked: str) -> str:
    """A picture of a few bars, so small that Dagster's UI shows it without a click.

    scores: from 0 to 1, by what they are of. marked: which of them stands out. Those that find no
    room are left out, but for the first and the marked one.
    """
    shown = dict(scores)
    while len(picture := _bars(name, shown, marked)) >= INLINE:
        del shown[[other for other in shown if other != marked][-1]]
    return picture


def _bars(name: str, scores: Mapping[str, float], marked: str) -> str:
    rows = []
    for place, (called, score) in enumerate(scores.items()):
        y, width = 20 * place, round(200 * score)
        label = called if len(called) <= _LONGEST_NAME else f"{called[: _LONGEST_NAME - 1]}…"
        colour = BLUE if called == marked else GREY
        rows.append(
            f"<text y='{y + 15}'>{html.escape(label)}</text>"
            f"<path fill='{colour}' d='M110 {y + 3}h{width}v15h-{width}'/>"
            f"<text x='{width + 115}' y='{y + 15}'>{score:.3f}</text>"
        )
    svg = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='360' height='{20 * len(rows)}' "
        f"style='background:#fff;font:13px sans-serif'>{''.join(rows)}</svg>"
    )
    return f"![{name}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def vega_lite_version() -> str:
    """The Vega-Lite that altair writes for, as vl_convert names it, e.g. `6.4`."""
    import altair as alt

    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
