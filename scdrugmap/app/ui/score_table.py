"""Tables: which rows, which columns, and how numbers are written in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.ui.glossary import tip
from scdrugmap.evaluation.metrics.metrics import METRICS
from scdrugmap.evaluation.results.run_record import FoldScores


def _written() -> pl.Expr:
    """Write an interval in brackets."""
    return pl.concat_list("ci_low", "ci_high").map_elements(_interval, return_dtype=pl.String)


def _share(column: str) -> pl.Expr:
    """Write a count that ties may have divided: 3, or 2.5."""
    rounded = pl.col(column).round(1)
    return (
        pl.when(rounded == rounded.round(0))
        .then(rounded.cast(pl.Int64).cast(pl.String))
        .otherwise(rounded.cast(pl.String))
    )


def _interval(ends: pl.Series) -> str:
    low, high = ends
    return "" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def scores(values: Mapping[str, Mapping[str, float]]) -> pl.DataFrame:
    """Return the metrics against the file's own labels, in the order of the registry of metrics."""
    shown = {key: row for key, row in values.items() if key != "auroc_within"}  # there are no folds here
    return pl.DataFrame([{"metric": METRICS[key].title, **row} for key, row in shown.items()])


def score_columns() -> dict[str, Any]:
    """Return how metrics are headed and written."""
    column = st.column_config
    return {
        "metric": column.TextColumn("Metric", pinned=True),
        "value": column.NumberColumn("Score", format="%.2f"),
        "low": column.NumberColumn("from", format="%.2f", help=tip("interval")),
        "high": column.NumberColumn("to", format="%.2f", help=tip("interval")),
        "constant": column.NumberColumn("Constant", format="%.2f", help=tip("constant")),
    }


def scores_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return scores of one metric: where, how split, by which entry, with interval, beside the constant."""
    shown = rows.sort("source", "on", "protocol", "split_by", "title", "strategy")
    return shown.with_columns(interval=_written()).select(
        "title", "on", "value", "interval", "constant", "n", "protocol", "split_by", "strategy", "shots", "seeds",
        "source", "run_id",
    )  # fmt: skip


def scores_of_columns(metric: str) -> dict[str, Any]:
    """Return how a model's scores are headed and written."""
    column = st.column_config
    return {
        "title": column.TextColumn("Entry", pinned=True),
        "on": column.TextColumn("Evaluated on"),
        "protocol": column.TextColumn("Protocol", help=tip("protocol")),
        "split_by": column.TextColumn("Split by", help=tip("split by")),
        "strategy": column.TextColumn("Strategy", help=tip("strategy")),
        "value": column.NumberColumn(metric, format="%.2f"),
        "interval": column.TextColumn("95 % interval", help=tip("interval")),
        "constant": column.NumberColumn("Constant", format="%.2f", help=tip("constant")),
        "shots": column.TextColumn("Shots", help=tip("shots")),
        "seeds": column.NumberColumn("Seeds", help="Runs whose mean the score is."),
        "source": column.TextColumn("Source", help=f"{tip('measured')} {tip('reported')}"),
        "n": column.NumberColumn("Cells", format="localized"),
        "run_id": column.TextColumn("Run", help=tip("run")),
    }


def part(fold: FoldScores) -> pl.DataFrame:
    """Return every metric of one scored set of cells, beside the constant classifier's."""
    keys = [key for key in METRICS if key in fold.values]
    return pl.DataFrame(
        {
            "metric": [METRICS[key].title for key in keys],
            "value": [fold.values[key] for key in keys],
            "low": [fold.low.get(key) for key in keys],
            "high": [fold.high.get(key) for key in keys],
            "constant": [fold.constants.get(key) for key in keys],
        },
        schema_overrides=dict.fromkeys(("value", "low", "high", "constant"), pl.Float64),
    )


def parts_columns(metric: str) -> dict[str, Any]:
    """Return how the scores of single data sets are headed and written."""
    column = st.column_config
    return {
        "test": column.TextColumn("Tested on", pinned=True, help=tip("data set")),
        "value": column.NumberColumn(metric, format="%.2f"),
        "low": column.NumberColumn("from", format="%.2f", help=tip("interval")),
        "high": column.NumberColumn("to", format="%.2f", help=tip("interval")),
        "constant": column.NumberColumn("Constant", format="%.2f", help=tip("constant")),
        "n": column.NumberColumn("Cells", format="localized"),
        "n_train": column.NumberColumn("Trained on cells", format="localized"),
        "left_out": column.NumberColumn("Copies removed", format="localized", help=tip("shared controls")),
    }
