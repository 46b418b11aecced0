"""Tables of one run: its data sets and its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.ui.glossary import tip
from scdrugmap.evaluation.results.run_record import FoldScores


def parts(folds: Sequence[FoldScores], metric: str) -> pl.DataFrame:
    """Return one metric of several scored sets of cells, beside the constant classifier's."""
    rows = [
        {
            "test": " + ".join(fold.test), "value": fold.values.get(metric), "low": fold.low.get(metric),
            "high": fold.high.get(metric), "constant": fold.constants.get(metric), "n": fold.n,
            "n_train": fold.n_train or None, "left_out": fold.left_out,
        }
        for fold in folds
    ]  # fmt: skip
    numbers = dict.fromkeys(("value", "low", "high", "constant"), pl.Float64)
    return pl.DataFrame(rows, schema_overrides=numbers | {"n_train": pl.Int64}, infer_schema_length=None)


def seeds_columns(metric: str) -> dict[str, Any]:
    """Return how the runs behind a mean are headed and written."""
    column = st.column_config
    return {
        "seed": column.NumberColumn("Seed", pinned=True),
        "value": column.NumberColumn(metric, format="%.2f"),
        "ci_low": column.NumberColumn("from", format="%.2f", help=tip("interval")),
        "ci_high": column.NumberColumn("to", format="%.2f", help=tip("interval")),
        "n": column.NumberColumn("Cells", format="localized"),
        "run_id": column.TextColumn("Run", help=tip("run")),
    }
