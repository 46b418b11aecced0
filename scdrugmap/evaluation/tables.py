"""From scores to the tables that a reader asks for. Polars in, polars out: no file is read."""

from __future__ import annotations

import polars as pl

from scdrugmap.evaluation.metrics import METRICS
from scdrugmap.evaluation.plan import BASELINES

ENTRY = ("model", "head", "strategy", "source")  # what competes
CELLS = ("protocol", "facet", "facet_value", "shots", "train", "test")  # on what


def simulated(scores: pl.DataFrame) -> pl.Series:
    """Tell which rows were measured on simulated cells, whose data sets say so in their names."""
    return scores.select(pl.col("source").eq("measured") & pl.col("test").str.starts_with("simulated")).to_series()


def averaged(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the out-of-fold rows, one an entry, set of cells, split and metric: the mean over seeds.

    `seeds` counts them and `run_ids` names their runs; value and interval bounds are means. `constant` is what the
    constant classifier of the metric scores at the prevalence of these cells.
    """
    keys = [*CELLS, *ENTRY, "split_by", "metric"]
    means = scores.filter(pl.col("fold") == "all").group_by(keys, maintain_order=True)
    table = means.agg(
        pl.col("value", "ci_low", "ci_high", "n", "prevalence").mean(),
        seeds=pl.len(),
        run_ids=pl.col("run_id"),
    )
    constants = [
        METRICS[metric].constant(prevalence) if prevalence is not None else None
        for metric, prevalence in table.select("metric", "prevalence").iter_rows()
    ]
    return table.with_columns(pl.col("n").cast(pl.Int64), constant=pl.Series(constants, dtype=pl.Float64))


def leaderboard(scores: pl.DataFrame, metric: str, *, split_by: str, **where: object) -> pl.DataFrame:
    """Rank the entries on the same cells by a metric, best first.

    `where` picks the cells: `protocol`, `facet`, `facet_value`, `shots`, `strategy`, `test`, ... Columns: `rank`, those
    of `averaged`, `delta` (better than the best measured baseline by so much), and `gap` (how much better the same
    entry scores where the split is by cell: the leakage gap). Both are positive where the metric, turned so that more
    is better, is higher; reported rows have neither.
    """
    sign = 1 if METRICS[metric].higher_is_better else -1
    rows = averaged(scores).filter(pl.col("metric") == metric, *(_equals(key, value) for key, value in where.items()))
    same = [*CELLS, *ENTRY]
    by_cell = rows.filter(pl.col("split_by") == "cell").select(*same, by_cell="value")
    rows = rows.filter(pl.col("split_by") == split_by).join(by_cell, on=same, how="left", nulls_equal=True)
    ours = pl.col("source") == "measured"
    best = pl.when(ours & pl.col("model").is_in(list(BASELINES))).then(sign * pl.col("value")).max().over(CELLS)
    return (
        rows.with_columns(
            delta=pl.when(ours).then(sign * pl.col("value") - best),
            gap=pl.when(ours & (pl.col("split_by") != "cell")).then(sign * (pl.col("by_cell") - pl.col("value"))),
            rank=(sign * pl.col("value")).rank("min", descending=True).over(CELLS).cast(pl.Int64),
        )
        .sort(*CELLS, "rank", *ENTRY, nulls_last=True)
        .select("rank", pl.exclude("rank", "by_cell"))
    )


def _equals(column: str, value: object) -> pl.Expr:
    return pl.col(column).eq_missing(pl.lit(value))
