"""From the tables of `analysis.transfer_matrix` to the frames that its charts draw. Polars in, polars out."""

from __future__ import annotations

import polars as pl

from scdrugmap.evaluation.analysis.transfer_matrix import margins
from scdrugmap.plots.transfer import HATCHED, MEAN

AGAINST = {"value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "constant": pl.Float64, "shade": pl.Float64}


def drawn(table: pl.DataFrame) -> pl.DataFrame:
    """Return a matrix with its means, as `plots.transfer.matrix` draws it: colour is the distance to the constant."""
    cells = table.rename({"ci_low": "low", "ci_high": "high", "better": "shade"}).with_columns(
        pl.when(pl.col("state") == "measured").then(pl.col(name)) for name in ("value", "low", "high", "shade")
    )
    teachers, pupils = margins(table)
    rows = [
        side.filter(pl.col("pairs") > 0).select(
            pl.col("name").alias(axis), pl.lit(MEAN).alias(other), "value", "constant", shade="better",
            state=pl.lit("mean"), reason=pl.format("mean of {} pairs", "pairs"),
        )
        for side, axis, other in ((teachers, "train", "test"), (pupils, "test", "train"))
    ]  # fmt: skip
    return pl.concat([cells.drop("run_id", "prevalence"), *rows], how="diagonal")


def compared(table: pl.DataFrame) -> pl.DataFrame:
    """Return a difference of two matrices with its means: colour is the difference, a dot where intervals overlap."""
    measured = pl.col("state") == "measured"
    cells = table.select(
        "train", "test", "value", "other", "state", shade=pl.when(measured).then("difference"),
        crosses=measured & ~pl.col("apart").fill_null(True),
    )  # fmt: skip
    rows = [
        cells.filter(measured).group_by(axis).agg(
            pl.col("value", "other", "shade").mean(), reason=pl.format("mean of {} pairs", pl.len())
        ).with_columns(pl.lit(MEAN).alias(other), state=pl.lit("mean"))
        for axis, other in (("train", "test"), ("test", "train"))
    ]  # fmt: skip
    return pl.concat([cells, *rows], how="diagonal")


def best_first(table: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs of two data sets, the best against their constant first, those without a score last."""
    return table.filter(pl.col("state") != "itself").sort("better", descending=True, nulls_last=True)


def states(table: pl.DataFrame) -> list[tuple[str, int]]:
    """Return how many pairs of two data sets are in each state that has a sign of its own."""
    counts = dict(table.group_by("state").len().iter_rows())
    return [(name, counts[name]) for name in HATCHED if name in counts]


def left_out(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the bars under a matrix: the leave-one-out run that tested most data sets, one row a test set."""
    run = ["facet", "facet_value", "split_by"]
    sizes = rows.group_by(run).agg(sets=pl.len(), cells=pl.col("n").sum()).sort("sets", "cells", descending=True)
    chosen = rows.join(sizes.head(1), on=run, how="semi", nulls_equal=True).drop_nulls("value")
    return chosen.rename({"test": "title", "ci_low": "low", "ci_high": "high", "better": "shade"})
