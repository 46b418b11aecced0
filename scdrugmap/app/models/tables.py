"""Tables of the transfer page and of the models page's tabs."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.ui.glossary import tip
from scdrugmap.app.ui.score_table import _share, _written, parts_columns


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


def ranking(rows: pl.DataFrame, known: pl.DataFrame, won: pl.DataFrame, speeds: pl.DataFrame) -> pl.DataFrame:
    """Return the columns of the leaderboard that stand on screen, best first.

    `won` counts data sets won per entry, `speeds` cells embedded a second per model.
    """
    joined = rows.join(known.select("model", "parameters", "weights_licence"), on="model", how="left")
    joined = joined.join(speeds.select("model", "cells_per_s"), on="model", how="left", maintain_order="left")
    of = won.filter(pl.col("compared") > 0).select(
        "model",
        "head",
        "strategy",
        "variant",
        source=pl.lit("measured"),
        won=pl.format("{} of {}", _share("won"), "compared"),
    )
    joined = joined.join(of, on=["model", "head", "strategy", "variant", "source"], how="left", maintain_order="left")
    shown = joined.drop("rank").with_row_index("rank", offset=1).with_columns(interval=_written()).select(
        "rank", "title", "value", "interval", "constant", "delta", "gap", "won", "n", "parameters", "cells_per_s",
        "weights_licence", "source", "run_id",
    )  # fmt: skip
    return shown.drop(name for name in ("gap", "won", "cells_per_s") if shown[name].is_null().all())


def ranking_columns(metric: str) -> dict[str, Any]:
    """Return how the columns of the leaderboard are headed and written."""
    column = st.column_config
    return {
        "rank": column.NumberColumn("#", width=35, pinned=True),
        "title": column.TextColumn("Model", width=190, pinned=True, help=tip("model")),
        "value": column.NumberColumn(metric, format="%.2f", width=60),
        "interval": column.TextColumn("95 % interval", width=100, help=tip("interval")),
        "constant": column.NumberColumn("Constant", format="%.2f", width=75, help=tip("constant")),
        "delta": column.NumberColumn("Δ baseline", format="%+.2f", width=85, help=tip("delta")),
        "gap": column.NumberColumn("Leakage gap", format="%+.2f", width=95, help=tip("leakage gap")),
        "won": column.TextColumn("Sets won", width=80, help=tip("data sets won")),
        "source": column.TextColumn("Source", width=85, help=f"{tip('measured')} {tip('reported')}"),
        "n": column.NumberColumn("Cells", format="localized", width=70),
        "parameters": column.NumberColumn("Parameters", format="compact", width=85),
        "cells_per_s": column.NumberColumn("Cells/s", format="%.3g", width=65, help=tip("cells/s")),
        "weights_licence": column.TextColumn("Licence of weights", width=110),
        "run_id": column.TextColumn("Run", width=100, help=tip("run")),
    }


def models(known: pl.DataFrame) -> pl.DataFrame:
    """Return the columns of the list of models that stand on screen."""
    return known.select("title", "kind", "state", "parameters", "dim", "licence", "weights_licence", "summary")


def models_columns() -> dict[str, Any]:
    """Return how the list of models is headed and written."""
    column = st.column_config
    return {
        "title": column.TextColumn("Model", width=120, pinned=True),
        "kind": column.TextColumn("Kind", width=85),
        "state": column.TextColumn("Here", width=110, help="Whether its weights are on this machine."),
        "parameters": column.NumberColumn("Parameters", format="compact", width=90),
        "dim": column.NumberColumn("Width", width=60, help="Numbers in a cell's embedding."),
        "licence": column.TextColumn("Licence: code", width=190),
        "weights_licence": column.TextColumn("Licence: weights", width=260),
        "summary": column.TextColumn("What it is", width=760),
    }
