"""Tables of the transfer page."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.ui.glossary import tip
from scdrugmap.app.ui.score_table import parts_columns


def pairs(table: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs of a matrix as a table."""
    return table.select("train", "test", "value", "ci_low", "ci_high", "constant", "better", "n", "state", "reason")


def pairs_columns(metric: str) -> dict[str, Any]:
    """Return how the table of pairs is headed and written."""
    column = st.column_config
    return {
        "train": column.TextColumn("Trained on", width=210, pinned=True, help=tip("data set")),
        "test": column.TextColumn("Tested on", width=210),
        "value": column.NumberColumn(metric, format="%.2f", width=60),
        "ci_low": column.NumberColumn("from", format="%.2f", width=55, help=tip("interval")),
        "ci_high": column.NumberColumn("to", format="%.2f", width=55, help=tip("interval")),
        "constant": column.NumberColumn("Constant", format="%.2f", width=75, help=tip("constant")),
        "better": column.NumberColumn("Difference", format="%+.2f", width=80),
        "n": column.NumberColumn("Cells", format="localized", width=70),
        "state": column.TextColumn("State", width=90, help=tip("confounded")),
        "reason": column.TextColumn("Why", width=240),
    }


def left_out(bars: pl.DataFrame) -> pl.DataFrame:
    """Return the bars under a matrix as a table, each with the address of its run."""
    shown = bars.select("title", "value", "low", "high", "constant", "n", run=pl.format("models?run={}", "run_id"))
    return shown


def left_out_columns(metric: str) -> dict[str, Any]:
    """Return how the bars under a matrix are headed and written as a table."""
    run = st.column_config.LinkColumn("Run", display_text=r"run=(\w+)", help=tip("run"))
    return {**parts_columns(metric), "title": st.column_config.TextColumn("Left out", pinned=True), "run": run}
