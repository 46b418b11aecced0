"""Tables of the transfer page and of the models page's tabs."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.words import tip
from scdrugmap.evaluation.metrics import METRICS
from scdrugmap.evaluation.records import Part


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


def part(found: Part) -> pl.DataFrame:
    """Return every metric of one scored set of cells, beside the constant classifier's."""
    keys = [key for key in METRICS if key in found.values]
    return pl.DataFrame(
        {
            "metric": [METRICS[key].title for key in keys],
            "value": [found.values[key] for key in keys],
            "low": [found.low.get(key) for key in keys],
            "high": [found.high.get(key) for key in keys],
            "constant": [found.constants.get(key) for key in keys],
        },
        schema_overrides=dict.fromkeys(("value", "low", "high", "constant"), pl.Float64),
    )


def part_columns() -> dict[str, Any]:
    """Return how the metrics of a part are headed and written."""
    column = st.column_config
    return {
        "metric": column.TextColumn("Metric", pinned=True),
        "value": column.NumberColumn("Score", format="%.2f"),
        "low": column.NumberColumn("from", format="%.2f", help=tip("interval")),
        "high": column.NumberColumn("to", format="%.2f", help=tip("interval")),
        "constant": column.NumberColumn("Constant", format="%.2f", help=tip("constant")),
    }
