"""The catalogue as pictures: a data frame in, an Altair chart out. No streamlit here."""

from __future__ import annotations

from typing import Literal

import altair as alt
import polars as pl

from scdrugmap.plots.base import stack
from scdrugmap.plots.palette import RESPONSE, Ink

_ROW = 26
_SIDES: tuple[tuple[int, Literal["left", "right"], str], ...] = ((0, "left", "start"), (1, "right", "end"))
_RESPONSES = ["sensitive", "resistant"]


def _response(legend: alt.Legend | None) -> alt.Color:
    return alt.Color(
        "response:N",
        scale=alt.Scale(domain=_RESPONSES, range=[RESPONSE[name] for name in _RESPONSES]),
        legend=legend,
        sort=_RESPONSES,
    )


def cells_by(frame: pl.DataFrame, ink: Ink) -> alt.LayerChart:
    """Draw cells per group, stacked by response, with the number of data sets at the end of each bar.

    Columns: `group`, `datasets`, `sensitive`, `resistant` (cells), `uncounted` (data sets whose cells no source gives).
    """
    totals = frame.with_columns(total=pl.col("sensitive") + pl.col("resistant")).sort("total", descending=True)
    order = totals["group"].to_list()
    y = alt.Y(
        "group:N", sort=order, title=None, axis=alt.Axis(labelLimit=190, labelFlush=False, grid=False, labelFontSize=12)
    )
    long = totals.unpivot(
        ["sensitive", "resistant"],
        index=["group", "datasets", "uncounted"],
        variable_name="response",
        value_name="cells",
    )
    legend = alt.Legend(title=None, orient="top", symbolType="square", offset=0)
    bars = (
        alt.Chart(long)
        .mark_bar(height={"band": 0.68})
        .encode(
            x=alt.X("cells:Q", title="cells", axis=alt.Axis(format="~s", tickCount=5)),
            y=y,
            color=_response(legend),
            order=alt.Order("response:N", sort="descending"),
            tooltip=[
                "group:N",
                "response:N",
                alt.Tooltip("cells:Q", format=","),
                alt.Tooltip("datasets:Q", title="data sets"),
                alt.Tooltip("uncounted:Q", title="of them without a cell count"),
            ],
        )
    )
    plural = pl.when(pl.col("datasets") == 1).then(pl.lit("set")).otherwise(pl.lit("sets"))
    labels = totals.with_columns(label=pl.format("{} {}", "datasets", plural))
    text = (
        alt.Chart(labels)
        .mark_text(align="left", dx=6, fontSize=12, color=ink.soft)
        .encode(x="total:Q", y=y, text="label:N")
    )
    return stack(ink, _ROW * max(len(order), 1) + 40, bars, text)


def coverage(frame: pl.DataFrame, ink: Ink) -> alt.LayerChart:
    """Draw how many data sets there are of each drug type in each tissue: the holes are what nobody measured."""
    grid = frame.group_by("drug_type", "tissue").agg(pl.len().alias("datasets"), pl.col("cells").sum())
    x = alt.X("drug_type:N", title=None, axis=alt.Axis(labelAngle=0, labelLimit=120, orient="top", grid=False))
    y = alt.Y("tissue:N", title=None, axis=alt.Axis(labelLimit=190, labelFlush=False, grid=False))
    base = alt.Chart(grid).encode(x=x, y=y)
    cells = base.mark_rect(cornerRadius=4, stroke=ink.paper, strokeWidth=3).encode(
        color=alt.Color("datasets:Q", scale=alt.Scale(range=[ink.faint, ink.accent], domainMin=0), legend=None),
        tooltip=[
            alt.Tooltip("tissue:N"),
            alt.Tooltip("drug_type:N", title="drug type"),
            alt.Tooltip("datasets:Q", title="data sets"),
            alt.Tooltip("cells:Q", format=","),
        ],
    )
    half = float(grid["datasets"].max() or 0) / 2  # type: ignore[arg-type]
    text = base.mark_text(fontSize=13, fontWeight=600).encode(
        text="datasets:Q",
        color=alt.condition(f"datum.datasets > {half}", alt.value("#FFFFFF"), alt.value(ink.text)),
    )
    return stack(ink, 40 * max(grid["tissue"].n_unique(), 1) + 30, cells, text)


def timeline(frame: pl.DataFrame, ink: Ink) -> alt.Chart:
    """Draw when each data set became public, by cancer type; area: its cells, least where no source gives them."""
    dated = frame.drop_nulls("public_since").with_columns(pl.col("cells").fill_null(0))
    return (
        alt.Chart(dated)
        .mark_circle(opacity=0.65, stroke=ink.paper, strokeWidth=1, color=ink.accent)
        .encode(
            x=alt.X("public_since:T", title="public since", axis=alt.Axis(format="%Y", tickCount="year")),
            y=alt.Y("cancer_group:N", title=None, sort="x", axis=alt.Axis(labelLimit=190, labelFlush=False, grid=True)),
            size=alt.Size("cells:Q", scale=alt.Scale(range=[30, 700]), legend=None),
            tooltip=[
                alt.Tooltip("key:N", title="data set"),
                alt.Tooltip("regimen:N"),
                alt.Tooltip("cells:Q", format=","),
                alt.Tooltip("public_since:T", title="public since", format="%d %b %Y"),
            ],
        )
        .properties(height=_ROW * max(dated["cancer_group"].n_unique(), 1) + 50)
    )


def balance(sensitive: int, resistant: int, ink: Ink) -> alt.LayerChart:
    """Draw one bar: how the cells of a data set divide into sensitive and resistant, each part named in place."""
    total = max(sensitive + resistant, 1)
    frame = pl.DataFrame(
        {
            "response": ["sensitive", "resistant"],
            "cells": [sensitive, resistant],
            "start": [0, sensitive],
            "end": [sensitive, total],
            "label": [f"{100 * sensitive / total:.0f} % sensitive", f"{100 * resistant / total:.0f} % resistant"],
        }
    )
    scale = alt.Scale(domain=[0, total], nice=False)
    bars = (
        alt.Chart(frame)
        .mark_bar(height=26)
        .encode(
            x=alt.X("start:Q", title=None, axis=None, scale=scale),
            x2="end:Q",
            color=_response(None),
            tooltip=[alt.Tooltip("response:N"), alt.Tooltip("cells:Q", format=",")],
        )
    )
    ends = [
        alt.Chart(frame[row : row + 1])
        .mark_text(align=side, dy=26, fontSize=13, color=ink.text)
        .encode(x=alt.X(f"{field}:Q", scale=scale), text="label:N")
        for row, side, field in _SIDES
    ]
    return stack(ink, 70, bars, *ends)


def samples(frame: pl.DataFrame, ink: Ink) -> alt.Chart:
    """Draw samples of each response as dots, one dot a sample; columns `response`, `sample`."""
    return (
        alt.Chart(frame)
        .mark_circle(size=110, opacity=0.95, stroke=ink.paper)
        .encode(
            x=alt.X("sample:Q", axis=None, scale=alt.Scale(domain=[-0.5, max(24, frame.height)])),
            y=alt.Y(
                "response:N",
                sort=_RESPONSES,
                title=None,
                axis=alt.Axis(grid=False, labelFlush=False, labelFontSize=13, labelColor=ink.text),
            ),
            color=_response(None),
            tooltip=["response:N"],
        )
        .properties(height=90)
    )
