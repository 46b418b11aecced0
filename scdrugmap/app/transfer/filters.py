"""The choices of the transfer page: each offers only what there is under the choices before it."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.ui import queries, widgets

ORDERS = ("similarity", "name", "cancer", "drug type")


NOTHING = "–"


def transfer(entries: pl.DataFrame) -> dict[str, Any]:
    """Ask which entry's matrix to show, beside which, by what metric and in what order; `entries` has one at least.

    Returns `view` and `other` (the words that pick the entry, None where nothing is compared), the choices, and `place`
    for one more picker.
    """
    with st.container(key="two_pickers"):
        places = [*st.columns(3), *st.columns(3), *st.columns(3)]
    entries = entries.sort("pairs", "title", descending=[True, False])
    picks: dict[str, Any] = {
        "entry": widgets.choose("Model", _unique(entries, "title"), "entry", word="model", place=places[0])
    }
    rows = entries.filter(title=picks["entry"])
    picks["strategy"] = widgets.choose(
        "Strategy", _unique(rows, "strategy"), "strategy", word="strategy", place=places[1]
    )
    rows = rows.filter(strategy=picks["strategy"]).with_columns(shots=pl.col("shots").cast(pl.String))
    picks["metric"] = widgets.choose("Metric", list(queries.SHOWN), "metric", word="F1", place=places[2])
    picks["split_by"] = widgets.choose(
        "Split by", _unique(rows, "split_by"), "split_by", word="split by", place=places[3]
    )
    rows = rows.filter(split_by=picks["split_by"])
    shots = sorted(rows["shots"].unique(), key=int)
    several = len(shots) > 1
    picks["shots"] = widgets.choose("Shots", shots, "shots", word="shots", place=places[6]) if several else shots[0]
    picks["place"] = places[6 + several]
    picks["view"] = _words(rows.filter(shots=picks["shots"]).row(0, named=True))
    others = entries.filter(pl.col("title") != picks["entry"], split_by=picks["split_by"], strategy=picks["strategy"])
    picks["with"] = widgets.choose(
        "Compare with", [NOTHING, *_unique(others, "title")], "with", word="compare with", place=places[4]
    )
    other = others.filter(pl.col("title") == picks["with"], pl.col("shots") == int(picks["shots"]))
    picks["other"] = _words(other.row(0, named=True)) if other.height else None
    picks["order"] = widgets.choose("Order by", ORDERS, "order", word="order", place=places[5])
    return picks


def _unique(rows: pl.DataFrame, column: str) -> list[str]:
    return rows[column].unique(maintain_order=True).to_list()


def _words(row: dict[str, Any]) -> dict[str, Any]:
    """Return the words that pick one entry among all scores."""
    plain = {name: row[name] for name in ("model", "head", "strategy", "variant", "split_by")}
    return plain | {"shots": int(row["shots"])}
