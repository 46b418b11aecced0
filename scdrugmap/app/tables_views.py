"""Tables of the transfer page and of the models page's tabs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.words import tip
from scdrugmap.evaluation.metrics.metrics import METRICS
from scdrugmap.evaluation.results.run_record import Part


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


def parts(found: Sequence[Part], metric: str) -> pl.DataFrame:
    """Return one metric of several scored sets of cells, beside the constant classifier's."""
    rows = [
        {
            "test": " + ".join(one.test), "value": one.values.get(metric), "low": one.low.get(metric),
            "high": one.high.get(metric), "constant": one.constants.get(metric), "n": one.n,
            "n_train": one.n_train or None, "left_out": one.left_out,
        }
        for one in found
    ]  # fmt: skip
    numbers = dict.fromkeys(("value", "low", "high", "constant"), pl.Float64)
    return pl.DataFrame(rows, schema_overrides=numbers | {"n_train": pl.Int64}, infer_schema_length=None)


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


def left_out(bars: pl.DataFrame) -> pl.DataFrame:
    """Return the bars under a matrix as a table, each with the address of its run."""
    shown = bars.select("title", "value", "low", "high", "constant", "n", run=pl.format("models?run={}", "run_id"))
    return shown


def left_out_columns(metric: str) -> dict[str, Any]:
    """Return how the bars under a matrix are headed and written as a table."""
    run = st.column_config.LinkColumn("Run", display_text=r"run=(\w+)", help=tip("run"))
    return {**parts_columns(metric), "title": st.column_config.TextColumn("Left out", pinned=True), "run": run}


def points(curves: pl.DataFrame) -> pl.DataFrame:
    """Return the points of few-shot curves as a table."""
    return curves.select(
        "title", "shots", "value", "low", "high", "constant", "n", "seeds", run_id=pl.col("run_ids").list.first()
    )


def points_columns(metric: str) -> dict[str, Any]:
    """Return how the points of few-shot curves are headed and written."""
    column = st.column_config
    return {
        **parts_columns(metric),
        "title": column.TextColumn("Model", pinned=True, help=tip("model")),
        "shots": column.TextColumn("Shots", help=tip("shots")),
        "seeds": column.NumberColumn("Seeds"),
        "run_id": column.TextColumn("Run", help=tip("run")),
    }


def costs(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the score and speed of each entry, best first."""
    return frame.select("title", "value", "ci_low", "ci_high", "constant", "cells_per_s", "pareto", "source", "run_id")


def costs_columns(metric: str) -> dict[str, Any]:
    """Return how scores and speeds are headed and written."""
    column = st.column_config
    return {
        **parts_columns(metric),
        "title": column.TextColumn("Model", pinned=True, help=tip("model")),
        "ci_low": column.NumberColumn("from", format="%.2f", help=tip("interval")),
        "ci_high": column.NumberColumn("to", format="%.2f", help=tip("interval")),
        "cells_per_s": column.NumberColumn("Cells/s", format="%.3g", help=tip("cells/s")),
        "pareto": column.CheckboxColumn("Not beaten in both"),
        "source": column.TextColumn("Source", help=f"{tip('measured')} {tip('reported')}"),
        "run_id": column.TextColumn("Run", help=tip("run")),
    }


def gaps(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the leakage gaps of one set of cells as a table."""
    return rows.select("title", "strategy", "by_cell", "safe", "gap", "gap_low", "gap_high", "constant", "run_id")


def gaps_columns(metric: str, safe_name: str) -> dict[str, Any]:
    """Return how the table of leakage gaps is headed and written."""
    column = st.column_config
    return {
        "title": column.TextColumn("Model", width=190, pinned=True, help=tip("model")),
        "strategy": column.TextColumn("Strategy", width=80, help=tip("strategy")),
        "by_cell": column.NumberColumn(f"{metric} by cell", format="%.2f", width=95),
        "safe": column.NumberColumn(f"{metric} by {safe_name}", format="%.2f", width=120),
        "gap": column.NumberColumn("Leakage gap", format="%+.2f", width=95, help=tip("leakage gap")),
        "gap_low": column.NumberColumn("from", format="%+.2f", width=65, help=tip("interval")),
        "gap_high": column.NumberColumn("to", format="%+.2f", width=65, help=tip("interval")),
        "constant": column.NumberColumn("Constant", format="%.2f", width=80, help=tip("constant")),
        "run_id": column.TextColumn("Run", width=120, help=tip("run")),
    }


def calibration_columns() -> dict[str, Any]:
    """Return how the table of calibration is headed and written."""
    column = st.column_config
    return {
        "title": column.TextColumn("Model", width=190, pinned=True),
        "ece": column.NumberColumn("ECE", format="%.2f", help=tip("reliability")),
        "low": column.NumberColumn("from", format="%.2f", help=tip("interval")),
        "high": column.NumberColumn("to", format="%.2f", help=tip("interval")),
        "brier": column.NumberColumn("Brier", format="%.3f"),
        "constant": column.NumberColumn(
            "Constant's", format="%.3f", help="The Brier score of giving every cell the same share."
        ),
        "overconfident": column.NumberColumn("Too sure by", format="%+.2f"),
        "n": column.NumberColumn("Cells", format="localized"),
        "unit": column.TextColumn("Interval over"),
    }


def tests(table: pl.DataFrame) -> pl.DataFrame:
    """Return the paired tests that stand on screen."""
    return table.select(
        "a", "b", "median_difference", "low", "high", "won", "lost", "tied", "p_wilcoxon", "p_holm", "different"
    )


def tests_columns() -> dict[str, Any]:
    """Return how the table of paired tests is headed and written."""
    column = st.column_config
    return {
        "a": column.TextColumn("Entry", width=170, pinned=True),
        "b": column.TextColumn("against", width=170),
        "median_difference": column.NumberColumn("Median difference", format="%+.3f", width=130,
                                                 help="Over data sets; positive where the first is better."),
        "low": column.NumberColumn("from", format="%+.3f", width=70,
                                   help="Distribution-free 95 % interval of the median; none below 6 data sets."),
        "high": column.NumberColumn("to", format="%+.3f", width=70),
        "won": column.NumberColumn("Won", width=55, help=tip("data sets won")),
        "lost": column.NumberColumn("Lost", width=55),
        "tied": column.NumberColumn("Tied", width=55),
        "p_wilcoxon": column.NumberColumn("p Wilcoxon", format="%.3f", width=90),
        "p_holm": column.NumberColumn("p Holm", format="%.3f", width=75, help="Corrected for all pairs of this table."),
        "different": column.CheckboxColumn("Told apart", width=85),
    }  # fmt: skip


def dropped_columns() -> dict[str, Any]:
    """Return how the table of what was left out is headed and written."""
    column = st.column_config
    return {
        "what": column.TextColumn("What", width=80),
        "name": column.TextColumn("Name", width=260),
        "missing": column.NumberColumn("Missing", width=75),
        "of": column.NumberColumn("of", width=50),
        "reason": column.TextColumn("Why", width=420),
    }
