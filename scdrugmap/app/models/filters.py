"""The pickers of the leaderboard and of transfer: each offers only what there is under the choices before it."""

from __future__ import annotations

import polars as pl
import streamlit as st

from scdrugmap.app.ui import board as entries
from scdrugmap.app.ui import queries, widgets


def leaderboard(board: pl.DataFrame) -> dict[str, str]:
    """Ask for protocol, facet, value, split, strategy and metric; the words are those of the URL."""
    with st.container(key="two_pickers"):
        places = [*st.columns(3), *st.columns(3)]
    rows = board
    picks: dict[str, str] = {}
    questions = (
        ("protocol", "Protocol", "protocol", "protocol"),
        ("facet", "Facet", "facet", "facet"),
        ("on", "Evaluated on", "on", "data set"),
        ("split_by", "Split by", "split_by", "split by"),
        ("strategy", "Strategy", "strategy", "strategy"),
    )
    for place, (column, label, key, word) in zip(places, questions, strict=False):
        options = _by_evidence(rows, column)
        if column == "strategy" and len(options) > 1:
            options = [entries.ANY_VALUE, *options]
        picks[column] = widgets.choose(label, options, key, word=word, place=place)
        rows = rows.filter((pl.col(column) == picks[column]) | (picks[column] == entries.ANY_VALUE))
    shots = sorted(rows["shots"].unique(), key=lambda word: (word == "all", int(word) if word != "all" else 0))
    several = len(shots) > 1
    picks["shots"] = (
        widgets.choose("Shots", shots, "shots", word="shots", place=st.columns(3)[0]) if several else shots[0]
    )
    rows = rows.filter(shots=picks["shots"])
    names = [name for name, key in queries.SHOWN.items() if key in rows["metric"].to_list()]
    picks["metric"] = widgets.choose("Metric", names, "metric", word="F1", place=places[5])
    return picks


def _by_evidence(rows: pl.DataFrame, column: str) -> list[str]:
    """Return the values of a column, those with most measured entries first; of the splits, leak-safe ones first."""
    measured = (pl.col("source") == "measured").sum().alias("measured")
    counts = rows.group_by(column).agg(measured, pl.len().alias("all"))
    safe = pl.col(column).is_in(entries.LEAK_SAFE) & (pl.col("measured") > 0)
    ordered = counts.with_columns(safe=safe).sort(
        "safe", "measured", "all", column, descending=[True, True, True, False]
    )
    return ordered[column].to_list()


def kinds() -> list[str]:
    """Ask which kinds of numbers to show."""
    with st.container(horizontal=True, gap="medium"):
        reported = widgets.toggle("Show reported", "reported", default=True, word="reported")
        simulated = widgets.toggle("Show simulated", "simulated", default=False, word="simulated")
    return ["measured", *(["reported"] if reported else []), *(["simulated"] if simulated else [])]


def named(rows: pl.DataFrame) -> pl.DataFrame:
    """Add the strategy to the names on the axis where several are in view."""
    if rows["strategy"].n_unique() < 2:
        return rows
    return rows.with_columns(title=pl.format("{}, {}", "title", "strategy"))
