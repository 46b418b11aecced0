"""Predicted cells as pictures: a data frame in, an Altair chart out. No streamlit here."""

from __future__ import annotations

import altair as alt
import polars as pl

from scdrugmap.plots.base import stack
from scdrugmap.plots.palette import CATEGORIES, DIVERGING, RESPONSE, UNKNOWN_COLOUR, Ink

DRAWN = 20_000  # cells that a browser draws smoothly as SVG-free canvas points
_P_RESISTANT = "P(resistant)"
RANK = "rank of p_resistant"  # among the cells of the file, 0 to 1: tells them apart where all are near 0.5
FEW = 12  # categories that can be told apart by colour
PROBABILITY = alt.Scale(domain=[0, 0.25, 0.5, 0.75, 1], range=list(DIVERGING), clamp=True, interpolate="rgb")


def sample_cells(frame: pl.DataFrame, n: int = DRAWN, seed: int = 0) -> pl.DataFrame:
    """Return at most `n` cells, drawn evenly at random with a fixed seed, in their own order."""
    if frame.height <= n:
        return frame
    return frame.with_row_index("_row").sample(n, seed=seed).sort("_row").drop("_row")


def _colour(values: pl.Series, by: str, title: str, ink: Ink) -> alt.Color:
    """Return how the column "shade" is coloured: by meaning where it has one, else by kind of its values."""
    legend = alt.Legend(title=title, orient="bottom", titleOrient="top", labelLimit=180, gradientLength=220)
    if by in ("p_resistant", RANK):
        bar = alt.Legend(
            title=title, orient="bottom", titleOrient="top", type="gradient", gradientLength=220, values=[0, 0.5, 1]
        )
        return alt.Color("shade:Q", scale=PROBABILITY, legend=bar)
    if values.dtype.is_numeric():
        return alt.Color("shade:Q", scale=alt.Scale(range=[ink.faint, ink.accent]), legend=legend)
    words = values.drop_nulls().cast(pl.String)
    if set(words.unique()) <= set(RESPONSE):
        return alt.Color(
            "shade:N", scale=alt.Scale(domain=list(RESPONSE), range=list(RESPONSE.values())), legend=legend
        )
    named = sorted(words.value_counts(sort=True)[values.name].to_list()[:FEW])
    colours = [CATEGORIES[i % len(CATEGORIES)] for i in range(len(named))]
    return alt.Color("shade:N", scale=alt.Scale(domain=named, range=colours), legend=legend)


def cell_map(frame: pl.DataFrame, by: str, title: str, ink: Ink) -> alt.LayerChart:
    """Draw the UMAP: columns `cell`, `x`, `y`, `p_resistant`, `novelty`, `novel`, and `by`, named `title` on screen.

    Novel cells are hollow, and grey where the colour is P(resistant) itself.
    """
    drawn = frame.select("cell", "x", "y", "p_resistant", "novelty", "novel", shade=by)  # a file's column may be "a[b]"
    position = {
        "x": alt.X("x:Q", title=None, axis=None, scale=alt.Scale(zero=False)),
        "y": alt.Y("y:Q", title=None, axis=None, scale=alt.Scale(zero=False)),
    }
    tips = [
        alt.Tooltip("cell:N"),
        alt.Tooltip("p_resistant:Q", title=_P_RESISTANT, format=".2f"),
        *([alt.Tooltip("novelty:Q", format=".2f")] if frame["novelty"].is_not_null().any() else []),
    ]
    if by not in ("p_resistant", "novelty"):
        tips.append(alt.Tooltip("shade:Q" if drawn["shade"].dtype.is_numeric() else "shade:N", title=title))
    size = max(8, min(60, 90_000 / max(frame.height, 1)))
    colour = _colour(drawn["shade"], by, title, ink)
    known = alt.Chart(drawn.filter(~pl.col("novel"))).mark_circle(size=size, opacity=0.85)
    novel = alt.Chart(drawn.filter(pl.col("novel"))).mark_point(size=size, strokeWidth=1, opacity=0.8)
    shaded = {"stroke": alt.value(UNKNOWN_COLOUR)} if by == "p_resistant" else {"color": colour}
    layers = [known.encode(**position, color=colour, tooltip=tips)]
    if drawn["novel"].any():
        layers.append(novel.encode(**position, **shaded, tooltip=tips))
    return stack(ink, 440, *layers)


def histogram(frame: pl.DataFrame, threshold: float, ink: Ink) -> alt.LayerChart:
    """Draw how P(resistant) is distributed, coloured by the side of the threshold; novel cells are grey."""
    if frame.height == 0:
        binned = pl.DataFrame(schema={"left": pl.Float64, "right": pl.Float64, "side": pl.String, "cells": pl.Int64})
    else:
        side = (
            pl.when(pl.col("novel")).then(pl.lit("novel"))
            .when(pl.col("p_resistant") >= threshold).then(pl.lit("resistant"))
            .otherwise(pl.lit("sensitive"))
        )  # fmt: skip
        left = ((pl.col("p_resistant").cast(pl.Float64) * 40).floor().clip(0, 39) / 40).alias("left")
        binned = frame.select(left, side.alias("side")).group_by("left", "side").agg(pl.len().alias("cells"))
        binned = binned.with_columns(right=pl.col("left") + 1 / 40)
    sides = RESPONSE | ({"novel": UNKNOWN_COLOUR} if frame["novel"].any() else {})
    scale = alt.Scale(domain=list(sides), range=list(sides.values()))
    bars = (
        alt.Chart(binned)
        .mark_bar(stroke=ink.paper, strokeWidth=0.5)
        .encode(
            x=alt.X(
                "left:Q",
                title="P(resistant)",
                scale=alt.Scale(domain=[0, 1], nice=False, padding=0),
                axis=alt.Axis(format="~g", tickCount=5),
            ),
            x2="right:Q",
            y=alt.Y("sum(cells):Q", title="cells", axis=alt.Axis(tickCount=4, format="~s")),
            color=alt.Color("side:N", scale=scale, legend=alt.Legend(title=None, orient="top", symbolType="square")),
            tooltip=[alt.Tooltip("left:Q", title="from", format=".3f"), "side:N", alt.Tooltip("cells:Q", format=",")],
        )
    )
    at = pl.DataFrame({"threshold": [threshold]})
    rule = alt.Chart(at).mark_rule(strokeWidth=2, color=ink.text, strokeDash=[5, 3]).encode(x="threshold:Q")
    return stack(ink, 300, bars, rule)


def shares(frame: pl.DataFrame, ink: Ink) -> alt.LayerChart:
    """Draw the share predicted resistant per group with its interval.

    Columns: `group`, `share_resistant`, `low`, `high`, `n_cells`.
    """
    order = frame.sort("share_resistant", descending=True)["group"].cast(pl.String).to_list()
    y = alt.Y(
        "group:N",
        sort=order,
        title=None,
        axis=alt.Axis(labelLimit=150, grid=False, labelFlush=False, labelOverlap=False, labelColor=ink.text),
    )
    scale = alt.Scale(domain=[0, 1])
    tips = [
        alt.Tooltip("group:N"),
        alt.Tooltip("share_resistant:Q", title="predicted resistant", format=".0%"),
        alt.Tooltip("low:Q", title="from", format=".0%"),
        alt.Tooltip("high:Q", title="to", format=".0%"),
        alt.Tooltip("n_cells:Q", title="cells", format=","),
    ]
    base = alt.Chart(frame).encode(y=y)
    rules = base.mark_rule(strokeWidth=2.5, opacity=0.5, color=ink.soft).encode(
        x=alt.X("low:Q", scale=scale, title="share predicted resistant", axis=alt.Axis(format=".0%", tickCount=5)),
        x2="high:Q",
    )
    dots = base.mark_circle(size=130, opacity=1).encode(
        x=alt.X("share_resistant:Q", scale=scale),
        color=alt.Color("share_resistant:Q", scale=PROBABILITY, legend=None),
        tooltip=tips,
    )
    return stack(ink, 30 * max(frame.height, 1) + 50, rules, dots)
