"""What all figures share: how layers are stacked, names broken into two lines, axes spanned and tips written."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from scdrugmap.plots.palette import Ink

LINE = " · "  # where a name on the axis breaks into two lines
EDGE = dict.fromkeys(("left", "right", "top", "bottom"), 6)  # px around a figure


def stack(ink: Ink, height: int, *layers: alt.Chart) -> alt.LayerChart:
    """Lay charts over each other in a box of `height` px, axes included; numbers and words on them can be read."""
    chart = alt.LayerChart(layer=list(layers)).properties(height=height)
    chart = chart.configure_axis(labelColor=ink.soft, titleColor=ink.soft)
    return chart.configure_legend(labelColor=ink.soft, titleColor=ink.soft)


def svg(chart: alt.LayerChart, width: int) -> str:
    """Return a chart as SVG on white, `width` px wide with its axes; vl-convert draws it, without a browser."""
    file = io.StringIO()
    fit = alt.AutoSizeParams(type="fit", contains="padding")  # as streamlit lays charts out
    chart = chart.properties(width=width, autosize=fit)
    # a reader's letters may be wider than those that were measured here
    chart.configure(background="white", font="Arial, sans-serif", padding={**EDGE, "left": 24}).save(file, format="svg")
    return file.getvalue()


def in_two_lines(names: Sequence[str], most: int = 22, *, before: str = "") -> dict[str, Any]:
    """Return how an axis writes names: those over `most` letters break where the middle is nearest, and move up a bit.

    A name breaks at `LINE` wherever it stands, else after a space, "_" or "-". `before` is the beginning of an
    expression that writes other names.
    """
    broken = {name: _halves(name, most) for name in names}
    known = {name: lines for name, lines in broken.items() if len(lines) > 1}
    if not known:
        return {"labelExpr": f"{before}datum.label"} if before else {}
    moved = {"test": f"indexof({json.dumps(list(known))}, datum.label) >= 0", "value": -7}
    return {
        "labelExpr": f"{before}{json.dumps(known)}[datum.label] || datum.label",
        "labelOffset": {"condition": moved, "value": 0},
    }


def _halves(name: str, most: int) -> list[str]:
    if LINE in name:
        return name.split(LINE)
    places = [at + 1 for at, letter in enumerate(name) if letter in " _-" and 0 < at < len(name) - 1]
    if len(name) <= most or not places:
        return [name]
    middle = min(places, key=lambda at: abs(2 * at - len(name)))
    return [name[:middle].rstrip(), name[middle:]]


def domain(frame: pl.DataFrame, columns: tuple[str, ...]) -> tuple[float, float]:
    """Span the marks with a little air; scores between 0 and 1 keep their natural ends when marks come near."""
    values = [v for c in columns if c in frame.columns for v in frame[c].drop_nulls().drop_nans().to_list()]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    low = 0.0 if 0 <= low < 0.35 else low - 0.06
    high = 1.0 if 0.85 < high <= 1 else high + 0.06
    return round(low, 2), round(high, 2)


def _tooltip(frame: pl.DataFrame, fields: dict[str, str]) -> list[alt.Tooltip]:
    tips = []
    for field, title in fields.items():
        if field in frame.columns:
            kind = frame.schema[field]
            form = ".2f" if kind.is_float() else "," if kind.is_integer() else ""
            tips.append(alt.Tooltip(f"{field}:{'Q' if form else 'N'}", title=title, format=form))
    return tips
