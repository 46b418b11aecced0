"""Samples and clusters of a prediction as a table."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.ui.glossary import tip
from scdrugmap.plots.palette import RESISTANT_COLOUR


def groups(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the table per sample or cluster."""
    low, high = ((100 * pl.col(end)).round(0).cast(pl.Int64) for end in ("low", "high"))
    percents = {"resistant": 100 * pl.col("share_resistant"), "novel": 100 * pl.col("share_novel")}
    rows = frame.with_columns(**percents, interval=pl.format("{}–{}", low, high))
    shown = rows.select("group", "n_cells", "resistant", "interval", "mean_p_resistant", "novel")
    return shown.drop("novel") if shown["novel"].is_null().all() else shown


def group_columns(name: str) -> dict[str, Any]:
    """Return how the table per sample or cluster is headed and written."""
    column = st.column_config
    return {
        "group": column.TextColumn(name.capitalize(), pinned=True),
        "n_cells": column.NumberColumn("Cells", format="localized"),
        "resistant": column.ProgressColumn(
            "% resistant", format="%.0f %%", min_value=0, max_value=100, color=RESISTANT_COLOUR
        ),
        "interval": column.TextColumn("95 % interval", help=tip("interval")),
        "mean_p_resistant": column.NumberColumn("Mean P(resistant)", format="%.2f", help=tip("P(resistant)")),
        "novel": column.NumberColumn("% novel", format="%.0f %%", help=tip("novelty")),
    }
