"""Tables: which rows, which columns, and how numbers are written in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.words import tip
from scdrugmap.data.catalog.card import CONFIDENCE
from scdrugmap.evaluation.metrics.metrics import METRICS
from scdrugmap.plots.palette import RESISTANT, SENSITIVE

CONFIDENCE_TIP = "How far the label can be taken as resistance. " + " ".join(
    f"{level}: {rule}." for level, rule in CONFIDENCE.items()
)
SEARCHED = ("key", "accession", "cancer_type", "cancer_subtype", "regimen", "tissue", "drug_type")


BUILT = "built here"


def values(frame: pl.DataFrame, column: str) -> list[str]:
    """Return what a filter may offer: the different values of a column, or of its lists."""
    found = frame[column].explode() if frame.schema[column] == pl.List(pl.String) else frame[column]
    return found.drop_nulls().unique().sort().to_list()


def filtered(
    catalogue: pl.DataFrame, chosen: Mapping[str, Sequence[str]], wanted: Sequence[str], text: str
) -> pl.DataFrame:
    """Keep data sets with one of the chosen values per column, all wanted flags, and every word of `text`."""
    rows = catalogue
    for column, picked in chosen.items():
        if picked and rows.schema[column] == pl.List(pl.String):
            rows = rows.filter(pl.col(column).list.set_intersection(list(picked)).list.len() > 0)
        elif picked:
            rows = rows.filter(pl.col(column).is_in(list(picked)))
    for flag in wanted:
        rows = rows.filter(pl.col("built") if flag == BUILT else pl.col("flags").list.contains(flag))
    haystack = pl.concat_str(
        [pl.col(c).cast(pl.String).fill_null("") for c in SEARCHED if c in rows.columns], separator=" "
    )
    for word in text.lower().split():
        rows = rows.filter(haystack.str.to_lowercase().str.contains(word, literal=True))
    return rows


def catalogue(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the columns of the catalogue that stand on screen, what matters most first."""
    samples = pl.format(
        "{} / {}", pl.col("samples_sensitive").fill_null("?"), pl.col("samples_resistant").fill_null("?")
    )
    return rows.with_columns(sensitive=100 * pl.col("share_sensitive"), samples=samples).select(
        "key", "cancer_type", "regimen", "cells", "sensitive", "samples", "label_basis", "confidence", "flags",
        "tissue", "built",
    )  # fmt: skip


def catalogue_columns() -> dict[str, Any]:
    """Return how the columns of the catalogue are headed and written; widths in px fit a page of 1240."""
    column = st.column_config
    return {
        "key": column.TextColumn("Data set", width=165, pinned=True, help=tip("data set")),
        "cancer_type": column.TextColumn("Cancer", width=125),
        "regimen": column.TextColumn("Drug", width=165),
        "tissue": column.TextColumn("Tissue", width=140),
        "cells": column.NumberColumn("Cells", format="localized", width=65),
        "sensitive": column.ProgressColumn(
            "% sensitive",
            format="%.0f %%",
            min_value=0,
            max_value=100,
            color=SENSITIVE,
            help=tip("response"),
            width=95,
        ),
        "samples": column.TextColumn("S / R", width=50, help="Samples labelled sensitive / resistant."),
        "label_basis": column.TextColumn("Label basis", width=110, help=tip("label basis")),
        "confidence": column.TextColumn("Confidence", width=85, help=CONFIDENCE_TIP),
        "flags": column.ListColumn("Flags", width=190, help=f"{tip('confounded')} {tip('shared controls')}"),
        "built": column.CheckboxColumn("Built", width=60, help="Whether its cells are on this machine."),
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
            "% resistant", format="%.0f %%", min_value=0, max_value=100, color=RESISTANT
        ),
        "interval": column.TextColumn("95 % interval", help=tip("interval")),
        "mean_p_resistant": column.NumberColumn("Mean P(resistant)", format="%.2f", help=tip("P(resistant)")),
        "novel": column.NumberColumn("% novel", format="%.0f %%", help=tip("novelty")),
    }


def scores(found: Mapping[str, Mapping[str, float]]) -> pl.DataFrame:
    """Return the metrics against the file's own labels, in the order of the registry of metrics."""
    shown = {key: row for key, row in found.items() if key != "auroc_within"}  # there are no folds here
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
