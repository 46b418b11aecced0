"""Scores as pictures: one row a classifier, its 95 % interval, and the constant classifier on the same cells.

Frames have one row per mark: `title` (what stands on the axis), `value`, `ci_low`, `ci_high`, `constant` (the
always-sensitive classifier on the same cells), `source` ("measured", "reported" or "simulated").
Measured marks are filled, reported hollow, simulated dashed; the constant is a dark tick.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from scdrugmap.plots.base import LINE, _tooltip, domain, in_two_lines, stack
from scdrugmap.plots.palette import Ink

SCORE_SOURCES = ("measured", "reported", "simulated")


DASHES = ([1, 0], [1, 0], [2.5, 2])  # of their outlines


_ROW = 34  # px a row: a finger's width at 390 px, and two lines of text do not touch


LABEL_PX = 168  # px for names on the axis; longer ones are cut with an ellipsis and whole in the tooltip


CONSTANTS = {"F1": "always “sensitive”"}  # what the tick is called where a word says it; elsewhere "constant"


def _names(order: list[str], ink: Ink) -> alt.Y:
    axis = alt.Axis(
        labelLimit=LABEL_PX,
        labelPadding=14,
        grid=False,
        labelFontSize=13,
        labelColor=ink.text,
        labelOverlap=False,
        labelFlush=False,
        **in_two_lines(order, 30),
    )
    return alt.Y("title:N", sort=order, title=None, axis=axis)


def _scores(metric: str, low: float, high: float) -> alt.X:
    axis = alt.Axis(format="~g", tickCount=6, labelFontSize=12, titlePadding=8, grid=True)
    return alt.X("value:Q", title=metric, scale=alt.Scale(domain=[low, high], nice=False), axis=axis)


def ranking(frame: pl.DataFrame, metric: str, ink: Ink, span: tuple[float, float] | None = None) -> alt.LayerChart:
    """Draw one row per model in the order of the frame: dot, 95 % whisker, and the constant of the same cells.

    `span` fixes the ends of the axis, so that charts beside each other can be compared.
    """
    order = frame["title"].unique(maintain_order=True).to_list()
    low, high = span or domain(frame, ("value", "ci_low", "ci_high", "constant"))
    base = alt.Chart(frame).encode(y=_names(order, ink))
    tips = _tooltip(
        frame,
        {"title": "model", "value": metric, "ci_low": "from", "ci_high": "to", "constant": "constant", "n": "cells",
         "source": "source", "where": "evaluated on"},
    )  # fmt: skip
    whiskers = base.mark_rule(strokeWidth=2.5, opacity=0.55, color=ink.accent).encode(
        x=_scores(metric, low, high), x2="ci_high:Q"
    )
    whiskers = whiskers.encode(x=alt.X("ci_low:Q", scale=alt.Scale(domain=[low, high], nice=False), title=metric))
    constants = base.mark_tick(thickness=3, size=_ROW * 0.62, color=ink.text, opacity=0.85).encode(x="constant:Q")
    dots = base.mark_point(size=130, strokeWidth=2.2, opacity=1).encode(
        x=_scores(metric, low, high),
        stroke=alt.value(ink.accent),
        fill=alt.Fill(
            "source:N", scale=alt.Scale(domain=SCORE_SOURCES, range=[ink.accent, ink.paper, ink.paper]), legend=None
        ),
        strokeDash=alt.StrokeDash("source:N", scale=alt.Scale(domain=SCORE_SOURCES, range=DASHES), legend=None),
        tooltip=tips,
    )
    layers = [whiskers, constants, dots, _constant_label(frame, order, metric, ink)]
    lines = 1.35 if any(LINE in name for name in order) else 1.0
    return stack(ink, round(_ROW * lines * len(order)) + 76, *layers)


def _constant_label(frame: pl.DataFrame, order: list[str], metric: str, ink: Ink) -> alt.Chart:
    """Name the tick once, above the first row that has one."""
    label = frame.drop_nulls("constant").head(1).with_columns(label=pl.lit(CONSTANTS.get(metric, "constant")))
    return (
        alt.Chart(label)
        .mark_text(dy=-_ROW * 0.62, fontSize=12, color=ink.soft, align="center")
        .encode(x="constant:Q", y=alt.Y("title:N", sort=order), text="label:N")
    )


def dumbbell(frame: pl.DataFrame, metric: str, ink: Ink) -> alt.LayerChart:
    """Draw the paper's split beside the leak-safe one: a row per model in their order, two dots and a line between.

    Columns: `title`, `by_cell`, `safe`, `safe_low`, `safe_high`, `safe_name` (what was kept whole), `constant`.
    """
    order = frame["title"].to_list()
    low, high = domain(frame, ("by_cell", "safe", "safe_low", "safe_high", "constant"))
    scale = alt.Scale(domain=[low, high], nice=False)
    axis = alt.Axis(format="~g", tickCount=6, labelFontSize=12, titlePadding=8, grid=True)
    base = alt.Chart(frame).encode(y=_names(order, ink))
    safe_name = f"by {frame['safe_name'][0]}" if frame.height else "leak-safe"
    splits = alt.Scale(domain=["by cell, the paper's", safe_name], range=[ink.soft, ink.accent])
    # one below the other: on a phone the plot is narrower than the two names side by side
    legend = alt.Legend(title=None, orient="top", symbolSize=130, labelLimit=260, offset=4, direction="vertical")
    tips = _tooltip(
        frame, {"title": "model", "by_cell": f"{metric} by cell", "safe": f"{metric} {safe_name}",
                "gap": "leakage gap", "gap_low": "gap from", "gap_high": "gap to", "constant": "constant", "n": "cells"}
    )  # fmt: skip
    span = base.mark_rule(strokeWidth=3, opacity=0.35, color=ink.soft).encode(
        x=alt.X("safe:Q", scale=scale, title=metric, axis=axis), x2="by_cell:Q"
    )
    whisker = base.mark_rule(strokeWidth=1.5, opacity=0.8, color=ink.accent).encode(x="safe_low:Q", x2="safe_high:Q")
    dots = [
        alt.Chart(frame.with_columns(split=pl.lit(name)))
        .mark_point(size=150, filled=True, opacity=1)
        .encode(
            x=f"{field}:Q", y=_names(order, ink), color=alt.Color("split:N", scale=splits, legend=legend), tooltip=tips
        )
        for field, name in (("by_cell", splits.domain[0]), ("safe", safe_name))
    ]
    constants = base.mark_tick(thickness=3, size=_ROW * 0.62, color=ink.text, opacity=0.85).encode(
        x="constant:Q", tooltip=tips
    )
    label = _constant_label(frame, order, metric, ink)
    return stack(ink, _ROW * len(order) + 108, span, whisker, constants, *dots, label)
