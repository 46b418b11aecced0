"""What two data sets of an audit have in common: cells by content, samples, patients, barcodes."""

from __future__ import annotations

from typing import Any

import polars as pl

from scdrugmap.data.dedupe import barcode_core

UNLABELLED = "unlabelled"
SHARED: dict[str, Any] = {
    "a": pl.String,
    "b": pl.String,  # the same as a: copies inside one data set
    "cells": pl.Int64,  # of a that stand in b
    "same_label": pl.Int64,
    "contrary": pl.Int64,
    "one_unlabelled": pl.Int64,  # or both
    "smaller": pl.Int64,  # cells of the smaller set
    "samples": pl.Int64,  # in common, of one study
    "patients_or_lines": pl.Int64,
    "same_barcodes": pl.Int64,  # of one study, on cells of other content
}


def in_common(cells: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs of data sets that have something in common."""
    copies = (
        _common(cells, ["content"], pl.col("label"))
        .group_by("a", "b")
        .agg(
            cells=pl.col("content").n_unique(),
            same_label=((pl.col("x") == pl.col("y")) & (pl.col("x") != UNLABELLED)).sum(),
            contrary=((pl.col("x") != pl.col("y")) & (pl.col("x") != UNLABELLED) & (pl.col("y") != UNLABELLED)).sum(),
            one_unlabelled=((pl.col("x") == UNLABELLED) | (pl.col("y") == UNLABELLED)).sum(),
        )
    )
    twice = (
        cells.filter(pl.col("content").is_duplicated())
        .group_by("content", a="dataset")
        .agg(pl.col("label"), n=pl.len())
    )
    apart = pl.col("label").list.set_difference([UNLABELLED]).list.n_unique() > 1
    inside = (
        twice.filter(pl.col("n") > 1)
        .group_by("a", b="a")
        .agg(cells=(pl.col("n") - 1).sum(), contrary=pl.when(apart).then("n").otherwise(0).sum())
    )
    shared = pl.concat([copies, inside], how="diagonal")
    for unit, column in (("sample", "samples"), ("patient_or_line", "patients_or_lines")):
        pairs = _common(cells, ["study", unit]).group_by("a", "b").agg(pl.len().alias(column))
        shared = shared.join(pairs, on=["a", "b"], how="full", coalesce=True)
    shared = shared.join(_barcodes(cells), on=["a", "b"], how="full", coalesce=True)
    sizes = dict(cells.group_by("dataset").len().rows())
    smaller = pl.Series(
        "smaller", [min(sizes[a], sizes[b]) for a, b in shared.select("a", "b").iter_rows()], dtype=pl.Int64
    )
    shared = shared.with_columns(smaller)
    return (
        shared.select(pl.col(name).cast(kind) for name, kind in SHARED.items())
        .with_columns(pl.col(pl.Int64).fill_null(0))
        .sort("a", "b")
    )


def _common(cells: pl.DataFrame, keys: list[str], label: pl.Expr | None = None) -> pl.DataFrame:
    """Return what two data sets have in common, one row a pair and value of `keys`, with a label of each as x and y."""
    label = pl.lit("") if label is None else label
    several = cells.group_by(keys).agg(pl.col("dataset").n_unique()).filter(pl.col("dataset") > 1).select(keys)
    copies = cells.join(several, on=keys, how="semi").group_by(*keys, "dataset").agg(label.first().alias("x"))
    pairs = copies.rename({"dataset": "a"}).join(copies.rename({"dataset": "b", "x": "y"}), on=keys)
    return pairs.filter(pl.col("a") < pl.col("b"))


def _barcodes(cells: pl.DataFrame) -> pl.DataFrame:
    """Count the barcodes that two data sets of one study share on cells of other content."""
    several = pl.col("dataset").n_unique().over("study") > 1
    rows = cells.filter(several).select("study", "dataset", "content", "name")
    if rows.is_empty():
        return pl.DataFrame(schema={"a": pl.String, "b": pl.String, "same_barcodes": pl.Int64})
    rows = rows.with_columns(core=pl.Series([barcode_core(name) for name in rows["name"]], dtype=pl.String))
    rows = rows.filter(pl.col("core") != "").unique(["study", "dataset", "core"])
    pairs = rows.rename({"dataset": "a"}).join(rows.rename({"dataset": "b"}), on=["study", "core"])
    other = pairs.filter((pl.col("a") < pl.col("b")) & (pl.col("content") != pl.col("content_right")))
    return other.group_by("a", "b").agg(same_barcodes=pl.len())
